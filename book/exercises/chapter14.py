"""Cases and common slips of the exercises of chapter 14."""

from collections.abc import Collection

import numpy as np

from qaconv_lib.exercises import Exercise


def gains_of(table: dict, number: int, stages: Collection[str]) -> list:
    """The gains in rank-1 (number 0) or mAP (1), for the slips."""
    return [
        row[number] - table["small", stage, source, target][number]
        for (size, stage, source, target), row in table.items()
        if size == "large" and stage in stages
    ]


made_up = {
    ("small", "alone", "a", "b"): (10, 5),
    ("large", "alone", "a", "b"): (12, 9),
    ("small", "alone", "b", "a"): (20, 9),
    ("large", "alone", "b", "a"): (27, 8),
    ("small", "+RR+TLift", "a", "b"): (30, 30),
    ("large", "+RR+TLift", "a", "b"): (40, 50),
}

EXERCISES = {
    # steps
    "14.2": Exercise(
        [((), [516, 30960])],
        {
            "The last batch has 10 images and is dropped.": [517, 31020],
            "Drop it in every epoch, not once at the end.": [516, 30978],
        },
        tolerance=1e-9,
    ),
    # published_gains
    "14.3": Exercise(
        [((made_up,), [-1, 4])],
        {
            "That is rank-1.": lambda t: [f(gains_of(t, 0, ["alone"])) for f in (min, max)],
            "The smallest comes first.": lambda t: [
                f(gains_of(t, 1, ["alone"])) for f in (max, min)
            ],
            "A gain can be below zero.": lambda t: [
                f(map(abs, gains_of(t, 1, ["alone"]))) for f in (min, max)
            ],
            "Without post-processing: only the stage `alone`.": lambda t: [
                f(gains_of(t, 1, {stage for _, stage, *_ in t})) for f in (min, max)
            ],
        },
        tolerance=1e-3,
    ),
    # carry_over
    "14.4": Exercise(
        [
            (([4.9, -4.0, 9.5, 2.0], [1.0, -7.2, -14.8, -0.5], [3.0, -2.4, -11.8, 4.0]), 0.5),
            (([1.0, 1.0, 2.0], [0.5, -1.0, 0.3], [0.9, 3.0, 1.0]), 2 / 3),
        ],
        {
            "The whole interval, not its middle.": lambda published, low, high: np.mean(
                np.sign(published) == np.sign(np.add(low, high))
            ),
            "A loss there that is a loss here carries over, too.": lambda published, low, high: (
                np.mean([p > 0 and a > 0 for p, a in zip(published, low, strict=True)])
            ),
            "The sign is asked for, not whether the interval holds the published number.": (
                lambda published, low, high: np.mean(
                    [a <= p <= b for p, a, b in zip(published, low, high, strict=True)]
                )
            ),
        },
    ),
}
