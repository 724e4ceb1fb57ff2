"""The data of the page "The explorer" (`book/explorer.md`), which works without a kernel.

All that the page shows comes from one file: similarities of some pairs of images, their best
matches, and the matcher's weights. Its pictures are images of a miniature as they are.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex
from torch import Tensor

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.datasets import load_test
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.suite import Trial, find_record
from qaconv_lib.matches.explorer import matcher_of, show_explorer
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.models import load_model
from qaconv_lib.visualize import COLOURS, SIMILARITY_COLOURS

#: The model of the page, and the dataset it is tested on.
TRIAL = Trial(Run("qaconv", "mini-market"), "mini-duke")
QUERIES = 8
#: Gallery images of each query that show the same person, and as many that show somebody else.
EACH = 3
#: Similarities are whole numbers; so many make 1.
UNIT = 100_000
DATA_FILE, STILL_FILE, IMAGE_FOLDER = "data.js", "still.png", "images"
#: Matches above this are drawn at first.
THRESHOLD = 0.8
_ASSIGNMENT, _END = "window.qaconvExplorer = ", ";\n"
_COLOUR_STEPS = 17


def spread(values: Sequence[float], count: int) -> list[int]:
    """Positions of `count` values from the largest to the smallest, equally far apart in rank.

    Raises:
        ValueError: a count below 2, or more than there are values.
    """
    if not 2 <= count <= len(values):
        raise ValueError(f"count must lie in 2..{len(values)}, got {count}")
    order = np.argsort(-np.asarray(values), kind="stable")
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)].tolist()


def choose_gallery(similarity: Any, same: Any, junk: Any) -> pd.DataFrame:
    """Some gallery images of a query: best, middle and worst match, and the likest wrong ones.

    Args:
        similarity: (g,) of each gallery image.
        same: (g,) bool, whether it shows the person of the query.
        junk: (g,) bool, whether it is left out of the ranking.

    Returns:
        Up to `EACH` matches and as many others, each kind by rank. Columns: `position` (in the
        gallery), `same` and `rank` (from 1, junk left out).
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
    """What the page knows of a pair of images.

    Args:
        query_map: shape (d, h, w), unit channels.
        gallery_map: shape (d, h, w), unit channels.
        kernel_size: odd side of the kernels.

    Returns:
        `similarities`, those of `correlate` divided by the kernels' locations and times `UNIT`, row
        by row, rounded up so that each is above the same thresholds of two digits as before;
        `to_gallery` and `to_query`, the places that `find_correspondences` names.
    """
    similarity = correlate(query_map, gallery_map, kernel_size).double() / kernel_size**2
    found = find_correspondences(query_map, gallery_map, kernel_size)
    return {
        "similarities": (similarity * UNIT).ceil().long().flatten().tolist(),
        "to_gallery": found.gallery_location.tolist(),
        "to_query": found.query_location.tolist(),
    }


