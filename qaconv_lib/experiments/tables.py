"""Tables of the book and the README, drawn from records; no number is typed in."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import pandas as pd

from qaconv_lib.experiments import comparisons, suite
from qaconv_lib.experiments.comparisons import (
    LABELS,
    SUPPRESSED,
    compare,
    find_scores,
    scores_of,
    tlift_records,
)
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.published import ADAPTING, DIRECT, TABLE1, TABLE2, TABLES34
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import STAGES, Run, settings_name
from qaconv_lib.experiments.suite import (
    ABLATIONS,
    DIRECTIONS,
    EXPERIMENTS,
    WITH_WORLD,
    list_trials,
)
from qaconv_lib.losses import TABLE1_LOSSES

# Methods by the name of their row: arguments of `scores_of`.
_Methods = dict[str, dict]
_LOSSES: _Methods = {LABELS[loss]: {"loss": loss} for loss in TABLE1_LOSSES}


def headline_table(profile: str = "laptop") -> pd.DataFrame:
    """Softmax, Arc loss and QAConv across domains, after every stage: Tables 1 and 2 in short."""
    methods = {
        _row(LABELS[loss], stage): {"loss": loss, "stage": stage}
        for loss in ("softmax", "arc", "qaconv")
        for stage in STAGES
    }
    return _methods_table(profile, methods)


def table1(profile: str = "laptop") -> pd.DataFrame:
    """Every loss in both directions, and how far QAConv is ahead of it."""
    published = {LABELS[loss]: TABLE1[loss] for loss in TABLE1_LOSSES}
    ahead = {"QAConv ahead, mAP": lambda row: ("QAConv", row)}
    return _methods_table(profile, _LOSSES, ahead, published)


def within_table(profile: str = "laptop") -> pd.DataFrame:
    """Every loss tested on other people of the dataset it was trained on."""
    return _methods_table(profile, _LOSSES, directions=[(s, s) for s, _ in DIRECTIONS])


def table2(profile: str = "laptop") -> pd.DataFrame:
    """QAConv after each kind of post-processing, and the gain over QAConv alone."""
    stages = [*STAGES[:3], "+RR+TFusion", "+RR+TLift"]
    stages += ["+RR+TFusion (best)", "+RR+TFusion (labelled)"]
    stages += [f"+RR+TFusion ({kind}, own camera suppressed)" for kind in ("chosen", "best")]
    stages += ["+RR+TLift" + SUPPRESSED]
    methods = {_row("QAConv", stage): {"stage": stage} for stage in stages}
    published = {_row("QAConv", stage): TABLE2.get(stage, {}) for stage in stages}
    gain = {"gain, mAP": lambda row: (row, "QAConv")}
    return _methods_table(profile, methods, gain, published)


def table3(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on Duke and Market."""
    return _backbones(profile, ("duke", "market"), ("alone", "+RR", "+RR+TLift"))


