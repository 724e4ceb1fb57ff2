"""See how a pair of images matches, and how its score comes together (chapter 11).

`show_explorer` does in a notebook what the page `book/explorer.md` does without a kernel;
`explorer_page` writes that page's data.
"""

from __future__ import annotations

import html
import io
import math
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from torch import Tensor

from qaconv_lib.datasets import load_image
from qaconv_lib.matching import QAConv, best_matches, correlate, find_correspondences
from qaconv_lib.models import ReidModel
from qaconv_lib.visualize import show_correspondences, show_location_match

#: From where matches are looked at, with the words for it.
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
        constant: what is added whatever the images are.
        logit: the sum of the three.
        similarity: its sigmoid.
    """

    from_query: float
    from_gallery: float
    constant: float
    logit: float
    similarity: float


def score_parts(matcher: QAConv, query_map: Tensor, gallery_map: Tensor) -> ScoreParts:
    """Take the score of one pair apart (chapter 4).

    Args:
        matcher: a trained matcher; it works as in evaluation mode.
        query_map: shape (d, h, w), unit channels.
        gallery_map: shape (d, h, w), unit channels.

    Raises:
        ValueError: maps of another size than the matcher's, or of different channels.
    """
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

    Without `widgets` this is an ordinary figure, which a stored notebook shows to readers who have
    no kernel. With them one chooses query, gallery image, direction, threshold and a location, and
    sees lines, heat map and score; the figure is then shown by the widgets, not by pyplot.

    Args:
        model: a QAConv model.
        queries: table of one or more images, with a column `path`.
        gallery: likewise.
        direction: one of `DIRECTIONS`: best matches of the query's locations, of the gallery
            image's, or those that are each other's best.
        threshold: only matches with a cosine above this are drawn.
        widgets: show the widgets; needs ipywidgets and a running kernel.

    Returns:
        The figure of the first pair.

    Raises:
        ImportError: widgets are asked for, and ipywidgets is not installed.
        ValueError: a model without local matches, a table without images, an unknown direction, or
            a threshold outside [-1, 1).
    """
    check_view(direction, threshold)
    pairs = _Pairs(model, queries, gallery)
    figure = pairs.draw_lines(0, 0, direction, threshold)
    if widgets:
        made = _make_widgets(pairs, direction, threshold)
        from IPython.display import display  # comes with ipywidgets

        display(made)
        plt.close(figure)
    return figure


def check_view(direction: str, threshold: float) -> None:
    """Raise ValueError unless these say which lines to draw."""
    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    if not -1 <= threshold < 1:
        raise ValueError(f"threshold must lie in [-1, 1), got {threshold}")


