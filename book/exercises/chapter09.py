"""Cases and common slips of the exercises of chapter 9."""

import numpy as np

from qaconv_lib.exercises import Exercise
from qaconv_lib.reranking import k_reciprocal_rerank

points = np.array([0.0, 1.0, 2.5, 2.6, 2.8, 9.0])
distances = np.abs(points[:, None] - points)


def member(distances: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(np.argsort(distances, axis=1), axis=1) <= k


nearest = np.eye(6)
nearest[[0, 1, 2, 3], [1, 0, 3, 2]] = 1
two_nearest = nearest.copy()
two_nearest[[2, 3, 4, 4], [4, 4, 2, 3]] = 1
rng = np.random.default_rng(0)
features = rng.standard_normal((30, 5))
features /= np.linalg.norm(features, axis=1, keepdims=True)
features[12] = 1.001 * features[0]  # rounded up: its cosine is above 1
square = ((1 - features @ features.T) / 2).clip(0)
parts = square[:8, 8:], square[:8, :8], square[8:, 8:]
expected = 1 - k_reciprocal_rerank(*parts, 5, 3)
row = np.array([0.0, 0.6, 0.5, 1.0])


def weights(distances: np.ndarray, members: list[int]) -> np.ndarray:
    row = np.zeros(len(distances))
    row[members] = np.exp(-distances[members])
    return row


EXERCISES = {
    # jaccard_of_the_two_rows
    "9.2": Exercise(
        [((), 2 / 3)],
        {
            "That is how much the two overlap. A distance is one minus that.": 1 / 3,
            "Divide the sum of the smaller numbers by that of the larger ones first.": 1 / 2,
            "Divide by the sum of the maxima; two is only what both rows sum to.": 3 / 4,
        },
        tolerance=1e-3,
    ),
    # mutual_neighbours
    "9.3": Exercise(
        [((distances, 1), nearest), ((distances, 2), two_nearest)],
        {
            "That is N(i, k). Is i among the neighbours of j, too?": member,
            "`argsort` gives the images in order, not the place of each: sort once more.": (
                lambda distances, k: (
                    (np.argsort(distances, axis=1) <= k) & (np.argsort(distances, axis=1) <= k).T
                )
            ),
            "N(i, k) holds the image itself and k others.": lambda distances, k: (
                member(distances, k - 1) & member(distances, k - 1).T
            ),
        },
    ),
    # rerank_features
    "9.4": Exercise(
        [((features[:8], features[8:], 5, 3), expected)],
        {
            "That is the distance; the similarity is asked for.": 1 - expected,
            "k1 and k2 must be passed on.": 1 - k_reciprocal_rerank(*parts),
        },
    ),
    # encoding_of_one
    "9.5": Exercise(
        [((row, [0, 2, 3]), [0.506480, 0, 0.307196, 0.186324]), ((row, [0]), [1, 0, 0, 0])],
        {
            "The row must be divided by its sum.": weights,
            "Those that are not members get 0.": lambda d, m: np.exp(-d) / np.exp(-d).sum(),
            "Divide by the sum over the members, not over all images.": lambda d, m: (
                weights(d, m) / np.exp(-d).sum()
            ),
        },
    ),
}
