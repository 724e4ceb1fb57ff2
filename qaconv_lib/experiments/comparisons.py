"""Scores from the records, and the differences that the paper's claims are about.

`find_scores` and `compare` serve tables and chapters too. Every other function returns labelled
differences in mAP, in percent, with their intervals; None stands for what has not been run.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, paired_bootstrap
from qaconv_lib.experiments.suite import EXPERIMENTS, Trial, find_record
from qaconv_lib.experiments.variants import ABLATIONS, DIRECTIONS

Comparison = tuple[str, Difference | None]
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
    """Scores of a run and its twins with other seeds on a target, by seed; those there are.

    Args:
        run: its seed does not count.
        target: name of the dataset.
        stage: one of `STAGES`; one with TLift followed by " (own camera suppressed)"; or
            "+RR+TFusion", TFusion after re-ranking with parameters chosen on the source. After
            that, in brackets, another variant of `tfusion_record`.
        seeds: seeds looked for, from 0.
    """
    found = []
    for seed in range(seeds):
        trial = Trial(Run(run.loss, run.source, run.profile, seed, run.settings), target)
        if stage.startswith("+RR+TFusion"):
            record = find_record(trial, "tfusion")
            choice = stage.removeprefix("+RR+TFusion").strip(" ()") or "chosen"
            part = {} if record is None else {stage: record["variants"][choice]}
        elif stage.endswith(SUPPRESSED):
            record = find_record(trial, "tlift")
            key = "own camera suppressed"
            part = (
                {}
                if record is None
                else {stage: record["variants"][key][stage.removesuffix(SUPPRESSED)]}
            )
        else:
            record = find_record(trial)
            part = {} if record is None else record["stages"]
        if stage in part:
            found.append(part[stage])
    return found


def compare(ours: list[dict], theirs: list[dict], key: str = "mean_ap") -> Difference | None:
    """Difference of two methods and its interval over people, in percent; None without records.

    A query's score is averaged over the seeds of each method first. The interval draws people, each
    with all queries of theirs (chapter 8).

    Args:
        ours: scores of one method, one a seed, as `find_scores` gives them.
        theirs: scores of the other, on the same queries.
        key: "mean_ap" or "rank1".

    Raises:
        ValueError: another key, or scores of other queries.
    """
    if not ours or not theirs:
        return None
    people = ours[0]["identity"]
    if any(scores["identity"] != people for scores in (*ours, *theirs)):
        raise ValueError("the scores are not of the same queries, so they cannot be compared")
    values = []
    for scores in (ours, theirs):
        if key == "mean_ap":
            values.append(np.mean([s["average_precision"] for s in scores], axis=0))
        elif key == "rank1":
            first = [np.asarray(s["first_match_rank"]) == 1 for s in scores]
            values.append(np.mean(first, axis=0))
        else:
            raise ValueError(f"key must be mean_ap or rank1, got {key!r}")
    return paired_bootstrap(100 * (values[0] - values[1]), people)


def _scores(
    profile: str,
    loss: str,
    source: str,
    target: str,
    stage: str = "alone",
    settings: dict | None = None,
    seeds: int = 10,
) -> list[dict]:
    datasets = get_profile(profile).datasets
    images = datasets[source] + ("-all" if source == "msmt17" else "")
    run = Run(loss, images, profile, 0, settings or {})
    return find_scores(run, datasets[target], stage, seeds)


def losses(first: str, second: str) -> Callable[[str], list[Comparison]]:
    """Both directions: one loss against another."""

    def found(profile: str) -> list[Comparison]:
        return [
            (f"{s} → {t}", compare(_scores(profile, first, s, t), _scores(profile, second, s, t)))
            for s, t in DIRECTIONS
        ]

    return found


def best_pooled(profile: str) -> list[Comparison]:
    """QAConv against the pooled model with the highest mAP, chosen on the very same queries.

    A loss that was tried on layer3 as well counts twice.
    """
    found: list[Comparison] = []
    for source, target in DIRECTIONS:
        pooled = {LABELS[loss]: _scores(profile, loss, source, target) for loss in POOLED}
        label = f"{source} → {target}"
        if not all(pooled.values()):
            found.append((label, None))
            continue
        for loss, layer3 in get_profile(profile).on_layer3.items():
            if scores := _scores(profile, loss, source, target, settings=layer3):
                pooled[f"{LABELS[loss]} on layer3"] = scores
        best = max(pooled, key=lambda name: np.mean([s["mean_ap"] for s in pooled[name]]))
        difference = compare(_scores(profile, "qaconv", source, target), pooled[best])
        found.append((f"{label}, over {best}", difference))
    return found


def pooled_layers(profile: str) -> list[Comparison]:
    """Pooled losses on layer4 against the same on layer3, both directions, same seeds."""
    seeds = EXPERIMENTS["pooled-layer"].seeds
    rows = []
    for loss, on_layer3 in get_profile(profile).on_layer3.items():
        for source, target in DIRECTIONS:
            layer4, layer3 = (
                _scores(profile, loss, source, target, settings=settings, seeds=seeds)
                for settings in ({}, on_layer3)
            )
            rows.append((f"{LABELS[loss]}, {source} → {target}", compare(layer4, layer3)))
    return rows


def pooled_spread(profile: str) -> list[Comparison]:
    """Each pooled loss against softmax, both directions."""
    return [
        (f"{LABELS[loss]}, {label}", difference)
        for loss in POOLED[1:]
        for label, difference in losses(loss, "softmax")(profile)
    ]


def stages(first: str, second: str, loss: str = "qaconv") -> Callable[[str], list[Comparison]]:
    """Both directions: one stage of post-processing against another."""

    def found(profile: str) -> list[Comparison]:
        return [
            (
                f"{s} → {t}",
                compare(_scores(profile, loss, s, t, first), _scores(profile, loss, s, t, second)),
            )
            for s, t in DIRECTIONS
        ]

    return found


def gain_of_reranking(profile: str) -> list[Comparison]:
    """What re-ranking adds to QAConv minus what it adds to each pooled loss."""
    found = []
    for loss in POOLED:
        for source, target in DIRECTIONS:
            parts = [
                _scores(profile, one, source, target, stage)
                for one in ("qaconv", loss)
                for stage in ("+RR", "alone")
            ]
            difference = None
            if all(parts):
                ours, theirs = (_gain(*parts[i : i + 2]) for i in (0, 2))
                difference = compare([ours], [theirs])
            found.append((f"over {LABELS[loss]}, {source} → {target}", difference))
    return found


def _gain(after: list[dict], before: list[dict]) -> dict:
    means = [
        np.mean([s["average_precision"] for s in scores], axis=0) for scores in (after, before)
    ]
    return {"identity": after[0]["identity"], "average_precision": means[0] - means[1]}


def ablation(name: str, better: str, worse: str) -> Callable[[str], list[Comparison]]:
    """One variant of an ablation against another."""
    loss, variants = ABLATIONS[name]

    def found(profile: str) -> list[Comparison]:
        source, target = DIRECTIONS[0]
        seeds = EXPERIMENTS[name].seeds
        ours, theirs = (
            _scores(profile, loss, source, target, settings=variants[variant], seeds=seeds)
            for variant in (better, worse)
        )
        return [(f"{source} → {target}", compare(ours, theirs))]

    return found


def several(*parts: Callable[[str], list[Comparison]]) -> Callable[[str], list[Comparison]]:
    """The comparisons of all parts."""
    return lambda profile: [comparison for part in parts for comparison in part(profile)]


def larger_backbone(stage: str) -> Callable[[str], list[Comparison]]:
    """The large backbone against the small one, for every source and target of Tables 3 and 4."""

    def found(profile: str) -> list[Comparison]:
        sizes = get_profile(profile).backbones
        rows = []
        for source in ("market", "duke", "msmt17"):
            for target in ("duke", "market") + (() if "TLift" in stage else ("cuhk03", "msmt17")):
                if source != target:
                    large, small = (
                        _scores(profile, "qaconv", source, target, stage, sizes[size], 3)
                        for size in ("large", "small")
                    )
                    rows.append((f"{source} → {target}", compare(large, small)))
        return rows

    return found


def larger_source(profile: str) -> list[Comparison]:
    """Trained on all of MSMT17 against trained on Market or Duke, on the same target."""
    rows = []
    for source, target in (*DIRECTIONS, ("market", "cuhk03"), ("duke", "cuhk03")):
        large = _scores(profile, "qaconv", "msmt17", target, seeds=3)
        small = _scores(profile, "qaconv", source, target, seeds=3)
        rows.append((f"msmt17 over {source}, → {target}", compare(large, small)))
    return rows


def sensitivity(profile: str) -> list[Comparison]:
    """TLift after re-ranking, one parameter halved or doubled, against the published values."""
    usual = {"tau": 100, "sigma": 200, "k": 10, "alpha": 0.2}
    near = {"tau": (50, 200), "sigma": (100, 400), "k": (5, 20), "alpha": (0.1,)}
    rows = []
    for source, target in DIRECTIONS:
        found = _tlift_means(profile, source, target)
        for parameter, values in near.items():
            for value in values:
                if found:
                    change = found[parameter, value] - found[parameter, usual[parameter]]
                    difference = Difference(change, change, change)
                else:
                    difference = None
                rows.append((f"{parameter} = {value:g}, {source} → {target}", difference))
    return rows


def _tlift_means(profile: str, source: str, target: str) -> dict[tuple[str, float], float]:
    """mAP after re-ranking and TLift in percent, by parameter and value, averaged over seeds."""
    datasets = get_profile(profile).datasets
    found: dict[tuple[str, float], list[float]] = {}
    for seed in range(EXPERIMENTS["tlift"].seeds):
        trial = Trial(Run("qaconv", datasets[source], profile, seed), datasets[target])
        record = find_record(trial, "tlift")
        for row in record["sweeps"] if record else ():
            key = row["parameter"], row["value"]
            found.setdefault(key, []).append(100 * row["stages"]["+RR+TLift"]["mean_ap"])
    return {key: float(np.mean(values)) for key, values in found.items()}
