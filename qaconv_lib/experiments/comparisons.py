"""Scores from the records, and the differences that the paper's claims are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, paired_bootstrap
from qaconv_lib.experiments.suite import EXPERIMENTS, Trial, find_record, source_name

#: A label, and a difference in percent, of mAP unless said otherwise; None if it has not been run.
Comparison = tuple[str, Difference | None]
Test = Callable[[str], list[Comparison]]  #: of a profile
LABELS = {"softmax": "softmax", "arc": "Arc loss", "center": "center loss",
          "class-memory": "class memory, pooled", "qaconv": "QAConv"}  # fmt: skip
SUPPRESSED = " (own camera suppressed)"


def find_scores(run: Run, target: str, stage: str = "alone", seeds: int = 10) -> list[dict]:
    """Scores on a target of each seed below `seeds` that has a record; the run's own is ignored.

    `stage` is one of `STAGES`; one with TLift followed by " (own camera suppressed)"; or
    "+RR+TFusion", with parameters chosen on the source, or with the name of another variant of
    `tfusion_record` in brackets after it.
    """
    folder, keys = "evaluate", ["stages", stage]
    if stage.startswith("+RR+TFusion"):
        choice = stage.removeprefix("+RR+TFusion").strip(" ()") or "chosen"
        folder, keys = "tfusion", ["variants", choice]
    elif stage.endswith(SUPPRESSED):
        folder = "tlift"
        keys = ["variants", "own camera suppressed", stage.removesuffix(SUPPRESSED)]
    found: list[dict] = _records(run, target, folder, seeds)
    for key in keys:
        found = [scores[key] for scores in found if scores.get(key)]
    return found


def scores_of(
    profile: str,
    source: str,
    target: str,
    loss: str = "qaconv",
    stage: str = "alone",
    settings: dict | None = None,
    seeds: int = 10,
) -> list[dict]:
    """`find_scores` of a profile's run, with datasets named by role: "market", "duke", ..."""
    run = Run(loss, source_name(get_profile(profile), source), profile, 0, settings or {})
    return find_scores(run, get_profile(profile).datasets[target], stage, seeds)


def tlift_records(profile: str, source: str, target: str) -> list[dict]:
    """The records of TLift's variants and sweeps, by seed."""
    names = get_profile(profile).datasets
    run = Run("qaconv", names[source], profile)
    return _records(run, names[target], "tlift", EXPERIMENTS["tlift"].seeds)


def _records(run: Run, target: str, folder: str, seeds: int) -> list[dict]:
    twins = (Trial(dataclasses.replace(run, seed=seed), target) for seed in range(seeds))
    return [record for twin in twins if (record := find_record(twin, folder))]


def compare(ours: list[dict], theirs: list[dict]) -> Difference | None:
    """Difference in mAP of two methods and its interval, in percent; None without records.

    Both are scores on the same queries, one dictionary per seed. A query's are averaged over the
    seeds first. The interval draws people with all their queries (chapter 8).
    """
    if not ours or not theirs:
        return None
    people = ours[0]["identity"]
    if any(scores["identity"] != people for scores in (*ours, *theirs)):
        raise ValueError("the scores are not of the same queries, so they cannot be compared")
    return paired_bootstrap(100 * (average_precision(ours) - average_precision(theirs)), people)


def average_precision(found: list[dict]) -> np.ndarray:
    """Average precision of each query, averaged over the seeds."""
    return np.mean([scores["average_precision"] for scores in found], axis=0)
