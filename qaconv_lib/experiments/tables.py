"""Tables of the book and the README, drawn from records; no number is typed in."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.ticker import EngFormatter

from qaconv_lib.experiments._cells import cell, interval, ordered, published
from qaconv_lib.experiments.comparisons import LABELS, SUPPRESSED, compare, find_scores
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.published import TABLE1, TABLE2, TABLES34
from qaconv_lib.experiments.records import read_records
from qaconv_lib.experiments.runs import STAGES, Run
from qaconv_lib.experiments.suite import (
    EXPERIMENTS,
    Trial,
    find_record,
    get_experiment,
    list_trials,
)
from qaconv_lib.experiments.variants import ABLATIONS, DIRECTIONS, graph_sampling_settings
from qaconv_lib.losses import TABLE1_LOSSES

_ARROW = "{} → {}"


def headline_table(profile: str = "laptop") -> pd.DataFrame:
    """Softmax and QAConv across domains, after every stage: Tables 1 and 2 in short."""
    rows = {}
    for loss in ("softmax", "qaconv"):
        for stage in STAGES:
            name = LABELS[loss] if stage == "alone" else LABELS[loss] + stage.replace("+", " + ")
            rows[name] = {
                _direction(profile, source, target): cell(
                    find_scores(_run(loss, source, profile), _name(profile, target), stage)
                )
                for source, target in DIRECTIONS
            }
    return pd.DataFrame(rows).T


def table1(profile: str = "laptop") -> pd.DataFrame:
    """What the loss contributes: every loss in both directions, and how far QAConv is ahead."""
    rows = {}
    for loss in TABLE1_LOSSES:
        row = {}
        for source, target in DIRECTIONS:
            name, direction = _name(profile, target), _direction(profile, source, target)
            found = find_scores(_run(loss, source, profile), name)
            row[direction] = cell(found)
            ahead = compare(find_scores(_run("qaconv", source, profile), name), found)
            row[f"QAConv ahead, mAP, {direction}"] = "–" if loss == "qaconv" else interval(ahead)
            row[f"published, {_ARROW.format(source, target)}"] = published(
                TABLE1[loss][source, target]
            )
        rows[LABELS[loss]] = row
    return ordered(rows)


def within_table(profile: str = "laptop") -> pd.DataFrame:
    """Every loss tested on other people of the dataset it was trained on."""
    rows = {
        LABELS[loss]: {
            _name(profile, source): cell(
                find_scores(_run(loss, source, profile), _name(profile, source))
            )
            for source, _ in DIRECTIONS
        }
        for loss in TABLE1_LOSSES
    }
    return pd.DataFrame(rows).T


def table2(profile: str = "laptop") -> pd.DataFrame:
    """QAConv after each kind of post-processing, and what that adds to QAConv alone."""
    stages = [*STAGES[:3], "+RR+TFusion", "+RR+TLift"]
    stages += ["+RR+TFusion (best)", "+RR+TFusion (labelled)"]
    stages += [f"+RR+TFusion ({kind}, own camera suppressed)" for kind in ("chosen", "best")]
    stages += ["+RR+TLift" + SUPPRESSED]
    rows = {}
    for stage in stages:
        row = {}
        for source, target in DIRECTIONS:
            run, name = _run("qaconv", source, profile), _name(profile, target)
            direction = _direction(profile, source, target)
            found, alone = find_scores(run, name, stage), find_scores(run, name)
            row[direction] = cell(found)
            gain = "–" if stage == "alone" else interval(compare(found, alone))
            row[f"gain, mAP, {direction}"] = gain
            row[f"published, {_ARROW.format(source, target)}"] = published(
                TABLE2.get(stage, {}).get((source, target))
            )
        rows["QAConv" + ("" if stage == "alone" else stage.replace("+", " + "))] = row
    return ordered(rows)


def table3(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on Duke and Market."""
    return _backbones(profile, ("duke", "market"), ("alone", "+RR", "+RR+TLift"))


