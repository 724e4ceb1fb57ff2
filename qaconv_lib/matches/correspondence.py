"""Do best matches link the same part of the body? (chapter 11)

A match is right if both locations show the same part by the miniatures' part maps. Left and right
count as one part, since a network trained with mirrored images cannot tell them apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from qaconv_lib.miniatures.domains import PART_NAMES

_NO_SIDES = [name.removeprefix("left ").removeprefix("right ") for name in PART_NAMES]
#: What a location can show: the parts of `PART_NAMES`, left and right together.
SHOWN = tuple(dict.fromkeys(_NO_SIDES))
#: Those of the person the image is about.
BODY_PARTS = tuple(n for n in SHOWN if n not in ("background", "other person", "occluder"))
_SHOWN_BY = np.array([SHOWN.index(name) for name in _NO_SIDES])  # of each label of a part map
_BODY = np.array([name in BODY_PARTS for name in SHOWN])
#: Share of a location's pixels that must show the person, unless said otherwise.
LEAST = 0.25
_NOISE = 8  # of 255, a difference of colour that does not count
_HIDING = [PART_NAMES.index(name) for name in ("other person", "occluder")]


def cell_parts(part_map: Any, height: int, width: int, least: float = LEAST) -> np.ndarray:
    """The part shown by each location of a feature map, (height*width,) indices into `SHOWN`.

    A location shows the person if at least the share `least` of its pixels does; then it shows the
    part of the body with the most pixels. Otherwise it shows what most of its other pixels show.
    `part_map` (H, W) is from `load_part_map` and not smaller than the map of `height` x `width`.
    """
    part_map = np.asarray(part_map)
    if part_map.ndim != 2:
        raise ValueError(f"part_map must have shape (H, W), got {part_map.shape}")
    cell = _cell_of_pixels(part_map.shape, height, width)
    if not 0 < least <= 1:
        raise ValueError(f"least must lie above 0 and be at most 1, got {least}")
    size = height * width, len(SHOWN)
    shown = (cell * len(SHOWN) + _SHOWN_BY[part_map]).ravel()
    counts = np.bincount(shown, minlength=size[0] * size[1]).reshape(size)
    person = counts[:, _BODY].sum(axis=1) >= least * counts.sum(axis=1)
    return np.where(_BODY == person[:, None], counts, -1).argmax(axis=1)


def hidden_share(part_map: Any) -> float:
    """Share of the pixels that show something in front of or beside the person."""
    return float(np.isin(part_map, _HIDING).mean())


def _cell_of_pixels(size: tuple[int, int], height: int, width: int) -> np.ndarray:
    """The location that contains each pixel of an image, (H, W)."""
    if not (1 <= height <= size[0] and 1 <= width <= size[1]):
        raise ValueError(f"an image of {size} pixels has no map of {height} x {width} locations")
    rows, columns = (
        np.arange(pixels) * cells // pixels
        for pixels, cells in zip(size, (height, width), strict=True)
    )
    return rows[:, None] * width + columns


def changed_cells(first: Any, second: Any, height: int, width: int) -> np.ndarray:
    """Locations of a feature map, (height*width,) bool, under which two images (H, W, 3) differ.

    There, at least `LEAST` of the pixels differ in a colour by more than 8 of 255.
    """
    first, second = np.asarray(first, dtype=np.int16), np.asarray(second, dtype=np.int16)
    differs = (np.abs(first - second) > _NOISE).any(axis=2)
    cell = _cell_of_pixels(differs.shape, height, width).ravel()
    return np.bincount(cell, differs.ravel()) >= LEAST * np.bincount(cell)


def right_links(query_parts: Any, gallery_parts: Any) -> np.ndarray:
    """Which of the locations (k,) and (l,) of `cell_parts` show one part of the body: (k, l)."""
    query_parts, gallery_parts = np.asarray(query_parts), np.asarray(gallery_parts)
    return (query_parts[:, None] == gallery_parts) & _BODY[query_parts][:, None]


def match_table(
    query_maps: Tensor, gallery_maps: Tensor, query_parts: Any, gallery_parts: Any
) -> pd.DataFrame:
    """The best match of every query location of n pairs of images, and what it links.

    Maps (n, d, h, w) have unit channels; parts (n, h*w) are from `cell_parts`. The table has n*h*w
    rows, pair by pair, and the columns `pair`; `location`; `part`, what the query location shows (a
    word of `SHOWN`); `place`, the location of its best match; `found`, what that shows;
    `similarity`, the cosine; `mutual`, each is the other's best match; `on_body`, the query
    location shows the person; `visible`, the gallery image shows the same part; `right`, the match
    links one part of the body; `same_place`, so would the gallery location at the same place;
    `chance`, how often a random gallery location on the body would.
    """
    query_parts, gallery_parts = np.asarray(query_parts), np.asarray(gallery_parts)
    if query_maps.dim() != 4 or query_maps.shape != gallery_maps.shape:
        raise ValueError(
            f"query_maps and gallery_maps must have one shape (n, d, h, w), got "
            f"{tuple(query_maps.shape)} and {tuple(gallery_maps.shape)}"
        )
    pairs, locations = len(query_maps), query_maps.shape[2] * query_maps.shape[3]
    for name, parts in (("query_parts", query_parts), ("gallery_parts", gallery_parts)):
        if parts.shape != (pairs, locations):
            raise ValueError(f"{name} must have shape {(pairs, locations)}, got {parts.shape}")
    with torch.no_grad():
        table = query_maps.flatten(2).transpose(1, 2) @ gallery_maps.flatten(2)  # (n, h*w, h*w)
        similarity, place = (part.numpy(force=True) for part in table.max(dim=2))
        back = table.argmax(dim=1).numpy(force=True)  # (n, h*w) best query location of each
    every = np.broadcast_to(np.arange(locations), (pairs, locations))
    found = np.take_along_axis(gallery_parts, place, axis=1)
    alike = query_parts[:, :, None] == gallery_parts[:, None, :]  # (n, h*w, h*w)
    on_body, body = _BODY[query_parts], _BODY[gallery_parts]
    names = np.array(SHOWN, dtype=object)
    columns = {
        "pair": np.arange(pairs).repeat(locations).reshape(pairs, locations),
        "location": every,
        "part": names[query_parts],
        "place": place,
        "found": names[found],
        "similarity": similarity.astype(np.float64),
        "mutual": np.take_along_axis(back, place, axis=1) == every,
        "on_body": on_body,
        "visible": on_body & alike.any(axis=2),
        "right": on_body & (found == query_parts),
        "same_place": on_body & (query_parts == gallery_parts),
        "chance": on_body * alike.sum(axis=2) / np.maximum(body.sum(axis=1), 1)[:, None],
    }
    return pd.DataFrame({name: values.ravel() for name, values in columns.items()})
