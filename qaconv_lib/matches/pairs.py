"""The pairs whose correspondences are measured, and the features that match them (chapter 11)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from qaconv_lib.backbones import Backbone, make_backbone
from qaconv_lib.datasets import ReidDataset, load_part_map
from qaconv_lib.matches.correspondence import (
    BODY_PARTS,
    LEAST,
    SHOWN,
    cell_parts,
    changed_cells,
    hidden_share,
    match_table,
)
from qaconv_lib.miniatures.drawing import draw_image, plan
from qaconv_lib.miniatures.people import CHANGES
from qaconv_lib.miniatures.render import Drawing
from qaconv_lib.models import ReidModel
from qaconv_lib.transforms import ReidImages, to_tensor

SEED = 0  # of the choice of pairs
OTHER_LEAST = 0.5  # a stricter `LEAST`, to see whether the choice matters
Maps = Callable[[Tensor], Tensor]  # images (b, 3, H, W) to maps (b, d, h, w)


class Scene(NamedTuple):
    """A dataset's test images, and the gallery image that each query is paired with, by kind."""

    dataset: ReidDataset
    partners: dict[str, np.ndarray]  # (q,) rows of the gallery


def network_before_training(qaconv: ReidModel, pretrained: bool = True) -> Backbone:
    """QAConv's network before training on people, without a neck; with ImageNet weights or none."""
    config = qaconv.config
    return make_backbone(
        config.backbone,
        pretrained=pretrained,
        final_layer=config.final_layer,
        neck_channels=None,
        pixels=config.pixels,
    ).eval()


def feature_maps(qaconv: ReidModel, softmax: ReidModel) -> dict[str, Maps]:
    """The features that are compared, by name, all on the grid of QAConv's maps and of unit length.

    "ImageNet" is QAConv's network before training on people, without a neck; "softmax, same layer"
    the pooled model's network cut at the same layer, "softmax, last layer" all of it, its coarser
    map enlarged; "colour" the mean colour of a location.
    """
    grid = qaconv.backbone.map_size(qaconv.config.height, qaconv.config.width)
    same_layer = network_before_training(qaconv, pretrained=False)
    trained = softmax.backbone.trunk.state_dict()
    same_layer.trunk.load_state_dict({key: trained[key] for key in same_layer.trunk.state_dict()})
    return {
        "QAConv": qaconv.backbone,
        "ImageNet": network_before_training(qaconv),
        "softmax, same layer": same_layer,
        "softmax, last layer": lambda images: F.normalize(
            F.interpolate(softmax.backbone(images), grid, mode="bilinear"), dim=1
        ),
        "colour": lambda images: F.normalize(F.adaptive_avg_pool2d(images, grid) - 0.5, dim=1),
    }


def choose_pairs(scores: np.ndarray, dataset: ReidDataset) -> Scene:
    """Pair every query with three gallery images of other cameras, by the model's `scores` (q, g).

    A random one of the same person, which must exist, the one of another person that the model
    finds most similar, and a random one of another person.
    """
    query, gallery = dataset.query, dataset.gallery
    names, rng = ("identity", "camera"), np.random.default_rng(SEED)
    same, camera = (query[n].to_numpy()[:, None] == gallery[n].to_numpy() for n in names)
    strangers = ~same & ~camera
    partners = {
        "true pairs": _draw(same & ~camera, rng),
        "hard negatives": np.where(strangers, scores, -np.inf).argmax(axis=1),
        "other people": _draw(strangers, rng),
    }
    return Scene(dataset, partners)


