"""Cases and common slips of the exercises of chapter 13."""

import numpy as np

from qaconv_lib.exercises import Exercise

two_ours, two_theirs = np.array([0.9, 0.2]), np.array([0.6, 0.3])
four_ours, four_theirs = np.array([0.9, 0.2, 0.5, 0.8]), np.array([0.6, 0.3, 0.1, 0.8])

EXERCISES = {
    # likely_means
    "13.2": Exercise(
        [((), [0.25, 0.5, 0.25])],
        {"There are two ways to draw one of each.": [1 / 3, 1 / 3, 1 / 3]},
    ),
    # unpaired_draw
    "13.3": Exercise(
        [
            ((two_ours, two_theirs, np.array([0, 0]), np.array([1, 1])), 0.6),
            ((two_ours, two_theirs, np.array([1, 0]), np.array([0, 0])), -0.05),
            ((four_ours, four_theirs, np.array([3, 3, 2]), np.array([1, 1])), 0.4),
        ],
        {
            "That is the paired draw: each model has its own.": (
                lambda ours, theirs, mine, other: np.mean(ours[mine] - theirs[mine])
            ),
            "Ours minus theirs.": lambda ours, theirs, mine, other: (
                np.mean(theirs[other]) - np.mean(ours[mine])
            ),
            "Only the drawn queries count.": lambda ours, theirs, mine, other: (
                np.mean(ours) - np.mean(theirs)
            ),
            "Divide by how many were drawn.": lambda ours, theirs, mine, other: (
                np.sum(ours[mine]) / len(ours) - np.sum(theirs[other]) / len(theirs)
            ),
            "Two means, then their difference: no query of one belongs to one of the other.": (
                lambda ours, theirs, mine, other: np.mean(
                    [ours[i] - theirs[j] for i, j in zip(mine, other, strict=False)]
                )
            ),
        },
    ),
    # person_draw
    "13.4": Exercise(
        [
            (([0.3, -0.1, 0.4, 0.0], [7, 7, 8, 9], [7, 8, 9]), 0.15),
            (([0.3, -0.1, 0.4, 0.0], [7, 7, 8, 9], [9, 7, 9]), 0.05),
            (([0.9, 0.3, 0.0, 0.6], [0, 0, 0, 1], [1, 1]), 0.6),
        ],
        {
            "One mean over all queries drawn, not a mean of the people's means.": (
                lambda d, p, drawn: np.mean(
                    [np.mean([x for x, q in zip(d, p, strict=True) if q == who]) for who in drawn]
                )
            ),
            "A person who is drawn twice counts twice.": lambda d, p, drawn: np.mean(
                [x for x, q in zip(d, p, strict=True) if q in drawn]
            ),
            "All queries of a person come along, not the first alone.": lambda d, p, drawn: np.mean(
                [d[p.index(who)] for who in drawn]
            ),
        },
    ),
}
