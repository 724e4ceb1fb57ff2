"""Figures of matches, rank lists and curves (used from chapter 3 on).

Every function returns a matplotlib Figure on a white background. Its alternative text `alt` says in
words what it shows, and is stored with it (`figure.get_label()`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from qaconv_lib._checks import check_choice
from qaconv_lib.matching import Correspondences, correlate, find_correspondences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
_BLUE, _WRONG, _SKY, _GREY = (COLOURS[name] for name in ("blue", "vermilion", "sky", "grey"))
SIMILARITY_COLOURS = "viridis"
# Groups of body parts, as in the explorer: colour of their lines, and what their locations show.
_PARTS = {
    "head": ("blue", ["head"]),
    "torso and arms": ("vermilion", ["torso", "upper arm", "forearm"]),
    "bag": ("orange", ["bag"]),
    "legs": ("green", ["hips", "thigh", "shin"]),
    "feet": ("purple", ["foot"]),
    "not the person": ("grey", ["background", "other person", "occluder"]),
}
_FADED = 0.55  # of an image, behind lines in the colours of body parts
_BOW = 0.12  # how far the lines of a pair bow, at most, as a share of their length
_NAME = {"ha": "right", "va": "center", "fontsize": 8}  # of a group of parts, beside its lines
_NAME_ROWS = 0.1  # distance of two names, at least, as a share of the map's height
_CURVES = [  # colour, line and marker
    *(("blue", "-", "o"), ("vermilion", "--", "s"), ("green", "-.", "D")),
    *(("purple", ":", "^"), ("orange", "-", "v")),
]
# How a gallery image of a rank list is framed and marked: colour, line and mark.
_KINDS = {
    "match": (_BLUE, "-", "\N{CHECK MARK}"),
    "wrong": (_WRONG, "--", "\N{MULTIPLICATION SIGN}"),
    "distractor": (_WRONG, ":", "distractor"),
    "junk": (_GREY, ":", "junk"),
    "unknown": (_GREY, "-", ""),
}


def show_images(
    images: Sequence[Image.Image],
    titles: Sequence[str] | None = None,
    *,
    columns: int = 8,
    alt: str,
) -> Figure:
    """A grid of images, `columns` in a row, with a short title above each."""
    if not images:
        raise ValueError("images must not be empty")
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    figure, axes = new_axes(rows, columns, 1.1 * columns, 2.4 * rows)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image in zip(axes.flat, images, strict=False):
        axis.imshow(image)
    for axis, title in zip(axes.flat, titles or (), strict=False):
        axis.set_title(title, fontsize=9)
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
    """Similarity of all gallery locations to some query locations, numbered row by row."""
    similarity = correlate(query_map, gallery_map, kernel_size).numpy(force=True)
    height, width = gallery_map.shape[-2:]
    style = {"cmap": SIMILARITY_COLOURS, "alpha": 0.6, "interpolation": "nearest"}
    style |= {"vmin": 0, "vmax": similarity[list(locations)].max()}
    figure, axes = new_axes(2, len(locations), 1.7 * len(locations) + 0.8, 6)
    for (top, bottom), location in zip(axes.T, locations, strict=True):
        row, column = divmod(location, width)
        _show(top, query_image, height, width, f"row {row}, column {column}")
        _frame(top, row, column)
        found = similarity[location]
        _show(bottom, gallery_image, height, width, f"best: {found.max():.2f}")
        heat = bottom.imshow(found, extent=(0, width, height, 0), **style)
        _frame(bottom, *divmod(int(found.argmax()), width))
    label = "local similarity" if kernel_size == 1 else "sum of local similarities"
    figure.colorbar(heat, ax=axes.ravel().tolist(), label=label, shrink=0.9)
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
    parts: Sequence[str] | None = None,
    kernel_size: int = 1,
    title: str | None = None,
    into: Any = None,
    alt: str,
) -> Figure:
    """Lines between best matches of two maps (d, h, w), coloured by similarity (Fig. 2).

    Args:
        threshold: only matches above this similarity are drawn.
        side: "query" draws a line from each query location to its best gallery location, "gallery"
            one from each gallery location to its best query location, "both" all of these.
        mutual: only matches in which each location is the other's best.
        locations: only matches of these query locations.
        right: (h*w, h*w) bool, whether a query and a gallery location belong together, as
            `right_links` says; lines between others are dashed and end in crosses.
        parts: what each query location shows, h*w words such as "head" (`SHOWN`): lines take the
            colours of body parts and are thicker where more similar, and the images are faded.
        into: the part of a figure to draw into, such as one of its two `subfigures`.
    """
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize, to_hex
    from matplotlib.patches import ConnectionPatch
    from matplotlib.patheffects import withStroke

    found = find_correspondences(query_map, gallery_map, kernel_size)
    height, width = query_map.shape[-2:]
    shape = (height * width, gallery_map[0].numel())
    if right is not None and np.shape(right) != shape:
        raise ValueError(f"right must have shape {shape}, got {np.shape(right)}")
    if parts is not None and len(parts) != shape[0]:
        raise ValueError(f"parts must name {shape[0]} locations, got {len(parts)}")
    group_of = {part: group for group, (_, shown) in _PARTS.items() for part in shown}
    for part in () if parts is None else parts:
        check_choice("parts", part, *group_of)
    figure, axes = into, into and into.subplots(1, 2)
    if into is None:
        figure, (axes,) = new_axes(1, 2, 4.6, 4.4)
    _show(axes[0], query_image, height, width, "query")
    _show(axes[1], gallery_image, height, width, "gallery")
    for axis in axes:
        axis.images[0].set_alpha(None if parts is None else _FADED)
    colours, scale = colormaps[SIMILARITY_COLOURS], Normalize(threshold, kernel_size**2)
    drawn: dict[str, list[float]] = {}  # rows where the lines of each group of parts begin
    for link, similarity in _links(found, side, mutual).items():
        if similarity <= threshold or (locations is not None and link[0] not in locations):
            continue
        good, wide = right is None or bool(right[link]), 1.4
        colour = to_hex(colours(scale(similarity)))
        if parts is not None:
            group = group_of[parts[link[0]]]
            drawn.setdefault(group, []).append(link[0] // width + 0.5)
            colour, wide = COLOURS[_PARTS[group][0]], 1.2 + 3 * scale(similarity)
        ends = [(place % width + 0.5, place // width + 0.5) for place in link]
        for axis, point in zip(axes, ends, strict=True):
            axis.plot(*point, "o" if good else "X", ms=4 if good else 6, c=colour, mec="w", mew=0.5)
        line = ConnectionPatch(ends[0], ends[1], "data", axesA=axes[0], axesB=axes[1], color=colour)
        # level lines of one row would lie on each other, so each column bows differently
        line.set_connectionstyle(f"arc3,rad={_BOW * (2 * ends[0][0] / width - 1):.3f}")
        line.set(linestyle="-" if good else (0, (2, 1.5)), linewidth=wide)
        line.set_path_effects([withStroke(linewidth=wide + 1, foreground="white")])
        figure.add_artist(line)
    if parts is None:
        mappable = ScalarMappable(scale, colours)
        figure.colorbar(mappable, ax=list(axes), shrink=0.8, label="local similarity")
    lowest = -1.0  # of the names so far, which must not lie on each other
    for group, rows in sorted(drawn.items(), key=lambda item: np.mean(item[1])):
        lowest = max(float(np.mean(rows)), lowest + _NAME_ROWS * height)
        colour = COLOURS[_PARTS[group][0]]
        axes[0].text(-0.2, lowest, "\n".join(group.rsplit(" ", 1)), color=colour, **_NAME)
    return finish(figure, alt, title)


def _links(found: Correspondences, side: str, mutual: bool) -> dict[tuple[int, int], float]:
    """Similarities of the matches from that side, by query and gallery location."""
    check_choice("side", side, "query", "gallery", "both")
    forth = enumerate(found.gallery_location.tolist())
    back = ((location, place) for place, location in enumerate(found.query_location.tolist()))
    from_query = dict(zip(forth, found.similarity_to_gallery.tolist(), strict=True))
    from_gallery = dict(zip(back, found.similarity_to_query.tolist(), strict=True))
    chosen = {"query": from_query, "gallery": from_gallery, "both": from_query | from_gallery}[side]
    both = from_query.keys() & from_gallery.keys()
    return {link: chosen[link] for link in chosen if not mutual or link in both}


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
    """A query and its best gallery images, as in a `RankList`."""
    found = RankList(gallery_images, kinds, scores)
    return show_rank_lists(query_image, {"": found}, title=title, alt=alt)


def show_rank_lists(
    query_image: Image.Image,
    lists: Mapping[str, RankList],
    *,
    title: str | None = None,
    alt: str,
) -> Figure:
    """Named rank lists of one query below each other, such as before and after re-ranking.

    Right and wrong images differ in line and mark, not only in colour.
    """
    count = max(len(found.images) for found in lists.values()) + 1
    figure, axes = new_axes(len(lists), count, 1.05 * count, 2.7 * len(lists))
    for row, (name, found) in zip(axes, lists.items(), strict=True):
        row[0].imshow(query_image)
        row[0].set_title("query\n", fontsize=10)
        row[0].set_ylabel(name, fontsize=11)
        for axis, image, kind, score in zip(row[1 : len(found.images) + 1], *found, strict=True):
            check_choice("kinds", kind, *_KINDS)
            colour, line, mark = _KINDS[kind]
            axis.imshow(image)
            axis.set_title(f"{mark}\n{score:.2f}", fontsize=10, color=colour)
            for spine in axis.spines.values():
                spine.set(color=colour, linestyle=line, linewidth=2.5)
        for axis in row:
            axis.set(xticks=[], yticks=[])
        for axis in row[len(found.images) + 1 :]:  # a shorter list
            axis.axis("off")
    return finish(figure, alt, title)


def finish(figure: Figure, alt: str, title: str | None = None) -> Figure:
    """Store the alternative text with a figure; ValueError if it is empty."""
    if not alt.strip():
        raise ValueError("alt must say in words what the figure shows, got an empty text")
    if title:
        figure.suptitle(title, fontsize=10)
    figure.set_label(alt)
    figure.patch.set_facecolor("white")
    return figure


def new_axes(
    rows: int, columns: int, width: float, height: float, **options: Any
) -> tuple[Any, Any]:
    """A figure of that many inches, and its axes (rows, columns)."""
    import matplotlib.pyplot as plt

    options |= {"figsize": (width, height), "layout": "constrained"}
    return plt.subplots(rows, columns, squeeze=False, **options)


def _show(axis: Axes, image: Image.Image, height: int, width: int, title: str) -> None:
    """Draw an image in the units of its map: one location is 1 x 1."""
    axis.set_title(title, fontsize=9)
    axis.imshow(np.asarray(image), extent=(0, width, height, 0))
    axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    axis.set_aspect(image.height / image.width * width / height)


def _frame(axis: Axes, row: int, column: int) -> None:
    from matplotlib.patches import Rectangle

    axis.add_patch(Rectangle((column, row), 1, 1, fill=False, edgecolor=_WRONG, linewidth=2))


def curve_style(number: int) -> dict[str, str]:
    """Colour, line and marker of a curve, by its number."""
    colour, line, marker = _CURVES[number % len(_CURVES)]
    return {"color": COLOURS[colour], "linestyle": line, "marker": marker}
