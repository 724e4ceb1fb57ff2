"""Figures of shares of right matches (chapter 11)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from qaconv_lib.visualize import COLOURS, curve_style, finish, new_axes

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


def show_shares(
    shares: Mapping[str, pd.DataFrame], *, label: str, title: str | None = None, alt: str
) -> Figure:
    """Shares (`label`) with their intervals: one line per row of the tables, one mark per table.

    The tables have the columns `share`, `low` and `high`, from 0 to 1, and the lines' labels as
    index; a table need not have all of them.
    """
    lines = list(dict.fromkeys(name for table in shares.values() for name in table.index))
    step = 0.7 / len(shares)
    figure, ((axis,),) = new_axes(1, 1, 4.8, len(lines) * (0.16 + 0.16 * len(shares)) + 1.1)
    for number, (name, table) in enumerate(shares.items()):
        middle = 100 * table["share"].to_numpy()
        ends = np.abs(100 * table[["low", "high"]].to_numpy().T - middle)
        heights = [lines.index(line) + (number + 0.5) * step - 0.35 for line in table.index]
        style = curve_style(number) | {"linestyle": "none"}
        axis.errorbar(middle, heights, xerr=ends, markersize=5, label=name, **style)
    for line in range(1, len(lines)):
        axis.axhline(line - 0.5, color=COLOURS["grey"], linewidth=0.4)
    axis.set_yticks(range(len(lines)), lines, fontsize=9)
    axis.set(ylim=(len(lines) - 0.5, -0.5), xlabel=label)
    axis.set_xlim(left=0)
    axis.grid(axis="x", alpha=0.3)
    if len(shares) > 1:
        figure.legend(fontsize=9, loc="outside upper center", ncols=2)
    axis.set_title(title or "", fontsize=10)
    return finish(figure, alt)


def show_share_curves(
    curves: Mapping[str, pd.DataFrame], *, across: str, label: str, alt: str
) -> Figure:
    """Shares as in `show_shares` over the numbers `across` in the index, with bands."""
    figure, ((axis,),) = new_axes(1, 1, 4.8, 3.6)
    for number, (name, table) in enumerate(curves.items()):
        places, style = table.index.to_numpy(dtype=float), curve_style(number)
        low, high = 100 * table["low"], 100 * table["high"]
        axis.fill_between(places, low, high, color=style["color"], alpha=0.2, lw=0)
        axis.plot(places, 100 * table["share"], markersize=4, label=name, **style)
    axis.set(xlabel=across, ylabel=label)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside upper center", ncols=2)
    return finish(figure, alt)
