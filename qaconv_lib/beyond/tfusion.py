"""TFusion (Lv et al., CVPR 2018): transition times between cameras as a second opinion.

Built in chapter 10, beside TLift, which needs no such model. TFusion learns how long people take
from camera to camera, and asks whether a pair's time difference is usual.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from qaconv_lib._checks import (
    TimedScores,
    check_above_zero,
    check_timed_scores,
    check_whole_numbers,
    is_number,
    kth_highest,
    restore_kind,
    to_labels,
)


class TransitionTimes:
    """How likely people are to go from one camera to another in a given time, from examples.

    Attributes:
        window: examples within this many seconds of a time difference count for it.
    """

    def __init__(
        self, from_cameras: np.ndarray, to_cameras: np.ndarray, seconds: np.ndarray, window: float
    ) -> None:
        """Collect examples.

        Args:
            from_cameras: camera of the query of each pair, (n,).
            to_cameras: camera of the gallery image of each pair, (n,).
            seconds: time of the gallery image minus time of the query, (n,).
            window: half width of the window, seconds.
        """
        self.window = window
        self._totals: dict[int, int] = {}
        self._sorted: dict[tuple[int, int], np.ndarray] = {}
        for first in np.unique(from_cameras):
            starts_here = from_cameras == first
            self._totals[int(first)] = int(np.count_nonzero(starts_here))
            for second in np.unique(to_cameras[starts_here]):
                pair = starts_here & (to_cameras == second)
                self._sorted[int(first), int(second)] = np.sort(seconds[pair])

    def probability(self, from_camera: int, to_camera: int, seconds: np.ndarray) -> np.ndarray:
        """P(time difference, second camera | first camera), an array like ``seconds``.

        The examples of this camera pair within the window around each time difference, as a
        fraction of all examples from the first camera; 0 where it has none.
        """
        examples = self._sorted.get((int(from_camera), int(to_camera)))
        if examples is None:
            return np.zeros(np.shape(seconds))
        first = np.searchsorted(examples, seconds - self.window, side="left")
        last = np.searchsorted(examples, seconds + self.window, side="right")
        return (last - first) / self._totals[int(from_camera)]


def tfusion(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    *,
    query_sessions: Any = None,
    gallery_sessions: Any = None,
    error_positive: float = 0.25,
    error_negative: float = 0.25,
    num_matches: int = 11,
    num_random: int = 100,
    window: float = 30.0,
    floor: float = 2e-5,
    same_camera: Literal["keep", "suppress"] = "keep",
    seed: int = 0,
) -> Any:
    r"""TFusion (Lv et al., CVPR 2018): fuse similarities with learned transition times.

    No identities are used. The ``num_matches`` best gallery images of each query are taken for
    matches, right or wrong. Their time differences (gallery minus query), camera pair by camera
    pair, give :math:`P` (:class:`TransitionTimes`). ``num_random`` random gallery images of each
    query give :math:`P_{rand}`, and those among them that are not the query's best give
    :math:`P_{diff}`. With :math:`E_p` and :math:`E_n`, the rates at which pairs taken for a match
    are none and the other way round, Bayes' rule leads to the score

    .. math:: \frac{(1 - E_p) P - E_n P_{diff}}{\max(P_{rand}, floor)}
              \left(s + \frac{E_p}{1 - E_p - E_n}\right)

    Pairs where this is not above 0, and pairs from different sessions, are impossible by time. They
    get s - 1, from -1 to 0: below all others, in the order of the similarity.

    Everything here depends on the transition times being alike for most people. The default floor
    is the authors', for large datasets: with few images a time difference that one wrong match has
    and no random pair has is divided by the floor and wins. A floor near the smallest fraction
    that :math:`P_{rand}` can show (1 / random pairs of a camera) prevents that. The authors tried
    :math:`E_p` and :math:`E_n` from 0, 0.25, 0.5 and 0.75 on each dataset; choose them, and the
    window, on data that is not used for the test. The random images are
    ``numpy.random.default_rng(seed).integers(num_gallery, size=(num_query, num_random))``.

    Args:
        similarity: array or tensor of shape (num_query, num_gallery), from 0 to 1.
        query_cameras: num_query integers.
        query_seconds: num_query times in seconds.
        gallery_cameras: num_gallery integers, in the numbering of ``query_cameras``.
        gallery_seconds: num_gallery times in seconds. Within a session a camera's clock may be off
            by a constant.
        query_sessions: num_query integers; time differences mean something within a session only.
            Without sessions, all images are of one.
        gallery_sessions: num_gallery integers; given together with ``query_sessions``.
        error_positive: :math:`E_p`, from 0.
        error_negative: :math:`E_n`, from 0; the two sum to less than 1.
        num_matches: top gallery images of each query that are taken for matches, from 1.
        num_random: random gallery images of each query, from 1.
        window: half width of the window around a time difference, seconds.
        floor: smallest value used for :math:`P_{rand}`, above 0.
        same_camera: ``"keep"`` or ``"suppress"``: whether gallery images from the query's own
            camera are treated as all others, or as impossible.
        seed: of the random images.

    Returns:
        Fused scores, (num_query, num_gallery), from -1 and without an upper limit: good for
        ranking, no probabilities. An array or tensor like ``similarity``.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if lengths do not fit, a time is missing, a similarity is NaN or outside 0 to 1,
            only one side has sessions, or a parameter is out of its range.
    """
    check_above_zero(window=window, floor=floor)
    check_whole_numbers(num_matches=num_matches, num_random=num_random)
    errors = error_positive, error_negative
    if not all(map(is_number, errors)) or not (min(errors) >= 0 and sum(errors) < 1):
        raise ValueError(
            "error_positive and error_negative must be from 0 and sum to less than 1, got "
            f"{error_positive!r} and {error_negative!r}"
        )
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds, highest=1
    )
    query_sessions, gallery_sessions = _check_sessions(
        query_sessions, gallery_sessions, scene.scores.shape
    )
    if not scene.scores.size:
        return restore_kind(scene.scores, similarity)

    top = _best_columns(scene.scores, num_matches)
    drawn = np.random.default_rng(seed).integers(
        scene.scores.shape[1], size=(len(scene.scores), num_random)
    )
    is_top = (drawn[:, :, None] == top[:, None, :]).any(axis=2)

    def times_of(images: np.ndarray, wanted: np.ndarray) -> TransitionTimes:
        """Transition times of the pairs of each query and its ``images`` (num_query, n)."""
        queries = np.broadcast_to(np.arange(len(images))[:, None], images.shape)
        wanted = wanted & (query_sessions[queries] == gallery_sessions[images])
        queries, images = queries[wanted], images[wanted]
        seconds = scene.gallery_seconds[images] - scene.query_seconds[queries]
        cameras = scene.query_cameras[queries], scene.gallery_cameras[images]
        return TransitionTimes(*cameras, seconds, window)

    matched = times_of(top, np.ones(top.shape, dtype=bool))
    random = times_of(drawn, np.ones(drawn.shape, dtype=bool))
    different = times_of(drawn, ~is_top)

    def support(own: int, camera: int, seconds: np.ndarray) -> np.ndarray:
        found = (1 - error_positive) * matched.probability(own, camera, seconds)
        found -= error_negative * different.probability(own, camera, seconds)
        return found / np.maximum(random.probability(own, camera, seconds), floor)

    offset = error_positive / (1 - error_positive - error_negative)
    fused = _weighted(scene, query_sessions, gallery_sessions, support, offset, same_camera)
    return restore_kind(fused, similarity)


def labelled_transitions(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    *,
    identities: Any,
    cameras: Any,
    seconds: Any,
    query_sessions: Any = None,
    gallery_sessions: Any = None,
    sessions: Any = None,
    window: float = 30.0,
    floor: float = 2e-3,
    same_camera: Literal["keep", "suppress"] = "keep",
) -> Any:
    r"""Fuse similarities with transition times learned from labelled images of the same cameras.

    What :func:`tfusion` has to guess is known here, as in st-ReID (Wang et al., AAAI 2019), whose
    histograms come from the training identities of the target: all pairs of one person's images
    give :math:`P`, all pairs of images :math:`P_{rand}`, and the score is :math:`s \, P /
    \max(P_{rand}, floor)`. It needs labels of the target, so it is a reference and no competitor.
    Impossible pairs get s - 1, as in :func:`tfusion`. All pairs of labelled images are held
    at once: memory grows with the square of their number.

    Args:
        similarity: as for :func:`tfusion`, and so are the next four.
        query_cameras: num_query integers.
        query_seconds: num_query times in seconds.
        gallery_cameras: num_gallery integers.
        gallery_seconds: num_gallery times in seconds.
        identities: identities of the labelled images, n integers.
        cameras: their cameras, n integers, in the numbering of ``query_cameras``.
        seconds: their times, n numbers.
        query_sessions: num_query integers, or None with the next two.
        gallery_sessions: num_gallery integers.
        sessions: sessions of the labelled images, n integers.
        window: half width of the window around a time difference, seconds.
        floor: smallest value used for :math:`P_{rand}`, above 0.
        same_camera: as for :func:`tfusion`.

    Returns:
        Fused scores, (num_query, num_gallery), an array or tensor like ``similarity``.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: as for :func:`tfusion`, or no person has two labelled images.
    """
    check_above_zero(window=window, floor=floor)
    scene = check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds, highest=1
    )
    sessions_missing = query_sessions is None
    query_sessions, gallery_sessions = _check_sessions(
        query_sessions, gallery_sessions, scene.scores.shape
    )
    count = len(identities)
    identities = to_labels(identities, "identities", count, "themselves")
    cameras = to_labels(cameras, "cameras", count, f"there are {count} identities")
    seconds = np.asarray(seconds, dtype=np.float64)
    if seconds.shape != (count,) or not np.isfinite(seconds).all():
        raise ValueError(f"seconds must be {count} finite numbers, one for each identity")
    if (sessions is None) != sessions_missing:
        raise ValueError("give sessions for query, gallery and labelled images, or for none")
    if sessions is None:
        sessions = np.zeros(count, dtype=np.int64)
    sessions = to_labels(sessions, "sessions", count, f"there are {count} identities")
    first, second = np.nonzero(sessions[:, None] == sessions)
    other = first != second
    first, second = first[other], second[other]
    examples = cameras[first], cameras[second], seconds[second] - seconds[first]
    same = identities[first] == identities[second]
    if not same.any():
        raise ValueError("no person has two labelled images in one session")
    random = TransitionTimes(*examples, window)
    from_cameras, to_cameras, gaps = (part[same] for part in examples)
    matched = TransitionTimes(from_cameras, to_cameras, gaps, window)

    def support(own: int, camera: int, seconds: np.ndarray) -> np.ndarray:
        found = matched.probability(own, camera, seconds)
        return found / np.maximum(random.probability(own, camera, seconds), floor)

    fused = _weighted(scene, query_sessions, gallery_sessions, support, 0.0, same_camera)
    return restore_kind(fused, similarity)


def _weighted(
    scene: TimedScores,
    query_sessions: np.ndarray,
    gallery_sessions: np.ndarray,
    support: Callable[[int, int, np.ndarray], np.ndarray],
    offset: float,
    same_camera: str,
) -> np.ndarray:
    """support * (similarity + offset) where that is above 0, else similarity - 1."""
    if same_camera not in ("keep", "suppress"):
        raise ValueError(f"same_camera must be 'keep' or 'suppress', got {same_camera!r}")
    fused = scene.scores - 1
    for camera in np.unique(scene.gallery_cameras):
        columns = np.flatnonzero(scene.gallery_cameras == camera)
        columns = columns[np.argsort(scene.gallery_seconds[columns])]  # sorted look-ups are faster
        for query, own in enumerate(scene.query_cameras):
            if own == camera and same_camera == "suppress":
                continue
            weight = support(
                own, camera, scene.gallery_seconds[columns] - scene.query_seconds[query]
            )
            weight[gallery_sessions[columns] != query_sessions[query]] = 0
            score = weight * (scene.scores[query, columns] + offset)
            possible = score > 0
            fused[query, columns[possible]] = score[possible]
    return fused


def _best_columns(scores: np.ndarray, count: int) -> np.ndarray:
    """The ``count`` highest columns of each row, equal values in order: (rows, <= count)."""
    count = min(count, scores.shape[1])
    best = np.empty((len(scores), count), dtype=np.int64)
    for row, own in enumerate(scores):
        candidates = np.flatnonzero(own >= kth_highest(own, count))
        best[row] = candidates[np.argsort(-own[candidates], kind="stable")[:count]]
    return best


def _check_sessions(
    query_sessions: Any, gallery_sessions: Any, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    if (query_sessions is None) != (gallery_sessions is None):
        raise ValueError("give both query_sessions and gallery_sessions, or neither")
    if query_sessions is None:
        return np.zeros(shape[0], dtype=np.int64), np.zeros(shape[1], dtype=np.int64)
    return (
        to_labels(query_sessions, "query_sessions", shape[0], f"similarity has {shape[0]} rows"),
        to_labels(
            gallery_sessions, "gallery_sessions", shape[1], f"similarity has {shape[1]} columns"
        ),
    )
