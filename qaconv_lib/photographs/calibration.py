"""From a score to a decision and to a probability: ROC, thresholds, calibration (chapter 14).

A ranking needs no threshold. "Do these two pictures show the same person?" does. Here `scores` are
one number a pair, higher is more alike, and `same` says of each pair whether it shows one person.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.special import expit
from sklearn.linear_model import LogisticRegression


class Roc(NamedTuple):
    """A receiver operating characteristic: what each threshold would accept.

    Attributes:
        thresholds: descending; the first, infinite, accepts nothing (n).
        false_positive_rate: share of the pairs of different people with a score of at least the
            threshold (n).
        true_positive_rate: share of the pairs of one person, likewise (n).
    """

    thresholds: np.ndarray
    false_positive_rate: np.ndarray
    true_positive_rate: np.ndarray


class OperatingPoint(NamedTuple):
    """One point of a ROC."""

    threshold: float
    false_positive_rate: float
    true_positive_rate: float


def roc_curve(scores: Any, same: Any) -> Roc:
    """The ROC of pairs, one point for each score that occurs.

    Args:
        scores: finite numbers, shape (n,).
        same: bool, shape (n,).

    Raises:
        ValueError: shapes that do not fit, scores that are not finite, or only one kind of pair.
    """
    scores, same = _check_pairs(scores, same)
    order = np.argsort(-scores, kind="stable")
    scores, same = scores[order], same[order]
    last = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)  # of equal scores
    true = np.cumsum(same)[last]
    false = last + 1 - true
    return Roc(
        np.append(np.inf, scores[last]),
        np.append(0, false) / false[-1],
        np.append(0, true) / true[-1],
    )


def operating_point(roc: Roc, false_positive_rate: float) -> OperatingPoint:
    """The lowest threshold that accepts no more than a share of the pairs of different people.

    Raises:
        ValueError: a rate outside (0, 1), or one below all that these pairs can show.
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(f"false_positive_rate must lie between 0 and 1, got {false_positive_rate}")
    lowest = roc.false_positive_rate[roc.false_positive_rate > 0][0]
    if lowest > false_positive_rate:
        raise ValueError(
            f"a false positive rate of {false_positive_rate:g} cannot be told: the lowest above 0 "
            f"that these pairs show is {lowest:.3g}; more pairs are needed"
        )
    place = int(np.searchsorted(roc.false_positive_rate, false_positive_rate, side="right")) - 1
    return OperatingPoint(*(float(values[place]) for values in roc))


def rates_at(scores: Any, same: Any, threshold: float) -> OperatingPoint:
    """What a threshold from elsewhere accepts of these pairs; arguments as for `roc_curve`."""
    scores, same = _check_pairs(scores, same)
    accepted = scores >= threshold
    return OperatingPoint(
        float(threshold), float(accepted[~same].mean()), float(accepted[same].mean())
    )


@dataclass(frozen=True)
class Calibration:
    """A logistic calibration: `slope * score + offset` is a log likelihood ratio, natural log.

    It says how many times more often a score occurs with pairs of one person than with pairs of
    different people. What that makes of two pictures depends on what was known before, the prior.
    """

    slope: float
    offset: float

    def log_ratio(self, scores: Any) -> np.ndarray:
        """Log likelihood ratios, of the shape of the scores."""
        return self.slope * np.asarray(scores, dtype=np.float64) + self.offset

    def probability(self, scores: Any, prior: float = 0.5) -> np.ndarray:
        """Probabilities of "same person", of the shape of the scores.

        Args:
            scores: as those the calibration was fitted on.
            prior: how probable "same person" was before the pictures were compared.

        Raises:
            ValueError: a prior outside (0, 1).
        """
        if not 0 < prior < 1:
            raise ValueError(f"prior must lie between 0 and 1, got {prior}")
        return expit(self.log_ratio(scores) + math.log(prior / (1 - prior)))


def fit_calibration(scores: Any, same: Any) -> Calibration:
    """Fit a logistic calibration, pairs of one person and of different people weighing the same.

    With equal weights in all the prior is one half, so the fitted logit is a log likelihood ratio
    (Brümmer and du Preez, Computer Speech and Language 20, 2006).

    Args:
        scores: finite numbers, shape (n,).
        same: bool, shape (n,).

    Raises:
        ValueError: as `roc_curve`.
    """
    scores, same = _check_pairs(scores, same)
    fit = LogisticRegression(C=1e6, max_iter=1000, class_weight="balanced")
    fit.fit(scores[:, None], same)
    return Calibration(float(fit.coef_[0, 0]), float(fit.intercept_[0]))


def calibration_cost(log_ratio: Any, same: Any) -> float:
    """How good log likelihood ratios are: the cost C_llr, in bits (Brümmer and du Preez, 2006).

    0 is perfect. Ratios that know nothing (all 1) cost 1; above 1 they mislead: they are worse
    than none. Both kinds of pairs weigh the same.

    Args:
        log_ratio: natural logarithms, shape (n,).
        same: bool, shape (n,).

    Raises:
        ValueError: as `roc_curve`.
    """
    log_ratio, same = _check_pairs(log_ratio, same, "log_ratio")
    missed = np.logaddexp(0, -log_ratio[same]).mean()
    mistaken = np.logaddexp(0, log_ratio[~same]).mean()
    return float((missed + mistaken) / 2 / math.log(2))


def reliability(probability: Any, same: Any, bins: int = 10) -> pd.DataFrame:
    """Stated probabilities beside what happened, both kinds of pairs weighing the same.

    Args:
        probability: from 0 to 1, at the prior 0.5, shape (n,).
        same: bool, shape (n,).
        bins: number of equal intervals of the probability.

    Returns:
        One row an interval that has pairs: columns `stated` (mean probability), `happened` (share
        of one person, weighted) and `pairs`.

    Raises:
        ValueError: as `roc_curve`; or probabilities outside [0, 1], or fewer than 2 bins.
    """
    probability, same = _check_pairs(probability, same, "probability")
    if probability.min() < 0 or probability.max() > 1:
        raise ValueError("probability must lie in [0, 1]")
    if bins < 2:
        raise ValueError(f"bins must be at least 2, got {bins}")
    weight = np.where(same, 0.5 / same.sum(), 0.5 / (~same).sum())
    place = np.minimum((probability * bins).astype(int), bins - 1)
    total = np.bincount(place, weight, minlength=bins)
    pairs = np.bincount(place, minlength=bins)
    some = pairs > 0
    return pd.DataFrame(
        {
            "stated": np.bincount(place, weight * probability, minlength=bins)[some] / total[some],
            "happened": np.bincount(place, weight * same, minlength=bins)[some] / total[some],
            "pairs": pairs[some],
        }
    )


def _check_pairs(scores: Any, same: Any, name: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    scores, same = np.asarray(scores, dtype=np.float64), np.asarray(same)
    if scores.ndim != 1 or scores.shape != same.shape:
        raise ValueError(
            f"{name} and same must have one shape (n,), got {scores.shape} and {same.shape}"
        )
    if same.dtype != bool:
        raise ValueError(f"same must be bool, got {same.dtype}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{name} must be finite")
    if same.all() or not same.any():
        raise ValueError("both pairs of one person and pairs of different people are needed")
    return scores, same
