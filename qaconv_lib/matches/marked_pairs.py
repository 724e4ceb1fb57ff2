"""Pairs of images whose correspondences are measured, and the features that match them (ch. 11).

Every query of a dataset makes a *true pair* with a random gallery image of the same person, a
*hard negative* with the image of another person that the model finds most similar, and a pair
with a random image of *another person*; all from another camera than the query. The same pairs are
then matched with other features.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader

from qaconv_lib.backbones import Backbone, make_backbone
from qaconv_lib.datasets import ReidDataset, load_part_map
from qaconv_lib.matches.correspondence import LEAST, cell_parts, hidden_share, match_table
from qaconv_lib.miniatures.drawing import plan
from qaconv_lib.models import ReidModel
from qaconv_lib.transforms import ReidImages

SEED = 0  # of the choice of pairs
OTHER_LEAST = 0.5  # a stricter `LEAST`, to see whether the choice matters

Maps = Callable[[Tensor], Tensor]  # images (b, 3, H, W) to maps (b, d, h, w)


class Scene(NamedTuple):
    """A dataset's test images, and the gallery image that each query is paired with, by kind."""

    dataset: ReidDataset
    partners: dict[str, np.ndarray]  # (q,) rows of the gallery


def feature_maps(qaconv: ReidModel, softmax: ReidModel) -> dict[str, Maps]:
    """The features that are compared, all on the grid of QAConv's maps and of unit length.

    Args:
        qaconv: a model trained with QAConv.
        softmax: one trained with a pooled loss on the same images.

    Returns:
        By name. "ImageNet" is QAConv's network before any training on people, without a neck.
        "softmax, same layer" is the other model's network cut where QAConv's is, "softmax, last
        layer" all of it, its coarser map enlarged. "colour" is the mean colour of a location.
    """
    config = qaconv.config
    height, width = qaconv.backbone.map_size(config.height, config.width)

    def on_grid(maps: Tensor) -> Tensor:
        if maps.shape[-2:] != (height, width):
            maps = F.interpolate(maps, (height, width), mode="bilinear")
        return F.normalize(maps, dim=1)

    def cut(pretrained: bool) -> Backbone:
        return make_backbone(
            config.backbone,
            pretrained=pretrained,
            final_layer=config.final_layer,
            neck_channels=None,
            pixels=config.pixels,
        ).eval()

    imagenet, same_layer = cut(True), cut(False)
    trained = softmax.backbone.trunk.state_dict()
    same_layer.trunk.load_state_dict({key: trained[key] for key in same_layer.trunk.state_dict()})
    return {
        "QAConv": qaconv.backbone,
        "ImageNet": imagenet,
        "softmax, same layer": same_layer,
        "softmax, last layer": lambda images: on_grid(softmax.backbone(images)),
        "colour": lambda images: F.normalize(
            F.adaptive_avg_pool2d(images, (height, width)) - 0.5, dim=1
        ),
    }


def choose_pairs(scores: np.ndarray, dataset: ReidDataset, seed: int = SEED) -> Scene:
    """Pair every query as the head of this module says.

    Args:
        scores: (q, g) the model's similarities.
        dataset: every query needs a match under another camera.
        seed: of the random choices.
    """
    query, gallery = dataset.query, dataset.gallery
    identity, camera = (
        query[name].to_numpy()[:, None] == gallery[name].to_numpy()
        for name in ("identity", "camera")
    )
    rng = np.random.default_rng(seed)
    strangers = ~identity & ~camera
    return Scene(
        dataset,
        {
            "true pairs": _draw(identity & ~camera, rng),
            "hard negatives": np.where(strangers, scores, -np.inf).argmax(axis=1),
            "other people": _draw(strangers, rng),
        },
    )


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(row)) for row in allowed])


def pair_traits(scene: Scene, name: str) -> dict[str, pd.DataFrame]:
    """What is known of each pair, by kind: `person` (the query's), `viewpoint` (degrees between the
    walking directions as the two cameras see them) and `hidden` (the larger share of pixels that
    show other people or things in the way)."""
    headings = plan(name).set_index("path")["heading"]
    tables = scene.dataset.query, scene.dataset.gallery
    heading, hidden = (
        [np.array([f(path) for path in table["path"]]) for table in tables]
        for f in (
            lambda path: headings[path_inside(path, scene)],
            lambda path: hidden_share(load_part_map(path)),
        )
    )
    return {
        kind: pd.DataFrame(
            {
                "person": scene.dataset.query["identity"].to_numpy(),
                "viewpoint": _degrees(heading[0] - heading[1][partner]),
                "hidden": np.maximum(hidden[0], hidden[1][partner]),
            }
        )
        for kind, partner in scene.partners.items()
    }


def path_inside(path: str, scene: Scene) -> str:
    """An image's path inside its dataset."""
    return Path(path).relative_to(scene.dataset.root).as_posix()


def _degrees(turn: np.ndarray) -> np.ndarray:
    """Size of a turn in radians, 0 to 180 degrees."""
    return np.degrees(np.abs(np.angle(np.exp(1j * turn))))


Tables = dict[str, dict[str, pd.DataFrame]]  # by features and kind of pairs


@torch.no_grad()
def match_pairs(networks: dict[str, Maps], model: ReidModel, scene: Scene, name: str) -> Tables:
    """The matches of all pairs, with what is known of each pair.

    Args:
        networks: by name, see `feature_maps`.
        model: decides the size of the images and of the maps.
        scene: the pairs.
        name: of the miniature.

    Returns:
        For each network and kind of pairs `match_table`, with `person`, `viewpoint` and `hidden`
        of the pair, `aligned` (the share of its matches that would be right at the same place),
        and `strict_visible` and `strict_right`, as they are with `OTHER_LEAST`.
    """
    query, gallery = scene.dataset.query, scene.dataset.gallery
    rows = np.unique(np.concatenate(list(scene.partners.values())))
    used = gallery.iloc[rows]
    grid = model.backbone.map_size(model.config.height, model.config.width)
    parts = {
        least: [
            np.stack([cell_parts(load_part_map(path), *grid, least) for path in table["path"]])
            for table in (query, used)
        ]
        for least in (LEAST, OTHER_LEAST)
    }
    traits = pair_traits(scene, name)
    found: dict[str, dict] = {}
    for features, network in networks.items():
        maps = [maps_of(network, table, model) for table in (query, used)]
        found[features] = {}
        for kind, partner in scene.partners.items():
            place = np.searchsorted(rows, partner)
            both = maps[0], maps[1][place]
            table = match_table(*both, parts[LEAST][0], parts[LEAST][1][place])
            other = match_table(*both, parts[OTHER_LEAST][0], parts[OTHER_LEAST][1][place])
            pairs = table["pair"].to_numpy()
            for trait, values in traits[kind].items():
                table[trait] = values.to_numpy()[pairs]
            shown = table[table["visible"]].groupby("pair")["same_place"].mean()
            table["aligned"] = shown.reindex(pairs).to_numpy()
            table["strict_visible"], table["strict_right"] = other["visible"], other["right"]
            found[features][kind] = table
    return found


def maps_of(network: Maps, table: pd.DataFrame, model: ReidModel) -> Tensor:
    """Maps of a table's images, at the model's size and on its device, given back on the CPU."""
    config, device = model.config, next(model.parameters()).device
    images = ReidImages(table, config.height, config.width, keep_in_memory=False)
    return torch.cat([network(batch.to(device)).cpu() for batch, _ in DataLoader(images, 64)])
