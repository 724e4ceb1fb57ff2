"""Tables of the book and the README, drawn from records; no number is typed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

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
from qaconv_lib.experiments.runs import STAGES, Run
from qaconv_lib.experiments.statistics import mean_and_deviation
from qaconv_lib.experiments.suite import EXPERIMENTS, find_record, list_trials
from qaconv_lib.experiments.variants import (
    ABLATIONS,
    DIRECTIONS,
    SOURCES,
    graph_sampling_settings,
    source_name,
)
from qaconv_lib.losses import TABLE1_LOSSES


def headline_table(profile: str = "laptop") -> pd.DataFrame:
    """Softmax, Arc loss and QAConv across domains, after every stage: Tables 1 and 2 in short."""
    rows = {
        _row(LABELS[loss], stage): {
            direction: _cell(scores_of(profile, source, target, loss, stage))
            for source, target, direction in _directions(profile)
        }
        for loss in ("softmax", "arc", "qaconv")
        for stage in STAGES
    }
    return pd.DataFrame(rows).T


def table1(profile: str = "laptop") -> pd.DataFrame:
    """What the loss contributes: every loss in both directions, and how far QAConv is ahead."""
    rows: dict[str, dict] = {}
    for source, target, direction in _directions(profile):
        ours = scores_of(profile, source, target)
        for loss in TABLE1_LOSSES:
            found, row = scores_of(profile, source, target, loss), rows.setdefault(LABELS[loss], {})
            row[direction] = _cell(found)
            ahead = _gain(ours, found if loss != "qaconv" else [])
            row[f"QAConv ahead, mAP, {direction}"] = ahead
            row[f"published, {source} → {target}"] = _published(TABLE1[loss][source, target])
    return _ordered(rows)


def within_table(profile: str = "laptop") -> pd.DataFrame:
    """Every loss tested on other people of the dataset it was trained on."""
    names = get_profile(profile).datasets
    rows = {
        LABELS[loss]: {
            names[source]: _cell(scores_of(profile, source, source, loss))
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
    rows: dict[str, dict] = {}
    for source, target, direction in _directions(profile):
        alone = scores_of(profile, source, target)
        for stage in stages:
            found = scores_of(profile, source, target, stage=stage)
            row = rows.setdefault(_row("QAConv", stage), {})
            row[direction] = _cell(found)
            row[f"gain, mAP, {direction}"] = _gain(found if stage != "alone" else [], alone)
            published = TABLE2.get(stage, {}).get((source, target))
            row[f"published, {source} → {target}"] = _published(published)
    return _ordered(rows)


def table3(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on Duke and Market."""
    return _backbones(profile, ("duke", "market"), ("alone", "+RR", "+RR+TLift"))


def table4(profile: str = "laptop") -> pd.DataFrame:
    """Two backbones and three sources, tested on CUHK03 and MSMT17, which have no times."""
    return _backbones(profile, ("cuhk03", "msmt17"), ("alone", "+RR"))


def other_methods(*targets: str) -> pd.DataFrame:
    """Tables 3 and 4 as published: methods that adapt to the target, and those that do not.

    Args:
        targets: of "duke", "market", "cuhk03" and "msmt17".
    """
    ours: dict[str, dict] = {"alone": {}, "+RR+TLift": {}}
    for (size, stage, source, target), numbers in TABLES34.items():
        ours[stage][f"QAConv, ResNet-{_DEPTHS[size]}", source, target] = numbers
    rows: dict[tuple, dict] = {}
    for kind, published in (
        ("adapts", ADAPTING),
        ("direct", DIRECT | ours["alone"]),
        ("direct, RR + TLift", ours["+RR+TLift"]),
    ):
        for (method, source, target), numbers in published.items():
            if target in targets:
                row = rows.setdefault((kind, method), {})
                row[f"{source} → {target}"] = _published(numbers)
    table = pd.DataFrame.from_dict(rows, orient="index").fillna("–").rename_axis(["kind", "method"])
    return table[sorted(table, key=lambda direction: targets.index(direction.split(" → ")[1]))]


def _backbones(profile: str, targets: Sequence[str], stages: Sequence[str]) -> pd.DataFrame:
    chosen, rows = get_profile(profile), []
    for source in SOURCES:
        for size, settings in chosen.backbones.items():
            run = Run("qaconv", source_name(chosen, source), profile, 0, settings)
            for stage in stages:
                row = {"source": run.source, "backbone": run.config().backbone, "stage": stage}
                for target in targets:
                    name, published = chosen.datasets[target], f"published, → {target}"
                    row[f"→ {name}"] = row[published] = ""
                    if target != source:
                        row[f"→ {name}"] = _cell(find_scores(run, name, stage))
                        row[published] = _published(TABLES34.get((size, stage, source, target)))
                rows.append(row)
    return pd.DataFrame(rows).set_index(["source", "backbone", "stage"])


def ablation_table(name: str, profile: str = "laptop") -> pd.DataFrame:
    """One ablation: each variant, and its difference from the first with its interval."""
    if name not in ABLATIONS:
        raise ValueError(f"unknown ablation {name!r}; known are {', '.join(ABLATIONS)}")
    loss, variants = ABLATIONS[name]
    seeds = EXPERIMENTS[name].seeds  # Table 1 may have run more of the first variant
    found = {
        variant: scores_of(profile, *DIRECTIONS[0], loss, settings=settings, seeds=seeds)
        for variant, settings in variants.items()
    }
    first = next(iter(variants))
    rows = {
        variant: {
            "rank-1 / mAP": _cell(scores),
            "mAP against the first": _gain(scores if variant != first else [], found[first]),
        }
        for variant, scores in found.items()
    }
    return pd.DataFrame(rows).T


