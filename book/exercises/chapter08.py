"""Cases and common slips of the exercises of chapter 8."""

import numpy as np

from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.exercises import Exercise

similarity = np.array([[0.9, 0.8, 0.1, 0.2], [0.9, 0.1, 0.8, 0.2], [0.1, 0.2, 0.3, 0.4]])
persons, cameras = [1, 1, 2, 2], [1, 2, 1, 2]


seen_identities = np.array([7, 7, 0, -1, 4, 7, -1])
seen_cameras = np.array([0, 1, 0, 0, 0, 2, 1])

EXERCISES = {
    # scores_of_ranks_2_and_4
    "8.2": Exercise(
        [((), [0.5, 1 / 3, 0.5])],
        {
            "Before rank 4 one of three images is a match: the precision is not 0.": [
                0.5,
                0.25,
                0.5,
            ],
            "Divide the sum over the matches by their number.": [0.5, 2 / 3, 0.5],
            "INP asks how many matches there are and at which rank the last one is.": [
                0.5,
                1 / 3,
                0.25,
            ],
            "Before rank 2 there is a wrong answer: the precision is not 1.": [0.5, 7 / 12, 0.5],
        },
        tolerance=1e-3,
    ),
    # average_precision
    "8.3": Exercise(
        [
            ((np.array([1, 0, 1, 0, 0, 1, 0, 0]),), (1 + 2 / 3 + 1 / 2) / 3),
            ((np.array([0, 0, 0, 1]),), 0.25),
        ],
        {
            "That is the mean over all images; take it over the matches.": lambda hits: np.mean(
                hits * np.cumsum(hits) / np.arange(1, len(hits) + 1)
            ),
            "That takes the precision at wrong answers too.": lambda hits: np.mean(
                np.cumsum(hits) / np.arange(1, len(hits) + 1)
            ),
            "At the i-th match the precision is i / r, not 1 / r.": lambda hits: np.mean(
                1 / (np.flatnonzero(hits) + 1)
            ),
            "Ranks are counted from 1.": lambda hits: (
                (hits * np.cumsum(hits) / np.maximum(np.arange(len(hits)), 1)).sum() / hits.sum()
            ),
        },
    ),
    # share_ranked_perfectly
    "8.4": Exercise(
        [
            ((similarity, [1, 1, 2], persons, [0, 0, 0], cameras), 2 / 3),
            ((similarity, [1, 1, 2], persons, [0, 2, 0], cameras), 1.0),
            ((similarity, [1, 1, 9], persons, [0, 0, 0], cameras), 1 / 2),
        ],
        {
            "A query without a match does not count.": lambda *question: (
                evaluate_ranking(*question).per_query["inp"].eq(1).mean()
            ),
            "That is rank-1: it asks for the first match only.": lambda *question: evaluate_ranking(
                *question
            ).rank(1),
        },
    ),
    # is_ranked
    "8.5": Exercise(
        [
            ((7, 0, seen_identities, seen_cameras), [0, 1, 1, 0, 1, 1, 0]),
            ((4, 2, seen_identities, seen_cameras), [1, 1, 1, 0, 1, 1, 0]),
        ],
        {
            "Bad detections stay in your ranking.": lambda who, camera, people, places: (
                (people != who) | (places != camera)
            ),
            "Junk is of the same camera and the same identity, not of either.": (
                lambda who, camera, people, places: (
                    (people != -1) & (people != who) & (places != camera)
                )
            ),
            "Wrong answers are ranked too.": lambda who, camera, people, places: (
                (people == who) & (places != camera)
            ),
            "Other people under the query's camera stay.": lambda who, camera, people, places: (
                (people != -1) & (places != camera)
            ),
            "Distractors stay.": lambda who, camera, people, places: (
                (people > 0) & ((people != who) | (places != camera))
            ),
        },
    ),
}
