"""Temporal Lifting (TLift), section 4 of the paper. Built in chapter 10.

TLift asks who else walked by: people seen shortly before or after the query in its camera are
looked up in another camera, and gallery images near those finds gain. TFusion, which learns
transition times instead, is in :mod:`qaconv_lib.beyond.tfusion` and importable from here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from scipy import sparse

from qaconv_lib._checks import (
    TimedScores,
    check_above_zero,
    check_timed_scores,
    check_whole_numbers,
    is_number,
    kth_highest,
    restore_kind,
)
from qaconv_lib.beyond.tfusion import TransitionTimes, tfusion

__all__ = ["Pivots", "TransitionTimes", "tfusion", "tlift", "tlift_pivots"]

_KERNEL_ENTRIES = 2**22  # kernel values held at a time: 32 MiB
_GROUP_ENTRIES = 2**20  # candidates of groups held at a time


class Pivots(NamedTuple):
    """The pivots of one query in one gallery camera.

    Attributes:
        nearby: rows of the query set that are near the query in time, itself included (R).
        pickers: for each pivot the row of the nearby person that picked it.
        gallery: for each pivot the column of the gallery image picked (P), best score first.
        scores: for each pivot the similarity of picker and gallery image.
    """

    nearby: np.ndarray
    pickers: np.ndarray
    gallery: np.ndarray
    scores: np.ndarray


def tlift(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    *,
    tau: float = 100.0,
    sigma: float = 200.0,
    k: int = 10,
    alpha: float = 0.2,
    pivots: Literal["multiset", "set"] = "multiset",
    same_camera: Literal["keep", "suppress"] = "keep",
) -> Any:
    r"""Temporal Lifting: weight similarities by what nearby people's matches say about time.

    For a query A in camera Q and each gallery camera G:

    1. :math:`R`: the query images B of camera Q with :math:`|t_A - t_B| < \tau`, A included;
    2. :math:`P`, the pivots: of all pairs of a B in R and a gallery image of G, those whose
       similarity is at least the K-th highest. Ties give more than K pairs; where there are not
       more than K pairs, all count;
    3. Eq. (3): :math:`p_t(A, X) = \frac{1}{|P|} \sum_{C \in P} e^{-(t_C - t_X)^2 / \sigma^2}` for
       each gallery image X of G;
    4. the result :math:`(p_t(A, X) + \alpha) \, p_a(A, X)`, where :math:`p_a` is the similarity.

    The defaults are those of the authors' released code, which differs from the paper's text in
    two ways. A gallery image picked by several people counts several times (``"multiset"``; the
    text has a set). And the query's own camera is treated as any other (``"keep"``); an earlier
    release left it out, so that its images ended with a score of 0 (``"suppress"``).

    Only time differences within one camera are used, so the cameras' clocks need not agree. The
    nearby people are queries: drop queries only *after* this function, never before.

    Args:
        similarity: array or tensor of shape (num_query, num_gallery), not negative. A probability
            is wanted, such as the sigmoid of QAConv's logit; calibrate cosines first. Values above
            1 are accepted.
        query_cameras: num_query integers.
        query_seconds: num_query times in seconds.
        gallery_cameras: num_gallery integers, in the numbering of ``query_cameras``.
        gallery_seconds: num_gallery times in seconds.
        tau: people closer in time than this are nearby, seconds.
        sigma: width of the kernel around a pivot, seconds.
        k: K, the number of best pairs that become pivots.
        alpha: what a gallery image keeps of its similarity far from all pivots.
        pivots: ``"multiset"`` or ``"set"``: whether a gallery image picked twice counts twice.
        same_camera: ``"keep"`` or ``"suppress"``: whether gallery images from the query's own
            camera are lifted as all others, or get 0.

    Returns:
        Weighted similarities, (num_query, num_gallery), from 0 to ``1 + alpha`` times the input;
        an array or tensor like ``similarity`` with its dtype and device.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if lengths do not fit, a time is missing, a similarity is negative, NaN or
            infinite, or a parameter is out of its range.
    """
    check_above_zero(tau=tau, sigma=sigma)
    _check_pivot_options(k, pivots)
    if not is_number(alpha) or not 0 <= alpha < np.inf:
        raise ValueError(f"alpha must be from 0, got {alpha!r}")
    if same_camera not in ("keep", "suppress"):
        raise ValueError(f"same_camera must be 'keep' or 'suppress', got {same_camera!r}")
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds
    )
    if scene.scores.dtype not in (np.float32, np.float64):  # e.g. another byte order
        scene = scene._replace(scores=scene.scores.astype(np.float64))
    k = int(k)  # a narrow integer would overflow
    runs = _nearby_runs(scene, tau)
    by_camera = np.argsort(scene.gallery_cameras, kind="stable")
    fused = scene.scores.take(by_camera, axis=1)  # a camera's images are neighbouring columns
    cameras, starts = np.unique(scene.gallery_cameras[by_camera], return_index=True)
    stops = np.append(starts, len(by_camera))[1:]
    for camera, start, stop in zip(cameras, starts, stops, strict=True):
        block, columns = fused[:, start:stop], by_camera[start:stop]
        weights = _pivot_counts(block, runs, k)
        if pivots == "set":
            weights.data[:] = 1
        sizes = weights.sum(axis=1)  # |P|, of every query
        weights.data /= np.repeat(sizes, np.diff(weights.indptr))
        _lift(block, weights, scene.gallery_seconds[columns], sigma, alpha)
        if same_camera == "suppress":
            block[scene.query_cameras == camera] = 0
    back = np.argsort(by_camera)
    for start in range(0, len(fused), 256):
        rows = fused[start : start + 256]
        rows[:] = rows.take(back, axis=1)
    return restore_kind(fused, similarity)


def tlift_pivots(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    query: int,
    gallery_camera: int,
    *,
    tau: float = 100.0,
    k: int = 10,
    pivots: Literal["multiset", "set"] = "multiset",
) -> Pivots:
    """The nearby people and pivots that :func:`tlift` uses for one query and one gallery camera.

    Args:
        similarity: as for :func:`tlift`, and so are the next four.
        query_cameras: num_query integers.
        query_seconds: num_query times in seconds.
        gallery_cameras: num_gallery integers.
        gallery_seconds: num_gallery times in seconds.
        query: row of the similarity.
        gallery_camera: the camera G. One without gallery images has no pivots.
        tau: people closer in time than this are nearby, seconds.
        k: the number of best pairs that become pivots.
        pivots: ``"multiset"`` lists a gallery image once for each person that picked it, ``"set"``
            once, with its best picker.

    Returns:
        The nearby people and the pivots, best first.

    Raises:
        IndexError: if ``query`` is no row of the similarity.
        TypeError: as :func:`tlift`.
        ValueError: as :func:`tlift`.
    """
    check_above_zero(tau=tau)
    _check_pivot_options(k, pivots)
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds
    )
    if not 0 <= query < len(scene.scores):
        raise IndexError(f"query must be from 0 to {len(scene.scores) - 1}, got {query!r}")
    is_nearby = np.abs(scene.query_seconds - scene.query_seconds[query]) < tau
    is_nearby &= scene.query_cameras == scene.query_cameras[query]
    nearby = np.flatnonzero(is_nearby)
    columns = np.flatnonzero(scene.gallery_cameras == gallery_camera)
    pairs = scene.scores[np.ix_(nearby, columns)]  # (people, images)
    person, image = np.nonzero(pairs >= kth_highest(pairs.ravel(), k))
    best_first = np.argsort(-pairs[person, image], kind="stable")
    person, image = person[best_first], image[best_first]
    if pivots == "set":
        first = np.sort(np.unique(image, return_index=True)[1])
        person, image = person[first], image[first]
    return Pivots(nearby, nearby[person], columns[image], pairs[person, image])


class _Run(NamedTuple):
    """The queries of one camera in order of time; who is near a query is a run among them."""

    queries: np.ndarray  # rows of the similarity
    first: np.ndarray  # for each, the first of the queries that are near it
    last: np.ndarray  # for each, the end of those


def _nearby_runs(scene: TimedScores, tau: float) -> list[_Run]:
    """For each camera its queries in order of time, and who is nearer to each than tau seconds."""
    runs = []
    for camera in np.unique(scene.query_cameras):
        queries = np.flatnonzero(scene.query_cameras == camera)
        queries = queries[np.argsort(scene.query_seconds[queries], kind="stable")]
        seconds = scene.query_seconds[queries]
        nearby = [np.flatnonzero(np.abs(seconds - time) < tau) for time in seconds]
        first = np.array([run[0] for run in nearby])
        last = np.array([run[-1] + 1 for run in nearby])
        runs.append(_Run(queries, first, last))
    return runs


def _pivot_counts(block: np.ndarray, runs: list[_Run], k: int) -> sparse.csr_array:
    """How often each gallery image of one camera is a pivot, for each query.

    A pair can only be among the best k of a group if it is among the best k of its own person, so
    those few are found once and the groups choose among them.

    Args:
        block: similarities of all queries with the images of the camera, (num_query, n).
        runs: from `_nearby_runs`.
        k: number of best pairs.

    Returns:
        Counts, sparse of shape (num_query, n), in the type of the similarities; no row is empty.
    """
    rows, columns = [], []
    for queries, first, last in runs:
        values, images = _best_of_each(block[queries], k)
        length = (last - first).max()
        size = max(1, _GROUP_ENTRIES // (length * values.shape[1]))
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            people = first[part, None] + np.arange(length)  # of each group, padded
            inside = people < last[part, None]
            people = np.where(inside, people, 0)
            group = np.where(inside[:, :, None], values[people], -np.inf)
            group = group.reshape(len(people), -1)
            row, place = np.nonzero(group >= _kth_highest(group, k)[:, None])
            rows.append(queries[part][row])
            columns.append(images[people].reshape(len(people), -1)[row, place])
    row, column = (np.concatenate([*lists, np.zeros(0, np.int64)]) for lists in (rows, columns))
    ones = np.ones(len(row), dtype=block.dtype)
    return sparse.coo_array((ones, (row, column)), shape=block.shape).tocsr()


def _best_of_each(own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row (m, n), ties with the last of them included, and their columns.

    Both results have shape (m, width), with values of minus infinity where a row has fewer.
    """
    table = torch.from_numpy(own)
    values, columns = table.topk(min(k + 1, own.shape[1]))
    if own.shape[1] > k:
        limit = values[:, k - 1 : k]
        width = k
        if (values[:, k:] == limit).any():
            width = int((table >= limit).sum(dim=1).max())
            values, columns = table.topk(width)
        values = values[:, :width].masked_fill(values[:, :width] < limit, -torch.inf)
        columns = columns[:, :width]
    return values.numpy(), columns.numpy()


