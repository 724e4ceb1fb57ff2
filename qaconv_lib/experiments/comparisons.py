"""Scores from the records, and the differences that the paper's claims are about.

A `Test` takes a profile and returns labelled differences in percent, in mAP unless said otherwise;
None stands for what has not been run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import numpy as np

from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, paired_bootstrap
from qaconv_lib.experiments.suite import EXPERIMENTS, Trial, find_record
from qaconv_lib.experiments.variants import ABLATIONS, DIRECTIONS, SOURCES, source_name

Comparison = tuple[str, Difference | None]
Test = Callable[[str], list[Comparison]]
LABELS = {
    "softmax": "softmax",
    "arc": "Arc loss",
    "center": "center loss",
    "class-memory": "class memory, pooled",
    "qaconv": "QAConv",
}
POOLED = ("softmax", "arc", "center", "class-memory")
SUPPRESSED = " (own camera suppressed)"


def find_scores(run: Run, target: str, stage: str = "alone", seeds: int = 10) -> list[dict]:
    """Scores on a target, one dictionary for each seed below `seeds` that has a record.

    Args:
        run: its own seed is ignored.
        target: name of the dataset.
        stage: one of `STAGES`; one with TLift followed by " (own camera suppressed)"; or
            "+RR+TFusion", with parameters chosen on the source, or with the name of another variant
            of `tfusion_record` in brackets after it.
        seeds: how many seeds to look for.
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

    A query's score is averaged over the seeds of each method first. The interval draws people with
    all their queries (chapter 8).

    Args:
        ours: scores of one method, one per seed, as `find_scores` gives them.
        theirs: scores of the other, on the same queries.
    """
    if not ours or not theirs:
        return None
    people = ours[0]["identity"]
    if any(scores["identity"] != people for scores in (*ours, *theirs)):
        raise ValueError("the scores are not of the same queries, so they cannot be compared")
    return paired_bootstrap(100 * (_precision(ours) - _precision(theirs)), people)


def _precision(found: list[dict]) -> np.ndarray:
    """Average precision of each query, averaged over the seeds."""
    return np.mean([scores["average_precision"] for scores in found], axis=0)


def _test(
    ours: dict, theirs: dict, directions: Iterable = DIRECTIONS, label: str = "{} → {}"
) -> Test:
    """One method against another, each given by arguments of `scores_of`."""

    def scores(profile: str, direction: tuple[str, str], method: dict) -> list[dict]:
        where = dict(zip(("source", "target"), direction, strict=True))
        return scores_of(profile, **(where | method))

    return lambda profile: [
        (label.format(*way), compare(scores(profile, way, ours), scores(profile, way, theirs)))
        for way in directions
    ]


def several(*tests: Test) -> Test:
    """The comparisons of all tests."""
    return lambda profile: [comparison for test in tests for comparison in test(profile)]


def losses(first: str, second: str) -> Test:
    """Both directions: one loss against another."""
    return _test({"loss": first}, {"loss": second})


def stages(first: str, second: str, loss: str = "qaconv") -> Test:
    """Both directions: one stage of post-processing against another."""
    return _test({"loss": loss, "stage": first}, {"loss": loss, "stage": second})


def ablation(name: str, better: str, worse: str) -> Test:
    """One variant of an ablation against another."""
    loss, variants = ABLATIONS[name]
    how = {"loss": loss, "seeds": EXPERIMENTS[name].seeds}
    ours, theirs = (how | {"settings": variants[variant]} for variant in (better, worse))
    return _test(ours, theirs, DIRECTIONS[:1])


def best_pooled(profile: str) -> list[Comparison]:
    """QAConv against the pooled model with the highest mAP, chosen on the very same queries.

    A loss that was tried on layer3 as well counts twice.
    """
    found: list[Comparison] = []
    for source, target in DIRECTIONS:
        label, difference = f"{source} → {target}", None
        pooled = {LABELS[loss]: scores_of(profile, source, target, loss) for loss in POOLED}
        if all(pooled.values()):
            for loss, layer3 in get_profile(profile).on_layer3.items():
                if scores := scores_of(profile, source, target, loss, settings=layer3):
                    pooled[f"{LABELS[loss]} on layer3"] = scores
            best = max(pooled, key=lambda name: np.mean([s["mean_ap"] for s in pooled[name]]))
            label += f", over {best}"
            difference = compare(scores_of(profile, source, target), pooled[best])
        found.append((label, difference))
    return found


def pooled_layers(profile: str) -> list[Comparison]:
    """Pooled losses on layer4 against the same on layer3, both directions, same seeds."""
    tests = []
    for loss, on_layer3 in get_profile(profile).on_layer3.items():
        layer4 = {"loss": loss, "seeds": EXPERIMENTS["pooled-layer"].seeds}
        layer3 = layer4 | {"settings": on_layer3}
        tests.append(_test(layer4, layer3, label=f"{LABELS[loss]}, {{}} → {{}}"))
    return several(*tests)(profile)


#: Each pooled loss against softmax, both directions.
pooled_spread = several(
    *[_test({"loss": x}, {"loss": "softmax"}, label=LABELS[x] + ", {} → {}") for x in POOLED[1:]]
)


def gain_of_reranking(profile: str) -> list[Comparison]:
    """What re-ranking adds to QAConv minus what it adds to each pooled loss."""

    def gain(loss: str, source: str, target: str) -> list[dict]:
        after, before = (scores_of(profile, source, target, loss, s) for s in ("+RR", "alone"))
        if not (after and before):
            return []
        added = _precision(after) - _precision(before)
        return [{"identity": after[0]["identity"], "average_precision": added}]

    return [
        (f"over {LABELS[loss]}, {s} → {t}", compare(gain("qaconv", s, t), gain(loss, s, t)))
        for loss in POOLED
        for s, t in DIRECTIONS
    ]


def larger_backbone(stage: str) -> Test:
    """The large backbone against the small one, for every source and target of Tables 3 and 4."""
    targets = ("duke", "market") if "TLift" in stage else ("duke", "market", "cuhk03", "msmt17")
    directions = [(s, t) for s in SOURCES for t in targets if s != t]

    def found(profile: str) -> list[Comparison]:
        backbones = get_profile(profile).backbones
        how = {"stage": stage, "seeds": 3}
        large, small = (how | {"settings": backbones[size]} for size in ("large", "small"))
        return _test(large, small, directions)(profile)

    return found


#: Trained on all of MSMT17 against trained on Market or Duke, on the same target.
larger_source = _test(
    {"source": "msmt17", "seeds": 3},
    {"seeds": 3},
    (*DIRECTIONS, ("market", "cuhk03"), ("duke", "cuhk03")),
    "msmt17 over {}, → {}",
)


def sensitivity(profile: str) -> list[Comparison]:
    """TLift after re-ranking, one parameter halved or doubled, against the published values."""
    values: dict[str, tuple[float, ...]] = {"tau": (100, 50, 200), "sigma": (200, 100, 400)}
    values |= {"k": (10, 5, 20), "alpha": (0.2, 0.1)}
    rows: list[Comparison] = []
    for source, target in DIRECTIONS:
        found: dict[tuple[str, float], list[float]] = {}
        for record in tlift_records(profile, source, target):
            for row in record["sweeps"]:
                mean_ap = 100 * row["stages"]["+RR+TLift"]["mean_ap"]
                found.setdefault((row["parameter"], row["value"]), []).append(mean_ap)
        mean = {key: float(np.mean(seeds)) for key, seeds in found.items()}
        for name, (usual, *near) in values.items():
            for value in near:
                change = mean[name, value] - mean[name, usual] if mean else 0.0
                difference = Difference(change, change, change) if mean else None
                rows.append((f"{name} = {value:g}, {source} → {target}", difference))
    return rows
