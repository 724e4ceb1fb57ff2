"""Temporal Lifting (TLift), section 4 of the paper. Built in chapter 10.

TLift asks who else walked by: people seen shortly before or after the query in its camera are
looked up in another camera, and gallery images near those finds gain.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import scipy
import torch
import torch.nn.functional as F

from qaconv_lib._checks import (
    TimedScores,
    check_above_zero,
    check_choice,
    check_timed_scores,
    check_whole_numbers,
    is_number,
    restore_kind,
)

_KERNEL_ENTRIES = 2**22  # kernel values held at a time: 32 MiB
_GROUP_ENTRIES = 2**20  # candidates of groups held at a time


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

    The defaults are those of the authors' released code; in the paper's text the pivots are a set.
    Only time differences within one camera are used, so the cameras' clocks need not agree. The
    nearby people are queries: drop queries only *after* this function.

    Args:
        similarity: array or tensor of shape (num_query, num_gallery), finite and not negative:
            probabilities, such as the sigmoid of QAConv's logits; calibrate cosines first.
        query_cameras: num_query integers.
        query_seconds: num_query times on the cameras' clocks, seconds.
        gallery_cameras: num_gallery integers, in the numbering of ``query_cameras``.
        gallery_seconds: num_gallery times, seconds.
        tau: people closer in time than this are nearby, seconds.
        sigma: width of the kernel around a pivot, seconds.
        k: K, the number of best pairs that become pivots.
        alpha: what a gallery image keeps of its similarity far from all pivots, from 0.
        pivots: whether a gallery image picked by several people counts several times ("multiset")
            or once ("set").
        same_camera: whether images from the query's own camera are treated as all others ("keep")
            or get 0 ("suppress"), as in an earlier release.

    Returns:
        Weighted similarities, from 0 to ``1 + alpha`` times the input; an array or tensor like
        ``similarity``.
    """
    check_above_zero(tau=tau, sigma=sigma)
    check_whole_numbers(k=k)
    check_choice("pivots", pivots, "multiset", "set")
    check_choice("same_camera", same_camera, "keep", "suppress")
    if not is_number(alpha) or not 0 <= alpha < np.inf:
        raise ValueError(f"alpha must be from 0 and finite, got {alpha!r}")
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds
    )
    runs = _nearby_runs(scene, tau)
    order = np.argsort(scene.gallery_cameras, kind="stable")  # a camera's images side by side
    cameras, starts = np.unique(scene.gallery_cameras[order], return_index=True)
    kind = np.float32 if scene.scores.dtype == np.float32 else np.float64
    fused = scene.scores.take(order, axis=1).astype(kind, copy=False)
    blocks = (np.split(whole, starts[1:], axis=-1) for whole in (order, fused))
    for camera, columns, block in zip(cameras, *blocks, strict=False):
        weights = _pivot_counts(block, runs, int(k))  # a narrow integer would overflow
        if pivots == "set":
            weights.data[:] = 1
        weights.data /= np.repeat(weights.sum(axis=1), np.diff(weights.indptr))  # by |P|
        _lift(block, weights, scene.gallery_seconds[columns], sigma, alpha)
        if same_camera == "suppress":
            block[scene.query_cameras == camera] = 0
    back = np.argsort(order)
    for rows in np.array_split(fused, 1 + len(fused) // 256):
        rows[:] = rows.take(back, axis=1)
    return restore_kind(fused, similarity)


def _nearby_runs(scene: TimedScores, tau: float) -> list[tuple]:
    """For each camera its queries by time, and where the run of those near each starts and ends."""
    runs = []
    for camera in np.unique(scene.query_cameras):
        queries = np.flatnonzero(scene.query_cameras == camera)
        queries = queries[np.argsort(scene.query_seconds[queries], kind="stable")]
        seconds = scene.query_seconds[queries]
        nearby = [np.flatnonzero(np.abs(seconds - time) < tau)[[0, -1]] for time in seconds]
        first, last = np.transpose(nearby)
        runs.append((queries, first, last + 1))
    return runs


def _pivot_counts(block: np.ndarray, runs: list[tuple], k: int) -> scipy.sparse.csr_array:
    """How often each image of one camera is a pivot of each query: sparse, like block (q, n)."""
    rows, columns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for queries, first, end in runs:
        values, images = _best_of_each(block[queries], k)
        length = (end - first).max()
        size = max(1, _GROUP_ENTRIES // (length * values.shape[1]))
        for start in range(0, len(queries), size):
            part = slice(start, start + size)
            people = first[part, None] + np.arange(length)  # of each group, padded
            inside = people < end[part, None]
            people = np.where(inside, people, 0)
            group = np.where(inside[:, :, None], values[people], -np.inf)
            group = group.reshape(len(people), -1)
            row, place = np.nonzero(group >= _kth_highest(group, k)[:, None])
            rows.append(queries[part][row])
            columns.append(images[people].reshape(len(people), -1)[row, place])
    row, column = np.concatenate(rows), np.concatenate(columns)
    ones = np.ones(len(row), dtype=block.dtype)
    return scipy.sparse.coo_array((ones, (row, column)), shape=block.shape).tocsr()


def _best_of_each(own: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row and what ties with the last, padded with -inf, and their columns."""
    table = torch.from_numpy(own)
    values, columns = table.topk(min(k + 1, own.shape[1]))
    if own.shape[1] > k:
        limit, width = values[:, k - 1 : k], k
        if (values[:, k:] == limit).any():
            width = int((table >= limit).sum(dim=1).max())
            values, columns = table.topk(width)
        values, columns = values[:, :width], columns[:, :width]
        values = values.masked_fill(values < limit, -torch.inf)
    return values.numpy(), columns.numpy()


def _kth_highest(table: np.ndarray, k: int) -> np.ndarray:
    """The k-th highest of each row (m, n), or the lowest that is not minus infinity."""
    if table.shape[1] > k:
        limit = np.partition(table, table.shape[1] - k, axis=1)[:, table.shape[1] - k]
    else:
        limit = table.min(axis=1)
    return np.maximum(limit, np.finfo(table.dtype).min)


def _lift(
    block: np.ndarray,
    weights: scipy.sparse.csr_array,
    times: np.ndarray,
    sigma: float,
    alpha: float,
) -> None:
    """Multiply the similarities (q, n) of one gallery camera by p_t + alpha, in place."""
    scores, seconds = torch.from_numpy(block), torch.from_numpy(times)
    pivots, starts = (torch.from_numpy(x).long() for x in (weights.indices, weights.indptr[:-1]))
    share = torch.from_numpy(weights.data)
    size = max(1, _KERNEL_ENTRIES // len(seconds))
    for start in range(0, len(seconds), size):
        part = slice(start, start + size)
        # Eq. (3): one kernel for the queries of all cameras
        gaps = ((seconds[:, None] - seconds[part]) / sigma).to(scores.dtype).square_().neg_()
        if alpha > 0:  # beside it less than e^-70 is nothing, and slow where it is denormal
            gaps.clamp_(min=-70)
        kernel = gaps.exp_()
        # The product of the sparse weights and the kernel: a weighted sum of rows for each query.
        probability = F.embedding_bag(pivots, kernel, starts, mode="sum", per_sample_weights=share)
        scores[:, part].mul_(probability.add_(alpha))
