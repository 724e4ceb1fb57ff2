"""Cases and common slips of the exercises of chapter 11."""

import numpy as np

from qaconv_lib.exercises import Exercise

scores = np.array([0.9, 0.2, 0.8, 0.4])
mixed = np.array([0.2, 0.9, 0.4, 0.8, 0.6])

EXERCISES = {
    # shares_by_hand
    "11.2": Exercise(
        [((), [1 / 4, 2 / 4, 3 / 8])],
        {
            "First the best locations, then the same place.": [2 / 4, 1 / 4, 3 / 8],
            "Chance: how many of the gallery's four locations show the location's own part?": [
                1 / 4,
                2 / 4,
                1 / 4,
            ],
            "There are three parts, but not equally many locations of each.": [1 / 4, 2 / 4, 1 / 3],
        },
    ),
    # right_of_kept
    "11.3": Exercise(
        [
            ((mixed, np.array([False, True, False, True, True]), 0.4), 1.0),
            ((scores, np.array([True, False, False, True]), 0.75), 2 / 3),
        ],
        {
            "Sort by similarity before you keep the first ones.": lambda s, r, kept: r[
                : round(kept * len(s))
            ].mean(),
            "These are the least similar.": (
                lambda s, r, kept: r[np.argsort(s)[: round(kept * len(s))]].mean()
            ),
            "`kept` is a share of the matches, not a threshold.": (
                lambda s, r, kept: r[s >= kept].mean()
            ),
            "Divide by the number kept, not by the number of right ones.": lambda s, r, kept: (
                r[np.argsort(-s)[: round(kept * len(s))]].sum() / r.sum()
            ),
        },
    ),
    # calibration_error
    "11.4": Exercise(
        [
            ((np.array([0.05, 0.05, 0.95, 0.95]), np.array([0.0, 0.0, 1.0, 1.0])), 0.05),
            (
                (np.array([0.82, 0.86, 0.33, 0.22]), np.array([1.0, 0.0, 1.0, 0.0])),
                (2 * 0.34 + 0.67 + 0.22) / 4,
            ),
        ],
        {
            "A step with two matches weighs twice.": lambda s, r: np.mean(
                [abs((s - r)[s // 0.1 == step].mean()) for step in np.unique(s // 0.1)]
            ),
            "Take the mean similarity of a step's matches, not the middle of the step.": (
                lambda s, r: sum(
                    (s // 0.1 == step).mean() * abs(0.1 * step + 0.05 - r[s // 0.1 == step].mean())
                    for step in np.unique(s // 0.1)
                )
            ),
            "Average within a step first; then take the distance.": lambda s, r: abs(s - r).mean(),
            "One step for all: too sure here and too unsure there cancel.": (
                lambda s, r: abs((s - r).mean())
            ),
        },
    ),
}
