"""Figures of ROC curves and calibrations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from qaconv_lib.visualize import COLOURS, curve_style, finish, new_axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def show_roc(curves: Mapping[str, Mapping[str, Sequence[float]]], *, alt: str) -> Figure:
    """ROC curves by name, with `false_positive_rate` (logarithmic) and `true_positive_rate`."""
    figure, ((axis,),) = new_axes(1, 1, 5.4, 4)
    lowest = 1e-3
    for number, (name, rates) in enumerate(curves.items()):
        false, true = map(np.asarray, (rates["false_positive_rate"], rates["true_positive_rate"]))
        some = false > 0
        style = curve_style(number) | {"marker": ""}
        axis.step(false[some], true[some], where="post", label=name, **style)
        lowest = min(lowest, false[some].min())
    for rate in (1e-2, 1e-3):
        axis.axvline(rate, color=COLOURS["grey"], linewidth=0.8, linestyle=":")
    axis.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.02))
    axis.set(xlabel="false positive rate", ylabel="true positive rate")
    axis.legend(fontsize=8)
    return finish(figure, alt)


def show_reliability(
    tables: Mapping[str, Mapping[str, Any]], *, title: str | None = None, alt: str
) -> Figure:
    """Tables by name, from `reliability`; a good calibration lies on the diagonal."""
    figure, ((axis,),) = new_axes(1, 1, 4.6, 4)
    axis.plot([0, 1], [0, 1], color=COLOURS["grey"], linewidth=0.8, linestyle=":")
    for number, (name, table) in enumerate(tables.items()):
        axis.plot(
            table["stated"], table["happened"], markersize=4, label=name, **curve_style(number)
        )
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability", ylabel="share of one person")
    axis.legend(fontsize=8)
    axis.set_title(title or "", fontsize=10)
    return finish(figure, alt)