class _Pairs:
    """Pictures and maps of queries and gallery images, and what can be shown of a pair of them."""

    def __init__(self, model: ReidModel, queries: pd.DataFrame, gallery: pd.DataFrame) -> None:
        self.matcher = matcher_of(model)
        self.maps = model.extract(queries), model.extract(gallery)
        self.images = tuple([load_image(p) for p in table["path"]] for table in (queries, gallery))

    def pair(self, query: int, gallery: int) -> tuple[Any, ...]:
        """Both images and both maps."""
        chosen = ((0, query), (1, gallery))
        return tuple(those[side][row] for those in (self.images, self.maps) for side, row in chosen)

    def draw_lines(self, query: int, gallery: int, direction: str, threshold: float) -> Figure:
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
        images, maps = self._from(direction, *self.pair(query, gallery))
        return show_location_match(
            *images,
            *maps,
            [location],
            kernel_size=self.matcher.kernel_size,
            alt=f"Location {location} of one picture, and below it how similar each location of "
            "the other is.",
        )

    def describe(self, query: int, gallery: int, direction: str, location: int) -> str:
        """The best match of a location, and the score, as HTML."""
        pair = self.pair(query, gallery)
        side, other = ("gallery", "query") if direction == "gallery" else ("query", "gallery")
        table = correlate(*self._from(direction, *pair)[1], self.matcher.kernel_size)
        best, place = table[location].flatten().max(dim=0)
        weights = self.matcher.fold()[0].view(2, -1)[int(side == "query")]
        parts = score_parts(self.matcher, *pair[2:])
        text = (
            f"{side} {self.name(location)} matches {other} {self.name(int(place))} best: "
            f"similarity {best:.2f}, times its weight {weights[location]:+.2f} it adds "
            f"{best * weights[location]:+.2f}.\n"
            f"{parts.from_query:+.2f} (query locations) {parts.from_gallery:+.2f} (gallery "
            f"locations) {parts.constant:+.2f} (constant) = {parts.logit:+.2f}; its sigmoid, the "
            f"similarity of the pictures, is {parts.similarity:.3f}."
        )
        return "<br>".join(html.escape(line) for line in text.split("\n"))

    def count(self, query: int, gallery: int, direction: str, threshold: float) -> int:
        """Number of lines that `draw_lines` draws."""
        size = self.matcher.kernel_size
        query_map, gallery_map = self.pair(query, gallery)[2:]
        found = find_correspondences(query_map, gallery_map, size)
        places = found.gallery_location
        above = found.similarity_to_gallery > threshold * size**2
        if direction == "gallery":
            return int((found.similarity_to_query > threshold * size**2).sum())
        if direction == "mutual":
            above &= found.query_location[places] == places.new_tensor(range(len(places)))
        return int(above.sum())

    def name(self, location: int) -> str:
        row, column = divmod(location, self.matcher.width)
        return f"row {row}, column {column}"

    @staticmethod
    def _from(direction: str, *pair: Any) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
        """Images and maps, those that are looked at from first."""
        turn = -1 if direction == "gallery" else 1
        return pair[:2][::turn], pair[2:][::turn]


def _make_widgets(pairs: _Pairs, direction: str, threshold: float) -> Any:
    """The controls, and pictures that follow them."""
    try:
        import ipywidgets
    except ImportError as error:
        raise ImportError(
            "the widgets need ipywidgets; install it with `pip install ipywidgets`, or leave out "
            "widgets=True"
        ) from error
    style = {"description_width": "6em"}

    def dropdown(description: str, options: list[tuple[str, Any]], value: Any = 0) -> Any:
        return ipywidgets.Dropdown(
            options=options, value=value, description=description, style=style
        )

    controls = {
        "query": dropdown("Query", [(f"query {n}", n) for n in range(len(pairs.maps[0]))]),
        "gallery": dropdown("Gallery", [(f"image {n}", n) for n in range(len(pairs.maps[1]))]),
        "direction": dropdown("Direction", [(v, k) for k, v in DIRECTIONS.items()], direction),
        "threshold": ipywidgets.FloatSlider(
            value=threshold, min=-1, max=0.99, step=0.01, description="Threshold", style=style,
            continuous_update=False,
        ),
        "location": dropdown(
            "Location", [(pairs.name(n), n) for n in range(pairs.maps[0][0, 0].numel())]
        ),
    }  # fmt: skip
    lines, heat = ipywidgets.Image(format="png"), ipywidgets.Image(format="png")
    text = ipywidgets.HTML()

    def update(_: Any = None) -> None:
        query, gallery, side, level, location = (each.value for each in controls.values())
        lines.value = _png(pairs.draw_lines(query, gallery, side, level))
        heat.value = _png(pairs.draw_heat(query, gallery, side, location))
        count = pairs.count(query, gallery, side, level)
        text.value = (
            f"{count} line{'s' * (count != 1)} above {level:.2f}.<br>"
            f"{pairs.describe(query, gallery, side, location)}"
        )

    for control in controls.values():
        control.observe(update, names="value")
    update()
    pictures = ipywidgets.HBox([lines, heat], layout={"flex_flow": "row wrap"})
    return ipywidgets.VBox([*controls.values(), text, pictures])


def _png(figure: Figure) -> bytes:
    """A figure as the content of a PNG file; it is closed."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=90)
    plt.close(figure)
    return content.getvalue()
