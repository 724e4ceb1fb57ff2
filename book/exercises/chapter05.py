"""Cases and common slips of the exercises of chapter 5."""

import torch

from qaconv_lib.exercises import Exercise

EXERCISES = {
    # momentum_of_the_update
    "5.2": Exercise(
        [((), 4 / 7)],
        {
            "That would be right if the average were not scaled to length 1.": 0.8,
            "That is the share of the new vector.": 3 / 7,
        },
        tolerance=1e-3,
    ),
    # last_positions
    "5.3": Exercise(
        [((torch.tensor([5, 1, 5, 2, 1]),), [4, 3, 2]), ((torch.tensor([3]),), [0])],
        {
            "Those are the first images.": (
                lambda labels: [labels.tolist().index(y) for y in labels.unique()]
            ),
            "The classes are not in order.": (
                lambda labels: list({int(y): i for i, y in enumerate(labels)}.values())
            ),
        },
    ),
    # expected_positives
    "5.4": Exercise(
        [((32, 200), 2.48), ((32, 751), 496 / 751), ((2, 1), 1.0)],
        {
            "That counts every pair twice.": lambda b, c: b * (b - 1) / c,
            "That also pairs each image with itself.": lambda b, c: b * (b + 1) / 2 / c,
        },
    ),
    # cosine_with_the_average
    "5.5": Exercise(
        [((0.8,), 0.9487), ((0.0,), 0.7071), ((1.0,), 1.0)],
        {"The average has not been scaled to length 1.": lambda s: (1 + s) / 2},
    ),
}
