"""How sure a difference is: the bootstrap over people, and over people and seeds (chapter 13)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.special import stdtrit


class Difference(NamedTuple):
    """A difference of two means and its 95 % interval; printed with one decimal."""

    mean: float
    low: float
    high: float
    seeds: int = 1  #: of the method with fewer; with one, the interval reflects people alone

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
    low, high = np.quantile(_people_draws(difference, groups, repeats), [0.025, 0.975])
    return Difference(float(difference.mean()), float(low), float(high))


def two_way_bootstrap(
    ours: np.ndarray,
    theirs: np.ndarray | None = None,
    groups: Sequence[int] | np.ndarray | None = None,
    *,
    repeats: int = 10_000,
) -> Difference:
    """Mean difference of two methods, and its 95 % interval over people and seeds (chapter 13).

    `ours` (n, q) and `theirs` (m, q) hold one row of scores per seed, on the same queries. Without
    `theirs`, `ours` holds differences between scores of the same models, or one method's scores.
    Each draw adds the error of drawn people (`groups`) and that of drawn seeds. For few seeds, the
    latter is widened by sqrt(n / (n - 1)), and the interval by Student's t. ValueError for other
    shapes, or scores that are not finite.
    """
    sides = [np.asarray(side, dtype=float) for side in (ours, theirs) if side is not None]
    if any(side.ndim != 2 or side.shape[1] != sides[0].shape[1] for side in sides):
        raise ValueError(
            f"ours and theirs must have shape (seeds, queries), got {[s.shape for s in sides]}"
        )
    difference = sides[0].mean(axis=0) - sum(side.mean(axis=0) for side in sides[1:])
    mean, fewest = float(difference.mean()), min(map(len, sides))
    draws, rng = _people_draws(difference, groups, repeats), np.random.default_rng(1)
    people, seeds, stretch = draws.var(), 0.0, 1.0
    if fewest > 1:
        for sign, side in zip((1, -1), sides, strict=False):
            n, means = len(side), side.mean(axis=1)
            error = means[rng.integers(n, size=(repeats, n))].mean(axis=1) - means.mean()
            draws = draws + sign * error * np.sqrt(n / (n - 1))
            seeds += means.var(ddof=1) / n
        # Satterthwaite: people count as many, seeds as n + m - 2 degrees of freedom.
        freedom = sum(len(side) - 1 for side in sides) * (1 + people / max(seeds, 1e-12)) ** 2
        stretch = stdtrit(freedom, 0.975) / stdtrit(np.inf, 0.975)
    low, high = mean + (np.quantile(draws, [0.025, 0.975]) - mean) * stretch
    return Difference(mean, float(low), float(high), fewest)


def _people_draws(
    difference: np.ndarray, groups: Sequence[int] | np.ndarray | None, repeats: int
) -> np.ndarray:
    """Means of the differences (n,) of drawn groups, shape (repeats,)."""
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
    return means
