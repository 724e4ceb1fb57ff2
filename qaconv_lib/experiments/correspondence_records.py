"""How good the correspondences of a model are on another domain: the record (chapter 11)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from qaconv_lib.datasets import load_dataset
from qaconv_lib.experiments.correspondence_changes import changed_pairs
from qaconv_lib.experiments.profiles import get_profile
from qaconv_lib.experiments.records import provenance, read_records, write_record
from qaconv_lib.experiments.runs import Run
from qaconv_lib.experiments.statistics import Difference, paired_bootstrap
from qaconv_lib.experiments.variants import DIRECTIONS
from qaconv_lib.matches.correspondence import BODY_PARTS, LEAST
from qaconv_lib.matches.marked_pairs import (
    OTHER_LEAST,
    SEED,
    Tables,
    choose_pairs,
    feature_maps,
    match_pairs,
)
from qaconv_lib.models import default_device, load_model

#: Shares of the matches that are kept, those of the highest similarity first.
KEPT = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_FOLDER = "correspondence"
_REPEATS = 1000  # of the bootstrap
_VIEWPOINTS = ((0, 45), (45, 90), (90, 135), (135, 180))  # degrees between the walking directions
_HIDDEN = ((0, 0.01), (0.01, 0.1), (0.1, 1))
_ALIGNED = ((0, 1 / 3), (1 / 3, 2 / 3), (2 / 3, 1))


def correspondence_record(
    run: Run, target: str, *, device: str | None = None, progress: bool = False
) -> dict:
    """Measure the matches of a trained model on a dataset of another domain; write the record.

    Args:
        run: a run with QAConv whose model is there, and so is that of the same run with softmax.
        target: a miniature; others have no part maps.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        progress: show progress bars.

    Returns:
        The record. `rows` has for each kind of features and of pairs the share of right matches
        among those whose part the gallery image shows, with its interval over people, for all
        and in groups; `differences` that of QAConv minus the others; `reliability` the share by
        similarity, among all matches from the person; `ends` where matches from the person and
        from elsewhere end; `tells` how often a query is more similar, by the mean of its best
        matches, to the partner of its true pair than to another; `changes` where similarities fall
        when one thing of a person changes.

    Raises:
        FileNotFoundError: a model or a part map is not there.
        ValueError: the run is not one with QAConv.
    """
    if run.loss != "qaconv":
        raise ValueError(f"correspondence is measured of runs with qaconv, got {run.loss!r}")
    start, device = time.perf_counter(), device or str(default_device())
    model = load_model(run.checkpoint(), device)
    pooled = load_model(Run("softmax", run.source, run.profile, run.seed).checkpoint(), device)
    dataset = load_dataset(target)
    maps = [model.extract(part, progress=progress) for part in (dataset.query, dataset.gallery)]
    scores = model.similarity(*maps, progress=progress).numpy(force=True)
    scene = choose_pairs(scores, dataset)
    networks = feature_maps(model, pooled)
    tables = match_pairs(networks, model, scene, target)
    record = {
        "experiment": _FOLDER,
        **run.about,
        "target": target,
        "protocol": {
            "queries": len(dataset.query),
            "people": int(dataset.query["identity"].nunique()),
            "locations": int(np.prod(maps[0].shape[2:])),
            "least": LEAST,
            "seed": SEED,
            "repeats": _REPEATS,
        },
        "partners": {kind: rows.tolist() for kind, rows in scene.partners.items()},
        "rows": list(_rows(tables)),
        "differences": list(_differences(tables)),
        "reliability": list(_reliability(tables)),
        "ends": list(_ends(tables)),
        "tells": list(_tells(tables)),
        "changes": list(_changes(changed_pairs(networks, model, scene, target))),
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(device),
    }
    write_record(_FOLDER, f"{run.name}-on-{target}", record)
    return record


def _rows(tables: Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            about = {"features": features, "pairs": kind}
            for by, value, part in _groups(table[table["visible"]]):
                similarity = _round(part["similarity"].mean())
                row = about | {"by": by, "value": value}
                yield row | _share(part, "right") | {"similarity": similarity}
                if features == "QAConv" and by not in ("kept", "mutual"):
                    for column, name in (("same_place", "same place"), ("chance", "chance")):
                        yield row | {"features": name} | _share(part, column)
            strict = table[table["strict_visible"]]
            yield about | {"by": "least", "value": OTHER_LEAST} | _share(strict, "strict_right")


def _groups(table: pd.DataFrame) -> Iterator[tuple[str, str | float, pd.DataFrame]]:
    yield "all", "", table
    for part in BODY_PARTS:
        yield "part", part, table[table["part"] == part]
    for trait, bounds in (("viewpoint", _VIEWPOINTS), ("hidden", _HIDDEN), ("aligned", _ALIGNED)):
        for low, high in bounds:
            inside = (table[trait] >= low) & ((table[trait] < high) | (high == bounds[-1][1]))
            yield trait, low, table[inside]
    yield "mutual", "yes", table[table["mutual"]]
    yield "mutual", "no", table[~table["mutual"]]
    ordered = table.sort_values("similarity", ascending=False, kind="stable")
    for share in KEPT:
        yield "kept", share, ordered.head(round(share * len(ordered)))


def _share(table: pd.DataFrame, column: str) -> dict:
    """A share among matches, its 95 % interval over people, and the number of matches."""
    if not len(table):
        return {"share": None, "low": None, "high": None, "matches": 0}
    found = paired_bootstrap(table[column].astype(float), table["person"], repeats=_REPEATS)
    named = zip(("share", "low", "high"), found, strict=True)
    return {name: _round(value) for name, value in named} | {"matches": len(table)}


def _differences(tables: Tables) -> Iterator[dict]:
    for kind, ours in tables["QAConv"].items():
        ours = ours[ours["visible"]]
        others = {name: kinds[kind] for name, kinds in tables.items() if name != "QAConv"}
        columns = {name: table["right"].loc[ours.index] for name, table in others.items()}
        columns |= {"same place": ours["same_place"], "chance": ours["chance"]}
        for name, column in columns.items():
            change = ours["right"].astype(float) - column.astype(float)
            yield {"pairs": kind, "over": name} | _share(ours.assign(change=change), "change")


def _reliability(tables: Tables) -> Iterator[dict]:
    """Right matches by similarity, in steps of 0.1; a part that is not visible makes it wrong."""
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            table = table[table["on_body"]]
            step = np.floor(table["similarity"] * 10).clip(-10, 9)
            for value, part in table.groupby(step):
                row = {"features": features, "pairs": kind, "from": _round(value / 10)}
                yield (
                    row | _share(part, "right") | {"similarity": _round(part["similarity"].mean())}
                )


def _ends(tables: Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        for kind, table in kinds.items():
            body = table["found"].isin(BODY_PARTS)
            ends = {
                "same part": table["right"],
                "another part": body & ~table["right"],
                "background": table["found"] == "background",
                "others": ~body & (table["found"] != "background"),
            }
            starts = {"person": table["on_body"], "background": table["part"] == "background"}
            for start, chosen in starts.items():
                shares = {name: _round(column[chosen].mean()) for name, column in ends.items()}
                row = {"features": features, "pairs": kind, "start": start}
                yield row | shares | {"matches": int(chosen.sum())}


def _tells(tables: Tables) -> Iterator[dict]:
    for features, kinds in tables.items():
        true, *others = (table.groupby("pair")["similarity"].mean() for table in kinds.values())
        people = kinds["true pairs"].groupby("pair")["person"].first()
        for kind, other in zip(list(kinds)[1:], others, strict=True):
            table = pd.DataFrame({"person": people, "higher": true > other})
            row = {"features": features, "over": kind, "mean": _round(true.mean())}
            yield row | {"mean_over": _round(other.mean())} | _share(table, "higher")


def _changes(tables: dict[str, dict[str, pd.DataFrame]]) -> Iterator[dict]:
    for change, found in tables.items():
        for features, table in found.items():
            row = {"change": change, "features": features} | _share(table, "hit")
            yield row | {
                name: _round(table[name].mean()) for name in ("chance", "fall", "elsewhere")
            }


def _round(value: float) -> float | None:
    """Five digits; None for the mean of nothing."""
    return None if np.isnan(value) else float(f"{value:.5g}")


def find_correspondence(source: str, target: str, profile: str = "laptop") -> dict | None:
    """The record of `correspondence_record` for a source and a target, if there is one."""
    for record in read_records(_FOLDER):
        if (record["source"], record["target"], record["profile"]) == (source, target, profile):
            return record
    return None


def _names(profile: str, *roles: str) -> list[str]:
    return [get_profile(profile).datasets[role] for role in roles]


def run_correspondence(
    profile: str = "laptop",
    device: str | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> list[dict]:
    """Measure both directions between Market and Duke that have no record yet (seed 0)."""
    records = []
    for source, target in DIRECTIONS:
        names = _names(profile, source, target)
        record = find_correspondence(names[0], names[1], profile)
        if record is None:
            record = correspondence_record(
                Run("qaconv", names[0], profile), names[1], device=device
            )
            report(f"{names[0]} on {names[1]}: {record['seconds']} s")
        records.append(record)
    return records


def share_differences(
    pairs: str, over: str
) -> Callable[[str], list[tuple[str, Difference | None]]]:
    """Both directions: QAConv's share of right matches minus another's, in percent.

    Args:
        pairs: a kind of pairs, e.g. "true pairs".
        over: other features, "same place" or "chance".
    """

    def found(profile: str) -> list[tuple[str, Difference | None]]:
        rows = []
        for source, target in DIRECTIONS:
            names = _names(profile, source, target)
            record, difference = find_correspondence(names[0], names[1], profile), None
            for row in record["differences"] if record else ():
                if (row["pairs"], row["over"]) == (pairs, over):
                    difference = Difference(*(100 * row[key] for key in ("share", "low", "high")))
            rows.append((f"{source} → {target}, over {over}", difference))
        return rows

    return found


def hits_over_chance(profile: str) -> list[tuple[str, Difference | None]]:
    """How often the similarity falls most at what was changed, minus chance, in percent."""
    rows = []
    for source, target in DIRECTIONS:
        names = _names(profile, source, target)
        record = find_correspondence(names[0], names[1], profile)
        found = [r for r in record["changes"] if r["features"] == "QAConv"] if record else []
        for row in found or [{"change": "any change"}]:
            difference = None
            if found:
                ends = (row[key] - row["chance"] for key in ("share", "low", "high"))
                difference = Difference(*(100 * end for end in ends))
            rows.append((f"{row['change']}, {source} → {target}", difference))
    return rows
