"""Cases and common slips of the exercises of chapter 6."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib.exercises import Exercise

leaf = torch.linspace(-4, 4, 9).requires_grad_()
(torch.sigmoid(leaf) ** 2 * -F.logsigmoid(-leaf)).sum().backward()
plain = torch.linspace(-4, 4, 9)


def of_a_positive_pair(z: Tensor, gamma: float) -> Tensor:
    p = torch.sigmoid(z)
    return (1 - p) ** gamma * (gamma * p * p.log() + p - 1)


easy_logits = torch.tensor([[2.0, -3.0, 0.0, -5.0], [-3.0, 1.0, -3.0, -2.5]])
easy_targets = torch.tensor([0, 2])


def also_the_positives(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    z = torch.where(F.one_hot(targets, logits.shape[1]).bool(), logits, -logits)
    costs = -((1 - torch.sigmoid(z)) ** gamma) * F.logsigmoid(z)
    return costs[torch.sigmoid(logits) < 0.1].sum() / costs.sum()


def of_the_negatives(logits: Tensor, targets: Tensor, gamma: float) -> Tensor:
    easy = F.one_hot(targets, logits.shape[1]) == 0
    costs = -(torch.sigmoid(logits) ** gamma) * F.logsigmoid(-logits)
    return costs[easy & (torch.sigmoid(logits) < 0.1)].sum() / costs[easy].sum()


EXERCISES = {
    # loss_of_the_image
    "6.2": Exercise(
        [((), 0.175)],
        {
            "That is the mean over the classes; Equation 6.2 takes their sum.": 0.0585,
            "For a negative pair the probability of what is true is 1 - p.": 2.0395,
            "That is the cross-entropy: the weights are missing.": 0.9039,
        },
        tolerance=1e-3,
    ),
    # gradient_of_a_negative_pair
    "6.3": Exercise(
        [((plain, 2), leaf.grad), ((plain, 0), torch.sigmoid(plain))],
        {
            "That is the gradient of a positive pair.": of_a_positive_pair,
            "The sign is wrong: z is minus the logit.": lambda logit, gamma: of_a_positive_pair(
                -logit, gamma
            ),
        },
    ),
    # easy_share
    "6.4": Exercise(
        [
            ((easy_logits, easy_targets, 0), 0.0340708),
            ((easy_logits, easy_targets, 2), 0.0001846465),
        ],
        {
            "A positive pair with p below 0.1 is not easy: it is wrong.": also_the_positives,
            "That is a share of the pairs, not of the loss.": 0.5,
            "Divide by the whole loss, that of the positive pairs too.": of_the_negatives,
            "gamma is not used.": 0.0340708,
        },
        tolerance=1e-6,
    ),
    # best_constant_logit
    "6.5": Exercise(
        [((2,), 0.0), ((200,), -5.293305), ((751,), -6.620073)],
        {
            "That is the logarithm of the best p, not its logit.": lambda c: -np.log(c),
            "The sign is wrong: few pairs are positive.": lambda c: np.log(c - 1),
        },
    ),
}
