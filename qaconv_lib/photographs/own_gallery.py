"""Searching a folder of pictures for the person of a query (chapter 14).

Galleries need not fit into memory: maps are made and compared block by block and forgotten, or kept
in a `MapStore`, so that the next search need not make them again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import expit
from torch import Tensor
from tqdm.auto import tqdm

from qaconv_lib.losses import MatchingLoss, compares_maps
from qaconv_lib.models import ReidModel
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.files import add_times, check_photographs, photograph_table
from qaconv_lib.photographs.matching import check_scores
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.scale.retrieval import match_store
from qaconv_lib.scale.store import MapStore, model_fingerprint
from qaconv_lib.temporal import tlift

_BLOCK = 256  # images made and compared at a time
DEPTH = 500  # images of each query that re-ranking looks at


def search_gallery(
    model: ReidModel,
    queries: Sequence[str | os.PathLike[str]],
    gallery: Sequence[str | os.PathLike[str]],
    *,
    calibration: Calibration | None = None,
    prior: float | None = None,
    rerank: bool = False,
    depth: int = DEPTH,
    times: pd.DataFrame | None = None,
    store: str | os.PathLike[str] | None = None,
    length: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Rank the pictures of a gallery for each query.

    Args:
        model: from `open_model`.
        queries: image files. Where there are times, other people of the query's camera belong
            here too: TLift asks where those who walked nearby turn up.
        gallery: image files. A query that is among them is left out of its own ranking.
        calibration: adds the column `probability`.
        prior: for it, see `Calibration.probability`. None means `gallery_prior`: as if one image of
            the gallery showed the query's person, or none.
        rerank: re-rank by k-reciprocal encoding (chapter 9).
        depth: re-ranking looks at the best so many images of each query, and drops the others. It
            compares them with each other, so its time grows with the square.
        times: from `read_times`; then TLift is applied (chapter 10).
        store: folder of a `MapStore` that keeps the gallery's maps, made if it is not there. Scores
            then differ in the third or fourth digit, see `match_store`.
        length: how many images of each query are given back; None means all.
        progress: show progress bars.

    Returns:
        One row for each query and image, best first: `query`, `rank` from 1, `image`, `similarity`
        (0 to 1, before re-ranking and TLift), `probability` if there is a calibration, `rank_score`
        (what the order goes by), and `camera` and `seconds` of the image if there are times.

    Raises:
        FileNotFoundError: a file is not there.
        ValueError: no queries or no gallery, a file that is no image, an image without a time, a
            number out of its range, or a store of another model.
    """
    if not len(queries) or not len(gallery):
        raise ValueError("at least one query and one gallery image are needed")
    for name, value in (("depth", depth), ("length", length)):
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    query, images = photograph_table(queries), photograph_table(gallery)
    if times is not None:
        query, images = _with_times(query, images, times)
    check_photographs([*query["path"], *images["path"]])
    if prior is None:
        prior = gallery_prior(len(images))
    maps = model.extract(query)
    scores = _gallery_scores(model, maps, images, store, progress)
    own = _absolute(query)[:, None] == _absolute(images)[None]
    similarity = expit(scores) if compares_maps(model.config.loss) else scores
    ranked = similarity
    if times is not None:
        ranked = _probabilities(model, scores, calibration)
    columns = np.arange(len(images))
    if rerank:
        columns = _candidates(scores, own, depth)
        ranked = _rerank(model, maps, images.iloc[columns], progress)
    if times is not None:
        ranked = _lift(np.where(own[:, columns], 0, ranked), query, images.iloc[columns])
    return _long_table(
        query,
        images,
        {"similarity": similarity}
        | ({} if calibration is None else {"probability": calibration.probability(scores, prior)}),
        ranked,
        columns,
        own,
        length,
    )


def gallery_prior(images: int) -> float:
    """How probable it is of each image of a gallery that it shows the query's person: 1 / (n + 1).

    So much if exactly one image shows the person, or none, and nothing else is known.
    """
    return 1 / (images + 1)


def _gallery_scores(
    model: ReidModel,
    query_maps: Tensor,
    images: pd.DataFrame,
    store: str | os.PathLike[str] | None,
    progress: bool,
) -> np.ndarray:
    """Scores of the queries with all images, (q, g), block by block."""
    if store is not None:
        return _store_scores(model, query_maps, images, Path(store), progress)
    found = []
    with tqdm(total=len(images), unit="image", disable=not progress) as bar:
        for start in range(0, len(images), _BLOCK):
            block = images.iloc[start : start + _BLOCK]
            found.append(check_scores(model.similarity(query_maps, model.extract(block))).cpu())
            bar.update(len(block))
    return torch.cat(found, dim=1).numpy()


