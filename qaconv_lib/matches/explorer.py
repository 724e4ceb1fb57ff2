"""See how a pair of images matches, and how its score comes together (chapter 11).

`show_explorer` does in a notebook what the page `book/explorer.md` does without a kernel;
`explorer_page` writes that page's data.
"""

from __future__ import annotations

import html
import io
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import pandas as pd
from torch import Tensor

from qaconv_lib.datasets import load_image
from qaconv_lib.matching import QAConv, best_matches, find_correspondences
from qaconv_lib.models import ReidModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Whose matches are drawn, with the words for it.
DIRECTIONS = {
    "query": "query \N{RIGHTWARDS ARROW} gallery",
    "gallery": "gallery \N{RIGHTWARDS ARROW} query",
    "mutual": "mutual",
}


class ScoreParts(NamedTuple):
    """How the score of a pair comes together; from `score_parts`.

    Attributes:
        from_query: sum of the weighted best matches of the query's locations.
        from_gallery: the same of the gallery image's locations.
        constant: the part that does not depend on the images.
        logit: the sum of the three.
        similarity: its sigmoid.
    """

    from_query: float
    from_gallery: float
    constant: float
    logit: float
    similarity: float


def score_parts(matcher: QAConv, query_map: Tensor, gallery_map: Tensor) -> ScoreParts:
    """Take the score of one pair of maps (d, h, w), unit channels, apart (chapter 4)."""
    matcher.check_size(query_map)
    weights, constant = (part.double() for part in matcher.fold())
    matches = best_matches(query_map[None], gallery_map[None], matcher.kernel_size)[0, 0]
    from_gallery, from_query = (matches * weights).view(2, -1).sum(dim=1).tolist()
    logit = from_query + from_gallery + float(constant)
    return ScoreParts(from_query, from_gallery, float(constant), logit, 1 / (1 + math.exp(-logit)))


def matcher_of(model: ReidModel) -> QAConv:
    """The matcher of a model; ValueError if it compares images in another way."""
    matcher = getattr(model.criterion, "matcher", None)
    if not isinstance(matcher, QAConv):
        raise ValueError(
            f"a model trained with {model.config.loss} has no local matches; one trained with "
            "qaconv has"
        )
    return matcher


def show_explorer(
    model: ReidModel,
    queries: pd.DataFrame,
    gallery: pd.DataFrame,
    *,
    direction: str = "mutual",
    threshold: float = 0.6,
    widgets: bool = False,
) -> Figure:
    """The matches of pairs of images: a figure of the first pair, or widgets to go through all.

    Args:
        model: a QAConv model.
        queries: table of one or more images, with a column `path`.
        gallery: likewise.
        direction: one of `DIRECTIONS`: best matches of the query's locations, of the gallery
            image's, or those that are each other's best.
        threshold: only matches with a cosine above this are drawn.
        widgets: also show controls for query, gallery image, direction, threshold and location,
            with lines, heat map and score; needs ipywidgets and a running kernel.

    Returns:
        The figure of the first pair; with widgets, pyplot does not show it again.
    """
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    if not -1 <= threshold < 1:
        raise ValueError(f"threshold must lie in [-1, 1), got {threshold}")
    pairs = _Pairs(model, queries, gallery)
    figure = pairs.draw_lines(0, 0, direction, threshold)
    if widgets:
        made = _make_widgets(pairs, direction, threshold)
        import matplotlib.pyplot as plt
        from IPython.display import display  # comes with ipywidgets

        display(made)
        plt.close(figure)
    return figure