def _draw(allowed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.array([rng.choice(np.flatnonzero(row)) for row in allowed])


def _pair_traits(scene: Scene, name: str) -> dict[str, pd.DataFrame]:
    """The data of each pair, by kind; for the columns see `match_pairs`."""
    query, gallery = scene.dataset.query, scene.dataset.gallery
    headings = plan(name).set_index("path")["heading"]
    heading = [headings[[path_inside(p, scene) for p in t["path"]]] for t in (query, gallery)]
    hidden = [
        np.array([hidden_share(load_part_map(p)) for p in t["path"]]) for t in (query, gallery)
    ]
    traits = {}
    for kind, partner in scene.partners.items():
        turn = heading[0].to_numpy() - heading[1].to_numpy()[partner]  # radians
        columns = {
            "person": query["identity"].to_numpy(),
            "viewpoint": np.degrees(np.abs(np.angle(np.exp(1j * turn)))),
            "hidden": np.maximum(hidden[0], hidden[1][partner]),
        }
        traits[kind] = pd.DataFrame(columns)
    return traits


def path_inside(path: str, scene: Scene) -> str:
    """An image's path inside its dataset."""
    return Path(path).relative_to(scene.dataset.root).as_posix()


Tables = dict[str, dict[str, pd.DataFrame]]  # by features and kind of pairs


@torch.no_grad()
def match_pairs(networks: dict[str, Maps], model: ReidModel, scene: Scene, name: str) -> Tables:
    """The matches of all pairs, by features (`networks`) and kind of pairs, in miniature `name`.

    `model` decides the size of images and maps. The tables of `match_table` have more columns:
    `person`, the query's; `viewpoint`, degrees between the walking directions as the cameras see
    them; `hidden`, the larger share of pixels that show other people or occluders; `aligned`, the
    share of the pair's matches that would be right at the same place; `strict_visible` and
    `strict_right`, with `OTHER_LEAST`.
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
    traits = _pair_traits(scene, name)
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


@torch.no_grad()
def match_changes(
    networks: dict[str, Maps], model: ReidModel, scene: Scene, name: str, count: int = 100
) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Draw the gallery image of some true pairs again with one change, and match it once more.

    Yields the change, the features and a table with one row per pair: `person`; `hit`, whether the
    similarity falls most where the image changed, and `chance` of that; `fall`, the mean fall
    there, and `elsewhere` on the body.
    """
    chosen = np.sort(np.random.default_rng(0).permutation(len(scene.dataset.query))[:count])
    query = scene.dataset.query.iloc[chosen]
    partners = scene.dataset.gallery.iloc[scene.partners["true pairs"][chosen]]
    paths = [path_inside(path, scene) for path in partners["path"]]
    before = [draw_image(name, path) for path in paths]
    size, device = (model.config.height, model.config.width), next(model.parameters()).device
    grid = model.backbone.map_size(*size)
    body = [SHOWN.index(part) for part in BODY_PARTS]
    shows = np.stack([np.isin(cell_parts(d.parts, *grid), body) for d in before])
    query_maps = {key: maps_of(network, query, model) for key, network in networks.items()}

    def best(drawings: list[Drawing]) -> dict[str, np.ndarray]:
        """Best similarity of each gallery location of each pair, (n, h*w), by features."""
        images = [to_tensor(Image.fromarray(drawing.image), *size) for drawing in drawings]
        pixels, found = torch.stack(images).float().to(device) / 255, {}
        for key, network in networks.items():
            columns = network(pixels).cpu().flatten(2)
            table = query_maps[key].flatten(2).transpose(1, 2) @ columns
            found[key] = table.amax(dim=1).double().numpy(force=True)
        return found

    at_first = best(before)
    for change, make in CHANGES.items():
        after = [draw_image(name, path, make) for path in paths]
        pairs = zip(before, after, strict=True)
        changed = shows & np.stack([changed_cells(a.image, b.image, *grid) for a, b in pairs])
        rest = shows & ~changed
        usable = changed.any(axis=1) & rest.any(axis=1)
        seen, there, other = shows[usable], changed[usable], rest[usable]
        for key, now in best(after).items():
            fall = (at_first[key] - now)[usable]  # (n, h*w)
            lowest = np.where(seen, fall, -np.inf).argmax(axis=1)  # where it falls most
            columns = {
                "person": query["identity"].to_numpy()[usable],
                "hit": there[np.arange(len(there)), lowest],
                "chance": there.sum(axis=1) / seen.sum(axis=1),
                "fall": np.where(there, fall, 0).sum(axis=1) / there.sum(axis=1),
                "elsewhere": np.where(other, fall, 0).sum(axis=1) / other.sum(axis=1),
            }
            yield change, key, pd.DataFrame(columns)


def maps_of(network: Maps, table: pd.DataFrame, model: ReidModel) -> Tensor:
    """Maps of a table's images, at the model's size and on its device, given back on the CPU."""
    config, device = model.config, next(model.parameters()).device
    images = ReidImages(table, config.height, config.width, keep_in_memory=False)
    return torch.cat([network(batch.to(device)).cpu() for batch, _ in DataLoader(images, 64)])
