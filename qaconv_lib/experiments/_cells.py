"""Cells and columns of the tables."""

from __future__ import annotations

import pandas as pd

from qaconv_lib.experiments.statistics import Difference, mean_and_deviation


def cell(found: list[dict]) -> str:
    """Rank-1 / mAP, mean ± standard deviation, and the number of seeds."""
    if not found:
        return "–"
    parts = []
    for key in ("rank1", "mean_ap"):
        mean, deviation = mean_and_deviation([100 * scores[key] for scores in found])
        parts.append(f"{mean:.1f}" + (f" ± {deviation:.1f}" if len(found) > 1 else ""))
    return f"{' / '.join(parts)} ({len(found)})"


def interval(difference: Difference | None) -> str:
    """A difference in mAP and its interval."""
    return "–" if difference is None else str(difference)


def published(pair: tuple[float, float] | None) -> str:
    """A published rank-1 / mAP."""
    return "–" if pair is None else "{:.1f} / {:.1f}".format(*pair)


def ordered(rows: dict[str, dict]) -> pd.DataFrame:
    """Columns of one kind side by side: ours, the differences, the published ones."""
    table = pd.DataFrame(rows).T
    kinds = [lambda c: "→" in c and "," not in c, lambda c: "mAP" in c, lambda c: "pub" in c]
    return table[[column for kind in kinds for column in table.columns if kind(column)]]
