"""TFusion (Lv et al., CVPR 2018), beside TLift in chapter 10."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from qaconv_lib import _checks


class TransitionTimes:
    """How likely people are to go from one camera to another in a given time.

    Learned from n pairs of images: their first and second cameras and the seconds between, all
    (n,). Pairs within `window` seconds of a time difference count for it.
    """

    def __init__(
        self, from_cameras: np.ndarray, to_cameras: np.ndarray, seconds: np.ndarray, window: float
    ):
        _checks.check_above_zero(window=window)
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
        """P(time difference, second camera | first camera), an array like ``seconds``."""
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
    pair, give :math:`P` (`TransitionTimes`). ``num_random`` random gallery images of each query
    give :math:`P_{rand}`, and those among them that are not the query's best give
    :math:`P_{diff}`. :math:`E_p` is the share of the pairs taken for matches that show two people,
    :math:`E_n` the share of the others that show one person. Bayes' rule leads to the score

    .. math:: \frac{(1 - E_n) P - E_p P_{diff}}{\max(P_{rand}, floor)}
              \left(s + \frac{E_n}{1 - E_p - E_n}\right)

    Pairs whose score is not above 0, and pairs from different sessions, are impossible by time.
    They get s - 1, from -1 to 0: below all others, in the order of the similarity.

    The default floor is the authors', for large datasets. With few images, choose it near 1 / the
    number of random pairs of a camera: otherwise a time difference that one wrong match has and no
    random pair has wins. Choose :math:`E_p`, :math:`E_n` (the authors tried 0, 0.25, 0.5 and 0.75)
    and the window (half its width, in seconds) on data that is not used for the test.

    ``similarity`` is an array or tensor (num_query, num_gallery) from 0 to 1; cameras, seconds and
    ``same_camera`` are as for `tlift`. Sessions are integers, for both sides or neither; in a
    session a clock may be off by a constant. The fused scores, in an array or tensor like
    ``similarity``, have no upper limit: good for ranking, but not probabilities.

    ``error_positive`` is :math:`E_n`, the positives missed, and ``error_negative`` :math:`E_p`: the
    authors' released code, and so the book's records, have the two names in each other's place.
    """
    _checks.check_whole_numbers(num_matches=num_matches, num_random=num_random)
    errors = error_positive, error_negative
    if not all(map(_checks.is_number, errors)) or not (min(errors) >= 0 and sum(errors) < 1):
        raise ValueError(
            f"error_positive and error_negative must be from 0 and sum to less than 1, got {errors}"
        )
    scene = _checks.check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds, highest=1
    )
    sessions = _check_sessions(scene, query_sessions, gallery_sessions)
    if not scene.scores.size:
        return _checks.restore_kind(scene.scores, similarity)
    count, size = scene.scores.shape
    top = np.array([np.argsort(-own, kind="stable")[:num_matches] for own in scene.scores])
    drawn = np.random.default_rng(seed).integers(size, size=(count, num_random))
    is_top = (drawn[:, :, None] == top[:, None, :]).any(axis=2)
    queries = np.arange(count)[:, None]

    def times_of(images: np.ndarray, wanted: np.ndarray | bool = True) -> TransitionTimes:
        """Transition times of each query's pairs with its wanted ``images`` (num_query, n)."""
        row, place = np.nonzero(wanted & (sessions[0][queries] == sessions[1][images]))
        image = images[row, place]
        seconds = scene.gallery_seconds[image] - scene.query_seconds[row]
        cameras = scene.query_cameras[row], scene.gallery_cameras[image]
        return TransitionTimes(*cameras, seconds, window)

    times = times_of(top), times_of(drawn), times_of(drawn, ~is_top)
    fused = _fuse(scene, sessions, times, errors, floor, same_camera)
    return _checks.restore_kind(fused, similarity)


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

    What `tfusion` has to guess is known here, as in st-ReID (Wang et al., AAAI 2019): all pairs of
    one person's images give :math:`P`, all pairs of images :math:`P_{rand}`, and the score is
    :math:`s \, P / \max(P_{rand}, floor)`. It needs labels of the target, so it is a reference and
    not a competitor. Impossible pairs get s - 1. Memory grows with the square of the number n of
    labelled images, which have ``identities``, ``cameras``, ``seconds`` and, if query and gallery
    have them, ``sessions``. For the other arguments see `tfusion`.
    """
    scene = _checks.check_timed_scores(
        similarity, query_cameras, query_seconds, gallery_cameras, gallery_seconds, highest=1
    )
    if (sessions is None) != (query_sessions is None):
        raise ValueError("give sessions for query, gallery and labelled images, or for none")
    known_sessions = _check_sessions(scene, query_sessions, gallery_sessions)
    fit = len(identities), "the labelled images"
    identities = _checks.to_labels(identities, "identities", *fit)
    cameras = _checks.to_labels(cameras, "cameras", *fit)
    seconds = _checks.to_seconds(seconds, "seconds", *fit)
    sessions = np.zeros(fit[0], dtype=np.int64) if sessions is None else sessions
    sessions = _checks.to_labels(sessions, "sessions", *fit)
    first, second = np.nonzero((sessions[:, None] == sessions) & ~np.eye(fit[0], dtype=bool))
    examples = cameras[first], cameras[second], seconds[second] - seconds[first]
    same = identities[first] == identities[second]
    if not same.any():
        raise ValueError("no person has two labelled images in one session")
    random = TransitionTimes(*examples, window)
    starts, ends, gaps = (part[same] for part in examples)
    matched = TransitionTimes(starts, ends, gaps, window)
    fused = _fuse(scene, known_sessions, (matched, random, random), (0, 0), floor, same_camera)
    return _checks.restore_kind(fused, similarity)


def _fuse(
    scene: _checks.TimedScores, sessions: list[np.ndarray], times: tuple[TransitionTimes, ...],
    errors: tuple[float, float], floor: float, same_camera: str,
) -> np.ndarray:  # fmt: skip
    """The score of `tfusion` from the times of matched, random and different pairs."""
    _checks.check_above_zero(floor=floor)
    _checks.check_choice("same_camera", same_camera, "keep", "suppress")
    (matched, random, different), (positive, negative) = times, errors
    offset = positive / (1 - positive - negative)  # positive is E_n
    fused = scene.scores - 1
    for camera in np.unique(scene.gallery_cameras):
        columns = np.flatnonzero(scene.gallery_cameras == camera)
        columns = columns[np.argsort(scene.gallery_seconds[columns])]  # sorted look-ups are faster
        for query, own in enumerate(scene.query_cameras):
            if own == camera and same_camera == "suppress":
                continue
            pair = own, camera, scene.gallery_seconds[columns] - scene.query_seconds[query]
            weight = (1 - positive) * matched.probability(*pair)
            weight -= negative * different.probability(*pair)
            weight /= np.maximum(random.probability(*pair), floor)
            weight[sessions[1][columns] != sessions[0][query]] = 0
            score = weight * (scene.scores[query, columns] + offset)
            possible = score > 0
            fused[query, columns[possible]] = score[possible]
    return fused


def _check_sessions(scene: _checks.TimedScores, *given: Any) -> list[np.ndarray]:
    """Sessions of queries and gallery images, all 0 where there are none."""
    if len({sessions is None for sessions in given}) > 1:
        raise ValueError("give both query_sessions and gallery_sessions, or neither")
    names, shape = ("query_sessions", "gallery_sessions"), scene.scores.shape
    found = []
    for own, name, n in zip(given, names, shape, strict=True):
        own = np.zeros(n, int) if own is None else own
        found.append(_checks.to_labels(own, name, n, f"similarity {shape}"))
    return found
