"""Figures of shares of right matches (chapter 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from qaconv_lib.visualize import COLOURS, curve_style, finish, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_GAP = 0.06  # between the names of two curves, at least, as a share of the axis


def show_shares(
    shares: Mapping[str, pd.DataFrame], *, label: str, title: str | None = None, alt: str
) -> Figure:
    """Shares (`label`) with their intervals: one line per row of the tables, one mark per table.

    The tables have the columns `share`, `low` and `high`, from 0 to 1, and the lines' labels as
    index; a table need not have all of them.
    """
    lines = list(dict.fromkeys(name for table in shares.values() for name in table.index))
    step = 0.7 / len(shares)
    figure, ((axis,),) = new_axes(1, 1, 6.4, len(lines) * (0.12 + 0.16 * len(shares)) + 0.9)
    axis.set_xlim(0, 105 * max(table["high"].max() for table in shares.values()))
    for number, (name, table) in enumerate(shares.items()):
        middle = 100 * table["share"].to_numpy()
        ends = np.abs(100 * table[["low", "high"]].to_numpy().T - middle)
        heights = [lines.index(line) + (number + 0.5) * step - 0.35 for line in table.index]
        style = curve_style(number) | {"linestyle": "none"}
        axis.errorbar(middle, heights, xerr=ends, markersize=5, **style)
        if len(shares) > 1:  # the name stands where there is more room beside the first mark
            is_left = middle[0] > axis.get_xlim()[1] / 2
            end = middle[0] - ends[0][0] if is_left else middle[0] + ends[1][0]
            _name(axis, name, (end, heights[0]), style["color"], -1 if is_left else 1)
    for line in range(1, len(lines)):
        axis.axhline(line - 0.5, color=COLOURS["grey"], linewidth=0.4)
    axis.set_yticks(range(len(lines)), lines, fontsize=9)
    axis.set(ylim=(len(lines) - 0.5, -0.5), xlabel=label)
    axis.grid(axis="x", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    axis.set_title(title or "", fontsize=10)
    return finish(figure, alt)


def show_share_curves(
    curves: Mapping[str, pd.DataFrame], *, across: str, label: str, alt: str
) -> Figure:
    """Shares as in `show_shares` over the numbers `across` in the index, with bands."""
    figure, ((axis,),) = new_axes(1, 1, 6.4, 3.4)
    ends: list[tuple[float, float, str, str]] = []
    for number, (name, table) in enumerate(curves.items()):
        places, style = table.index.to_numpy(dtype=float), curve_style(number)
        low, high = 100 * table["low"], 100 * table["high"]
        axis.fill_between(places, low, high, color=style["color"], alpha=0.2, lw=0)
        axis.plot(places, 100 * table["share"], markersize=4, **style)
        ends.append((100 * table["share"].iloc[-1], places[-1], name, style["color"]))
    axis.set(xlabel=across, ylabel=label)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    lowest = -np.inf
    for height, place, name, colour in sorted(ends):
        lowest = max(height, lowest + _GAP * axis.get_ylim()[1])
        _name(axis, name, (place, lowest), colour, 1)
    return finish(figure, alt)


def _name(axis: Axes, name: str, point: tuple[float, float], colour: str, direction: int) -> None:
    """Write a name in the colour of its marks, right (1) or left (-1) of a point."""
    axis.annotate(
        name,
        point,
        (7 * direction, 0),
        textcoords="offset points",
        ha="left" if direction > 0 else "right",
        va="center",
        fontsize=9,
        color=colour,
        annotation_clip=False,
    )
