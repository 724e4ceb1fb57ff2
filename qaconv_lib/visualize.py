"""Pictures of matches: heat maps, correspondences, rank lists (used from chapter 3 on).

Every function returns a matplotlib Figure on a white background. The alternative text is stored
with the figure (`figure.get_label()`), for whoever saves it or puts it into a page. Time lines and
curves are in :mod:`qaconv_lib.visualize`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import Tensor

from qaconv_lib._checks import check_timed_scores
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.temporal import tlift_pivots

#: Okabe and Ito's colours, which readers with any kind of colour vision can tell apart.
COLOURS = {
    "blue": "#0072B2",
    "orange": "#E69F00",
    "green": "#009E73",
    "vermilion": "#D55E00",
    "purple": "#CC79A7",
    "sky": "#56B4E9",
    "grey": "#7F7F7F",
}
SIMILARITY_COLOURS = "viridis"
# How far the lines of a pair bow, at most, as a share of their length.
_BOW = 0.12


def show_images(
    images: Sequence[Image.Image],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    alt: str,
) -> Figure:
    """A grid of images.

    Args:
        images: the pictures.
        titles: one short line above each picture.
        columns: pictures in a row.
        alt: what the figure shows, in words.
    """
    if not images:
        raise ValueError("no images to show")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.1 * columns, 2.4 * rows), squeeze=False, layout="constrained"
    )
    for position, axis in enumerate(axes.flat):
        axis.axis("off")
        if position < len(images):
            axis.imshow(images[position])
            if titles is not None:
                axis.set_title(titles[position], fontsize=8)
    return finish(figure, alt)


def show_location_match(
    query_image: Image.Image,
    gallery_image: Image.Image,
    query_map: Tensor,
    gallery_map: Tensor,
    locations: Sequence[int],
    *,
    kernel_size: int = 1,
    alt: str,
) -> Figure:
    """Where in the gallery image each of some query locations finds itself again (section 3.1).

    Args:
        query_image: picture of any size.
        gallery_image: picture of any size.
        query_map: shape (d, h, w).
        gallery_map: shape (d, h, w).
        locations: query locations, numbered row by row.
        kernel_size: odd side of the kernels.
        alt: what the figure shows, in words.
    """
    similarity = correlate(query_map, gallery_map, kernel_size).numpy(force=True)
    height, width = gallery_map.shape[-2:]
    figure, axes = plt.subplots(
        2,
        len(locations),
        figsize=(1.7 * len(locations) + 0.8, 6),
        squeeze=False,
        layout="constrained",
    )
    for (top, bottom), location in zip(axes.T, locations, strict=True):
        _show(top, query_image, height, width)
        row, column = divmod(location, width)
        top.add_patch(_cell_frame(row, column, COLOURS["vermilion"]))
        top.set_title(f"row {row}, column {column}", fontsize=9)
        _show(bottom, gallery_image, height, width)
        heat = bottom.imshow(
            similarity[location],
            cmap=SIMILARITY_COLOURS,
            alpha=0.6,
            vmin=0,
            vmax=similarity[list(locations)].max(),
            extent=(0, width, height, 0),
            interpolation="nearest",
        )
        best = divmod(int(similarity[location].argmax()), width)
        bottom.add_patch(_cell_frame(*best, COLOURS["vermilion"]))
        bottom.set_title(f"best: {similarity[location].max():.2f}", fontsize=9)
    figure.colorbar(heat, ax=axes.ravel().tolist(), label="similarity", shrink=0.9)
    return finish(figure, alt)


def show_correspondences(
    query_image: Image.Image,
    gallery_image: Image.Image,
    query_map: Tensor,
    gallery_map: Tensor,
    *,
    threshold: float = 0.5,
    side: str = "query",
    mutual: bool = False,
    locations: Collection[int] | None = None,
    right: np.ndarray | None = None,
    kernel_size: int = 1,
    title: str | None = None,
    alt: str,
) -> Figure:
    """Lines between best matches, coloured by similarity (Fig. 2).

    Args:
        query_image: picture of any size, drawn on the left.
        gallery_image: picture of any size, drawn on the right.
        query_map: shape (d, h, w).
        gallery_map: shape (d, h, w).
        threshold: only matches above this similarity are drawn.
        side: "query" draws a line from each query location to its best gallery location, "gallery"
            one from each gallery location to its best query location, "both" all of these.
        mutual: only matches in which each location is the other's best.
        locations: only matches of these query locations; None for all.
        right: (h*w, h*w) bool, whether query location `k` and gallery location `l` belong
            together, as `right_links` says; lines that join others are dashed and end in crosses.
        kernel_size: odd side of the kernels.
        title: a line above the pictures.
        alt: what the figure shows, in words.

    Raises:
        ValueError: an unknown side, `right` of another shape, or as for `correlate`.
    """
    links = _links(query_map, gallery_map, kernel_size, threshold, side, mutual)
    height, width = query_map.shape[-2:]
    if right is not None and np.shape(right) != (height * width, gallery_map[0].numel()):
        raise ValueError(
            f"right must have shape {(height * width, gallery_map[0].numel())}, got "
            f"{np.shape(right)}"
        )
    figure, axes = plt.subplots(1, 2, figsize=(4.6, 4.4), layout="constrained")
    for axis, image, name in zip(
        axes, (query_image, gallery_image), ("query", "gallery"), strict=True
    ):
        _show(axis, image, height, width)
        axis.set_title(name, fontsize=9)
    colours = plt.get_cmap(SIMILARITY_COLOURS)
    scale = plt.Normalize(threshold, kernel_size**2)
    for (location, place), similarity in links.items():
        if locations is not None and location not in locations:
            continue
        good = right is None or bool(right[location, place])
        start, end = ((cell % width + 0.5, cell // width + 0.5) for cell in (location, place))
        colour = colours(scale(similarity))
        for axis, point in zip(axes, (start, end), strict=True):
            axis.plot(*point, "o" if good else "X", ms=4 if good else 6, c=colour, mec="w", mew=0.5)
        figure.add_artist(
            ConnectionPatch(
                start,
                end,
                "data",
                "data",
                axesA=axes[0],
                axesB=axes[1],
                # Level lines of one row would lie on each other; each column has a bow of its own.
                connectionstyle=f"arc3,rad={_BOW * (2 * start[0] / width - 1):.3f}",
                color=colour,
                linestyle="-" if good else (0, (2, 1.5)),
                linewidth=1.4,
                path_effects=[withStroke(linewidth=2.4, foreground="white")],
            )
        )
    bar = figure.colorbar(plt.cm.ScalarMappable(scale, colours), ax=list(axes), shrink=0.8)
    bar.set_label("similarity")
    if title:
        figure.suptitle(title, fontsize=10)
    return finish(figure, alt)


def _links(
    query_map: Tensor,
    gallery_map: Tensor,
    kernel_size: int,
    threshold: float,
    side: str,
    mutual: bool,
) -> dict[tuple[int, int], float]:
    """Similarities by query and gallery location, of the matches that are to be drawn."""
    if side not in ("query", "gallery", "both"):
        raise ValueError(f'side must be "query", "gallery" or "both", got {side!r}')
    found = find_correspondences(query_map, gallery_map, kernel_size)
    forth = enumerate(found.gallery_location.tolist())
    back = ((location, place) for place, location in enumerate(found.query_location.tolist()))
    from_query = dict(zip(forth, found.similarity_to_gallery.tolist(), strict=True))
    from_gallery = dict(zip(back, found.similarity_to_query.tolist(), strict=True))
    chosen = {"query": from_query, "gallery": from_gallery, "both": from_query | from_gallery}[side]
    return {
        link: similarity
        for link, similarity in chosen.items()
        if similarity > threshold and (not mutual or (link in from_query and link in from_gallery))
    }


#: How a gallery image of a rank list is framed and marked: colour, line and mark.
_LOOKS = {
    "match": (COLOURS["blue"], "-", "\N{CHECK MARK}"),
    "wrong": (COLOURS["vermilion"], "--", "\N{MULTIPLICATION SIGN}"),
    "distractor": (COLOURS["vermilion"], ":", "distractor"),
    "junk": (COLOURS["grey"], ":", "junk"),
    "unknown": (COLOURS["grey"], "-", ""),
}


class RankList(NamedTuple):
    """The best gallery images of a query, best first."""

    images: Sequence[Image.Image]
    kinds: Sequence[str]  # "match", "wrong", "distractor", "junk" or "unknown" for each
    scores: Sequence[float]


def show_rank_list(
    query_image: Image.Image,
    gallery_images: Sequence[Image.Image],
    kinds: Sequence[str],
    scores: Sequence[float],
    *,
    title: str | None = None,
    alt: str,
) -> Figure:
    """A query and its best gallery images; right and wrong ones differ in line and mark.

    Args:
        query_image: the query, drawn first.
        gallery_images: best first.
        kinds: "match", "wrong", "distractor", "junk" or "unknown" for each gallery image.
        scores: the similarity of each.
        title: a line above the pictures.
        alt: what the figure shows, in words.
    """
    found = RankList(gallery_images, kinds, scores)
    return show_rank_lists(query_image, {"": found}, title=title, alt=alt)


def show_rank_lists(
    query_image: Image.Image,
    lists: Mapping[str, RankList],
    *,
    title: str | None = None,
    alt: str,
) -> Figure:
    """Rank lists of one query below each other, such as before and after re-ranking.

    Args:
        query_image: the query, drawn first in each line.
        lists: by name, which stands left of the line.
        title: a line above the pictures.
        alt: what the figure shows, in words.

    Raises:
        ValueError: no lists, or an unknown kind of image.
    """
    if not lists:
        raise ValueError("no rank lists to show")
    count = max(len(found.images) for found in lists.values()) + 1
    figure, axes = plt.subplots(
        len(lists),
        count,
        figsize=(1.05 * count, 2.7 * len(lists)),
        squeeze=False,
        layout="constrained",
    )
    for row, (name, found) in zip(axes, lists.items(), strict=True):
        row[0].imshow(query_image)
        row[0].set_title("query\n", fontsize=10)
        row[0].set_ylabel(name, fontsize=11)
        for axis, image, kind, score in zip(row[1 : len(found.images) + 1], *found, strict=True):
            if kind not in _LOOKS:
                raise ValueError(f"kinds must be among {', '.join(_LOOKS)}, got {kind!r}")
            colour, line, mark = _LOOKS[kind]
            axis.imshow(image)
            axis.set_title(f"{mark}\n{score:.2f}", fontsize=10, color=colour)
            for spine in axis.spines.values():
                spine.set(color=colour, linestyle=line, linewidth=2.5)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        for axis in row[len(found.images) + 1 :]:  # a shorter list
            axis.axis("off")
    if title:
        figure.suptitle(title, fontsize=10)
    return finish(figure, alt)


def _show(axis: Axes, image: Image.Image, height: int, width: int) -> None:
    """Draw an image in the units of its map: one cell is 1 x 1."""
    axis.imshow(np.asarray(image), extent=(0, width, height, 0))
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.set_aspect(image.height / image.width * width / height)


def _cell_frame(row: int, column: int, colour: str) -> Rectangle:
    return Rectangle((column, row), 1, 1, fill=False, edgecolor=colour, linewidth=2)


def finish(figure: Figure, alt: str) -> Figure:
    """Store the alternative text with a figure; ValueError if it is empty."""
    if not alt.strip():
        raise ValueError("alt is empty; say in words what the figure shows")
    figure.set_label(alt)
    figure.patch.set_facecolor("white")
    return figure


# curves ------------------------------------------------------------

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
