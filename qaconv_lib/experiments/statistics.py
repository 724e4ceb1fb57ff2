"""How sure a difference is: means over seeds, and the paired bootstrap (chapters 8 and 12)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Difference(NamedTuple):
    """A difference of two means and its bootstrap interval; printed with one decimal."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


def paired_bootstrap(
    difference: Sequence[float] | np.ndarray,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    repeats: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Mean of paired differences and its percentile bootstrap interval.

    Queries are drawn with replacement, as many as there are, and the mean of their differences is
    taken; the interval holds the middle 95 % of the means. A query's two scores stay
    together, so what makes a query hard for both methods cancels. With `groups`, whole groups
    are drawn: queries that show one person are no independent witnesses.

    Args:
        difference: one number a query, e.g. average precision of A minus that of B, shape (n,).
        groups: one label a query, e.g. its identity; None draws queries.
        repeats: number of draws.
        level: share of the means that the interval holds.
        seed: of the draws.

    Returns:
        Mean and interval, in the units of the input.

    Raises:
        ValueError: no differences, a NaN, groups of another length, a level outside (0, 1), or
            fewer than 100 repeats.
    """
    difference = np.asarray(difference, dtype=np.float64)
    if difference.ndim != 1 or not len(difference):
        raise ValueError(f"difference must have shape (n,) with n > 0, got {difference.shape}")
    if not np.isfinite(difference).all():
        raise ValueError("difference must be finite; leave out queries without a match")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if repeats < 100:
        raise ValueError(f"repeats must be at least 100, got {repeats}")
    labels = np.arange(len(difference)) if groups is None else np.asarray(groups)
    if labels.shape != difference.shape:
        raise ValueError(f"groups must have shape {difference.shape}, got {labels.shape}")
    _, members = np.unique(labels, return_inverse=True)
    sums = np.bincount(members, difference)
    sizes = np.bincount(members)
    rng = np.random.default_rng(seed)
    means = np.empty(repeats)
    for start in range(0, repeats, 1000):  # blocks bound the memory
        count = min(1000, repeats - start)
        drawn = rng.integers(len(sums), size=(count, len(sums)))
        means[start : start + count] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Difference(float(difference.mean()), float(low), float(high))


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard deviation over seeds (n - 1 in the denominator; NaN for one seed)."""
    if not len(values):
        raise ValueError("no values to average")
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return float(np.mean(values)), deviation
