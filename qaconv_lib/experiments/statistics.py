"""How sure a difference is: the paired bootstrap (chapters 8 and 12)."""

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
) -> Difference:
    """Mean of paired differences (n,) and its 95 % percentile bootstrap interval.

    A query's two scores stay together, so what makes it hard for both methods cancels. Queries that
    show one person are not independent: with `groups`, e.g. identities, whole groups are drawn.
    """
    difference = np.asarray(difference, dtype=np.float64)
    if difference.ndim != 1 or not len(difference):
        raise ValueError(f"difference must have shape (n,) with n > 0, got {difference.shape}")
    if not np.isfinite(difference).all():
        raise ValueError("difference must be finite; leave out queries without a match")
    if repeats < 100:
        raise ValueError(f"repeats must be at least 100, got {repeats}")
    labels = np.arange(len(difference)) if groups is None else np.asarray(groups)
    if labels.shape != difference.shape:
        raise ValueError(f"groups must have shape {difference.shape}, got {labels.shape}")
    _, members = np.unique(labels, return_inverse=True)
    sums, sizes = np.bincount(members, difference), np.bincount(members)
    rng, means = np.random.default_rng(0), np.empty(repeats)
    for start in range(0, repeats, 1000):  # blocks bound the memory
        count = min(1000, repeats - start)
        drawn = rng.integers(len(sums), size=(count, len(sums)))
        means[start : start + count] = sums.take(drawn).sum(axis=1) / sizes.take(drawn).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high))
