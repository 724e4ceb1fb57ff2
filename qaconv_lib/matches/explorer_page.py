"""The data of the page "The explorer" (`book/explorer.md`), which works without a kernel."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from torch import Tensor

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.datasets import ReidDataset, load_part_map
from qaconv_lib.matches.correspondence import SHOWN, cell_parts, right_links
from qaconv_lib.matches.explorer import matcher_of
from qaconv_lib.matches.pairs import maps_of, network_before_training
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.miniatures.drawing import draw_image
from qaconv_lib.models import ReidModel

QUERIES = 8
EACH = 3  # gallery images of each query with the same person, and as many with other people
OTHERS = (0, 0.1, 0.5)  # where those are in the ranking of other people; 0 is its top
FIRST = 3  # queries in the small copy for the front page, each with its best match
SCALE = 4  # of the images for the reader
UNIT = 100_000  # similarities are whole numbers, and this one makes 1
THRESHOLD = 0.8  # of the matches that are drawn at first


def spread(values: Sequence[float], count: int) -> list[int]:
    """Positions of `count` values from the largest to the smallest, equally spaced in rank."""
    order = np.argsort(-np.asarray(values), kind="stable")
    return order[np.linspace(0, len(order) - 1, count).round().astype(int)].tolist()


def choose_gallery(similarity: Any, same: Any, junk: Any) -> pd.DataFrame:
    """Some gallery images of a query: best, middle and worst match, and other people by `OTHERS`.

    From (g,) similarities and masks, up to `EACH` of each kind by rank, with the columns `position`
    (in the gallery), `same` (the query's person) and `rank` (from 1, without junk).
    """
    ranked = pd.DataFrame({"similarity": similarity, "same": same, "junk": junk})
    ranked = ranked[~ranked["junk"]].sort_values("similarity", ascending=False, kind="stable")
    ranked = ranked.rename_axis("position").reset_index()
    ranked["rank"] = np.arange(1, len(ranked) + 1)
    matches, others = ranked[ranked["same"]], ranked[~ranked["same"]]
    if len(matches) > EACH:
        matches = matches.iloc[spread(matches["similarity"].tolist(), EACH)]
    others = others.iloc[sorted({int(share * len(others)) for share in OTHERS[: len(others)]})]
    return pd.concat([matches, others], ignore_index=True)[["position", "same", "rank"]]


def pair_matches(query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1) -> dict:
    """What the page shows of a pair of maps (d, h, w) with unit channels.

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
    """Choose pairs of test images of a miniature, and compute what the page shows of them.

    `precision` is the average precision of each query; the chosen ones go from the best to the
    worst. `source` is the dataset that the QAConv model was trained on. Returns what the page's
    file holds, and the path of each image by the name it has there.
    """
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    from qaconv_lib.visualize import SIMILARITY_COLOURS

    matcher, gallery = matcher_of(model), dataset.gallery
    chosen = spread(precision, QUERIES)
    asked = dataset.query.iloc[chosen]
    maps = {"trained": (model.extract(asked), model.extract(gallery))}
    scores = model.similarity(*maps["trained"]).numpy(force=True)
    same = asked["identity"].to_numpy()[:, None] == gallery["identity"].to_numpy()
    junk = same & (asked["camera"].to_numpy()[:, None] == gallery["camera"].to_numpy())
    found = [choose_gallery(*row) for row in zip(scores, same, junk, strict=True)]
    used = np.unique(np.concatenate([table["position"] for table in found]))
    before = network_before_training(model)
    paths: dict[str, str] = {}
    maps["ImageNet"] = maps_of(before, asked, model), maps_of(before, gallery.iloc[used], model)
    maps["trained"] = maps["trained"][0], maps["trained"][1][used]

    def about(image: pd.Series) -> dict:
        name = Path(image["path"]).name
        paths[name] = image["path"]
        return {"image": name, "camera": int(image["camera"])}

    queries = []
    for row, number in enumerate(chosen):
        pairs = []
        for one in found[row].itertuples():
            place = np.searchsorted(used, one.position)
            matches = {
                features: pair_matches(first[row], second[place], matcher.kernel_size)
                for features, (first, second) in maps.items()
            }
            own = {"same": bool(one.same), "rank": int(one.rank), "matches": matches}
            pairs.append(about(gallery.iloc[one.position]) | own)
        scored = {"precision": precision[number], "ranked": int((~junk[row]).sum())}
        queries.append(about(asked.iloc[row]) | scored | {"gallery": pairs})
    grid = matcher.height, matcher.width
    weights, constant = matcher.fold()
    equal = [1 / weights.numel()] * (weights.numel() // 2)  # the mean of all best matches
    rounded = [[round(weight, 6) for weight in part] for part in weights.view(2, -1).tolist()]
    trained = [*rounded[::-1], round(float(constant), 6)]  # the query's locations first
    page = {
        "source": source,
        "target": dataset.name,
        "height": grid[0],
        "width": grid[1],
        "unit": UNIT,
        "threshold": THRESHOLD,
        "colours": [to_hex(c) for c in colormaps[SIMILARITY_COLOURS](np.linspace(0, 1, 17))],
        "shown": SHOWN,
        "parts": {n: cell_parts(load_part_map(p), *grid).tolist() for n, p in paths.items()},
        "scores": {"trained": trained, "ImageNet": [equal, equal, 0]},
        "queries": queries,
    }
    return page, paths


def write_explorer(folder: str | Path, model: ReidModel, dataset: ReidDataset, *about: Any) -> None:
    """Write the page's data (see `explorer_data`), its images, and a figure without JavaScript.

    Images in the folder that the page does not use are removed.
    """
    from qaconv_lib.visualize import show_correspondences

    folder = Path(folder)
    page, paths = explorer_data(model, dataset, *about)
    for kind in ("images", "large"):
        make_folder(folder / kind)
        for there in (folder / kind).iterdir():
            if there.name not in paths:
                there.unlink()
    large = {}
    for name, path in paths.items():
        write_whole(folder / "images" / name, Path(path).read_bytes())
        inside = Path(path).relative_to(dataset.root).as_posix()
        large[name] = Image.fromarray(draw_image(dataset.name, inside, scale=SCALE).image)
        content = io.BytesIO()
        large[name].save(content, "JPEG", quality=85, optimize=True)
        write_whole(folder / "large" / name, content.getvalue())
    first = [query | {"gallery": query["gallery"][:1]} for query in page["queries"][:FIRST]]
    for name, data in (("data", page), ("front", page | {"queries": first})):
        text = json.dumps(data, separators=(",", ":")).replace('{"image"', '\n{"image"')
        write_whole(folder / f"{name}.js", f"window.qaconvExplorer = {text};\n".encode())
    names = first[0]["image"], first[0]["gallery"][0]["image"]
    maps = model.extract(pd.DataFrame({"path": [paths[name] for name in names], "identity": 0}))
    show_correspondences(
        large[names[0]],
        large[names[1]],
        *maps,
        threshold=THRESHOLD,
        mutual=True,
        right=right_links(*(page["parts"][name] for name in names)),
        alt="The first pair of the explorer",
    ).savefig(folder / "still.jpg", dpi=160, pil_kwargs={"quality": 85})
