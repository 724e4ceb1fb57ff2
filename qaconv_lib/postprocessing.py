"""Experiments on similarities that are there already: TLift's parameters, TFusion (chapter 10)."""

from __future__ import annotations

import dataclasses
from itertools import product

import numpy as np

from qaconv_lib.datasets import ReidDataset, load_dataset
from qaconv_lib.models import default_device
from qaconv_lib.records import provenance, write_record
from qaconv_lib.runs import Run, pair_similarities, probabilities, rerank, score, summary, times
from qaconv_lib.temporal import tlift
from qaconv_lib.transitions import tfusion

#: Values tried for each parameter of TLift while the others keep their defaults.
TLIFT_SWEEPS: dict[str, tuple[float, ...]] = {
    "tau": (25, 50, 100, 200, 400),
    "sigma": (50, 100, 200, 400, 800),
    "k": (1, 3, 5, 10, 20, 40),
    "alpha": (0.0, 0.05, 0.1, 0.2, 0.5, 1.0),
}
#: The readings of section 4 that paper and released code leave open.
TLIFT_VARIANTS: dict[str, dict] = {
    "released": {},
    "pivots as a set": {"pivots": "set"},
    "own camera suppressed": {"same_camera": "suppress"},
}
_ERRORS = (0.0, 0.25, 0.5, 0.75)
#: TFusion's grid: both error rates, where they leave something (chapter 10).
TFUSION_GRID = [pair for pair in product(_ERRORS, _ERRORS) if sum(pair) < 1]
# With 100 random images a query, P_rand cannot tell a smaller fraction from none.
_TFUSION_FLOOR = 0.01


def tlift_record(run: Run, target: str, device: str | None = None) -> dict:
    """TLift over its parameters and variants, with and without re-ranking; writes the record."""
    dataset = load_dataset(target)
    pairs = pair_similarities(run, target, device=device)
    stages = {
        "+TLift": probabilities(pairs["query_gallery"], run.loss),
        "+RR+TLift": rerank(pairs),
    }

    def lifted(per_query: bool = False, **options) -> dict:
        return {
            name: _scores(tlift(value, *times(dataset), **options), dataset, per_query)
            for name, value in stages.items()
        }

    record = {
        "experiment": "tlift",
        **run.about,
        "config": dataclasses.asdict(run.config()),
        "target": target,
        "sweeps": [
            {"parameter": name, "value": value, "stages": lifted(**{name: value})}
            for name, values in TLIFT_SWEEPS.items()
            for value in values
        ],
        "variants": {
            name: lifted(per_query=True, **options) for name, options in TLIFT_VARIANTS.items()
        },
        **provenance(device or default_device()),
    }
    write_record("tlift", f"{run.name}-on-{target}", record)
    return record


def tfusion_record(run: Run, target: str, device: str | None = None) -> dict:
    """TFusion after re-ranking, its error rates chosen in two ways; writes the record.

    "chosen" takes the error rates that do best on the source's own query and gallery images, which
    is fair; "best" those that do best on the target, which needs the answers and is what the paper
    reports.
    """
    source = run.source.removesuffix("-all")
    found: dict[str, list[np.ndarray]] = {}
    data = {name: load_dataset(name) for name in (source, target)}
    for name, dataset in data.items():
        reranked = rerank(pair_similarities(run, name, device=device))
        found[name] = [
            _tfused(reranked, dataset, positive, negative) for positive, negative in TFUSION_GRID
        ]
    scores = {
        name: [_scores(fused, data[name], True) for fused in grid] for name, grid in found.items()
    }
    best = {
        name: max(range(len(TFUSION_GRID)), key=lambda i, grid=grid: grid[i]["mean_ap"])
        for name, grid in scores.items()
    }
    record = {
        "experiment": "tfusion",
        **run.about,
        "config": dataclasses.asdict(run.config()),
        "target": target,
        "grid": [
            {
                "error_positive": positive,
                "error_negative": negative,
                "source_mean_ap": scores[source][i]["mean_ap"],
                "target_mean_ap": scores[target][i]["mean_ap"],
                "target_rank1": scores[target][i]["rank1"],
            }
            for i, (positive, negative) in enumerate(TFUSION_GRID)
        ],
        "chosen": {"errors": TFUSION_GRID[best[source]], **scores[target][best[source]]},
        "best": {"errors": TFUSION_GRID[best[target]], **scores[target][best[target]]},
        "floor": _TFUSION_FLOOR,
        **provenance(device or default_device()),
    }
    write_record("tfusion", f"{run.name}-on-{target}", record)
    return record


def _tfused(
    similarity: np.ndarray, dataset: ReidDataset, positive: float, negative: float
) -> np.ndarray:
    return tfusion(
        np.clip(similarity, 0, 1),
        *times(dataset),
        query_sessions=dataset.query["session"],
        gallery_sessions=dataset.gallery["session"],
        error_positive=positive,
        error_negative=negative,
        floor=_TFUSION_FLOOR,
    )


def _scores(similarity: np.ndarray, dataset: ReidDataset, per_query: bool) -> dict:
    return summary(score(similarity, dataset.query, dataset.gallery), per_query)
