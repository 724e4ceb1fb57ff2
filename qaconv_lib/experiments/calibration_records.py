"""Thresholds and probabilities on one domain, and how they fare on another (appendix B).

They are fitted on the pairs of one half of a test set's people, and tried on those of the other.
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
from qaconv_lib.experiments import records
from qaconv_lib.experiments.runs import NAMED, Run, content_key, look_again, same_content
from qaconv_lib.experiments.statistics import paired_bootstrap
from qaconv_lib.models import ReidModel, default_device, load_model
from qaconv_lib.photographs import calibration as fits
from qaconv_lib.scale.store import model_fingerprint

#: Shares of the pairs of different people that a threshold may accept.
FALSE_POSITIVE_RATES = (1e-2, 1e-3)
#: The book's QAConv models.
BOOK_RUNS = (Run("qaconv", "mini-market"), Run("qaconv", "mini-duke"))
_ROC_POINTS = 200  # kept in a record
_REPEATS = 1000  # of the bootstrap


class Pairs(NamedTuple):
    """Pairs of a query and a gallery image that two cameras took; arrays of shape (n,)."""

    scores: np.ndarray  #: from `ReidModel.similarity`
    same: np.ndarray  #: whether both images show one person
    identities: np.ndarray  #: of the query
    others: np.ndarray  #: identities of the gallery image

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
    """The pairs within every second person, and those within the other people; no distractors."""
    people = np.setdiff1d(np.concatenate([pairs.identities, pairs.others]), [BAD_DETECTION])

    def within(half: np.ndarray) -> Pairs:
        return pairs.of(np.isin(pairs.identities, half) & np.isin(pairs.others, half))

    return within(people[::2]), within(people[1::2])


def calibration_record(
    checkpoint: str | Path,
    targets: Sequence[str],
    *,
    device: str | None = None,
    progress: bool = False,
) -> dict:
    """Fit on each dataset, try on all of them, and write the record.

    ValueError if a dataset has too few pairs for `FALSE_POSITIVE_RATES`.

    Returns:
        The record. `fitted` has for each dataset what was fitted on its first half, `tried` what
        the second half would have allowed, and `transfer` for each ordered pair of datasets what
        became of the first one's fit on the second half of the second.
    """
    start, path, device = time.perf_counter(), Path(checkpoint), device or str(default_device())
    model = load_model(path, device)
    look_again()
    check_writable(records.results_folder() / "calibration")
    runs = [
        run for run in (*BOOK_RUNS, *NAMED.values()) if run.checkpoint().resolve() == path.resolve()
    ]
    about = {"loss": model.config.loss, "source": "unknown", "profile": "own"}
    fitted, tried, second_halves = {}, {}, {}
    for name in targets:
        first, second = halves(cross_camera_pairs(model, load_dataset(name), progress=progress))
        try:
            calibration = dataclasses.asdict(fits.fit_calibration(*first[:2]))
            fitted[name] = _rounded(_about(first) | {"calibration": calibration})
            tried[name] = _rounded(_about(second) | _best(second))
        except ValueError as error:
            raise ValueError(f"one half of the people of {name}: {error}") from error
        second_halves[name] = second
    record = {
        "experiment": "calibration",
        **(runs[0].about if runs else about | {"seed": model.config.seed}),
        "config": dataclasses.asdict(model.config),
        "checkpoint": path.name,
        "model": model_fingerprint(model),
        "target_keys": {n: key for n in targets if (key := content_key(n, "test"))},
        "fitted": fitted,
        "tried": tried,
        "transfer": [
            {"from": old, "to": new, **_rounded(_transfer(fitted[old], second_halves[new]))}
            for old, new in itertools.product(targets, targets)
        ],
        "seconds": round(time.perf_counter() - start, 1),
        **records.provenance(device),
    }
    # A user's model may have the file name of another.
    parts = [path.stem, *([] if runs else [record["model"]]), *record["target_keys"].values()]
    records.write_record("calibration", "-".join(parts[:4]), record)
    return record


def _about(pairs: Pairs) -> dict:
    """Numbers of pairs and people, and the thresholds that keep each of the rates on them."""
    roc = fits.roc_curve(*pairs[:2])
    points = {rate: fits.operating_point(roc, rate)._asdict() for rate in FALSE_POSITIVE_RATES}
    return {
        "pairs": len(pairs.scores),
        "pairs_of_one_person": int(pairs.same.sum()),
        "people": len(np.unique(pairs.identities)),
        "thresholds": [{"wanted": rate} | point for rate, point in points.items()],
    }


def _best(pairs: Pairs) -> dict:
    """The cost of a fit on these very pairs, and their ROC."""
    scores, same = pairs[:2]
    _, false, true = fits.roc_curve(scores, same)
    # Few points, evenly spread over the logarithm of the false positive rate.
    wanted = np.geomspace(false[false > 0].min(), 1, _ROC_POINTS)
    places = np.unique(np.searchsorted(false, wanted, side="right") - 1)
    return {
        "cost": fits.calibration_cost(fits.fit_calibration(scores, same).log_ratio(scores), same),
        "roc": {"false_positive_rate": false[places], "true_positive_rate": true[places]},
    }


def _transfer(fit: dict, pairs: Pairs) -> dict:
    """What a fit is worth on other pairs, with intervals over their people."""
    calibration, scores, same = fits.Calibration(**fit["calibration"]), *pairs[:2]
    thresholds = []
    for point in fit["thresholds"]:
        rates = fits.rates_at(scores, same, point["threshold"])._asdict()
        found, accepted = {"wanted": point["wanted"]} | rates, scores >= point["threshold"]
        for kind, these in (("true", same), ("false", ~same)):
            interval = paired_bootstrap(accepted[these], pairs.identities[these], repeats=_REPEATS)
            found[f"{kind}_interval"] = [interval.low, interval.high]
        thresholds.append(found)
    return {
        "thresholds": thresholds,
        "cost": fits.calibration_cost(calibration.log_ratio(scores), same),
        "reliability": dict(fits.reliability(calibration.probability(scores), same).astype(float)),
    }


def _rounded(value: Any) -> Any:
    """A part of a record with six digits of every number."""
    if isinstance(value, dict):
        return {name: _rounded(part) for name, part in value.items()}
    if isinstance(value, list | np.ndarray | pd.Series):
        return [_rounded(part) for part in value]
    return value if isinstance(value, int) else float(f"{value:.6g}")


def find_calibrations(model: ReidModel) -> dict | None:
    """The record of these very weights, if there is one, without datasets that have changed."""
    fingerprint = model_fingerprint(model)
    try:
        found = [r for r in records.read_records("calibration") if r.get("model") == fingerprint]
    except FileNotFoundError:  # no data folder
        return None
    fitted = {
        name: fit
        for record in found
        for name, fit in record["fitted"].items()
        if (key := record.get("target_keys", {}).get(name)) is None
        or same_content(key, name, "test")
    }
    return found[0] | {"fitted": fitted} if fitted else None


def transfer_table(record: dict) -> pd.DataFrame:
    """The drop when the domain changes: one row for each pair of datasets and rate wanted.

    `wanted` is the false positive rate that a threshold was set for; `cost` is C_llr.
    """
    names = ("fitted on", "tried on", "wanted", "false positive rate", "true positive rate", "cost")
    rates = ("wanted", "false_positive_rate", "true_positive_rate")
    rows = [
        (row["from"], row["to"], *(point[rate] for rate in rates), row["cost"])
        for row in record["transfer"]
        for point in row["thresholds"]
    ]
    return pd.DataFrame(rows, columns=list(names))