class _Pairs:
    """Images and maps of queries and gallery images, and what can be shown of a pair of them."""

    def __init__(self, model: ReidModel, queries: pd.DataFrame, gallery: pd.DataFrame) -> None:
        self.matcher = matcher_of(model)
        self.maps = model.extract(queries), model.extract(gallery)
        self.images = tuple([load_image(p) for p in table["path"]] for table in (queries, gallery))

    def pair(self, query: int, gallery: int) -> tuple[Any, ...]:
        """Both images and both maps."""
        chosen = ((0, query), (1, gallery))
        return tuple(those[side][row] for those in (self.images, self.maps) for side, row in chosen)

    def draw_lines(self, query: int, gallery: int, direction: str, threshold: float) -> Figure:
        from qaconv_lib.visualize import show_correspondences

        pair, size = self.pair(query, gallery), self.matcher.kernel_size
        similarity = score_parts(self.matcher, *pair[2:]).similarity
        return show_correspondences(
            *pair,
            threshold=threshold * size**2,
            side="gallery" if direction == "gallery" else "query",
            mutual=direction == "mutual",
            kernel_size=size,
            title=f"{DIRECTIONS[direction]}, similarity {similarity:.2f}",
            alt=f"Two pictures side by side, similarity {similarity:.2f}, and lines between "
            f"best matches ({DIRECTIONS[direction]}) with a cosine above {threshold:g}.",
        )

    def draw_heat(self, query: int, gallery: int, direction: str, location: int) -> Figure:
        from qaconv_lib.visualize import show_location_match

        *images, first, second = self.pair(query, gallery)
        if direction == "gallery":
            images, first, second = images[::-1], second, first
        return show_location_match(
            images[0],
            images[1],
            first,
            second,
            [location],
            kernel_size=self.matcher.kernel_size,
            alt=f"Location {location} of one picture, and below it how similar each location of "
            "the other is.",
        )

    def describe(
        self, query: int, gallery: int, direction: str, threshold: float, location: int
    ) -> str:
        """The number of lines, the best match of a location, and the score, as HTML."""
        first, second = maps = self.pair(query, gallery)[2:]
        side, other, size = "query", "gallery", self.matcher.kernel_size
        if direction == "gallery":
            first, second, side, other = second, first, other, side
        found = find_correspondences(first, second, size)
        best, places = found.similarity_to_gallery, found.gallery_location
        drawn = best > threshold * size**2
        if direction == "mutual":
            drawn &= found.query_location[places] == places.new_tensor(range(len(places)))
        count, similarity, place = int(drawn.sum()), best[location], int(places[location])
        weight = self.matcher.fold()[0].view(2, -1)[int(side == "query")][location]
        parts = score_parts(self.matcher, *maps)
        lines = (
            f"{count} line{'s' * (count != 1)} above {threshold:.2f}.",
            f"{side} {self.name(location)} matches {other} {self.name(place)} best: similarity "
            f"{similarity:.2f}, times its weight {weight:+.2f} it adds {similarity * weight:+.2f}.",
            f"{parts.from_query:+.2f} (query locations) {parts.from_gallery:+.2f} (gallery "
            f"locations) {parts.constant:+.2f} (constant) = {parts.logit:+.2f}; its sigmoid, the "
            f"similarity of the pictures, is {parts.similarity:.3f}.",
        )
        return "<br>".join(html.escape(line) for line in lines)

    def name(self, location: int) -> str:
        row, column = divmod(location, self.matcher.width)
        return f"row {row}, column {column}"


def _make_widgets(pairs: _Pairs, direction: str, threshold: float) -> Any:
    """The controls, and figures that follow them."""
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "the widgets need ipywidgets: pip install ipywidgets, or leave out widgets=True"
        ) from error
    style = {"description_width": "6em"}

    def dropdown(description: str, options: list[tuple[str, Any]], value: Any = 0) -> Any:
        return ipywidgets.Dropdown(
            options=options, value=value, description=description, style=style
        )

    names = [(pairs.name(n), n) for n in range(pairs.maps[0][0, 0].numel())]
    controls = [
        dropdown("Query", [(f"query {n}", n) for n in range(len(pairs.maps[0]))]),
        dropdown("Gallery", [(f"image {n}", n) for n in range(len(pairs.maps[1]))]),
        dropdown("Direction", [(words, key) for key, words in DIRECTIONS.items()], direction),
        ipywidgets.FloatSlider(
            value=threshold, min=-1, max=0.99, step=0.01, description="Threshold", style=style,
            continuous_update=False,
        ),
        dropdown("Location", names),
    ]  # fmt: skip
    lines, heat = ipywidgets.Image(format="png"), ipywidgets.Image(format="png")
    text = ipywidgets.HTML()

    def update(_: Any = None) -> None:
        query, gallery, side, level, location = (control.value for control in controls)
        lines.value = _png(pairs.draw_lines(query, gallery, side, level))
        heat.value = _png(pairs.draw_heat(query, gallery, side, location))
        text.value = pairs.describe(query, gallery, side, level, location)

    for control in controls:
        control.observe(update, names="value")
    update()
    pictures = ipywidgets.HBox([lines, heat], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([*controls, text, pictures])


def _png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file; it is closed."""
    import matplotlib.pyplot as plt

    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    plt.close(figure)
    return content.getvalue()
