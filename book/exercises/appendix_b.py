"""Cases and common slips of the exercises of appendix B."""

import numpy as np

from qaconv_lib.exercises import Exercise


def both_errors(scores: np.ndarray, same: np.ndarray) -> list[tuple]:
    """Rows (threshold, FPR, 1 - TPR), for the slips."""
    return [(t, (scores[~same] >= t).mean(), (scores[same] < t).mean()) for t in np.unique(scores)]


def odds(x: float) -> float:
    return np.log(x / (1 - x))


def by_interval(probability: np.ndarray, same: np.ndarray, bins: int, weight: np.ndarray) -> list:
    """The table with the given weights, for the slips."""
    place = np.minimum((probability * bins).astype(int), bins - 1)
    return [
        [np.average(x[place == i], weights=weight[place == i]) for x in (probability, same)]
        for i in np.unique(place)
    ]


EXERCISES = {
    # probability_of_an_alarm
    "B.2": Exercise(
        [((), 0.44494)],
        {
            "How many strangers are there for each image of the person?": 0.997506,
            "Of 500 images, 499 show strangers.": 0.444444,
            "The true image passes in 4 of 10 cases only.": 0.667111,
            "That is the share of true pairs that are accepted.": 0.4,
        },
    ),
    # equal_error_rate
    "B.3": Exercise(
        [
            ((np.array([3.0, 2, 2, 0, 2, 1, 1, 0, 0, -1, -1, -2]), np.arange(12) < 4), 0.25),
            ((np.array([0.9, 0.1, 0.5, 0.2]), np.array([True, True, False, False])), 0.5),
            ((np.array([0.9, 0.8, 0.5]), np.array([True, True, False])), 0.0),
        ],
        {
            "Return the share, not the threshold.": lambda scores, same: min(
                both_errors(scores, same), key=lambda row: max(row[1:])
            )[0],
            "The larger of the two, not their mean.": lambda scores, same: min(
                (fpr + missed) / 2 for _, fpr, missed in both_errors(scores, same)
            ),
            "One share is of the strangers, the other of the true pairs.": lambda scores, same: min(
                max((scores[~same] >= t).sum(), (scores[same] < t).sum()) / len(scores)
                for t in np.unique(scores)
            ),
        },
    ),
    # score_for
    "B.4": Exercise(
        [
            ((0.5, 0.5, 2.0, 4.0), -2.0),
            ((0.9, 0.5, 2.0, 4.0), -0.901388),
            ((0.5, 0.0001, 2.0, 4.0), 2.605120),
            ((0.99, 0.001, 1.5, 0.0), 7.667917),
        ],
        {
            "The prior is still missing.": lambda p, prior, slope, offset: (
                (odds(p) - offset) / slope
            ),
            "A rare person needs a higher score: mind the sign of the prior.": (
                lambda p, prior, slope, offset: (odds(p) + odds(prior) - offset) / slope
            ),
            "Solve for the score: the offset goes to the other side.": (
                lambda p, prior, slope, offset: (odds(p) - odds(prior) + offset) / slope
            ),
        },
    ),
    # reliability_by_hand
    "B.5": Exercise(
        [
            (
                (np.array([0.9, 0.8, 0.2, 0.1, 0.7, 0.3]), np.array([1, 1, 1, 0, 0, 0], bool), 2),
                [[0.2, 1 / 3], [0.8, 2 / 3]],
            ),
            ((np.array([1.0, 0.0]), np.array([True, False]), 4), [[0.0, 0.0], [1.0, 1.0]]),
            (
                (np.array([0.9, 0.8, 0.2, 0.1]), np.array([1, 0, 0, 0], bool), 2),
                [[0.15, 0.0], [0.875, 0.75]],
            ),
            (
                (np.array([1.0, 0.9, 0.1]), np.array([1, 0, 0], bool), 2),
                [[0.1, 0.0], [0.966667, 0.666667]],
            ),
        ],
        {
            "The one true pair weighs as much as all the strangers together.": (
                lambda probability, same, bins: by_interval(
                    probability, same, bins, np.ones(len(same))
                )
            )
        },
    ),
}
