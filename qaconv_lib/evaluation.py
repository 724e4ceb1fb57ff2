"""Ranking scores under the single-query protocol: CMC, mAP by two definitions, and mINP.

Built in chapter 8. A score needs only the *ranks of the matches*, and the rank of a match is one
plus the number of gallery images before it. Sorting the scores, not the images, and looking the
matches up in the sorted list gives that number.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from qaconv_lib._checks import check_whole_numbers, to_labels, to_scores

if TYPE_CHECKING:
    import pandas as pd

DISTRACTOR = 0  # identity of gallery images of other people: never a match, but ranked
BAD_DETECTION = -1  # identity of gallery images to ignore: taken out of every ranking


@dataclass(frozen=True, eq=False, repr=False)
class RankingScores:
    """The scores of a ranking, fractions from 0 to 1, averaged over the valid queries.

    `cmc[k - 1]` is the rank-k accuracy, for k up to the size of the gallery. `mean_ap` sums steps
    and `mean_ap_trapezoid` trapezoids; `mean_inp` is the mean inverse negative penalty. `per_query`
    has one row per query with the columns `query` (row of the similarity), `identity`, `camera`,
    `average_precision`, `average_precision_trapezoid`, `inp`, `first_match_rank` (from 1; NaN
    without a match, like the three scores), `num_matches`, `num_ignored` and `valid`.
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
    taken out of the gallery. The rest is ranked from the highest similarity down; equal
    similarities keep the order of the gallery. Images of the query's identity are its *matches*;
    *distractors* (identity 0) never match. With :math:`r_1 < \dots < r_n` the ranks (from 1) of the
    n matches of a query:

    * rank-k accuracy (CMC): 1 if :math:`r_1 \le k`, else 0;
    * average precision, step sum: :math:`\frac1n \sum_i \frac{i}{r_i}`, as in scikit-learn;
    * average precision, trapezoids: :math:`\frac1n \sum_i \frac12 (\frac{i-1}{r_i - 1} +
      \frac{i}{r_i})`, where the first fraction counts as 1 if :math:`r_i = 1`: the mean of the
      precision just before and at each match. Market-1501's code and the paper's tables use it;
    * inverse negative penalty (INP): :math:`n / r_n`, how early the last match comes.

    A query without a match is left out of the averages and has NaN in `per_query`, as has a query
    of identity 0 or -1, of which a warning tells. Memory beyond the input grows with the gallery
    only.

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

    is_person = ~np.isin(query_identities, (DISTRACTOR, BAD_DETECTION))
    if not is_person.all():
        warnings.warn(
            f"{np.count_nonzero(~is_person)} queries have identity {DISTRACTOR} (distractor) or "
            f"{BAD_DETECTION} (bad detection) and cannot have a match; number identities from 1",
            stacklevel=2,
        )
    is_bad = gallery_identities == BAD_DETECTION
    rows = []
    for query, (identity, camera) in enumerate(zip(query_identities, query_cameras, strict=True)):
        same_person = (gallery_identities == identity) & is_person[query]
        kept = np.flatnonzero(~(is_bad | (same_person & (gallery_cameras == camera))))
        ranks = _ranks(scores[query, kept], np.flatnonzero(same_person[kept]))
        rows.append(
            {"query": query, "identity": identity, "camera": camera}
            | _query_scores(ranks)
            | {"num_matches": len(ranks), "num_ignored": num_gallery - len(kept)}
        )
    per_query = pd.DataFrame(rows)
    per_query["valid"] = per_query["num_matches"] > 0
    if not per_query["valid"].any():
        raise ValueError(
            f"none of the {num_query} queries has a match: a gallery image of its identity under "
            "another camera"
        )
    first = per_query.loc[per_query["valid"], "first_match_rank"].to_numpy(dtype=np.int64)
    return RankingScores(
        cmc=np.cumsum(np.bincount(first - 1, minlength=num_gallery)) / len(first),
        mean_ap=float(per_query["average_precision"].mean()),  # means skip NaN
        mean_ap_trapezoid=float(per_query["average_precision_trapezoid"].mean()),
        mean_inp=float(per_query["inp"].mean()),
        per_query=per_query,
    )


def _ranks(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Ranks (from 1, ascending) that the images at ``positions`` take among all ``scores`` (n,)."""
    if len(positions) == 0:
        return np.zeros(0, dtype=np.int64)
    ascending = np.sort(scores)
    wanted = scores[positions]
    not_above = np.searchsorted(ascending, wanted, side="right")
    below = np.searchsorted(ascending, wanted, side="left")
    ranks = len(scores) - not_above + 1
    for tied in np.flatnonzero(not_above - below > 1):  # equal scores keep the gallery's order
        ranks[tied] += np.count_nonzero(scores[: positions[tied]] == wanted[tied])
    return np.sort(ranks)


def _query_scores(ranks: np.ndarray) -> dict[str, float]:
    """Scores of one query from the ranks of its matches (ascending, from 1)."""
    if len(ranks) == 0:
        names = ("average_precision", "average_precision_trapezoid", "inp", "first_match_rank")
        return dict.fromkeys(names, np.nan)
    hits = np.arange(1, len(ranks) + 1)
    precision = hits / ranks
    before = np.where(ranks == 1, 1.0, (hits - 1) / np.maximum(ranks - 1, 1))
    return {
        "average_precision": precision.mean(),
        "average_precision_trapezoid": ((before + precision) / 2).mean(),
        "inp": len(ranks) / ranks[-1],
        "first_match_rank": float(ranks[0]),
    }