def pooled_layer_table(profile: str = "laptop") -> pd.DataFrame:
    """Pooled losses on both layers, and how far QAConv, on layer3, is ahead; equal seeds."""
    seeds, layer3 = EXPERIMENTS["pooled-layer"].seeds, get_profile(profile).on_layer3
    kinds = [(loss, s) for loss in layer3 for s in ({}, layer3[loss])] + [("qaconv", {})]
    rows: dict[str, dict] = {}
    for source, target, direction in _directions(profile):
        ours = scores_of(profile, source, target, seeds=seeds)
        for loss, settings in kinds:
            found = scores_of(profile, source, target, loss, settings=settings, seeds=seeds)
            layer = get_profile(profile).config(loss, **settings).final_layer
            row = rows.setdefault(f"{LABELS[loss]}, {layer}", {})
            row[direction] = _cell(found)
            ahead = _gain(ours, found if loss != "qaconv" else [])
            row[f"QAConv ahead, mAP, {direction}"] = ahead
    return _ordered(rows)


def graph_sampling_table(profile: str = "laptop") -> pd.DataFrame:
    """Class memory, and pairs of batches drawn in several ways; equal seeds.

    Each row is held against the class memory, and each sampler against random people.
    """
    seeds = EXPERIMENTS["graph-sampling"].seeds
    rows: dict[str, dict] = {}
    for source, target, direction in _directions(profile):
        found = {
            label: scores_of(profile, source, target, loss, settings=settings, seeds=seeds)
            for label, (loss, settings) in graph_sampling_settings(get_profile(profile)).items()
        }
        for label, scores in found.items():
            form, _, drawn = label.partition(", ")
            row = rows.setdefault(label, {})
            row[direction] = _cell(scores)
            for words, other in (
                ("class memory", "class memory"),
                ("random people", f"{form}, random people"),
            ):
                compared = drawn and label != other
                against = _gain(scores, found[other]) if compared else "–"
                row[f"mAP against {words}, {direction}"] = against
    return _ordered(rows)


def tlift_table(profile: str = "laptop") -> pd.DataFrame:
    """TLift's variants, and each parameter at each value, on QAConv in both directions."""
    rows: dict[str, dict] = {}
    for source, target, direction in _directions(profile):
        labelled: dict[str, list[dict]] = {}
        for record in tlift_records(profile, source, target):
            for variant, stages in record["variants"].items():
                labelled.setdefault(variant, []).append(stages)
            for row in record["sweeps"]:
                label = f"{row['parameter']} = {row['value']:g}"
                labelled.setdefault(label, []).append(row["stages"])
        for label, found in labelled.items():
            for stage in ("+TLift", "+RR+TLift"):
                column = f"{direction}, {stage.replace('+', '+ ')}"
                rows.setdefault(label, {})[column] = _cell([stages[stage] for stages in found])
    return pd.DataFrame(rows).T


def cost_table(profile: str = "laptop") -> pd.DataFrame:
    """Time of each step, and the memory that it takes beyond the libraries; by device."""
    from matplotlib.ticker import EngFormatter

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


_DEPTHS = {"small": 50, "large": 152}  # of the paper's ResNets

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


def all_tables(profile: str, names: Sequence[str] = ()) -> str:
    """Tables as Markdown: the named ones, or all that have records.

    Args:
        profile: smoke, laptop or paper.
        names: "headline", "within", "cost" and names of experiments.
    """
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
    if name in ("headline", "within", "table1", "table2"):
        return any(find_record(trial) for trial in list_trials("table1", profile, 1))
    if name == "cost":
        return not cost_table(profile).empty
    trials, folder = list_trials(name, profile), "tlift" if name == "tlift" else "evaluate"
    if name != "tlift":
        runs = [] if name in ("table3", "table4") else list_trials("table3", profile)
        shared = {trial.run.name for trial in runs}
        trials = [t for t in trials if t.run.settings and t.run.name not in shared]
    return any(find_record(trial, folder) for trial in trials)


def devices_of(profile: str) -> list[str]:
    """Names of the devices that a profile's tests were run on."""
    return sorted({r["device"] for r in read_records("evaluate") if r["profile"] == profile})


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


def _directions(profile: str) -> Iterator[tuple[str, str, str]]:
    """Source and target by role, and what the column is called."""
    names = get_profile(profile).datasets
    for source, target in DIRECTIONS:
        yield source, target, f"{names[source]} → {names[target]}"


def _row(method: str, stage: str) -> str:
    return method + ("" if stage == "alone" else stage.replace("+", " + "))


def _cell(found: list[dict]) -> str:
    """Rank-1 / mAP, mean ± standard deviation, and the number of seeds."""
    parts = []
    for key in ("rank1", "mean_ap") if found else ():
        mean, deviation = mean_and_deviation([100 * scores[key] for scores in found])
        parts.append(f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(found) > 1 else ""))
    return f"{' / '.join(parts)} ({len(found)})" if found else "–"


def _gain(ours: list[dict], theirs: list[dict]) -> str:
    """A difference in mAP and its interval; a dash where there is nothing to compare."""
    difference = compare(ours, theirs)
    return "–" if difference is None else str(difference)


def _published(pair: tuple[float, float] | None) -> str:
    return "–" if pair is None else "{:.1f} / {:.1f}".format(*pair)


def _ordered(rows: dict[str, dict]) -> pd.DataFrame:
    """Columns of one kind side by side: ours, the differences, the published ones."""
    table = pd.DataFrame(rows).T
    kinds = [lambda c: "→" in c and "," not in c, lambda c: "mAP" in c, lambda c: "pub" in c]
    return table[[column for kind in kinds for column in table.columns if kind(column)]]