def table4(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on CUHK03 and MSMT17, which have no times."""
    return _backbones(profile, ("cuhk03", "msmt17"), ("alone", "+RR"))


def other_methods(*targets: str) -> pd.DataFrame:
    """Tables 3 and 4 as published: methods that adapt to the target, and those that do not.

    `targets` are of "duke", "market", "cuhk03" and "msmt17".
    """
    ours: dict[str, dict] = {"alone": {}, "+RR+TLift": {}}
    for (size, stage, source, target), numbers in TABLES34.items():
        ours[stage][f"QAConv, ResNet-{_DEPTHS[size]}", source, target] = numbers
    kinds = {"adapts": ADAPTING, "direct": DIRECT | ours["alone"]}
    kinds["direct, RR + TLift"] = ours["+RR+TLift"]
    rows: dict[tuple, dict] = {}
    for kind, published in kinds.items():
        for (method, source, target), numbers in published.items():
            if target in targets:
                cells = rows.setdefault((kind, method), {})
                cells[f"{source} → {target}"] = _published(numbers)
    index = pd.MultiIndex.from_tuples(rows, names=["kind", "method"])
    table = pd.DataFrame(list(rows.values()), index).fillna("–")
    return table[sorted(table, key=lambda direction: targets.index(direction.split(" → ")[1]))]


def ablation_table(name: str, profile: str = "laptop") -> pd.DataFrame:
    """One ablation: each variant, and its difference from the first with its interval."""
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}; known are {', '.join(ABLATIONS)}")
    loss, variants = ABLATIONS[name]
    methods = _equal_seeds(name, {variant: (loss, variants[variant]) for variant in variants})
    against = {"mAP against the first": lambda row: (row, next(iter(variants)))}
    table = _methods_table(profile, methods, against, directions=DIRECTIONS[:1])
    return table.set_axis(["rank-1 / mAP", "mAP against the first"], axis=1)


def pooled_layer_table(profile: str = "laptop") -> pd.DataFrame:
    """Pooled losses on both layers, and how far QAConv, on layer3, is ahead; equal seeds."""
    chosen, compared = get_profile(profile), {}
    both = [(loss, s) for loss, layer3 in chosen.on_layer3.items() for s in ({}, layer3)]
    for loss, settings in [*both, ("qaconv", {})]:
        layer = chosen.config(loss, **settings).final_layer
        compared[f"{LABELS[loss]}, {layer}"] = loss, settings
    methods = _equal_seeds("pooled-layer", compared)
    ahead = {"QAConv ahead, mAP": lambda row: ("QAConv, layer3", row)}
    return _methods_table(profile, methods, ahead)


def graph_sampling_table(profile: str = "laptop") -> pd.DataFrame:
    """Class memory, and pairs of batches drawn in several ways; equal seeds."""
    methods = _equal_seeds("graph-sampling", suite.graph_sampling_settings(get_profile(profile)))
    against = {
        "mAP against class memory": lambda row: (row, "class memory"),
        "mAP against random people": lambda row: (row, f"{row.split(', ')[0]}, random people"),
    }
    return _methods_table(profile, methods, against)


def _equal_seeds(name: str, compared: dict[str, tuple[str, dict]]) -> _Methods:
    """Losses and settings as methods, each with an experiment's seeds: some have run more."""
    seeds = EXPERIMENTS[name].seeds
    return {
        label: {"loss": loss, "settings": settings, "seeds": seeds}
        for label, (loss, settings) in compared.items()
    }


def _methods_table(
    profile: str,
    methods: _Methods,
    against: dict[str, Callable[[str], tuple[str, str]]] | None = None,
    published: dict[str, dict] | None = None,
    directions: Iterable[tuple[str, str]] = DIRECTIONS,
) -> pd.DataFrame:
    """One row per method: scores, differences `against` another, published numbers, by direction.

    `against` gives for a row the two whose difference it shows.
    """
    names = get_profile(profile).datasets
    rows: dict[str, dict] = {label: {} for label in methods}
    for source, target in directions:
        direction = names[source] + (f" → {names[target]}" if target != source else "")
        found = {label: scores_of(profile, source, target, **methods[label]) for label in methods}
        for label, row in rows.items():
            row[direction] = _cell(found[label])
            for words, pair in (against or {}).items():
                ours, theirs = pair(label)
                other = found.get(theirs, []) if ours != theirs else []
                row[f"{words}, {direction}"] = str(compare(found[ours], other) or "–")
            if published:
                numbers = published[label].get((source, target))
                row[f"published, {source} → {target}"] = _published(numbers)
    table = pd.DataFrame(rows).T
    return table[sorted(table, key=lambda column: ("published" in column, "mAP" in column))]


def _backbones(profile: str, targets: Sequence[str], stages: Sequence[str]) -> pd.DataFrame:
    chosen, rows = get_profile(profile), []
    for source in suite.SOURCES:
        for size, settings in chosen.backbones.items():
            run = Run("qaconv", suite.source_name(chosen, source), profile, 0, settings)
            for stage in stages:
                row = {"source": run.source, "backbone": run.config().backbone, "stage": stage}
                for target in targets:
                    name, published = chosen.datasets[target], f"published, → {target}"
                    row[f"→ {name}"] = row[published] = ""
                    if target != source:
                        row[f"→ {name}"] = _cell(comparisons.find_scores(run, name, stage))
                        row[published] = _published(TABLES34.get((size, stage, source, target)))
                rows.append(row)
    return pd.DataFrame(rows).set_index(["source", "backbone", "stage"])


def tlift_table(profile: str = "laptop") -> pd.DataFrame:
    """TLift's variants, and each parameter at each value, on QAConv in both directions."""
    names = get_profile(profile).datasets
    rows: dict[str, dict] = {}
    for source, target in DIRECTIONS:
        seeds = [
            record["variants"]
            | {f"{r['parameter']} = {r['value']:g}": r["stages"] for r in record["sweeps"]}
            for record in tlift_records(profile, source, target)
        ]
        for label in seeds[0] if seeds else ():
            for stage in ("+TLift", "+RR+TLift"):
                column = f"{names[source]} → {names[target]}, {stage.replace('+', '+ ')}"
                rows.setdefault(label, {})[column] = _cell([seed[label][stage] for seed in seeds])
    return pd.DataFrame(rows).T


def cost_table(profile: str = "laptop") -> pd.DataFrame:
    """Time of each step, and the memory that it takes beyond the libraries; by device."""
    rows = {}
    for record in (r for r in read_records("cost") if r["profile"] == profile):
        bare, *steps = record["steps"]  # the first has done nothing
        for step in steps:
            row = {"time": _readable(step["seconds"]) + step["unit"], "memory": "–"}
            if step["peak_megabytes"] is not None:
                row["memory"] = f"{step['peak_megabytes'] - bare['peak_megabytes']} MB"
            rows[record["device"], step["step"], step["loss"]] = row
    table = pd.DataFrame(rows).T
    return table.rename_axis(["device", "step", "loss"]) if rows else table


def world_table(name: str, profile: str = "general") -> pd.DataFrame:
    """An experiment of the general profile: one row per model, one column per dataset."""
    rows: dict[str, dict[str, str]] = {}
    for trial in list_trials(name, profile, seeds=1):
        run = trial.run
        label = " ".join([run.loss, run.source, settings_name(run.settings)]).strip()
        rows.setdefault(label, {})[trial.target] = _cell(find_scores(run, trial.target))
    return pd.DataFrame(rows).T.fillna("–")


_DEPTHS = {"small": 50, "large": 152}  # of the paper's ResNets

#: Tables of no experiment in `EXPERIMENTS`: two from the runs of Table 1, one of measurements.
_TITLES = {"headline": "", "within": "Within a domain", "cost": "Time and memory of each step"}
_TABLES: dict[str, Callable[[str], pd.DataFrame]] = {
    "headline": headline_table, "within": within_table, "table1": table1, "table2": table2,
    "table3": table3, "table4": table4, "tlift": tlift_table, "cost": cost_table,
    "pooled-layer": pooled_layer_table, "graph-sampling": graph_sampling_table,
    **{name: partial(world_table, name) for name in WITH_WORLD},
}  # fmt: skip


def all_tables(profile: str, names: Sequence[str] = ()) -> str:
    """Tables as Markdown: "headline", "within", "cost" or experiments; else all with records."""
    titles = _TITLES | {name: experiment.title for name, experiment in EXPERIMENTS.items()}
    if unknown := [name for name in names if name not in titles]:
        raise ValueError(f"unknown table {unknown[0]!r}; known are {', '.join(titles)}")
    parts = []
    for name in names or [name for name in titles if _started(name, profile)]:
        table = _TABLES[name](profile) if name in _TABLES else ablation_table(name, profile)
        parts.append(f"{titles[name]}\n\n{to_markdown(table)}".strip())
    if not parts or not devices_of(profile):
        return f"No records at the {profile} profile yet."
    return "\n\n".join([*parts, footnote(profile)])


def _started(name: str, profile: str) -> bool:
    """Whether there is a record of what an experiment adds to the runs of Tables 1 and 3."""
    if name in WITH_WORLD:
        if profile != "general":
            return False
        return any(map(suite.find_record, list_trials(name, profile)))
    if name == "cost":
        return not cost_table(profile).empty
    if name == "tlift":
        return any(tlift_records(profile, *direction) for direction in DIRECTIONS)
    if name in ("headline", "within", "table1", "table2"):
        return any(map(suite.find_record, list_trials("table1", profile, 1)))
    runs = [] if name in ("table3", "table4") else list_trials("table3", profile)
    shared = {trial.run.name for trial in runs}
    trials = [t for t in list_trials(name, profile) if t.run.settings and t.run.name not in shared]
    return any(map(suite.find_record, trials))


def devices_of(profile: str) -> list[str]:
    """Names of the devices that a profile's tests were run on."""
    return sorted({r["device"] for r in read_records("evaluate") if r["profile"] == profile})


def footnote(profile: str = "laptop") -> str:
    """What the cells show, and on which device they were measured."""
    return (
        "Rank-1 / mAP in percent, mean ± standard deviation (number of seeds); "
        f"{profile} profile, on {', '.join(devices_of(profile)) or 'no device yet'}."
    )


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, its index as the first columns."""
    table = table.reset_index() if table.index.nlevels > 1 else table.rename_axis("").reset_index()
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _row(method: str, stage: str) -> str:
    return method + ("" if stage == "alone" else stage.replace("+", " + "))


def _readable(seconds: float) -> str:
    """A number with a prefix for its thousands: 0.0025 as "2.5 m"."""
    factors = {"": 1, "m": 1e3, "µ": 1e6, "n": 1e9}
    prefix = next((p for p, factor in factors.items() if seconds * factor >= 1), "n")
    return f"{seconds * factors[prefix]:g} {prefix}"


def _cell(found: list[dict]) -> str:
    """Rank-1 / mAP, mean ± standard deviation over the seeds, and their number."""
    if not found:
        return "–"
    values = [[100 * scores[key] for scores in found] for key in ("rank1", "mean_ap")]
    spread = [f" ± {np.std(v, ddof=1):.1f}" if len(found) > 1 else "" for v in values]
    rank1, mean_ap = (f"{np.mean(v):.1f}{more}" for v, more in zip(values, spread, strict=True))
    return f"{rank1} / {mean_ap} ({len(found)})"


def _published(pair: tuple[float, float] | None) -> str:
    return "–" if pair is None else "{:.1f} / {:.1f}".format(*pair)