def _kth_highest(table: np.ndarray, k: int) -> np.ndarray:
    """The k-th highest of each row (m, n), or the lowest that is not minus infinity."""
    if table.shape[1] > k:
        limit = np.partition(table, table.shape[1] - k, axis=1)[:, table.shape[1] - k]
    else:
        limit = table.min(axis=1)
    return np.maximum(limit, np.finfo(table.dtype).min)


def _lift(
    block: np.ndarray, weights: sparse.csr_array, times: np.ndarray, sigma: float, alpha: float
) -> None:
    """Multiply the similarities of one gallery camera by p_t + alpha, in place.

    Args:
        block: similarities (num_query, n).
        weights: 1 / |P| for each time an image is a pivot of a query, (num_query, n).
        times: of the images, seconds, (n,).
        sigma: as in `tlift`, and so is the next.
        alpha: what is kept far from all pivots.
    """
    scores, when = torch.from_numpy(block), torch.from_numpy(times)
    pivots, starts = (torch.from_numpy(x).long() for x in (weights.indices, weights.indptr[:-1]))
    share = torch.from_numpy(weights.data)
    for part in _column_blocks(len(times)):
        # Eq. (3): one kernel for the queries of all cameras.
        gaps = ((when[:, None] - when[part]) / sigma).to(scores.dtype).square_().neg_()
        if alpha > 0:  # beside it less than e^-70 is nothing, and slow where it is denormal
            gaps.clamp_(min=-70)
        kernel = gaps.exp_()
        # The product of the sparse weights and the kernel: a weighted sum of rows for each query.
        probability = F.embedding_bag(pivots, kernel, starts, mode="sum", per_sample_weights=share)
        scores[:, part].mul_(probability.add_(alpha))


def _column_blocks(num_columns: int) -> Iterator[slice]:
    size = max(1, _KERNEL_ENTRIES // num_columns)
    for start in range(0, num_columns, size):
        yield slice(start, start + size)


def _check_pivot_options(k: int, pivots: str) -> None:
    check_whole_numbers(k=k)
    if pivots not in ("multiset", "set"):
        raise ValueError(f"pivots must be 'multiset' or 'set', got {pivots!r}")