def table4(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on CUHK03 and MSMT17, which have no times."""
    return _backbones(profile, ("cuhk03", "msmt17"), ("alone", "+RR"))


def _backbones(profile: str, targets: Sequence[str], stages: Sequence[str]) -> pd.DataFrame:
    chosen, rows = get_profile(profile), []
    for source in ("market", "duke", "msmt17"):
        for size, settings in chosen.backbones.items():
            images = chosen.datasets[source] + ("-all" if source == "msmt17" else "")
            run = Run("qaconv", images, profile, 0, settings)
            for stage in stages:
                row = {"source": images, "backbone": run.config().backbone, "stage": stage}
                for target in targets:
                    name = chosen.datasets[target]
                    if target == source:
                        row[f"→ {name}"] = row[f"published, → {target}"] = ""
                        continue
                    row[f"→ {name}"] = cell(find_scores(run, name, stage))
                    row[f"published, → {target}"] = published(
                        TABLES34.get((size, stage, source, target))
                    )
                rows.append(row)
    return pd.DataFrame(rows).set_index(["source", "backbone", "stage"])


def ablation_table(name: str, profile: str = "laptop") -> pd.DataFrame:
    """One ablation: each variant, and its difference from the first with its interval."""
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}; known are {', '.join(ABLATIONS)}")
    loss, variants = ABLATIONS[name]
    seeds = EXPERIMENTS[name].seeds  # Table 1 may have run more of the first variant
    rows, first = {}, None
    source, target = DIRECTIONS[0]
    for variant, settings in variants.items():
        run = Run(loss, _name(profile, source), profile, 0, settings)
        found = find_scores(run, _name(profile, target), seeds=seeds)
        first = found if first is None else first
        rows[variant] = {
            "rank-1 / mAP": cell(found),
            "mAP against the first": "–" if found is first else interval(compare(found, first)),
        }
    return pd.DataFrame(rows).T


def pooled_layer_table(profile: str = "laptop") -> pd.DataFrame:
    """Pooled losses on both layers, and how far QAConv, on layer3, is ahead; equal seeds."""
    seeds, rows = EXPERIMENTS["pooled-layer"].seeds, {}
    layer3 = get_profile(profile).on_layer3
    kinds = [(loss, s) for loss in layer3 for s in ({}, layer3[loss])] + [("qaconv", {})]
    for loss, settings in kinds:
        row = {}
        for source, target in DIRECTIONS:
            run, ours = (
                Run(x, _name(profile, source), profile, 0, s)
                for x, s in ((loss, settings), ("qaconv", {}))
            )
            name, direction = _name(profile, target), _direction(profile, source, target)
            found = find_scores(run, name, seeds=seeds)
            row[direction] = cell(found)
            ahead = compare(find_scores(ours, name, seeds=seeds), found)
            row[f"QAConv ahead, mAP, {direction}"] = "–" if loss == "qaconv" else interval(ahead)
        rows[f"{LABELS[loss]}, {run.config().final_layer}"] = row
    return ordered(rows)


def graph_sampling_table(profile: str = "laptop") -> pd.DataFrame:
    """Class memory, and pairs of batches drawn in several ways; equal seeds.

    Each row is held against the class memory, and each sampler against random people.
    """
    seeds = EXPERIMENTS["graph-sampling"].seeds
    compared = graph_sampling_settings(get_profile(profile))
    rows: dict[str, dict] = {}
    for source, target in DIRECTIONS:
        name, direction = _name(profile, target), _direction(profile, source, target)
        found = {
            label: find_scores(
                Run(loss, _name(profile, source), profile, 0, settings), name, seeds=seeds
            )
            for label, (loss, settings) in compared.items()
        }
        for label, scores in found.items():
            form, _, drawn = label.partition(", ")
            row = rows.setdefault(label, {})
            row[direction] = cell(scores)
            for words, other in (
                ("class memory", "class memory"),
                ("random people", f"{form}, random people"),
            ):
                same = label == other or not drawn
                against = "–" if same else interval(compare(scores, found[other]))
                row[f"mAP against {words}, {direction}"] = against
    return ordered(rows)


def tlift_table(profile: str = "laptop") -> pd.DataFrame:
    """TLift's variants, and each parameter at each value, on QAConv in both directions."""
    rows: dict[str, dict] = {}
    for source, target in DIRECTIONS:
        run, name = _run("qaconv", source, profile), _name(profile, target)
        seeds = range(EXPERIMENTS["tlift"].seeds)
        trials = [Trial(Run(run.loss, run.source, run.profile, seed), name) for seed in seeds]
        found = [record for trial in trials if (record := find_record(trial, "tlift"))]
        labelled: dict[str, list[dict]] = {}
        for record in found:
            for variant, stages in record["variants"].items():
                labelled.setdefault(variant, []).append(stages)
            for row in record["sweeps"]:
                label = f"{row['parameter']} = {row['value']:g}"
                labelled.setdefault(label, []).append(row["stages"])
        for label, stages in labelled.items():
            for stage in ("+TLift", "+RR+TLift"):
                column = (
                    f"{_direction(profile, source, target)}, {stage.replace('+', '+ ').strip()}"
                )
                rows.setdefault(label, {})[column] = cell([s[stage] for s in stages])
    return pd.DataFrame(rows).T


def cost_table(profile: str = "laptop") -> pd.DataFrame:
    """Time of each step, and the memory that it takes beyond the libraries; by device."""
    readable, rows = EngFormatter(sep=" "), {}
    for record in (r for r in read_records("cost") if r["profile"] == profile):
        bare, *steps = record["steps"]  # the first has done nothing
        for step in steps:
            row = {"time": readable(step["seconds"]) + step["unit"], "memory": "–"}
            if step["peak_megabytes"] is not None:
                row["memory"] = f"{step['peak_megabytes'] - bare['peak_megabytes']} MB"
            rows[record["device"], step["step"], step["loss"]] = row
    table = pd.DataFrame(rows).T
    return table.rename_axis(["device", "step", "loss"]) if rows else table


def all_tables(profile: str, names: Sequence[str] = ()) -> str:
    """Tables as Markdown: the named ones, or all that have records.

    Args:
        profile: smoke, laptop or paper.
        names: "headline", "within" and names of experiments.

    Raises:
        ValueError: an unknown name.
    """
    known = (*_TITLES, *EXPERIMENTS)
    for name in names:
        if name not in known:
            raise ValueError(f"unknown table {name!r}; known are {', '.join(known)}")
    parts = []
    for name in names or known:
        title = _TITLES[name] if name in _TITLES else get_experiment(name).title
        if names or _started(name, profile):
            table = _TABLES[name](profile) if name in _TABLES else ablation_table(name, profile)
            parts.append(f"{title}\n\n{to_markdown(table)}".strip())
    if not parts or not devices_of(profile):
        return f"No records at the {profile} profile yet."
    return "\n\n".join([*parts, footnote(profile)])


def footnote(profile: str = "laptop") -> str:
    """What the cells are, and the device that they come from."""
    return (
        "Rank-1 / mAP in percent, mean ± standard deviation over the seeds, their number in "
        f"brackets; {profile} profile, on {', '.join(devices_of(profile)) or 'no device yet'}."
    )


def to_markdown(table: pd.DataFrame) -> str:
    """A table of text as Markdown, its index as the first columns."""
    table = table.reset_index() if table.index.nlevels > 1 else table.rename_axis("").reset_index()
    lines = [list(table.columns), ["---"] * table.shape[1], *table.to_numpy().tolist()]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def _started(name: str, profile: str) -> bool:
    """Whether there is a record of what an experiment adds to the runs of Tables 1 and 3."""
    if name in ("headline", "within", "table1", "table2"):
        return any(find_record(trial) for trial in list_trials("table1", profile, 1))
    if name == "cost":
        return not cost_table(profile).empty
    if name == "tlift":
        return any(find_record(trial, "tlift") for trial in list_trials(name, profile))
    shared = set() if name in ("table3", "table4") else set(_run_names("table3", profile))
    own = (t for t in list_trials(name, profile) if t.run.settings and t.run.name not in shared)
    return any(find_record(trial) for trial in own)


def _run_names(experiment: str, profile: str) -> list[str]:
    return [trial.run.name for trial in list_trials(experiment, profile)]


#: Tables of no experiment in `EXPERIMENTS`: two from the runs of Table 1, one of measurements.
_TITLES = {"headline": "", "within": "Within a domain", "cost": "Time and memory of each step"}
_TABLES = {
    "headline": headline_table,
    "within": within_table,
    "table1": table1,
    "table2": table2,
    "table3": table3,
    "table4": table4,
    "tlift": tlift_table,
    "pooled-layer": pooled_layer_table,
    "graph-sampling": graph_sampling_table,
    "cost": cost_table,
}


def devices_of(profile: str) -> list[str]:
    """Names of the devices that a profile's tests were run on."""
    return sorted({r["device"] for r in read_records("evaluate") if r["profile"] == profile})


def _run(loss: str, source: str, profile: str) -> Run:
    return Run(loss, _name(profile, source), profile)


def _name(profile: str, role: str) -> str:
    return get_profile(profile).datasets[role]


def _direction(profile: str, source: str, target: str) -> str:
    return _ARROW.format(_name(profile, source), _name(profile, target))