def explorer_data(trial: Trial = TRIAL) -> tuple[dict, dict[str, str]]:
    """Choose pairs, and compute all that the page shows of them.

    The queries go from the one with the best average precision on record to the one with the
    worst, equally far apart in rank. `choose_gallery` says which gallery images go with each.

    Args:
        trial: a QAConv model and the dataset it was tested on.

    Returns:
        What the page's file holds, and the path of each image by the name it has there.

    Raises:
        FileNotFoundError: the trial has no record, or its model or dataset is not there.
        ValueError: the model has no local matches, or the record leaves out queries.
    """
    record = find_record(trial)
    if record is None:
        raise FileNotFoundError(f"there is no record of {trial.name}; run its experiment first")
    dataset, model = load_test(trial.target), load_model(trial.run.checkpoint())
    matcher, gallery = matcher_of(model), dataset.gallery
    precision = record["stages"]["alone"]["average_precision"]
    if len(precision) != len(dataset.query):
        raise ValueError(f"the record of {trial.name} leaves out queries without a match")
    chosen = spread(precision, QUERIES)
    query_maps, gallery_maps = model.extract(dataset.query.iloc[chosen]), model.extract(gallery)
    scores = model.similarity(query_maps, gallery_maps).numpy(force=True)
    queries: list[dict] = []
    paths: dict[str, str] = {}
    for row, number in enumerate(chosen):
        query = dataset.query.iloc[number]
        same = (gallery["identity"] == query["identity"]).to_numpy()
        junk = same & (gallery["camera"] == query["camera"]).to_numpy()
        pairs = []
        for one in choose_gallery(scores[row], same, junk).itertuples():
            matches = pair_matches(query_maps[row], gallery_maps[one.position], matcher.kernel_size)
            about = _about(gallery.iloc[one.position], paths)
            pairs.append({**about, "same": bool(one.same), "rank": int(one.rank), **matches})
        own = {"precision": precision[number], "ranked": int((~junk).sum())}
        queries.append({**_about(query, paths), **own, "gallery": pairs})
    weights, constant = matcher.fold()
    gallery_weights, query_weights = weights.view(2, -1).tolist()
    colours = plt.get_cmap(SIMILARITY_COLOURS)(np.linspace(0, 1, _COLOUR_STEPS))
    page = {
        "source": trial.run.source,
        "target": trial.target,
        "height": matcher.height,
        "width": matcher.width,
        "unit": UNIT,
        "threshold": THRESHOLD,
        "colours": [to_hex(colour) for colour in colours],
        "adds": COLOURS["blue"],
        "takes": COLOURS["vermilion"],
        "query_weights": [round(weight, 6) for weight in query_weights],
        "gallery_weights": [round(weight, 6) for weight in gallery_weights],
        "constant": round(float(constant), 6),
        "queries": queries,
    }
    return page, paths


def write_explorer(folder: str | Path, trial: Trial = TRIAL) -> None:
    """Write the page's data, its images, and the figure for browsers without JavaScript.

    Args:
        folder: where they go; images in it that the page does not use are removed.
        trial: see `explorer_data`.

    Raises:
        FileNotFoundError, ValueError: as `explorer_data`.
    """
    folder = Path(folder)
    page, paths = explorer_data(trial)
    make_folder(folder / IMAGE_FOLDER)
    for name, path in paths.items():
        write_whole(folder / IMAGE_FOLDER / name, Path(path).read_bytes())
    for there in (folder / IMAGE_FOLDER).iterdir():
        if there.name not in paths:
            there.unlink()
    text = json.dumps(page, separators=(",", ":")).replace('{"image"', '\n{"image"')
    write_whole(folder / DATA_FILE, (_ASSIGNMENT + text + _END).encode())
    first = page["queries"][0]
    shown = [paths[first["image"]]], [paths[first["gallery"][0]["image"]]]
    model = load_model(trial.run.checkpoint())
    tables = [pd.DataFrame({"path": paths, "identity": 0}) for paths in shown]
    figure = show_explorer(model, *tables, threshold=THRESHOLD)
    figure.savefig(folder / STILL_FILE, dpi=160)
    plt.close(figure)


def read_explorer(folder: str | Path) -> dict:
    """The page's data as `write_explorer` wrote it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no data of the page.
    """
    text = (Path(folder) / DATA_FILE).read_text(encoding="utf-8")
    if not (text.startswith(_ASSIGNMENT) and text.endswith(_END)):
        raise ValueError(f"{Path(folder) / DATA_FILE} does not hold the page's data")
    return json.loads(text.removeprefix(_ASSIGNMENT).removesuffix(_END))


def _about(image: pd.Series, paths: dict[str, str]) -> dict:
    """What the page says of an image by itself; its path is added to `paths`."""
    name = Path(image["path"]).name
    if paths.setdefault(name, image["path"]) != image["path"]:
        raise ValueError(f"two images have the name {name}; the page needs different ones")
    return {"image": name, "camera": int(image["camera"])}
