"""Temporal Lifting (TLift), section 4 of the paper. Built in chapter 10.

TLift asks who else walked by: people seen shortly before or after the query in its camera are
looked up in another camera, and gallery images near those finds gain. TFusion, which learns
transition times instead, is in :mod:`qaconv_lib.transitions` and importable from here too.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy import sparse

from qaconv_lib.arrays import (
    TimedScores,
    check_above_zero,
    check_timed_scores,
    check_whole_numbers,
    kth_highest,
    restore_kind,
)
from qaconv_lib.transitions import TransitionTimes, tfusion

__all__ = ["Pivots", "TransitionTimes", "tfusion", "tlift", "tlift_pivots"]

_KERNEL_ENTRIES = 2**22  # kernel values held at a time: 32 MiB


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
    if not 0 <= alpha < np.inf:
        raise ValueError(f"alpha must be from 0, got {alpha!r}")
    if same_camera not in ("keep", "suppress"):
        raise ValueError(f"same_camera must be 'keep' or 'suppress', got {same_camera!r}")
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds
    )
    fused = np.zeros(scene.scores.shape, dtype=scene.scores.dtype)
    for gallery_camera in np.unique(scene.gallery_cameras):
        columns = np.flatnonzero(scene.gallery_cameras == gallery_camera)
        seconds = scene.gallery_seconds[columns]
        lifted = np.arange(len(fused))
        if same_camera == "suppress":
            lifted = np.flatnonzero(scene.query_cameras != gallery_camera)
        if not len(lifted):
            continue
        counts = _pivot_counts(scene, lifted, columns, tau, k)
        if pivots == "set":
            counts.data[:] = 1
        weights = sparse.diags_array(1 / counts.sum(axis=1)) @ counts  # 1 / |P|
        for part in _column_blocks(len(columns)):
            # Eq. (3): one kernel a gallery camera, for the queries of all cameras.
            kernel = np.exp(-(((seconds[:, None] - seconds[part]) / sigma) ** 2))
            cells = np.ix_(lifted, columns[part])
            fused[cells] = (weights @ kernel + alpha) * scene.scores[cells]
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


def _pivot_counts(
    scene: TimedScores, lifted: np.ndarray, columns: np.ndarray, tau: float, k: int
) -> sparse.csr_array:
    """How often each gallery image of one camera is a pivot, for each query in ``lifted``.

    A pair can only be among the best k of a group if it is among the best k of its own person, so
    those few are found once and the groups choose among them. With the people of a camera in order
    of time, a group is a run of rows.

    Args:
        scene: checked arguments.
        lifted: queries (rows of the scene) wanted, whole cameras.
        columns: the gallery images of the camera.
        tau: people closer in time than this are nearby, seconds.
        k: number of best pairs.

    Returns:
        Counts, sparse of shape (len(lifted), len(columns)); no row is empty.
    """
    picked: list[np.ndarray] = [np.zeros(0, dtype=np.int64)] * len(lifted)
    cameras = scene.query_cameras[lifted]
    for camera in np.unique(cameras):
        members = np.flatnonzero(cameras == camera)
        members = members[np.argsort(scene.query_seconds[lifted[members]], kind="stable")]
        seconds = scene.query_seconds[lifted[members]]
        own_scores = (scene.scores[row, columns] for row in lifted[members])
        best = [np.flatnonzero(own >= kth_highest(own, k)) for own in own_scores]
        images = np.concatenate(best)
        people = np.repeat(lifted[members], [len(own) for own in best])
        values = scene.scores[people, columns[images]]
        starts = np.cumsum([0] + [len(own) for own in best])
        for member, time in zip(members, seconds, strict=True):
            nearby = np.flatnonzero(np.abs(seconds - time) < tau)
            group = slice(starts[nearby[0]], starts[nearby[-1] + 1])
            picked[member] = images[group][values[group] >= kth_highest(values[group], k)]
    rows = np.repeat(np.arange(len(lifted)), [len(own) for own in picked])
    picks = np.concatenate([*picked, np.zeros(0, dtype=np.int64)])
    shape = (len(lifted), len(columns))
    return sparse.coo_array((np.ones(len(picks)), (rows, picks)), shape=shape).tocsr()


def _column_blocks(num_columns: int) -> Iterator[slice]:
    size = max(1, _KERNEL_ENTRIES // num_columns)
    for start in range(0, num_columns, size):
        yield slice(start, start + size)


def _check_pivot_options(k: int, pivots: str) -> None:
    check_whole_numbers(k=k)
    if pivots not in ("multiset", "set"):
        raise ValueError(f"pivots must be 'multiset' or 'set', got {pivots!r}")
