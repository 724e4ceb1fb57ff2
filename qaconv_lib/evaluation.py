"""Ranking scores under the single-query protocol: CMC, mAP by two definitions, and mINP.

Built in chapter 8. What makes it fast: a score needs only the *ranks of the true matches*, and the
rank of a match is one plus the number of gallery images that come before it. Sorting the scores
(not the images) and looking the matches up in the sorted list gives that number.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qaconv_lib._checks import check_whole_numbers, to_labels, to_scores

DISTRACTOR = 0  # a gallery image of nobody who is queried: never a match, stays in the ranking
BAD_DETECTION = -1  # a gallery image to ignore: taken out of every ranking


@dataclass(frozen=True, eq=False, repr=False)
class RankingScores:
    """The scores of a ranking; all are fractions from 0 to 1, averaged over the valid queries.

    Attributes:
        cmc: array of shape (num_gallery,); ``cmc[k - 1]`` is the rank-k accuracy, the fraction of
            valid queries with at least one match among their first k gallery images.
        mean_ap: mean average precision, as a step sum.
        mean_ap_trapezoid: mean average precision, as the area of trapezoids.
        mean_inp: mean inverse negative penalty.
        per_query: one row a query, with columns ``query`` (row of the similarity), ``identity``,
            ``camera``, ``average_precision``, ``average_precision_trapezoid``, ``inp``,
            ``first_match_rank`` (from 1), ``num_matches``, ``num_ignored`` (gallery images taken
            out for this query) and ``valid``. A query without a match has ``valid`` False and NaN
            in the four scores.
    """

    cmc: np.ndarray
    mean_ap: float
    mean_ap_trapezoid: float
    mean_inp: float
    per_query: pd.DataFrame

    @property
    def num_queries(self) -> int:
        """Number of queries given."""
        return len(self.per_query)

    @property
    def num_valid(self) -> int:
        """Number of queries with at least one match: those behind the averages."""
        return int(self.per_query["valid"].sum())

    def rank(self, k: int) -> float:
        """Rank-k accuracy, a fraction from 0 to 1.

        Args:
            k: length of the list looked at, from 1. Beyond the gallery's size the list is the whole
                gallery, and the accuracy 1.

        Raises:
            ValueError: if k is no whole number from 1.
        """
        check_whole_numbers(k=k)
        return float(self.cmc[min(k, len(self.cmc)) - 1])

    def summary(self) -> str:
        """One line in percent."""
        parts = [f"rank-{k} {100 * self.rank(k):.1f}" for k in (1, 5, 10)]
        parts.append(f"mAP {100 * self.mean_ap:.1f}")
        parts.append(f"mAP (trapezoids) {100 * self.mean_ap_trapezoid:.1f}")
        parts.append(f"mINP {100 * self.mean_inp:.1f}")
        return ", ".join(parts) + f" % ({self.num_valid} of {self.num_queries} queries)"

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

    For each query, gallery images are taken out when they are *junk* (same identity and same
    camera: too easy) or *bad detections* (identity -1). The rest is ranked from the highest
    similarity down; equal similarities keep the order of the gallery. The images of the query's
    identity are its *matches*. *Distractors* (identity 0) stay in and never match.

    With :math:`r_1 < \dots < r_n` the ranks (from 1) of the n matches of a query:

    * rank-k accuracy (CMC): 1 if :math:`r_1 \le k`, else 0;
    * average precision, step sum: :math:`\frac1n \sum_i \frac{i}{r_i}`, the mean precision at the
      matches. This is scikit-learn's ``average_precision_score`` where there are no ties;
    * average precision, trapezoids: :math:`\frac1n \sum_i \frac12 (\frac{i-1}{r_i - 1} +
      \frac{i}{r_i})`, where the first term counts as 1 if :math:`r_i = 1`. It takes the mean of the
      precision just before and at each match, as Market-1501's evaluation code and the first
      re-identification toolkits do, the paper's tables too. It is never above the step sum;
    * inverse negative penalty (INP): :math:`n / r_n`, how soon the last match comes.

    A query without a match (none in the gallery, or all of them junk) has no scores. It is left out
    of the averages, and stays in ``per_query`` with NaN and ``valid`` False. This includes a query
    labelled as distractor or bad detection, of which a warning tells.

    Memory beyond the input grows with the gallery, not with the number of queries. Built in
    chapter 8.

    Args:
        similarity: array or tensor of shape (num_query, num_gallery), higher is more alike. For
            distances give their negative. Infinite values are allowed.
        query_identities: num_query integers.
        gallery_identities: num_gallery integers.
        query_cameras: num_query integers.
        gallery_cameras: num_gallery integers.

    Returns:
        The scores, in numpy and pandas whatever kind ``similarity`` is.

    Raises:
        TypeError: if identities or cameras are not integers.
        ValueError: if lengths do not fit the similarity, it is empty or has NaN, or no query has a
            match.
    """
    scores = to_scores(similarity, "similarity")
    num_query, num_gallery = scores.shape
    if scores.size == 0:
        raise ValueError(f"similarity is empty: {num_query} queries, {num_gallery} gallery images")
    rows, columns = f"similarity has {num_query} rows", f"similarity has {num_gallery} columns"
    query_identities = to_labels(query_identities, "query_identities", num_query, rows)
    gallery_identities = to_labels(gallery_identities, "gallery_identities", num_gallery, columns)
    query_cameras = to_labels(query_cameras, "query_cameras", num_query, rows)
    gallery_cameras = to_labels(gallery_cameras, "gallery_cameras", num_gallery, columns)

    is_person = ~np.isin(query_identities, (DISTRACTOR, BAD_DETECTION))
    if not is_person.all():
        warnings.warn(
            f"{np.count_nonzero(~is_person)} queries have identity {DISTRACTOR} (distractor) or "
            f"{BAD_DETECTION} (bad detection) and cannot have a match; number identities from 1",
            stacklevel=2,
        )
    is_bad = gallery_identities == BAD_DETECTION
    match_ranks, num_ignored = [], np.zeros(num_query, dtype=np.int64)
    for query in range(num_query):
        same_person = (gallery_identities == query_identities[query]) & is_person[query]
        ignored = is_bad | (same_person & (gallery_cameras == query_cameras[query]))
        kept = np.flatnonzero(~ignored)
        num_ignored[query] = num_gallery - len(kept)
        positions = np.flatnonzero(same_person[kept])
        match_ranks.append(_ranks(scores[query, kept], positions))

    per_query = pd.DataFrame([_query_scores(ranks) for ranks in match_ranks])
    per_query.insert(0, "query", np.arange(num_query))
    per_query.insert(1, "identity", query_identities)
    per_query.insert(2, "camera", query_cameras)
    per_query["num_matches"] = [len(ranks) for ranks in match_ranks]
    per_query["num_ignored"] = num_ignored
    per_query["valid"] = per_query["num_matches"] > 0
    if not per_query["valid"].any():
        raise ValueError(
            f"none of the {num_query} queries has a match: no gallery image of a query's identity "
            "under another camera; check that query and gallery use the same identity numbers"
        )
    first_ranks = per_query.loc[per_query["valid"], "first_match_rank"].to_numpy(dtype=np.int64)
    first_counts = np.bincount(first_ranks - 1, minlength=num_gallery)
    return RankingScores(
        cmc=np.cumsum(first_counts) / len(first_ranks),
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
