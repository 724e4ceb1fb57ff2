"""From scores (n,) of pairs to decisions and probabilities (appendix B).

`same`, bool (n,), tells which pairs show one person; there must be pairs of both kinds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit


class Roc(NamedTuple):
    """Receiver operating characteristic, each (n,): thresholds descend, the first is infinite."""

    thresholds: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray


class OperatingPoint(NamedTuple):
    """One point of a ROC."""

    threshold: float
    false_positive_rate: float
    true_positive_rate: float


def roc_curve(scores: Any, same: Any) -> Roc:
    """The rates (14.1) at every score that occurs; a pair is accepted from its threshold on."""
    from sklearn import metrics

    scores, same = _check_pairs(scores, same)
    false, true, thresholds = metrics.roc_curve(same, scores, drop_intermediate=False)
    return Roc(thresholds, false, true)


def operating_point(roc: Roc, false_positive_rate: float) -> OperatingPoint:
    """The lowest threshold that accepts at most this share of the pairs of different people."""
    if not 0 < false_positive_rate < 1:
        raise ValueError(f"false_positive_rate must lie between 0 and 1, got {false_positive_rate}")
    lowest = roc.false_positive_rate[roc.false_positive_rate > 0][0]
    if lowest > false_positive_rate:
        lowest = f"the lowest above 0 that these pairs show is {lowest:.3g}; more pairs are needed"
        raise ValueError(
            f"a false positive rate of {false_positive_rate:g} cannot be told: {lowest}"
        )
    place = int(np.searchsorted(roc.false_positive_rate, false_positive_rate, side="right")) - 1
    return OperatingPoint(*(float(values[place]) for values in roc))


def rates_at(scores: Any, same: Any, threshold: float) -> OperatingPoint:
    """The rates (14.1) of these pairs at a given threshold."""
    scores, same = _check_pairs(scores, same)
    false, true = (float((scores[kind] >= threshold).mean()) for kind in (~same, same))
    return OperatingPoint(float(threshold), false, true)


@dataclass(frozen=True)
class Calibration:
    """Logistic calibration: `slope * score + offset` is a log likelihood ratio (14.2)."""

    slope: float
    offset: float

    def log_ratio(self, scores: Any) -> np.ndarray:
        """Natural logarithms of the likelihood ratios, in the shape of the scores."""
        return self.slope * np.asarray(scores, dtype=np.float64) + self.offset

    def probability(self, scores: Any, prior: float = 0.5) -> np.ndarray:
        """Probabilities of "same person" (14.3), in the shape of the scores.

        `prior` in (0, 1) is this probability before the images were compared.
        """
        if not 0 < prior < 1:
            raise ValueError(f"prior must lie between 0 and 1, got {prior}")
        return expit(self.log_ratio(scores) + math.log(prior / (1 - prior)))


def fit_calibration(scores: Any, same: Any) -> Calibration:
    """Fit a logistic calibration to pairs.

    Both kinds of pairs get half of the weight, so the prior of the fit is one half and its logit a
    log likelihood ratio (Brümmer and du Preez, Computer Speech and Language 20, 2006).
    """
    from sklearn.linear_model import LogisticRegression

    scores, same = _check_pairs(scores, same)
    fit = LogisticRegression(C=1e6, max_iter=1000, class_weight="balanced")
    fit.fit(scores[:, None], same)
    return Calibration(float(fit.coef_[0, 0]), float(fit.intercept_[0]))


def calibration_cost(log_ratio: Any, same: Any) -> float:
    """The cost C_llr of natural log likelihood ratios, in bits (14.4).

    0 is perfect. Ratios of 1, which say nothing, cost 1; above 1 the ratios mislead.
    """
    log_ratio, same = _check_pairs(log_ratio, same, "log_ratio")
    missed = np.logaddexp(0, -log_ratio[same]).mean()
    mistaken = np.logaddexp(0, log_ratio[~same]).mean()
    return float((missed + mistaken) / 2 / math.log(2))


def reliability(probability: Any, same: Any, bins: int = 10) -> pd.DataFrame:
    """Stated probabilities and observed shares; each kind of pair has half of the weight.

    `probability` (n,) is stated with a prior of 0.5. There is one row per equal interval that has
    pairs: `stated` (mean probability), `happened` (weighted share of pairs of one person), `pairs`.
    """
    probability, same = _check_pairs(probability, same, "probability")
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError("probability must lie in [0, 1]")
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    place = np.minimum((probability * bins).astype(int), bins - 1)
    total, stated, happened, pairs = (
        np.bincount(place, values, minlength=bins)
        for values in (weight, weight * probability, weight * same, np.ones(len(same)))
    )
    table = pd.DataFrame({"stated": stated, "happened": happened, "pairs": pairs.astype(int)})
    table[["stated", "happened"]] = table[["stated", "happened"]].div(total, axis=0)
    return table[pairs > 0].reset_index(drop=True)


def _check_pairs(scores: Any, same: Any, name: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape:
        found = f"{scores.shape} and {same.shape}"
        raise ValueError(f"{name} and same must have one shape (n,), got {found}")
    if same.dtype != bool:
        raise ValueError(f"same must be bool, got {same.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} must be finite")
    if same.all() or not same.any():
        raise ValueError("both pairs of one person and pairs of different people are needed")
    return scores, same
