"""Cases and common slips of the exercises of chapter 10."""

import numpy as np

from qaconv_lib.exercises import Exercise

pivots, images = np.array([960.0, 1040.0, 1400.0]), np.array([1000.0, 1400.0])


def kernel(pivots: np.ndarray, images: np.ndarray, width: float) -> np.ndarray:
    return np.exp(-(((pivots[:, None] - images) / width) ** 2))


cameras = np.array([0, 0, 1, 0, 1])
seconds = np.array([0.0, 50.0, 60.0, 120.0, 400.0])


def near(seconds: np.ndarray, tau: float) -> np.ndarray:
    return abs(seconds[:, None] - seconds) < tau


similarity = np.array(
    [
        [0.50, 0.10, 0.20, 0.60],
        [0.10, 0.90, 0.22, 0.05],
        [0.12, 0.15, 0.80, 0.11],
        [0.95, 0.21, 0.13, 0.70],
    ]
)

EXERCISES = {
    # temporal_probabilities_by_hand
    "10.2": Exercise(
        [((), [(2 + np.exp(-4)) / 3, (1 + np.exp(-4)) / 2])],
        {
            "Divide by the number of pivots.": [2 + np.exp(-4), 1 + np.exp(-4)],
            "The set has two pivots: divide by two.": [(2 + np.exp(-4)) / 3, (1 + np.exp(-4)) / 3],
            "First the multiset, then the set.": [(1 + np.exp(-4)) / 2, (2 + np.exp(-4)) / 3],
        },
        tolerance=1e-3,
    ),
    # temporal_probability
    "10.3": Exercise(
        [
            (
                (pivots, images, 200.0),
                [(2 * np.exp(-0.04) + np.exp(-4)) / 3, (np.exp(-4.84) + np.exp(-3.24) + 1) / 3],
            ),
            (
                (pivots, images, 50.0),
                [2 * np.exp(-0.64) / 3, (1 + np.exp(-51.84) + np.exp(-77.44)) / 3],
            ),
            (
                (np.array([1000.0, 1000.0, 1400.0]), images, 200.0),
                [(2 + np.exp(-4)) / 3, (1 + 2 * np.exp(-4)) / 3],
            ),
        ],
        {
            "A pivot that comes twice counts twice.": lambda pivots, images, sigma: kernel(
                np.unique(pivots), images, sigma
            ).mean(axis=0),
            "That is the sum over the pivots, not their mean.": lambda pivots, images, sigma: (
                kernel(pivots, images, sigma).sum(axis=0)
            ),
            "Where does sigma come in?": lambda pivots, images, sigma: kernel(
                pivots, images, 200.0
            ).mean(axis=0),
            "Equation 10.1 has no 2 beside sigma squared.": lambda pivots, images, sigma: kernel(
                pivots, images, sigma * 2**0.5
            ).mean(axis=0),
        },
    ),
    # count_nearby
    "10.4": Exercise(
        [
            ((cameras, seconds, 100.0), [1, 2, 0, 1, 0]),
            ((np.array([2, 2, 2]), np.array([0.0, 100.0, 150.0]), 100.0), [0, 1, 1]),
            ((np.array([3, 3, 3]), np.array([40.0, 40.0, 90.0]), 100.0), [2, 2, 2]),
        ],
        {
            "The image itself does not count.": lambda cameras, seconds, tau: (
                near(seconds, tau) & (cameras[:, None] == cameras)
            ).sum(axis=1),
            "Leave out the image itself, not all of its moment.": lambda cameras, seconds, tau: (
                near(seconds, tau) & (cameras[:, None] == cameras) & (seconds[:, None] != seconds)
            ).sum(axis=1),
            "Only images of the same camera count.": lambda cameras, seconds, tau: (
                near(seconds, tau).sum(axis=1) - 1
            ),
            "Step 1 has <: exactly tau seconds away is not near.": lambda cameras, seconds, tau: (
                ((abs(seconds[:, None] - seconds) <= tau) & (cameras[:, None] == cameras)).sum(
                    axis=1
                )
                - 1
            ),
        },
    ),
    # pivots_of
    "10.5": Exercise(
        [((similarity, [0, 1, 2], 3), [1, 2, 3]), ((similarity, [0, 3], 3), [0, 3, 3])],
        {
            "Not one for each person: the k best of all their pairs together.": (
                lambda similarity, nearby, k: similarity[nearby].argmax(axis=1)[:k]
            ),
            "That is a position in the flattened table; the column is its remainder.": (
                lambda similarity, nearby, k: np.argsort(-similarity[nearby].ravel())[:k]
            ),
            "Only the rows of those nearby choose.": lambda similarity, nearby, k: (
                np.argsort(-similarity.ravel())[:k] % similarity.shape[1]
            ),
            "Best first, not worst first.": lambda similarity, nearby, k: (
                np.argsort(-similarity[nearby].ravel())[:k][::-1] % similarity.shape[1]
            ),
            "An image that two of them pick comes twice.": lambda similarity, nearby, k: np.argsort(
                -similarity[nearby].max(axis=0)
            )[:k],
        },
    ),
}
