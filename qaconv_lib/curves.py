"""Curves and intervals: TLift's time line, shares, ROC, stated against found (chapters 10 to 14).

As in `visualize`, every function returns a Figure and takes an alternative text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from qaconv_lib.arrays import check_timed_scores
from qaconv_lib.temporal import tlift_pivots
from qaconv_lib.visualize import COLOURS, finish

_STYLES = [("blue", "-"), ("vermilion", "--"), ("green", "-."), ("purple", ":"), ("orange", "-")]


def show_time_line(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    query: int,
    gallery_camera: int,
    *,
    tau: float = 100.0,
    sigma: float = 200.0,
    k: int = 10,
    marked: Mapping[str, int] | None = None,
    alt: str,
) -> Figure:
    """Nearby people, pivots and the temporal probability of one query (section 4, Fig. 4).

    Above, the query's camera: the query (star) and the nearby people. Below, one gallery camera:
    its images at their times, as high as their similarity to the query, the pivots under the axis,
    and the temporal probability of Eq. (3). The two time axes are not one: clocks need not agree.

    Args:
        similarity: as for `tlift`, and so are the next four.
        query_cameras: num_query integers.
        query_seconds: num_query times.
        gallery_cameras: num_gallery integers.
        gallery_seconds: num_gallery times.
        query: row of the similarity.
        gallery_camera: the camera G, which needs images.
        tau: as for `tlift`, and so are the next two.
        sigma: width of the kernel, seconds.
        k: number of best pairs.
        marked: gallery columns to mark in the lower part, by a short name.
        alt: what the figure shows, in words.

    Raises:
        IndexError, TypeError, ValueError: as `tlift_pivots`; or the camera has no images.
    """
    timed = similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds
    found = tlift_pivots(*timed, query, gallery_camera, tau=tau, k=k)
    scene = check_timed_scores(*timed)
    columns = np.flatnonzero(scene.gallery_cameras == gallery_camera)
    if not len(columns):
        raise ValueError(f"there are no gallery images of camera {gallery_camera}")
    figure, (above, below) = plt.subplots(
        2, 1, figsize=(5.6, 4.4), height_ratios=[1, 4], layout="constrained"
    )
    own = scene.query_seconds - scene.query_seconds[query]
    in_camera = scene.query_cameras == scene.query_cameras[query]
    near = in_camera & (np.abs(own) < 2 * tau)
    above.axvspan(-tau, tau, color=COLOURS["sky"], alpha=0.25)
    above.plot(own[near], np.zeros(near.sum()), "|", color=COLOURS["grey"], markersize=14)
    above.plot(own[found.nearby], np.zeros(len(found.nearby)), "o", color=COLOURS["sky"])
    above.plot(0, 0, "*", color=COLOURS["blue"], markersize=14)
    above.set(xlim=(-2 * tau, 2 * tau), yticks=[])
    above.set_title(f"the query's camera: query (star), nearby people within {tau:g} s", fontsize=9)

    seconds, scores = scene.gallery_seconds, scene.scores[query]
    grid = np.linspace(seconds[columns].min(), seconds[columns].max(), 400)
    grid = np.union1d(grid, seconds[found.gallery])  # a narrow peak must not fall between
    kernel = np.exp(-(((seconds[found.gallery][:, None] - grid) / sigma) ** 2))  # Eq. (3)
    below.vlines(seconds[columns], 0, scores[columns], color=COLOURS["grey"], linewidth=1)
    below.plot(
        grid, kernel.mean(axis=0), color=COLOURS["sky"], linewidth=2, label="temporal probability"
    )
    below.plot(
        seconds[found.gallery],
        np.full(len(found.gallery), -0.06),
        "^",
        color=COLOURS["sky"],
        markeredgecolor="black",
        label="pivots",
    )
    for number, (name, column) in enumerate((marked or {}).items()):
        place = seconds[column], scores[column]
        below.plot(*place, "osD^v"[number % 5], color=COLOURS[_STYLES[number % 5][0]])
        below.annotate(name, place, xytext=(5, 4), textcoords="offset points")
    below.set(xlabel="seconds on the gallery camera's clock", ylim=(-0.12, 1.05))
    below.set_title("the gallery camera: similarity of every image to the query (grey)", fontsize=9)
    below.legend(fontsize=9, loc="upper right")
    return finish(figure, alt)


def show_roc(
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    *,
    marked: Sequence[float] = (1e-2, 1e-3),
    title: str | None = None,
    alt: str,
) -> Figure:
    """ROC curves over the logarithm of the false positive rate.

    Args:
        curves: by name; each with `false_positive_rate` and `true_positive_rate`, as the `roc` of
            a record has them and `Roc._asdict()` too.
        marked: false positive rates to draw a line at.
        title: a line above the picture.
        alt: what the figure shows, in words.

    Raises:
        ValueError: no curves.
    """
    if not curves:
        raise ValueError("no curves to show")
    figure, axis = plt.subplots(figsize=(5.4, 4), layout="constrained")
    lowest = 1.0
    for number, (name, curve) in enumerate(curves.items()):
        false, true = (
            np.asarray(curve[key]) for key in ("false_positive_rate", "true_positive_rate")
        )
        colour, line = _STYLES[number % len(_STYLES)]
        some = false > 0
        axis.step(
            false[some], true[some], where="post", color=COLOURS[colour], linestyle=line, label=name
        )
        lowest = min(lowest, false[some].min())
    for rate in marked:
        axis.axvline(rate, color=COLOURS["grey"], linewidth=0.8, linestyle=":")
    axis.set(
        xscale="log",
        xlim=(min(lowest, *marked) if marked else lowest, 1),
        ylim=(0, 1.02),
        xlabel="false positive rate",
        ylabel="true positive rate",
    )
    axis.legend(fontsize=8)
    if title:
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)


def show_reliability(
    tables: Mapping[str, pd.DataFrame | Mapping[str, Sequence[float]]],
    *,
    title: str | None = None,
    alt: str,
) -> Figure:
    """Stated probabilities beside what happened; a good calibration lies on the diagonal.

    Args:
        tables: by name, from `reliability`, or as a record has them.
        title: a line above the picture.
        alt: what the figure shows, in words.

    Raises:
        ValueError: no tables.
    """
    if not tables:
        raise ValueError("no tables to show")
    figure, axis = plt.subplots(figsize=(4.6, 4), layout="constrained")
    axis.plot([0, 1], [0, 1], color=COLOURS["grey"], linewidth=0.8, linestyle=":")
    for number, (name, table) in enumerate(tables.items()):
        colour, line = _STYLES[number % len(_STYLES)]
        axis.plot(
            np.asarray(table["stated"]),
            np.asarray(table["happened"]),
            marker="osD^v"[number % len(_STYLES)],
            markersize=4,
            color=COLOURS[colour],
            linestyle=line,
            label=name,
        )
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="stated probability", ylabel="share of one person")
    axis.legend(fontsize=8)
    if title:
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)


def show_shares(
    shares: Mapping[str, pd.DataFrame], *, label: str, title: str | None = None, alt: str
) -> Figure:
    """Shares with their intervals: one line a row of the tables, one mark a table.

    Args:
        shares: by name; tables with the columns `share`, `low` and `high`, from 0 to 1. Their
            indices are the lines' labels; a table need not have all of them.
        label: what the shares are shares of.
        title: a line above the picture.
        alt: what the figure shows, in words.

    Raises:
        ValueError: no tables, or tables without rows.
    """
    lines = list(dict.fromkeys(name for table in shares.values() for name in table.index))
    if not lines:
        raise ValueError("no shares to show")
    step = 0.7 / len(shares)
    height = len(lines) * (0.16 + 0.16 * len(shares)) + 1.1
    figure, axis = plt.subplots(figsize=(4.8, height), layout="constrained")
    for number, (name, table) in enumerate(shares.items()):
        colour, _ = _STYLES[number % len(_STYLES)]
        middle = 100 * table["share"].to_numpy()
        ends = np.abs(100 * table[["low", "high"]].to_numpy().T - middle)
        axis.errorbar(
            middle,
            [lines.index(line) + (number + 0.5) * step - 0.35 for line in table.index],
            xerr=ends,
            fmt="osD^v"[number % len(_STYLES)],
            color=COLOURS[colour],
            markersize=5,
            label=name,
        )
    for line in range(1, len(lines)):
        axis.axhline(line - 0.5, color=COLOURS["grey"], linewidth=0.4)
    axis.set_yticks(range(len(lines)), lines, fontsize=9)
    axis.set(ylim=(len(lines) - 0.5, -0.5), xlabel=label)
    axis.set_xlim(left=0)
    axis.grid(axis="x", alpha=0.3)
    if len(shares) > 1:
        figure.legend(fontsize=9, loc="outside upper center", ncols=2)
    if title:
        axis.set_title(title, fontsize=10)
    return finish(figure, alt)


def show_share_curves(
    curves: Mapping[str, pd.DataFrame], *, across: str, label: str, alt: str
) -> Figure:
    """Shares over a number, with their intervals as bands.

    Args:
        curves: by name; tables with the columns `share`, `low` and `high`, from 0 to 1. Their
            indices are the numbers.
        across: what the numbers are.
        label: what the shares are shares of.
        alt: what the figure shows, in words.

    Raises:
        ValueError: no curves.
    """
    if not curves:
        raise ValueError("no curves to show")
    figure, axis = plt.subplots(figsize=(4.8, 3.6), layout="constrained")
    for number, (name, table) in enumerate(curves.items()):
        colour, line = _STYLES[number % len(_STYLES)]
        places = table.index.to_numpy(dtype=float)
        axis.fill_between(
            places, 100 * table["low"], 100 * table["high"], color=COLOURS[colour], alpha=0.2, lw=0
        )
        axis.plot(
            places,
            100 * table["share"],
            color=COLOURS[colour],
            linestyle=line,
            marker="osD^v"[number % len(_STYLES)],
            markersize=4,
            label=name,
        )
    axis.set(xlabel=across, ylabel=label)
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    figure.legend(fontsize=9, loc="outside upper center", ncols=2)
    return finish(figure, alt)