def _store_scores(
    model: ReidModel, query_maps: Tensor, images: pd.DataFrame, folder: Path, progress: bool
) -> np.ndarray:
    """The same from a store, to which images that it lacks are added."""
    if not isinstance(model.criterion, MatchingLoss):
        raise ValueError(
            f"a store is searched by QAConv; this model has the loss {model.config.loss}"
        )
    wanted = pd.DataFrame([_state(path) for path in images["path"]])
    if folder.is_dir() and any(folder.iterdir()):
        kept = MapStore(folder, model_fingerprint(model))
    else:
        channels, height, width = query_maps.shape[1:]
        kept = MapStore.create(folder, model_fingerprint(model), (channels, height, width))
    lacking = np.flatnonzero(~_keys(wanted).isin(_keys(kept.table)))
    with tqdm(total=len(lacking), unit="image", disable=not progress) as bar:
        for start in range(0, len(lacking), _BLOCK):
            rows = lacking[start : start + _BLOCK]
            kept.append(model.extract(images.iloc[rows]), wanted.iloc[rows])
            bar.update(len(rows))
    found = match_store(model.criterion.matcher, query_maps, kept)
    scores = check_scores(found).numpy(force=True)
    place = {key: row for row, key in enumerate(_keys(kept.table))}
    return scores[:, [place[key] for key in _keys(wanted)]]


def _state(path: str) -> dict[str, str | int]:
    """What tells whether a file is still the one whose map was kept."""
    found = os.stat(path)
    return {"path": os.path.abspath(path), "bytes": found.st_size, "changed": found.st_mtime_ns}


def _keys(table: pd.DataFrame) -> pd.Series:
    columns = ["path", "bytes", "changed"]
    if not len(table):
        return pd.Series([], dtype=object)
    if not set(columns) <= set(table.columns):
        raise ValueError("the store was not made by a search of pictures; name another folder")
    return pd.Series(list(table[columns].itertuples(index=False, name=None)))


def _probabilities(
    model: ReidModel, scores: np.ndarray, calibration: Calibration | None
) -> np.ndarray:
    """What TLift wants: of QAConv the sigmoid of its logit, as in chapter 10."""
    if compares_maps(model.config.loss):
        return expit(scores)
    if calibration is None:
        raise ValueError(
            f"TLift wants probabilities, and a model with the loss {model.config.loss} gives none "
            "without a calibration; make one with `python -m qaconv_lib calibrate`"
        )
    return calibration.probability(scores, gallery_prior(scores.shape[1]))


def _candidates(scores: np.ndarray, own: np.ndarray, depth: int) -> np.ndarray:
    """Columns of the images that are among the best `depth` of a query, ascending."""
    order = np.argsort(-np.where(own, -np.inf, scores), axis=1, kind="stable")
    return np.unique(order[:, :depth])


def _rerank(
    model: ReidModel, query_maps: Tensor, images: pd.DataFrame, progress: bool
) -> np.ndarray:
    """Similarities (q, len(images)) after re-ranking, on the distances of chapter 9."""
    maps = model.extract(images, progress=progress)
    query_gallery, between_queries, between_gallery = (
        _distances(model, *pair, progress)
        for pair in ((query_maps, maps), (query_maps, query_maps), (maps, maps))
    )
    return 1 - k_reciprocal_rerank(query_gallery, between_queries, between_gallery)


def _distances(
    model: ReidModel, query_maps: Tensor, gallery_maps: Tensor, progress: bool
) -> np.ndarray:
    scores = model.similarity(query_maps, gallery_maps, progress=progress)
    if compares_maps(model.config.loss):
        scores = torch.sigmoid(scores / 10)
    return 1 - scores.numpy(force=True)


def _lift(similarity: np.ndarray, query: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    numbers, _ = pd.factorize(pd.concat([query["camera"], images["camera"]]))
    return tlift(
        similarity,
        numbers[: len(query)],
        query["seconds"],
        numbers[len(query) :],
        images["seconds"],
    )


def _with_times(
    query: pd.DataFrame, images: pd.DataFrame, times: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both tables with cameras and seconds; all files at once, so that equal names are noticed."""
    both = pd.concat([query, images]).drop_duplicates("path", ignore_index=True)
    timed = add_times(both, times).set_index("path")[["camera", "seconds"]]
    return query.join(timed, on="path"), images.join(timed, on="path")


def _absolute(table: pd.DataFrame) -> np.ndarray:
    return np.array([os.path.realpath(path) for path in table["path"]], dtype=object)


def _long_table(
    query: pd.DataFrame,
    images: pd.DataFrame,
    values: dict[str, np.ndarray],
    ranked: np.ndarray,
    columns: np.ndarray,
    own: np.ndarray,
    length: int | None,
) -> pd.DataFrame:
    """One row for each query and image; `ranked` has a column for each of `columns`."""
    parts = []
    for row, path in enumerate(query["path"]):
        order = np.argsort(-ranked[row], kind="stable")
        order = order[~own[row, columns[order]]][:length]
        chosen = columns[order]
        part = pd.DataFrame({"query": path, "rank": np.arange(1, len(order) + 1)})
        part["image"] = images["path"].to_numpy()[chosen]
        for name, value in values.items():
            part[name] = value[row, chosen]
        part["rank_score"] = ranked[row, order]
        for name in ("camera", "seconds"):
            if name in images:
                part[name] = images[name].to_numpy()[chosen]
        parts.append(part)
    return pd.concat(parts, ignore_index=True)
