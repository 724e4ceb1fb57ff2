"""How good the correspondences of a model are on another domain: the record (chapter 11)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import pandas as pd

from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments import records
from qaconv_lib.experiments.comparisons import Comparison, Test
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, paired_bootstrap
from qaconv_lib.experiments.suite import DIRECTIONS
from qaconv_lib.matches import pairs as matching
from qaconv_lib.matches.correspondence import BODY_PARTS, LEAST
from qaconv_lib.models import default_device, load_model

#: Shares of the matches that are kept, those of the highest similarity first.
KEPT = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_FOLDER = "correspondence"
_REPEATS = 1000  # of the bootstrap
_BOUNDS = {  # of groups of matches
    "viewpoint": (0, 45, 90, 135, 180),  # degrees between the walks
    "hidden": (0, 0.01, 0.1, 1),
    "aligned": (0, 1 / 3, 2 / 3, 1),
}


def correspondence_record(run: Run, target: str, *, device: str | None = None) -> dict:
    """Measure the matches of a trained model on a dataset of another domain; write the record.

    The run's QAConv model must exist, and so must that of the same run with softmax. The target is
    a miniature; others have no part maps.

    Returns:
        The record, per kind of features and of pairs. `rows` has the share of right matches among
        those whose part the gallery image shows, for all and in groups, with intervals over people;
        `differences` that of QAConv minus the others; `reliability` the share by similarity, among
        all matches from the person; `ends` where matches end; `tells` how often a query is more
        similar, by the mean of its best matches, to the partner of its true pair than to another;
        `changes` where similarities fall when one thing about a person changes.
    """
    if run.loss != "qaconv":
        raise ValueError(f"correspondence needs a run with qaconv, got {run.loss!r}")
    start, device = time.perf_counter(), device or str(default_device())
    model = load_model(run.checkpoint(), device)
    pooled = load_model(Run("softmax", run.source, run.profile, run.seed).checkpoint(), device)
    dataset = load_dataset(target)
    maps = [model.extract(part) for part in (dataset.query, dataset.gallery)]
    scores = model.similarity(*maps).numpy(force=True)
    scene = matching.choose_pairs(scores, dataset)
    networks = matching.feature_maps(model, pooled)
    tables = matching.match_pairs(networks, model, scene, target)
    people, locations = dataset.query["identity"].nunique(), np.prod(maps[0].shape[2:])
    protocol = {"queries": len(dataset.query), "people": int(people), "locations": int(locations)}
    record = {
        "experiment": _FOLDER,
        **run.about,
        "target": target,
        "protocol": protocol | {"least": LEAST, "seed": matching.SEED, "repeats": _REPEATS},
        "partners": {kind: rows.tolist() for kind, rows in scene.partners.items()},
        "rows": list(_rows(tables)),
        "differences": list(_differences(tables)),
        "reliability": list(_reliability(tables)),
        "ends": list(_ends(tables)),
        "tells": list(_tells(tables)),
        "changes": list(_changes(matching.match_changes(networks, model, scene, target))),
        "seconds": round(time.perf_counter() - start, 1),
        **records.provenance(device),
    }
    records.write_record(_FOLDER, f"{run.name}-on-{target}", record)
    return record


def _each(tables: matching.Tables) -> Iterator[tuple[dict, pd.DataFrame]]:
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            yield {"features": features, "pairs": kind}, table


def _rows(tables: matching.Tables) -> Iterator[dict]:
    for about, table in _each(tables):
        for by, value, part in _groups(table[table["visible"]]):
            row = about | {"by": by, "value": value}
            yield row | _share(part, "right") | {"similarity": _round(part["similarity"].mean())}
            if about["features"] == "QAConv" and by not in ("kept", "mutual"):
                for column in ("same_place", "chance"):
                    yield row | {"features": column.replace("_", " ")} | _share(part, column)
        row = about | {"by": "least", "value": matching.OTHER_LEAST}
        yield row | _share(table[table["strict_visible"]], "strict_right")


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str | float, pd.DataFrame]]:
    yield "all", "", table
    for part in BODY_PARTS:
        yield "part", part, table[table["part"] == part]
    for trait, bounds in _BOUNDS.items():
        for low, high in itertools.pairwise(bounds):
            last = high == bounds[-1]
            yield trait, low, table[(table[trait] >= low) & ((table[trait] < high) | last)]
    for value, mutual in (("yes", table["mutual"]), ("no", ~table["mutual"])):
        yield "mutual", value, table[mutual]
    ordered = table.sort_values("similarity", ascending=False, kind="stable")
    for share in KEPT:
        yield "kept", share, ordered.head(round(share * len(ordered)))


def _share(table: pd.DataFrame, column: str) -> dict:
    """A share among matches, its 95 % interval over people, and the number of matches."""
    if not len(table):
        return {"share": None, "low": None, "high": None, "matches": 0}
    found = paired_bootstrap(table[column].astype(float), table["person"], repeats=_REPEATS)
    named = zip(("share", "low", "high"), found[:3], strict=True)
    return {name: _round(value) for name, value in named} | {"matches": len(table)}


def _differences(tables: matching.Tables) -> Iterator[dict]:
    for kind, ours in tables["QAConv"].items():
        ours = ours[ours["visible"]]
        others = {name: kinds[kind] for name, kinds in tables.items() if name != "QAConv"}
        columns = {name: table["right"].loc[ours.index] for name, table in others.items()}
        columns |= {"same place": ours["same_place"], "chance": ours["chance"]}
        for name, column in columns.items():
            change = ours["right"].astype(float) - column.astype(float)
            yield {"pairs": kind, "over": name} | _share(ours.assign(change=change), "change")


def _reliability(tables: matching.Tables) -> Iterator[dict]:
    """Right matches by similarity, in steps of 0.1; a part that is not visible makes it wrong."""
    for about, table in _each(tables):
        table = table[table["on_body"]]
        for value, part in table.groupby(np.floor(table["similarity"] * 10).clip(-10, 9)):
            row = about | {"from": _round(value / 10)} | _share(part, "right")
            yield row | {"similarity": _round(part["similarity"].mean())}


def _ends(tables: matching.Tables) -> Iterator[dict]:
    for about, table in _each(tables):
        body, background = table["found"].isin(BODY_PARTS), table["found"] == "background"
        ends = {
            "same part": table["right"],
            "another part": body & ~table["right"],
            "background": background,
            "others": ~body & ~background,
        }
        starts = {"person": table["on_body"], "background": table["part"] == "background"}
        for start, chosen in starts.items():
            shares = {name: _round(column[chosen].mean()) for name, column in ends.items()}
            yield about | {"start": start} | shares | {"matches": int(chosen.sum())}


def _tells(tables: matching.Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        true, *others = (table.groupby("pair")["similarity"].mean() for table in kinds.values())
        people = kinds["true pairs"].groupby("pair")["person"].first()
        for kind, other in zip(list(kinds)[1:], others, strict=True):
            table = pd.DataFrame({"person": people, "higher": true > other})
            row = {"features": features, "over": kind, "mean": _round(true.mean())}
            yield row | {"mean_over": _round(other.mean())} | _share(table, "higher")


def _changes(tables: Iterable[tuple[str, str, pd.DataFrame]]) -> Iterator[dict]:
    for change, features, table in tables:
        means = {k: _round(table[k].mean()) for k in ("chance", "fall", "elsewhere")}
        yield {"change": change, "features": features} | _share(table, "hit") | means


def _round(value: float) -> float | None:
    """Five digits; None for the mean of nothing."""
    return None if np.isnan(value) else float(f"{value:.5g}")


def _both_ways(profile: str) -> Iterator[tuple[str, Run, str, dict | None]]:
    """Both directions between Market and Duke: a label, the run, the target and the record."""
    names = get_profile(profile).datasets
    for source, target in DIRECTIONS:
        run = Run("qaconv", names[source], profile)
        record = records.read_record(_FOLDER, f"{run.name}-on-{names[target]}")
        yield f"{source} → {target}", run, names[target], record


def run_correspondence(
    profile: str = "laptop",
    device: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Measure both directions between Market and Duke that have no record yet (seed 0)."""
    found = []
    for _, run, target, record in _both_ways(profile):
        if record is None:
            record = correspondence_record(run, target, device=device)
            report(f"{run.source} on {target}: {record['seconds']} s")
        found.append(record)
    return found


def share_differences(pairs: str, over: str) -> Test:
    """QAConv's share of right matches minus another's, in percent, in both directions.

    `pairs` is a kind of pairs, e.g. "true pairs"; `over` other features, "same place" or "chance".
    """

    def found(profile: str) -> list[Comparison]:
        lines: list[Comparison] = []
        for label, *_, record in _both_ways(profile):
            rows = record["differences"] if record else ()
            known = [row for row in rows if (row["pairs"], row["over"]) == (pairs, over)]
            lines.append((f"{label}, over {over}", _percent(known[0]) if known else None))
        return lines

    return found


def hits_over_chance(profile: str) -> list[Comparison]:
    """How often the similarity falls most at what was changed, minus chance, in percent."""
    lines: list[Comparison] = []
    for label, *_, record in _both_ways(profile):
        for row in record["changes"] if record else ():
            if row["features"] == "QAConv":
                lines.append((f"{row['change']}, {label}", _percent(row, row["chance"])))
        if record is None:
            lines.append((f"any change, {label}", None))
    return lines


def _percent(row: dict, chance: float = 0.0) -> Difference:
    return Difference(*(100 * (row[key] - chance) for key in ("share", "low", "high")))
