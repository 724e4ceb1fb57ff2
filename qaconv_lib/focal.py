"""The paper's focal loss (chapter 6)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, valid: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of every pair, weighted by how wrong it is (Eq. 1 and 2, chapter 6).

    For an image and a class let p be the sigmoid of their logit where they belong together, and one
    minus it elsewhere. The pair costs -(1 - p)**gamma * log(p). Costs are summed over the classes
    and averaged over the mini-batch; nothing else is rescaled.

    Args:
        logits: shape (b, c).
        targets: class indices, shape (b,).
        gamma: focusing parameter; 0 gives plain binary cross-entropy.
        valid: bool, shape (c,); classes that are False are left out, e.g. those that a class memory
            has not seen.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes that do not fit, an empty batch, a target out of range, a negative gamma.
    """
    if logits.dim() != 2 or 0 in logits.shape:
        raise ValueError(
            f"logits must have shape (b, c) with b > 0 and c > 0, got {tuple(logits.shape)}"
        )
    if targets.shape != logits.shape[:1]:
        raise ValueError(f"targets must have shape ({len(logits)},), got {tuple(targets.shape)}")
    if valid is not None and valid.shape != logits.shape[1:]:
        raise ValueError(f"valid must have shape ({logits.shape[1]},), got {tuple(valid.shape)}")
    if valid is not None and valid.dtype != torch.bool:
        raise ValueError(f"valid must be bool, got {valid.dtype}")
    if targets.dtype.is_floating_point or targets.dtype == torch.bool:
        raise ValueError(f"targets must be class indices (integers), got {targets.dtype}")
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError(f"targets must lie in 0..{logits.shape[1] - 1}, got {targets.tolist()}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must not be negative, and finite, got {gamma}")
    positive = F.one_hot(targets.long(), logits.shape[1]).bool()
    if valid is not None:
        logits, positive = logits[:, valid], positive[:, valid]
    signed = torch.where(positive, logits, -logits)  # p = sigmoid(signed)
    weight = torch.exp(gamma * F.logsigmoid(-signed))  # (1 - p)**gamma
    return -(weight * F.logsigmoid(signed)).sum() / len(logits)
