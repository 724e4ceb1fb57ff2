"""Cases and common slips of the exercises of chapter 12."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from qaconv_lib.exercises import Exercise

vectors = torch.tensor([[3.0, 4.0], [1.0, 0.0], [3.0, 0.0]])
labels = torch.tensor([0, 2, 2])
centres = torch.tensor([[1.0, 0.0], [5.0, 5.0], [0.0, 0.0]])


def moved(step: Callable, vectors: Tensor, labels: Tensor, centres: Tensor, rate: float) -> Tensor:
    """The slips: `step` makes a class's move of its differences."""
    result = centres.clone()
    for person in labels.unique():
        result[person] += rate * step(vectors[labels == person], centres[person])
    return result


EXERCISES = {
    # two_costs
    "12.2": Exercise(
        [((), [0.693147, 1.631835])],
        {
            "The logarithm is the natural one.": [1.0, 2.354240],
            "The margin is added to the angle: it makes the true logit smaller.": [
                0.693147,
                0.442755,
            ],
            "The margin goes to the true class only.": [0.693147, 0.693147],
            "The scale multiplies both logits.": [0.693147, 1.108018],
        },
        tolerance=1e-3,
    ),
    # margin_left
    "12.3": Exercise(
        [
            (([30, 60], 0), 0.523599),
            (([40, 70, 55], 0), 0.261799),
            (([80, 50, 20, 65], 3), -0.785398),
        ],
        {
            "In radians, as `margin` is.": (
                lambda d, t: min(a for i, a in enumerate(d) if i != t) - d[t]
            ),
            "The nearest of the others decides.": lambda d, t: np.radians(
                max(a for i, a in enumerate(d) if i != t) - d[t]
            ),
            "The person's own angle is not among the others.": lambda d, t: np.radians(
                min(d) - d[t]
            ),
            "Other minus own: what is left over is positive.": lambda d, t: np.radians(
                d[t] - min(a for i, a in enumerate(d) if i != t)
            ),
        },
    ),
    # movecentres
    "12.4": Exercise(
        [
            (
                (vectors, labels, torch.zeros(3, 2), 0.5),
                torch.tensor([[0.75, 1.0], [0.0, 0.0], [2 / 3, 0.0]]),
            ),
            ((vectors, labels, centres, 0.5), torch.tensor([[1.5, 1.0], [5.0, 5.0], [2 / 3, 0.0]])),
        ],
        {
            "Divide by one more than the number of images.": lambda *given: moved(
                lambda mine, centre: (mine - centre).mean(dim=0), *given
            ),
            "The sum of the differences, from the centre to the images.": lambda *given: moved(
                lambda mine, centre: mine.sum(dim=0) / (1 + len(mine)), *given
            ),
            "The centre moves towards the images.": lambda *given: moved(
                lambda mine, centre: (centre - mine).sum(dim=0) / (1 + len(mine)), *given
            ),
        },
    ),
    # one_draw
    "12.5": Exercise(
        [
            (([0.9, 0.2, 0.5], [0.6, 0.3, 0.1], [0, 0, 2]), 1 / 3),
            (([0.5, 0.1], [0.2, 0.3], [1, 1]), -0.2),
            (([0.9, 0.2, 0.5], [0.6, 0.3, 0.1], [2, 0]), 0.35),
        ],
        {
            "Divide by the number of queries drawn.": lambda ours, theirs, drawn: (
                sum(ours[i] - theirs[i] for i in drawn) / len(ours)
            ),
            "A query that is drawn twice counts twice.": lambda ours, theirs, drawn: np.mean(
                [ours[i] - theirs[i] for i in set(drawn)]
            ),
            "Only the drawn queries count.": (
                lambda ours, theirs, drawn: np.mean(ours) - np.mean(theirs)
            ),
            "Ours minus theirs.": (
                lambda ours, theirs, drawn: np.mean([theirs[i] - ours[i] for i in drawn])
            ),
        },
    ),
}
