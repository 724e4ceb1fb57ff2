"""See how two images match, and how their score is computed (chapter 11)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd
from torch import Tensor

from qaconv_lib.datasets import load_image
from qaconv_lib.matching import QAConv, best_matches
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
    """The parts of the score of a pair; from `score_parts`."""

    from_query: float  # sum of the weighted best matches of the query's locations
    from_gallery: float  # the same of the gallery image's locations
    constant: float  # the part that does not depend on the images
    logit: float  # the sum of the three
    similarity: float  # its sigmoid


def score_parts(matcher: QAConv, query_map: Tensor, gallery_map: Tensor) -> ScoreParts:
    """The parts of the score of one pair of maps (d, h, w) with unit channels (chapter 4)."""
    matcher.check_size(query_map)
    weights, constant = (part.double() for part in matcher.fold())
    matches = best_matches(query_map[None], gallery_map[None], matcher.kernel_size)[0, 0]
    from_gallery, from_query = (matches * weights).view(2, -1).sum(dim=1).tolist()
    logit = from_query + from_gallery + float(constant)
    return ScoreParts(from_query, from_gallery, float(constant), logit, 1 / (1 + math.exp(-logit)))


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
    maps = [model.extract(table)[0] for table in tables]
    similarity = score_parts(matcher, *maps).similarity
    images = [load_image(table["path"].iloc[0]) for table in tables]
    return show_correspondences(
        images[0],
        images[1],
        *maps,
        threshold=threshold * matcher.kernel_size**2,
        side="gallery" if direction == "gallery" else "query",
        mutual=direction == "mutual",
        kernel_size=matcher.kernel_size,
        title=f"{DIRECTIONS[direction]}, similarity {similarity:.2f}",
        alt=f"Two images side by side, similarity {similarity:.2f}, and lines between "
        f"best matches ({DIRECTIONS[direction]}) with a cosine above {threshold:g}.",
    )
