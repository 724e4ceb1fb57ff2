"""Scores from the records, and the differences that the paper's claims are about."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, two_way_bootstrap
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
    `tfusion_record` in brackets after it. `run` names the model that was tested.
    """
    folder, keys = "evaluate", ["stages", stage]
    if stage.startswith("+RR+TFusion"):
        choice = stage.removeprefix("+RR+TFusion").strip(" ()") or "chosen"
        folder, keys = "tfusion", ["variants", choice]
    elif stage.endswith(SUPPRESSED):
        folder = "tlift"
        keys = ["variants", "own camera suppressed", stage.removesuffix(SUPPRESSED)]
    found = []
    for seed, record in _records(run, target, folder, seeds).items():
        for key in keys:
            record = record.get(key) or {}
        if record:
            found.append(record | {"run": dataclasses.replace(run, seed=seed).name})
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
    return list(_records(run, names[target], "tlift", EXPERIMENTS["tlift"].seeds).values())


def _records(run: Run, target: str, folder: str, seeds: int) -> dict[int, dict]:
    """The records of a run's seeds that have one, by seed."""
    twins = (Trial(dataclasses.replace(run, seed=seed), target) for seed in range(seeds))
    return {twin.run.seed: record for twin in twins if (record := find_record(twin, folder))}


def compare(ours: list[dict], theirs: list[dict]) -> Difference | None:
    """Difference in mAP of two methods and its interval, in percent; None without records.

    Both are scores on the same queries, one dictionary per seed. The interval draws seeds, and
    people with all their queries (chapter 13). Seeds are paired only where both methods score the
    same models, e.g. before and after re-ranking: two losses share no more than a number.
    """
    if not ours or not theirs:
        return None
    people = ours[0]["identity"]
    if any(scores["identity"] != people for scores in (*ours, *theirs)):
        raise ValueError("the scores are not of the same queries, so they cannot be compared")
    first, second = average_precision(ours), average_precision(theirs)
    if [scores["run"] for scores in ours] == [scores["run"] for scores in theirs]:
        return two_way_bootstrap(first - second, groups=people)
    return two_way_bootstrap(first, second, people)


def average_precision(found: list[dict]) -> np.ndarray:
    """Average precision of each query in percent, one row per seed."""
    return 100 * np.array([scores["average_precision"] for scores in found])
