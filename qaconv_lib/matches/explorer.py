"""See how two images match (chapter 11)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from qaconv_lib.datasets import load_image
from qaconv_lib.matching import QAConv
from qaconv_lib.models import ReidModel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Whose matches are drawn, with the words for it.
DIRECTIONS = {
    "query": "query \N{RIGHTWARDS ARROW} gallery",
    "gallery": "gallery \N{RIGHTWARDS ARROW} query",
    "mutual": "mutual",
}


def matcher_of(model: ReidModel) -> QAConv:
    """The matcher of a model; ValueError if the model compares images in another way."""
    matcher = getattr(model.criterion, "matcher", None)
    if not isinstance(matcher, QAConv):
        wrong = f"a model trained with {model.config.loss} has no local matches"
        raise ValueError(f"{wrong}; one trained with qaconv has")
    return matcher


def show_explorer(
    model: ReidModel,
    queries: pd.DataFrame,
    gallery: pd.DataFrame,
    *,
    direction: str = "mutual",
    threshold: float = 0.6,
) -> Figure:
    """The matches of the first images of two tables by a QAConv model, and their similarity.

    `direction` is one of `DIRECTIONS`: best matches of the query's locations, of the gallery
    image's, or those that are each other's best. Lines have a cosine above `threshold`.
    """
    from qaconv_lib.visualize import show_correspondences

    if direction not in DIRECTIONS:
        raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}, got {direction!r}")
    if not -1 <= threshold < 1:
        raise ValueError(f"threshold must lie in [-1, 1), got {threshold}")
    matcher, tables = matcher_of(model), (queries.head(1), gallery.head(1))
    maps = [model.extract(table) for table in tables]
    similarity = float(model.similarity(*maps).sigmoid())
    images = [load_image(table["path"].iloc[0]) for table in tables]
    return show_correspondences(
        images[0],
        images[1],
        *(own[0] for own in maps),
        threshold=threshold * matcher.kernel_size**2,
        side="gallery" if direction == "gallery" else "query",
        mutual=direction == "mutual",
        kernel_size=matcher.kernel_size,
        title=f"{DIRECTIONS[direction]}, similarity {similarity:.2f}",
        alt=f"Two images side by side, similarity {similarity:.2f}, and lines between "
        f"best matches ({DIRECTIONS[direction]}) with a cosine above {threshold:g}.",
    )
