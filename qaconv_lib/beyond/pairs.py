"""Losses on the pairs within a mini-batch of several images per identity (appendix C).

They replace the class memory in Liao and Shao (CVPR 2022) and in versions 2.0 and 2.1 of the code.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib._checks import check_above_zero
from qaconv_lib._processes import gather, process_count, share
from qaconv_lib.losses import MatchingLoss


def pairwise_loss(logits: Tensor, labels: Tensor, first: int = 0) -> Tensor:
    """Binary cross-entropy of every pair of a mini-batch (version 2.0).

    With p the sigmoid of a logit, a pair of one identity costs -log(p) and another -log(1 - p).
    Costs are summed over the columns and averaged over the rows. An image's pair with itself counts
    too, as in the authors' code. `logits` (b, n) compare the batch, or this process's share from
    image `first` on, with all n images, whose identities are `labels` (n,).
    """
    same, _ = _relations(logits, labels, first)
    cost = F.binary_cross_entropy_with_logits(logits, same.to(logits.dtype), reduction="none")
    return cost.sum(dim=1).mean()


def hard_triplet_loss(
    logits: Tensor, labels: Tensor, margin: float = 16.0, first: int = 0
) -> Tensor:
    """How far each image's worst match is from beating its best stranger by a margin (version 2.1).

    For an image let s+ be the lowest logit with another image of its identity and s- the highest
    with an image of another one. It costs max(0, margin - s+ + s-); an image without such a pair
    costs nothing. Costs are averaged over the rows. Hermans et al. (2017) took distances of
    vectors instead of logits. The margin is 16 in the authors' code; the other arguments are those
    of `pairwise_loss`.
    """
    check_above_zero(margin=margin)
    same, itself = _relations(logits, labels, first)
    worst = logits.masked_fill(~same | itself, torch.inf).amin(dim=1)
    stranger = logits.masked_fill(same, -torch.inf).amax(dim=1)
    return (margin - worst + stranger).clamp(min=0).mean()


def _relations(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """Which pairs show one identity, and which are an image with itself: bool, shape (b, n)."""
    if logits.dim() != 2 or 0 in logits.shape:
        raise ValueError(f"logits must have shape (b, n) with b > 0, got {tuple(logits.shape)}")
    rows, columns = logits.shape
    if labels.shape != (columns,):
        raise ValueError(f"labels must have shape ({columns},), got {tuple(labels.shape)}")
    if not 0 <= first <= columns - rows:
        raise ValueError(f"first must lie in 0..{columns - rows}, got {first}")
    places = torch.arange(columns, device=logits.device)
    own = places[first : first + rows]
    return labels[own, None] == labels, own[:, None] == places


class PairwiseLoss(MatchingLoss):
    """Loss of the pairs within a mini-batch, scored by QAConv; there is no memory.

    Where several processes share a batch, each scores its images against those of all, and
    gradients reach the images of all. `triplet_margin` is None for `pairwise_loss`, or the margin
    of `hard_triplet_loss`; that compares logits of one row, so the probabilities of such a model
    mean nothing. The other settings are those of `QAConv`.
    """

    def __init__(
        self, height: int, width: int, *, triplet_margin: float | None = None, **settings: Any
    ):
        super().__init__(height, width, **settings)
        if triplet_margin is not None:
            check_above_zero(triplet_margin=triplet_margin)
        self.triplet_margin = triplet_margin

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss, and (b,) bool: whether the best-scored other image shows the same identity."""
        everyone = maps if process_count() == 1 else _GatherAll.apply(maps)
        (all_labels,) = gather(labels)
        first = share(len(everyone)).start
        logits = self.matcher(maps, everyone)
        if self.triplet_margin is None:
            loss = pairwise_loss(logits, all_labels, first)
        else:
            loss = hard_triplet_loss(logits, all_labels, self.triplet_margin, first)
        _, itself = _relations(logits, all_labels, first)
        best = logits.detach().masked_fill(itself, -torch.inf).argmax(dim=1)
        return loss, all_labels[best] == labels


class _GatherAll(torch.autograd.Function):
    """A tensor with those of all processes, each of equal length; gradients pass to all of them."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        return gather(tensor, same_length=True)[0]

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        total = gradient.contiguous().clone()
        dist.all_reduce(total)  # each process has differentiated its own part of the loss
        return total[share(len(total))]
