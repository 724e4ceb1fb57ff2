"""Experiments on similarities that are there already: TLift's parameters, TFusion (chapter 10)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from qaconv_lib.beyond.tfusion import labelled_transitions, tfusion
from qaconv_lib.experiments import runs
from qaconv_lib.experiments.runs import Run
from qaconv_lib.temporal import tlift

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
#: TFusion's grid: both error rates, where they leave something, and the window in seconds.
TFUSION_GRID: list[dict[str, Any]] = [
    {"error_positive": positive, "error_negative": negative, "window": window}
    for positive, negative, window in product(_ERRORS, _ERRORS, (30.0, 300.0))
    if positive + negative < 1
]
# Some hundred images a camera pair cannot tell a smaller P_rand from none.
_TFUSION_FLOOR = 2e-3


def tlift_record(
    run: Run, target: str, device: str | None = None, skip_unreadable: bool = False
) -> dict:
    """TLift over its parameters and variants, with and without re-ranking; writes the record."""
    runs.look_again()
    data = runs.load_test(target, skip_unreadable)
    pairs = runs.pair_similarities(run, data, device=device)
    stages = {
        "+TLift": runs.probabilities(pairs["query_gallery"], run.loss),
        "+RR+TLift": runs.rerank(pairs, run.loss, transposed=run.transposed),
    }

    def lifted(per_query: bool = False, /, **options: Any) -> dict:
        found = {k: tlift(value, *runs.times(data), **options) for k, value in stages.items()}
        return {k: runs.summary(v, data.query, data.gallery, per_query) for k, v in found.items()}

    sweeps = [
        {"parameter": name, "value": value, "stages": lifted(**{name: value})}
        for name, values in TLIFT_SWEEPS.items()
        for value in values
    ]
    variants = {name: lifted(True, **options) for name, options in TLIFT_VARIANTS.items()}
    found = {"sweeps": sweeps, "variants": variants}
    return runs.record_run("tlift", run, target, found, device)


def tfusion_record(
    run: Run, target: str, device: str | None = None, skip_unreadable: bool = False
) -> dict:
    """TFusion after re-ranking, its parameters chosen in several ways; writes the record.

    "chosen" takes the parameters that do best on the source's own query and gallery images, which
    is fair; "best" those that do best on the target, which needs the answers and is what the paper
    reports. "labelled" takes transition times from the target's labelled training images, with the
    window that does best on the target: it shows what the times could give at most. Each has a
    twin whose name ends in ", own camera suppressed".
    """
    runs.look_again()
    names = run.source.removesuffix("-all"), target
    data, reranked = {name: runs.load_test(name, skip_unreadable) for name in names}, {}
    for name in data:
        pairs = runs.pair_similarities(run, data[name], device=device)
        similarity = runs.rerank(pairs, run.loss, transposed=run.transposed)
        reranked[name] = np.clip(similarity, 0, 1)
    columns = {"identities": "identity", "cameras": "camera"}
    columns |= {"seconds": "seconds", "sessions": "session"}
    labels = {name: data[target].train[column] for name, column in columns.items()}
    known_times = partial(labelled_transitions, **labels)

    def scored(name: str, function: Callable, **options: Any) -> dict:
        query, gallery = data[name].query, data[name].gallery
        options |= {"query_sessions": query["session"], "gallery_sessions": gallery["session"]}
        times, floor = runs.times(data[name]), _TFUSION_FLOOR
        return runs.summary(
            function(reranked[name], *times, floor=floor, **options), query, gallery
        )

    grid: list[dict] = []
    variants = {}
    for same_camera, suffix in (("keep", ""), ("suppress", ", own camera suppressed")):
        own = {"same_camera": same_camera}
        ours, theirs = ([scored(n, tfusion, **own, **row) for row in TFUSION_GRID] for n in data)
        for choice, judged in (("chosen", ours), ("best", theirs)):
            best = int(np.argmax([scores["mean_ap"] for scores in judged]))
            variants[choice + suffix] = TFUSION_GRID[best] | theirs[best]
        labelled = [
            {"window": window} | scored(target, known_times, **own, window=window)
            for window in sorted({row["window"] for row in TFUSION_GRID})
        ]
        variants[f"labelled{suffix}"] = max(labelled, key=lambda scores: scores["mean_ap"])
        for row, here, there in zip(TFUSION_GRID, ours, theirs, strict=True):
            found = {"source_mean_ap": here["mean_ap"], "target_mean_ap": there["mean_ap"]}
            grid.append(row | own | found | {"target_rank1": there["rank1"]})
    found = {"floor": _TFUSION_FLOOR, "grid": grid, "variants": variants}
    return runs.record_run("tfusion", run, target, found, device)
