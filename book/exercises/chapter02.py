"""Cases and common slips of the exercises of chapter 2."""

import torch
from torch import Tensor

from qaconv_lib.exercises import Exercise


def without_the_remainder(images: int, channels: int, height: int, width: int, stride: int) -> int:
    return 4 * images * channels * (height // stride) * (width // stride)


fold_weight = torch.tensor([[1.0, 2.0], [0.0, -4.0]])
fold_mean, fold_gamma = torch.tensor([1.0, 2.0]), torch.tensor([2.0, 3.0])
fold_beta = torch.tensor([0.5, 0.0])
folded = torch.tensor([[1.0, 2.0, -0.5], [0.0, -12.0, -6.0]])


def folded_with(scale: Tensor, weight: Tensor, mean: Tensor, beta: Tensor) -> Tensor:
    """The folded weights and bias with a given scale."""
    return torch.cat([scale[:, None] * weight, (beta - scale * mean)[:, None]], dim=1)


EXERCISES = {
    # unit_vector_after_the_neck
    "2.2": Exercise(
        [((), [5 / 13, 12 / 13])],
        {
            "The length is the root of the sum of the squares.": [5 / 17, 12 / 17],
            "That is after the neck; the length is still missing.": [5, 12],
        },
    ),
    # bytes_of_maps
    "2.3": Exercise(
        [
            ((1, 128, 384, 128, 16), 98304),
            ((10, 32, 64, 32, 8), 40960),
            ((1, 64, 100, 50, 16), 7168),
        ],
        {
            "The pixels that the stride leaves over get a location.": without_the_remainder,
            "A number in single precision takes four bytes.": lambda *sizes: (
                without_the_remainder(*sizes) / 4
            ),
        },
    ),
    # location_of_pixel
    "2.4": Exercise(
        [
            ((0, 0, 96, 16), 0),
            ((100, 50, 96, 16), 39),
            ((20, 40, 100, 16), 9),
            ((63, 31, 32, 8), 31),
        ],
        {
            "y tells the row, x the column.": lambda y, x, width, stride: (
                x // stride * -(-width // stride) + y // stride
            ),
            "Pixels that are left over make one more column.": lambda y, x, width, stride: (
                y // stride * (width // stride) + x // stride
            ),
        },
    ),
    # fold_bn
    "2.5": Exercise(
        [
            ((fold_weight, fold_mean, variance, fold_gamma, fold_beta, eps), folded)
            for variance, eps in ((torch.tensor([4.0, 1.0]), 0.0), (torch.tensor([3.0, 0.0]), 1.0))
        ],
        {
            "The deviation is the root of the variance.": (
                lambda w, mean, var, gamma, beta, eps: folded_with(
                    gamma / (var + eps), w, mean, beta
                )
            ),
            "eps belongs to the variance, under the root.": (
                lambda w, mean, var, gamma, beta, eps: folded_with(
                    gamma / (var.sqrt() + eps), w, mean, beta
                )
            ),
            "eps is not used.": lambda w, mean, var, gamma, beta, eps: folded_with(
                gamma / var.sqrt(), w, mean, beta
            ),
            "The mean is scaled before it becomes a part of the bias.": (
                lambda w, mean, var, gamma, beta, eps: folded_with(
                    gamma / (var + eps).sqrt(), w, 0 * mean, beta - mean
                )
            ),
        },
    ),
}
