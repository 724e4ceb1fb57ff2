"""Where similarities fall when one thing of a person changes (chapter 11)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor

from qaconv_lib.matches.correspondence import BODY_PARTS, SHOWN, cell_parts, changed_cells
from qaconv_lib.matches.marked_pairs import Maps, Scene, maps_of, path_inside
from qaconv_lib.miniatures.drawing import draw_image
from qaconv_lib.miniatures.people import CHANGES
from qaconv_lib.miniatures.render import Drawing
from qaconv_lib.models import ReidModel
from qaconv_lib.transforms import to_tensor

_BODY = [SHOWN.index(part) for part in BODY_PARTS]


@torch.no_grad()
def changed_pairs(
    networks: dict[str, Maps],
    model: ReidModel,
    scene: Scene,
    name: str,
    *,
    count: int = 100,
    seed: int = 0,
) -> dict[str, dict[str, pd.DataFrame]]:
    """Draw the gallery image of some true pairs again with one change, and match it once more.

    Args:
        networks: by name, see `feature_maps`.
        model: decides the size of the images and of the maps.
        scene: the pairs.
        name: of the miniature.
        count: how many pairs, drawn at random.
        seed: of that.

    Returns:
        By change and name of the features, one row a pair in which some but not all of the gallery
        locations that show the person change: `person`, `hit` (of those locations, the one whose
        best similarity falls most has changed), `chance` (which share of them has changed), and
        the mean fall of the best similarity at those that changed, and at the others (`elsewhere`).
    """
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(scene.dataset.query))[:count])
    query = scene.dataset.query.iloc[chosen]
    partners = scene.dataset.gallery.iloc[scene.partners["true pairs"][chosen]]
    paths = [path_inside(path, scene) for path in partners["path"]]
    before = [draw_image(name, path) for path in paths]
    grid = model.backbone.map_size(model.config.height, model.config.width)
    shows = np.stack([np.isin(cell_parts(d.parts, *grid), _BODY) for d in before])
    query_maps = {key: maps_of(network, query, model) for key, network in networks.items()}
    best = {
        key: _best_of_gallery(query_maps[key], _drawn(network, before, model))
        for key, network in networks.items()
    }
    found: dict[str, dict[str, pd.DataFrame]] = {}
    for change, make in CHANGES.items():
        after = [draw_image(name, path, make) for path in paths]
        differ = [
            changed_cells(a.image, b.image, *grid) for a, b in zip(before, after, strict=True)
        ]
        changed = shows & np.stack(differ)
        usable = changed.any(axis=1) & (shows & ~changed).any(axis=1)
        found[change] = {}
        for key, network in networks.items():
            fall = best[key] - _best_of_gallery(query_maps[key], _drawn(network, after, model))
            table = _where_it_falls(fall[usable], changed[usable], shows[usable])
            found[change][key] = table.assign(person=query["identity"].to_numpy()[usable])
    return found


def _where_it_falls(fall: np.ndarray, changed: np.ndarray, shows: np.ndarray) -> pd.DataFrame:
    """One row a pair, from the fall of each gallery location (n, h*w) and two masks of them."""
    where = np.where(shows, fall, -np.inf).argmax(axis=1)
    rest = shows & ~changed
    return pd.DataFrame(
        {
            "hit": changed[np.arange(len(changed)), where],
            "chance": changed.sum(axis=1) / shows.sum(axis=1),
            "fall": np.where(changed, fall, 0).sum(axis=1) / changed.sum(axis=1),
            "elsewhere": np.where(rest, fall, 0).sum(axis=1) / rest.sum(axis=1),
        }
    )


def _best_of_gallery(query_maps: Tensor, gallery_maps: Tensor) -> np.ndarray:
    """Best similarity of each gallery location of each pair, (n, h*w)."""
    table = query_maps.flatten(2).transpose(1, 2) @ gallery_maps.flatten(2)
    return table.amax(dim=1).double().numpy(force=True)


def _drawn(network: Maps, drawings: list[Drawing], model: ReidModel) -> Tensor:
    config, device = model.config, next(model.parameters()).device
    images = torch.stack(
        [to_tensor(Image.fromarray(d.image), config.height, config.width) for d in drawings]
    )
    return network(images.float().to(device) / 255).cpu()
