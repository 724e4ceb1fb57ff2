"""Cases and common slips of the exercises of chapter 7."""

import torch
from torch import Tensor

from qaconv_lib.exercises import Exercise

blank = torch.zeros(3, 4, 3)
covered = torch.zeros(3, 4, 3)
covered[:, 1:3, 0:2] = 1
corner = torch.zeros(3, 4, 3)
corner[:, 0, 2] = 1


def turned(image: Tensor, top: int, left: int, side: int) -> Tensor:
    white = torch.zeros(3, 4, 3)
    white[:, left : left + side, top : top + side] = 1
    return white


EXERCISES = {
    # backbone_rate_in_epoch_50
    "7.2": Exercise(
        [((), 0.0001)],
        {
            "Only one of two tenths is in it: backbone, and after the step.": 0.001,
            "That is the rate of the new layers before the step.": 0.01,
        },
        tolerance=1e-6,
    ),
    # occlude
    "7.3": Exercise(
        [((blank, 1, 0, 2), covered), ((blank, 0, 2, 1), corner)],
        {
            "The image that was passed in has changed; work on a copy.": covered + corner,
            "The values of an image lie between 0 and 1: white is 1.": lambda *given: (
                255 * (covered if given[-1] == 2 else corner)
            ),
            "Rows come before columns: top belongs to the rows.": turned,
        },
    ),
    # nesterov_step
    "7.4": Exercise(
        [((1.0, 0.5, 0.0, 0.1), (0.905, 0.5)), ((0.905, 0.2, 0.5, 0.1), (0.8265, 0.65))],
        {
            "That is momentum without Nesterov's variant.": lambda p, g, v, rate: (
                p - rate * (0.9 * v + g),
                0.9 * v + g,
            ),
            "In the step the velocity counts 0.9 times.": lambda p, g, v, rate: (
                p - rate * (0.9 * v + 2 * g),
                0.9 * v + g,
            ),
        },
    ),
    # rates_of
    "7.5": Exercise(
        [
            (([1, 40, 41, 60], 0.01, 40), [0.01, 0.01, 0.001, 0.001]),
            (([4, 5, 9], 0.1, 4), [0.1, 0.01, 0.01]),
        ],
        {
            "The rates fall one epoch too early.": lambda epochs, rate, decay: [
                rate if epoch < decay else rate / 10 for epoch in epochs
            ],
            "The rates fall once and then stay.": lambda epochs, rate, decay: [
                rate * 0.1 ** ((epoch - 1) // decay) for epoch in epochs
            ],
        },
        tolerance=1e-6,
    ),
}
