"""Thresholds and probabilities on one domain, and what is left of them on another (appendix B).

The people of a dataset's test set are put in two halves. Thresholds and calibration are fitted on
the pairs within the first half and tried on those within the second, of the same dataset and of the
others. So also the figures for an unchanged domain are for people who had no part in the fit.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from qaconv_lib._files import check_writable
from qaconv_lib.datasets import ReidDataset, load_dataset
from qaconv_lib.evaluation import BAD_DETECTION
from qaconv_lib.experiments.records import provenance, read_records, results_folder, write_record
from qaconv_lib.experiments.runs import Run, dataset_key, look_again, same_content
from qaconv_lib.experiments.statistics import paired_bootstrap
from qaconv_lib.models import ReidModel, default_device, load_model
from qaconv_lib.photographs.calibration import (
    Calibration,
    calibration_cost,
    fit_calibration,
    operating_point,
    rates_at,
    reliability,
    roc_curve,
)
from qaconv_lib.scale.store import model_fingerprint

#: Shares of the pairs of different people that a threshold may accept.
FALSE_POSITIVE_RATES = (1e-2, 1e-3)
#: The book's QAConv models.
BOOK_RUNS = (Run("qaconv", "mini-market"), Run("qaconv", "mini-duke"))
_ROC_POINTS = 200  # kept in a record
_REPEATS = 1000  # of the bootstrap


class Pairs(NamedTuple):
    """Pairs of a query and a gallery image that two cameras took; arrays of shape (n,).

    `scores` come from `ReidModel.similarity`, `same` says whether both images show one person, and
    `identities` and `others` are the identities of the query and of the gallery image.
    """

    scores: np.ndarray
    same: np.ndarray
    identities: np.ndarray
    others: np.ndarray

    def of(self, chosen: np.ndarray) -> Pairs:
        """Some of the pairs."""
        return Pairs(*(values[chosen] for values in self))


def cross_camera_pairs(model: ReidModel, dataset: ReidDataset, *, progress: bool = False) -> Pairs:
    """Score every query with every gallery image of another camera, bad detections left out.

    A distractor makes a pair of different people.
    """
    query, gallery = dataset.query, dataset.gallery
    maps = [model.extract(table, progress=progress) for table in (query, gallery)]
    scores = model.similarity(*maps, progress=progress).numpy(force=True)
    people, others = np.broadcast_arrays(
        query["identity"].to_numpy()[:, None], gallery["identity"].to_numpy()
    )
    kept = query["camera"].to_numpy()[:, None] != gallery["camera"].to_numpy()
    kept &= others != BAD_DETECTION
    others = np.where(others == dataset.distractor_identity, BAD_DETECTION, others)  # nobody
    return Pairs(scores[kept], (people == others)[kept], people[kept], others[kept])


def halves(pairs: Pairs) -> tuple[Pairs, Pairs]:
    """The pairs within every second person, and those within the other people.

    A pair of a person of each half belongs to neither, nor does one with a distractor: nobody knows
    which of them show one person.
    """
    people = np.setdiff1d(np.concatenate([pairs.identities, pairs.others]), [BAD_DETECTION])
    first, second = (
        pairs.of(np.isin(pairs.identities, half) & np.isin(pairs.others, half))
        for half in (people[::2], people[1::2])
    )
    return first, second


def calibration_record(
    checkpoint: str | Path,
    targets: Sequence[str],
    *,
    device: str | None = None,
    progress: bool = False,
) -> dict:
    """Fit on each dataset, try on all of them, and write the record.

    Args:
        checkpoint: a model that `save_model` wrote.
        targets: names of datasets; ValueError if one has too few pairs for `FALSE_POSITIVE_RATES`.
        device: e.g. "cpu" or "cuda"; the GPU if there is one.
        progress: show progress bars.

    Returns:
        The record. `fitted` has for each dataset what was fitted on its first half, `tried` what
        the second half would have allowed, and `transfer` for each ordered pair of datasets what
        became of the first one's fit on the second half of the second.
    """
    start, path, device = time.perf_counter(), Path(checkpoint), device or str(default_device())
    model = load_model(path, device)
    look_again()
    check_writable(results_folder() / "calibration")
    runs = [run for run in BOOK_RUNS if run.checkpoint().resolve() == path.resolve()]
    about = {"loss": model.config.loss, "source": "unknown", "profile": "own"}
    fitted, tried, second_halves = {}, {}, {}
    for name in targets:
        first, second = halves(cross_camera_pairs(model, load_dataset(name), progress=progress))
        try:
            calibration = dataclasses.asdict(fit_calibration(*first[:2]))
            fitted[name] = _rounded({**_about(first), "calibration": calibration})
            tried[name] = _rounded({**_about(second), **_best(second)})
        except ValueError as error:
            raise ValueError(f"one half of the people of {name}: {error}") from error
        second_halves[name] = second
    record = {
        "experiment": "calibration",
        **(runs[0].about if runs else about | {"seed": model.config.seed}),
        "config": dataclasses.asdict(model.config),
        "checkpoint": path.name,
        "model": model_fingerprint(model),
        "target_keys": {n: key for n in targets if (key := dataset_key(n, "test"))},
        "fitted": fitted,
        "tried": tried,
        "transfer": [
            {"from": old, "to": new, **_rounded(_transfer(fitted[old], second_halves[new]))}
            for old, new in itertools.product(targets, targets)
        ],
        "seconds": round(time.perf_counter() - start, 1),
        **provenance(device),
    }
    # Another model may have the file name of one's own.
    parts = [path.stem, *([] if runs else [record["model"]]), *record["target_keys"].values()]
    write_record("calibration", "-".join(parts[:4]), record)
    return record


def _about(pairs: Pairs) -> dict:
    """Numbers of pairs and people, and the thresholds that keep each of the rates on them."""
    roc = roc_curve(*pairs[:2])
    return {
        "pairs": len(pairs.scores),
        "pairs_of_one_person": int(pairs.same.sum()),
        "people": len(np.unique(pairs.identities)),
        "thresholds": [
            {"wanted": rate, **operating_point(roc, rate)._asdict()}
            for rate in FALSE_POSITIVE_RATES
        ],
    }


def _best(pairs: Pairs) -> dict:
    """The cost of a fit on these very pairs, and their ROC."""
    scores, same = pairs[:2]
    _, false, true = roc_curve(scores, same)
    # Few points, evenly spread over the logarithm of the false positive rate.
    wanted = np.geomspace(false[false > 0].min(), 1, _ROC_POINTS)
    places = np.unique(np.searchsorted(false, wanted, side="right") - 1)
    return {
        "cost": calibration_cost(fit_calibration(scores, same).log_ratio(scores), same),
        "roc": {"false_positive_rate": false[places], "true_positive_rate": true[places]},
    }


def _transfer(fit: dict, pairs: Pairs) -> dict:
    """What a fit is worth on other pairs, with intervals over their people."""
    calibration, scores, same = Calibration(**fit["calibration"]), *pairs[:2]
    thresholds = []
    for point in fit["thresholds"]:
        found = {"wanted": point["wanted"], **rates_at(scores, same, point["threshold"])._asdict()}
        accepted = scores >= point["threshold"]
        for kind, these in (("true", same), ("false", ~same)):
            interval = paired_bootstrap(accepted[these], pairs.identities[these], repeats=_REPEATS)
            found[f"{kind}_interval"] = list(interval[1:])
        thresholds.append(found)
    return {
        "thresholds": thresholds,
        "cost": calibration_cost(calibration.log_ratio(scores), same),
        "reliability": dict(reliability(calibration.probability(scores), same).astype(float)),
    }


def _rounded(value: Any) -> Any:
    """A part of a record with six digits of every number."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | np.ndarray | pd.Series):
        return [_rounded(part) for part in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


def find_calibrations(model: ReidModel) -> dict | None:
    """The record of `calibration_record` for these very weights, if there is one.

    What was fitted on a dataset that has other images by now is left out.
    """
    fingerprint = model_fingerprint(model)
    try:
        records = read_records("calibration")
    except FileNotFoundError:  # no data folder
        return None
    found = [record for record in records if record.get("model") == fingerprint]
    fitted = {
        name: fit
        for record in found
        for name, fit in record["fitted"].items()
        if (key := record.get("target_keys", {}).get(name)) is None
        or same_content({"target_key": key}, name, "test")
    }
    return found[0] | {"fitted": fitted} if fitted else None


def transfer_table(record: dict) -> pd.DataFrame:
    """The drop when the domain changes: one row for each pair of datasets and rate wanted.

    Columns `fitted on`, `tried on`, `wanted` (the false positive rate that the threshold was set
    for), `false positive rate` and `true positive rate` as found, and `cost` (C_llr).
    """
    return pd.DataFrame(
        {
            "fitted on": row["from"],
            "tried on": row["to"],
            "wanted": found["wanted"],
            "false positive rate": found["false_positive_rate"],
            "true positive rate": found["true_positive_rate"],
            "cost": row["cost"],
        }
        for row in record["transfer"]
        for found in row["thresholds"]
    )
