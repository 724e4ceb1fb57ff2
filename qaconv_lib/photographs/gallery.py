"""Searching a folder of images, block by block, for the person of a query (appendix B)."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from torch import Tensor
from tqdm.auto import tqdm

from qaconv_lib.losses import MatchingLoss
from qaconv_lib.models import ReidModel
from qaconv_lib.photographs.calibration import Calibration
from qaconv_lib.photographs.files import add_times, check_photographs, photograph_table
from qaconv_lib.photographs.matching import check_scores, score_maps, to_similarity
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.scale.retrieval import match_store
from qaconv_lib.scale.store import MapStore, model_fingerprint
from qaconv_lib.temporal import tlift

_BLOCK = 256  # images
_DEPTH = 500  # images of each query that are re-ranked


def search_gallery(
    model: ReidModel,
    queries: Sequence[str | os.PathLike[str]],
    gallery: Sequence[str | os.PathLike[str]],
    *,
    calibration: Calibration | None = None,
    prior: float | None = None,
    rerank: bool = False,
    times: pd.DataFrame | None = None,
    store: str | os.PathLike[str] | None = None,
    length: int | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Rank the images of a gallery for each query, which is left out of its own ranking.

    Args:
        queries: image files. With times, add the other people whom the query's camera saw: TLift
            asks where those who walked nearby turn up.
        prior: of the column `probability`; None means `gallery_prior`, which TLift always takes.
        rerank: re-rank the best 500 images of each query by k-reciprocal encoding (chapter 9), and
            drop the others.
        times: from `read_times`; applies TLift (chapter 10).
        store: folder of a `MapStore` for the gallery's maps, made if it does not exist; its scores
            differ in the third or fourth digit.
        length: how many images per query are returned; None means all.

    Returns:
        One row per query and image, best first: `query`, `rank` from 1, `image`, `similarity` (in
        [0, 1], before re-ranking and TLift), `probability` if there is a calibration, `rank_score`
        (decides the order) and, with times, the image's `camera` and `seconds`.
    """
    if not len(queries) or not len(gallery):
        raise ValueError("at least one query and one gallery image are needed")
    if length is not None and length < 1:
        raise ValueError(f"length must be at least 1, got {length}")
    query, images = photograph_table(queries), photograph_table(gallery)
    timed = pd.DataFrame()
    if times is not None:  # all files at once, so that two with one name are noticed
        both = pd.concat([query, images]).drop_duplicates("path", ignore_index=True)
        timed = add_times(both, times).set_index("path")[["camera", "seconds"]]
        query, images = query.join(timed, on="path"), images.join(timed, on="path")
    check_photographs([*query["path"], *images["path"]])
    maps = model.extract(query)
    if store is None:
        blocks = _blocks(images, progress)
        scores = np.hstack([score_maps(model, maps, model.extract(block)) for block in blocks])
    else:
        scores = _store_scores(model, maps, images, Path(store), progress)
    real = [np.array([os.path.realpath(path) for path in t["path"]]) for t in (query, images)]
    own = real[0][:, None] == real[1]
    if own.all():
        raise ValueError("the gallery contains only the query")
    values = {"similarity": to_similarity(model, scores)}
    if calibration is not None:
        prior = gallery_prior(len(images)) if prior is None else prior
        values["probability"] = calibration.probability(scores, prior)
    columns, ranked = np.arange(len(images)), values["similarity"]
    if times is not None and not rerank and model.config.loss != "qaconv":  # its sigmoid is one
        if calibration is None:
            raise ValueError(
                f"TLift takes probabilities, and a model with the loss {model.config.loss} gives "
                "none without a calibration; make one with `python -m qaconv_lib calibrate MODEL "
                "DATASET`"
            )
        ranked = calibration.probability(scores, gallery_prior(len(images)))
    if rerank:
        best = np.argsort(-np.where(own, -np.inf, scores), axis=1, kind="stable")
        columns = np.unique(best[:, :_DEPTH])
        ranked = _rerank(model, maps, images.iloc[columns], progress)
    if times is not None:
        ranked = _lift(np.where(own[:, columns], 0, ranked), query, images.iloc[columns])
    parts = []
    for row, path in enumerate(query["path"]):
        order = np.argsort(-ranked[row], kind="stable")
        order = order[~own[row, columns[order]]][:length]
        chosen = images.iloc[columns[order]]
        part = chosen.drop(columns=["path", "identity"]).assign(
            query=path,
            rank=np.arange(1, len(order) + 1),
            image=chosen["path"],
            rank_score=ranked[row, order],
            **{name: found[row, columns[order]] for name, found in values.items()},
        )
        parts.append(part)
    names = ["query", "rank", "image", *values, "rank_score", *timed]
    return pd.concat(parts, ignore_index=True)[names]


def gallery_prior(images: int) -> float:
    """1 / (n + 1) for each of n images: exactly one of them shows the query's person, or none."""
    return 1 / (images + 1)


def _blocks(images: pd.DataFrame, progress: bool) -> Iterator[pd.DataFrame]:
    with tqdm(total=len(images), unit="image", disable=not progress) as bar:
        for start in range(0, len(images), _BLOCK):
            block = images.iloc[start : start + _BLOCK]
            yield block
            bar.update(len(block))


def _store_scores(
    model: ReidModel, query_maps: Tensor, images: pd.DataFrame, folder: Path, progress: bool
) -> np.ndarray:
    """The same from a store, to which images that it lacks are added."""
    if not isinstance(model.criterion, MatchingLoss):
        raise ValueError(
            f"a store is searched by QAConv; this model has the loss {model.config.loss}"
        )
    keys = [hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in images["path"]]
    if folder.is_dir() and any(folder.iterdir()):
        kept = MapStore(folder, model_fingerprint(model))
    else:
        channels, height, width = query_maps.shape[1:]
        kept = MapStore.create(folder, model_fingerprint(model), (channels, height, width))
    if len(kept) and "content" not in kept.table:
        made = "was not made by a search of images, or by an older version"
        raise ValueError(f"the store {made}; name another folder")
    there = set(kept.table["content"]) if len(kept) else set()
    lacking = pd.DataFrame({"content": [key for key in keys if key not in there]})
    lacking.index = images.index[[key not in there for key in keys]]
    for block in _blocks(lacking, progress):
        kept.append(model.extract(images.loc[block.index]), block)
    found = match_store(model.criterion.matcher, query_maps, kept)
    place = {key: row for row, key in enumerate(kept.table["content"])}
    return check_scores(found)[:, [place[key] for key in keys]]


def _rerank(
    model: ReidModel, query_maps: Tensor, images: pd.DataFrame, progress: bool
) -> np.ndarray:
    """Similarities (q, len(images)) after re-ranking, at the temperature of chapter 9."""
    maps = model.extract(images, progress=progress)
    pairs = (query_maps, maps), (query_maps, query_maps), (maps, maps)
    query_gallery, between_queries, between_gallery = (
        1 - to_similarity(model, score_maps(model, *pair), 10.0) for pair in pairs
    )
    return 1 - k_reciprocal_rerank(query_gallery, between_queries, between_gallery)


def _lift(similarity: np.ndarray, query: pd.DataFrame, images: pd.DataFrame) -> np.ndarray:
    cameras, _ = pd.factorize(pd.concat([query["camera"], images["camera"]]))
    of_query, of_images = np.split(cameras, [len(query)])
    return tlift(similarity, of_query, query["seconds"], of_images, images["seconds"])
