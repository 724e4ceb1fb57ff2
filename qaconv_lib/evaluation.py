"""Ranking scores under the single-query protocol: CMC, mAP by two definitions, and mINP.

Built in chapter 8. A score needs only the *ranks of the matches*, and the rank of a match is one
plus the number of gallery images before it. Sorting the scores, not the images, and looking the
matches up in the sorted list gives that number. Images with equal scores have no order, so the
scores of a ranking do not depend on the order of the gallery.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from qaconv_lib._checks import check_whole_numbers, to_labels, to_scores

if TYPE_CHECKING:
    import pandas as pd

BAD_DETECTION = -1  # identity of gallery images to ignore: taken out of every ranking


@dataclass(frozen=True, eq=False, repr=False)
class RankingScores:
    """Metrics of a ranking, fractions from 0 to 1, averaged over the valid queries.

    `cmc[k - 1]` is the rank-k accuracy, for k up to the size of the gallery. `mean_ap` sums steps
    and `mean_ap_trapezoid` trapezoids; `mean_inp` is the mean inverse negative penalty. `per_query`
    has one row per query with the columns `query` (row of the similarity), `identity`, `camera`,
    `average_precision`, `average_precision_trapezoid`, `inp`, `first_match_rank` (from 1, expected
    value if scores tie; NaN without a match, like the three scores), `num_matches`, `num_ignored`
    and `valid`.
    """

    cmc: np.ndarray
    mean_ap: float
    mean_ap_trapezoid: float
    mean_inp: float
    per_query: pd.DataFrame

    @property
    def num_valid(self) -> int:
        """Number of queries with at least one match: those behind the averages."""
        return int(self.per_query["valid"].sum())

    def rank(self, k: int) -> float:
        """Fraction of the valid queries with a match among their first k gallery images."""
        check_whole_numbers(k=k)
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    def summary(self) -> str:
        """The scores in percent, on one line."""
        parts = [f"rank-{k} {100 * self.rank(k):.1f}" for k in (1, 5, 10)]
        parts.append(f"mAP {100 * self.mean_ap:.1f}")
        parts.append(f"mAP (trapezoids) {100 * self.mean_ap_trapezoid:.1f}")
        parts.append(f"mINP {100 * self.mean_inp:.1f}")
        return ", ".join(parts) + f" % ({self.num_valid} of {len(self.per_query)} queries)"

    def __repr__(self) -> str:
        return f"RankingScores({self.summary()})"


def evaluate_ranking(
    similarity: Any,
    query_identities: Any,
    gallery_identities: Any,
    query_cameras: Any,
    gallery_cameras: Any,
) -> RankingScores:
    r"""Rank the gallery for every query and score the rankings (single-query protocol).

    For each query, *junk* (same identity and same camera) and *bad detections* (identity -1) are
    taken out of the gallery. The rest is ranked from the highest similarity down. Images of the
    query's identity are its *matches*; an identity that no query has (as 0, Market-1501's
    *distractors*) never matches. With :math:`r_1 < \dots < r_n` the ranks (from 1) of the n matches
    of a query:

    * rank-k accuracy (CMC): 1 if :math:`r_1 \le k`, else 0;
    * average precision, step sum: :math:`\frac1n \sum_i \frac{i}{r_i}`, as in scikit-learn;
    * average precision, trapezoids: :math:`\frac1n \sum_i \frac12 (\frac{i-1}{r_i - 1} +
      \frac{i}{r_i})`, where the first fraction counts as 1 if :math:`r_i = 1`: the mean of the
      precision just before and at each match, as in Market-1501's code and release v1.0;
    * inverse negative penalty (INP): :math:`n / r_n`, how early the last match comes.

    Equal similarities are one threshold of the precision-recall curve, as in scikit-learn and in
    release v1.0: both kinds of average precision take the precision before and after all of them.
    Rank-k accuracy is the expected value over their orders; INP takes the expected :math:`r_n`.

    A query without a match is left out of the averages and has NaN in `per_query`, as has a query
    of identity -1, of which a warning tells. Memory beyond the input grows with the gallery only.

    Args:
        similarity: array or tensor of shape (num_query, num_gallery), higher is more alike. Give
            the negative of distances. Infinite values are allowed, NaN is not.
        query_identities: num_query integers.
        gallery_identities: num_gallery integers.
        query_cameras: num_query integers.
        gallery_cameras: num_gallery integers.
    """
    import pandas as pd

    scores = to_scores(similarity, "similarity")
    num_query, num_gallery = scores.shape
    if scores.size == 0:
        raise ValueError(f"similarity is empty: {num_query} queries, {num_gallery} gallery images")
    fits = f"similarity {scores.shape}"
    query_identities = to_labels(query_identities, "query_identities", num_query, fits)
    gallery_identities = to_labels(gallery_identities, "gallery_identities", num_gallery, fits)
    query_cameras = to_labels(query_cameras, "query_cameras", num_query, fits)
    gallery_cameras = to_labels(gallery_cameras, "gallery_cameras", num_gallery, fits)

    is_bad = gallery_identities == BAD_DETECTION
    if bad := np.count_nonzero(query_identities == BAD_DETECTION):
        warnings.warn(f"{bad} queries have identity -1 (bad detection) and no match", stacklevel=2)
    rows = []
    first_match = np.zeros(num_gallery)  # how many queries have their first match at a rank
    for query, (identity, camera) in enumerate(zip(query_identities, query_cameras, strict=True)):
        same_person = gallery_identities == identity
        kept = np.flatnonzero(~(is_bad | (same_person & (gallery_cameras == camera))))
        groups = _Groups.of(scores[query, kept], same_person[kept])
        rows.append(
            {"query": query, "identity": identity, "camera": camera}
            | _query_scores(groups)
            | {"num_ignored": num_gallery - len(kept)}
        )
        if len(groups.matches):
            start, shares = groups.above[0], _first_match(groups.images[0], groups.matches[0])
            first_match[start : start + len(shares)] += shares
    per_query = pd.DataFrame(rows)
    per_query["valid"] = per_query["num_matches"] > 0
    if not per_query["valid"].any():
        raise ValueError(f"none of the {num_query} queries has a match under another camera")
    return RankingScores(
        cmc=np.minimum(np.cumsum(first_match) / per_query["valid"].sum(), 1.0),
        mean_ap=float(per_query["average_precision"].mean()),  # means skip NaN
        mean_ap_trapezoid=float(per_query["average_precision_trapezoid"].mean()),
        mean_inp=float(per_query["inp"].mean()),
        per_query=per_query,
    )


class _Groups(NamedTuple):
    """The distinct scores of the matches of a query, from the highest down, each shape (n,)."""

    matches: np.ndarray  # matches with this score
    images: np.ndarray  # images with this score
    above: np.ndarray  # images with a higher score

    @classmethod
    def of(cls, scores: np.ndarray, is_match: np.ndarray) -> _Groups:
        ascending = np.sort(scores)
        wanted, matches = np.unique(scores[is_match], return_counts=True)
        below = np.searchsorted(ascending, wanted, side="left")
        not_above = np.searchsorted(ascending, wanted, side="right")
        return cls(matches[::-1], (not_above - below)[::-1], (len(scores) - not_above)[::-1])


def _first_match(images: int, matches: int) -> np.ndarray:
    """Probability of each place for the first match among tied images in random order."""
    places = np.arange(images - matches + 1)
    later = np.cumprod((images - matches - places) / (images - places))  # not up to this place
    return np.append(1.0, later[:-1]) - later


def _query_scores(groups: _Groups) -> dict[str, float]:
    """Scores of one query from the groups of its matches."""
    matches, images, above = groups
    if len(matches) == 0:
        names = ("average_precision", "average_precision_trapezoid", "inp", "first_match_rank")
        return dict.fromkeys(names, np.nan) | {"num_matches": 0}
    hits, num_matches = np.cumsum(matches), matches.sum()
    precision = hits / (above + images)
    before = np.where(above == 0, 1.0, (hits - matches) / np.maximum(above, 1))
    first, last = (
        above[i] + place * (images[i] + 1) / (matches[i] + 1)  # expected rank of the place-th match
        for i, place in ((0, 1), (-1, matches[-1]))
    )
    return {
        "average_precision": (matches * precision).sum() / num_matches,
        "average_precision_trapezoid": (matches * (before + precision) / 2).sum() / num_matches,
        "inp": num_matches / last,
        "first_match_rank": float(first),
        "num_matches": num_matches,
    }
