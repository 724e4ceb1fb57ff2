"""The data of the page "The explorer" (`book/explorer.md`), which works without a kernel.

One file holds all that the page shows: similarities of some pairs of images, their best matches,
and the matcher's weights. Its images are those of a miniature, unchanged.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.datasets import ReidDataset
from qaconv_lib.matches.explorer import matcher_of, show_explorer
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.models import ReidModel

QUERIES = 8
EACH = 3  # gallery images of each query with the same person, and as many with other people
UNIT = 100_000  # similarities are whole numbers, and this one makes 1
THRESHOLD = 0.8  # of the matches that are drawn at first
_START, _END = "window.qaconvExplorer = ", ";\n"


def spread(values: Sequence[float], count: int) -> list[int]:
    """Positions of `count` values from the largest to the smallest, equally far apart in rank."""
    if not 2 <= count <= len(values):
        raise ValueError(f"count must lie in 2..{len(values)}, got {count}")
    order = np.argsort(-np.asarray(values), kind="stable")
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)].tolist()


def choose_gallery(similarity: Any, same: Any, junk: Any) -> pd.DataFrame:
    """Some gallery images of a query: best, middle and worst match, and the most similar others.

    From (g,) similarities and masks, up to `EACH` of each kind by rank, with the columns `position`
    (in the gallery), `same` (the query's person) and `rank` (from 1, without junk).
    """
    ranked = pd.DataFrame({"similarity": similarity, "same": same, "junk": junk})
    ranked = ranked[~ranked["junk"]].sort_values("similarity", ascending=False, kind="stable")
    ranked = ranked.rename_axis("position").reset_index()
    ranked["rank"] = np.arange(1, len(ranked) + 1)
    matches, wrong = ranked[ranked["same"]], ranked[~ranked["same"]]
    if len(matches) > EACH:
        matches = matches.iloc[spread(matches["similarity"].tolist(), EACH)]
    return pd.concat([matches, wrong.head(EACH)], ignore_index=True)[["position", "same", "rank"]]


def pair_matches(query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1) -> dict:
    """What the page knows of a pair of maps (d, h, w) with unit channels.

    `similarities` are those of `correlate` per location of a kernel times `UNIT`, rounded up so
    that each stays above the same thresholds of two digits; the others are best matches.
    """
    similarity = correlate(query_map, gallery_map, kernel_size).double() / kernel_size**2
    found = find_correspondences(query_map, gallery_map, kernel_size)
    return {
        "similarities": (similarity * UNIT).ceil().long().flatten().tolist(),
        "to_gallery": found.gallery_location.tolist(),
        "to_query": found.query_location.tolist(),
    }


def explorer_data(
    model: ReidModel, dataset: ReidDataset, precision: Sequence[float], source: str
) -> tuple[dict, dict[str, str]]:
    """Choose pairs, and compute all that the page shows of them.

    Args:
        model: a QAConv model.
        dataset: its test images are shown.
        precision: average precision of each query; the chosen ones go from the best to the worst.
        source: the dataset that the model was trained on.

    Returns:
        What the page's file holds, and the path of each image by the name it has there.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from qaconv_lib.visualize import COLOURS, SIMILARITY_COLOURS

    matcher, gallery = matcher_of(model), dataset.gallery
    if len(precision) != len(dataset.query):
        raise ValueError(
            f"precision must have a value for each of the {len(dataset.query)} queries, "
            f"got {len(precision)}"
        )
    chosen = spread(precision, QUERIES)
    query_maps, gallery_maps = model.extract(dataset.query.iloc[chosen]), model.extract(gallery)
    scores = model.similarity(query_maps, gallery_maps).numpy(force=True)
    queries: list[dict] = []
    paths: dict[str, str] = {}

    def about(image: pd.Series) -> dict:
        name = Path(image["path"]).name
        if paths.setdefault(name, image["path"]) != image["path"]:
            raise ValueError(f"two images have the name {name}; the page needs different ones")
        return {"image": name, "camera": int(image["camera"])}

    for row, number in enumerate(chosen):
        query = dataset.query.iloc[number]
        same = (gallery["identity"] == query["identity"]).to_numpy()
        junk = same & (gallery["camera"] == query["camera"]).to_numpy()
        pairs = []
        for one in choose_gallery(scores[row], same, junk).itertuples():
            own = {"same": bool(one.same), "rank": int(one.rank)}
            matches = pair_matches(query_maps[row], gallery_maps[one.position], matcher.kernel_size)
            pairs.append(about(gallery.iloc[one.position]) | own | matches)
        scored = {"precision": precision[number], "ranked": int((~junk).sum())}
        queries.append(about(query) | scored | {"gallery": pairs})
    weights, constant = matcher.fold()
    gallery_weights, query_weights = weights.view(2, -1).tolist()
    page = {
        "source": source,
        "target": dataset.name,
        "height": matcher.height,
        "width": matcher.width,
        "unit": UNIT,
        "threshold": THRESHOLD,
        "colours": [to_hex(c) for c in colormaps[SIMILARITY_COLOURS](np.linspace(0, 1, 17))],
        "adds": COLOURS["blue"],
        "takes": COLOURS["vermilion"],
        "query_weights": [round(weight, 6) for weight in query_weights],
        "gallery_weights": [round(weight, 6) for weight in gallery_weights],
        "constant": round(float(constant), 6),
        "queries": queries,
    }
    return page, paths


def write_explorer(
    folder: str | Path,
    model: ReidModel,
    dataset: ReidDataset,
    precision: Sequence[float],
    source: str,
) -> None:
    """Write the page's data, its images, and the figure for browsers without JavaScript.

    Images in the folder that the page does not use are removed. Arguments as for `explorer_data`.
    """
    folder = Path(folder)
    page, paths = explorer_data(model, dataset, precision, source)
    make_folder(folder / "images")
    for name, path in paths.items():
        write_whole(folder / "images" / name, Path(path).read_bytes())
    for there in (folder / "images").iterdir():
        if there.name not in paths:
            there.unlink()
    text = json.dumps(page, separators=(",", ":")).replace('{"image"', '\n{"image"')
    write_whole(folder / "data.js", (_START + text + _END).encode())
    first = page["queries"][0]
    tables = [
        pd.DataFrame({"path": [paths[image["image"]]], "identity": 0})
        for image in (first, first["gallery"][0])
    ]
    show_explorer(model, *tables, threshold=THRESHOLD).savefig(folder / "still.png", dpi=160)


def read_explorer(folder: str | Path) -> dict:
    """The page's data as `write_explorer` wrote it."""
    path = Path(folder) / "data.js"
    text = path.read_text(encoding="utf-8")
    if not (text.startswith(_START) and text.endswith(_END)):
        raise ValueError(f"{path} does not hold the page's data")
    return json.loads(text.removeprefix(_START).removesuffix(_END))
