"""Cases of `bench` on the miniatures: where a test spends its time, and shortlists (chapter 13)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib.datasets import load_dataset
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.experiments.measure import describe, in_turns, largest_gap, measure, rounded
from qaconv_lib.experiments.runs import checkpoint_path, rerank, score, times
from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.models import load_model
from qaconv_lib.scale.retrieval import build_index, match_shortlist, shortlist
from qaconv_lib.scale.store import pool_maps
from qaconv_lib.temporal import tlift

LENGTHS = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)


def average_maps(maps: Tensor) -> Tensor:
    """Vectors (n, d) of unit length: maps (n, d, h, w) averaged over all locations."""
    return F.normalize(maps.float().mean(dim=(2, 3)), dim=1)


#: What shortlists are made from: the library's stripes, and one average for comparison.
POOLINGS = {"four stripes": pool_maps, "one average": average_maps}


def bench_test(source: str, target: str, profile: str = "laptop") -> list[dict]:
    """Rows of a record: what each step of a test takes, and the mAP where it makes a ranking.

    Args:
        source: what the shipped QAConv model was trained on.
        target: a miniature that has times.
        profile: of the shipped model.
    """
    model = load_model(checkpoint_path("qaconv", source, profile))
    matcher, data = model.criterion.matcher, load_dataset(target)
    assert isinstance(matcher, QAConv)
    rows = []

    def timed(step: str, act: Callable[[], Any], ranked: bool = False) -> Any:
        found = in_turns(2, act=act)["act"]
        row = describe(step, f"{len(data.query):,} x {len(data.gallery):,}", found)
        if ranked:
            row["mean_ap"] = round(score(found.result, data.query, data.gallery).mean_ap, 5)
        rows.append({"source": source, "target": target} | row)
        return found.result

    def pairs(first: Tensor, second: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
        found = match_gallery(matcher, first, second, dtype=dtype)
        return found.numpy(force=True)

    queries, gallery = timed(
        "extraction", lambda: (model.extract(data.query), model.extract(data.gallery))
    )
    half = timed(
        "matching, bfloat16", partial(pairs, queries, gallery, torch.bfloat16), ranked=True
    )
    similarity = {"query_gallery": timed("matching", partial(pairs, queries, gallery), ranked=True)}
    rows[1]["score_difference"] = rounded(largest_gap(half, similarity["query_gallery"]))
    for name, maps in (("query_query", queries), ("gallery_gallery", gallery)):
        similarity[name] = timed(
            f"matching, {name.split('_')[0]} itself", partial(pairs, maps, maps)
        )
    reranked = timed("re-ranking", partial(rerank, similarity, "qaconv"), ranked=True)
    timed("TLift", partial(tlift, reranked, *times(data)), ranked=True)
    timed("scores", partial(score, reranked, data.query, data.gallery))
    return rows


def bench_shortlist(
    source: str, target: str, distractors: int = 0, profile: str = "laptop"
) -> list[dict]:
    """Rows of a record: one a length, then one for the whole gallery.

    The shipped QAConv model of the source ranks the target's gallery. What is on the shortlist
    comes first, ordered by QAConv; the rest follows in the order of the pooled vectors.

    Args:
        source: what the model was trained on.
        target: a miniature.
        distractors: how many maps of nobody to add to the gallery; see `mixed_maps`.
        profile: of the shipped model.
    """
    model = load_model(checkpoint_path("qaconv", source, profile))
    matcher, data = model.criterion.matcher, load_dataset(target)
    assert isinstance(matcher, QAConv)
    queries, gallery = model.extract(data.query), model.extract(data.gallery)
    people = [data.gallery[["identity", "camera"]]]
    if distractors:
        others = [name for name in ("mini-cuhk03", "mini-msmt17", source) if name != target]
        images = pd.concat([load_dataset(name).gallery for name in others])
        gallery = torch.cat([gallery, mixed_maps(model.extract(images), distractors)])
        people.append(pd.DataFrame({"identity": np.zeros(distractors, int), "camera": -1}))
    labels = pd.concat(people)

    def scores(similarity: Tensor) -> dict:
        found = evaluate_ranking(
            similarity,
            data.query["identity"],
            labels["identity"],
            data.query["camera"],
            labels["camera"],
        )
        return {"rank1": round(found.rank(1), 5), "mean_ap": round(found.mean_ap, 5)}

    about = {"source": source, "target": target, "gallery": len(gallery), "queries": len(queries)}
    rows = []
    for pooling, pool in POOLINGS.items():
        if distractors and pool is not pool_maps:
            continue
        vectors, own = pool(gallery), pool(queries)
        index, pooled = build_index(vectors), (own @ vectors.T).double()
        for length in (length for length in LENGTHS if length < len(gallery)):
            first = measure(partial(shortlist, own, index, length))
            second = measure(partial(match_shortlist, matcher, queries, gallery, first.result))
            # Pooled scores lie in [-1, 1]; what is on the list gets 2 to 3.
            ranking = pooled.scatter(1, first.result, second.result.double() + 2)
            taken = {"length": length, "seconds": rounded(first.seconds + second.seconds)}
            rows.append(about | {"pooling": pooling} | taken | scores(ranking))
    whole = measure(partial(match_gallery, matcher, queries, gallery))
    exact = {"pooling": "none", "length": len(gallery), "seconds": rounded(whole.seconds)}
    return [*rows, about | exact | scores(whole.result)]


def mixed_maps(maps: Tensor, count: int, seed: int = 0) -> Tensor:
    """Maps of people who do not exist: the upper rows of one image over the lower rows of another.

    Half of the images are mirrored. They are as varied as real maps in every location, and are
    nobody's.

    Args:
        maps: shape (n, d, h, w), of images that are in no query.
        count: how many to make.
        seed: of the random choice.
    """
    generator = torch.Generator().manual_seed(seed)
    upper, lower = torch.randint(len(maps), (2, count), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    middle = maps.shape[2] // 2
    mixed = torch.cat([maps[upper, :, :middle], maps[lower, :, middle:]], dim=2)
    mixed[mirrored] = mixed[mirrored].flip(3)
    return mixed
