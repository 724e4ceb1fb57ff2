"""Class memory: the latest feature map of every training identity (built in chapter 5)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._checks import check_choice


class ClassMemory(nn.Module):
    """One feature map for every class, refreshed from the mini-batches (section 3.3).

    The memory is what a mini-batch is compared with in training. It holds no parameters: gradients
    do not reach it. Update it only after the loss, or every image meets itself.

    Attributes:
        features: buffer of shape (c, d, h, w); zeros where a class has not been seen.
        valid: buffer of shape (c,), true once a class has been seen.

    Args:
        num_classes, channels, height, width: c, d, h and w; pooled vectors have h = w = 1.
        update: "replace" keeps the newest map of a class, as the paper does; "ema" keeps a moving
            average, scaled back to unit channels, which the paper found inferior.
        momentum: share of the old map that "ema" keeps.
    """

    features: Tensor
    valid: Tensor

    def __init__(
        self,
        num_classes: int,
        channels: int,
        height: int,
        width: int,
        update: str = "replace",
        momentum: float = 0.5,
    ):
        super().__init__()
        shape = (num_classes, channels, height, width)
        if min(shape) < 1:
            raise ValueError(f"classes, channels, height and width must be at least 1, got {shape}")
        check_choice("update", update, "replace", "ema")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {momentum}")
        self.rule, self.momentum = update, momentum
        self.register_buffer("features", torch.zeros(shape))
        self.register_buffer("valid", torch.zeros(num_classes, dtype=torch.bool))

    @torch.no_grad()
    def update(self, maps: Tensor, labels: Tensor) -> None:
        """Store the maps of a mini-batch.

        Images are taken in the order of the batch, so when a class comes twice, "replace" keeps the
        later one and "ema" averages the earlier one in first. (The released code leaves the
        winner to the device.) A class seen for the first time is stored as it is.

        Args:
            maps: shape (b, d, h, w).
            labels: shape (b,), integers from 0 to c - 1.
        """
        num_classes = len(self.features)
        if maps.shape[1:] != self.features.shape[1:] or maps.dim() != 4:
            wanted = ", ".join(map(str, self.features.shape[1:]))
            raise ValueError(f"maps must have shape (b, {wanted}), got {tuple(maps.shape)}")
        if labels.dtype.is_floating_point or labels.dtype in (torch.bool, torch.complex64):
            raise ValueError(f"labels must be integers, got {labels.dtype}")
        if labels.shape != (len(maps),):
            raise ValueError(f"labels must have shape ({len(maps)},), got {tuple(labels.shape)}")
        outside = labels[(labels < 0) | (labels >= num_classes)]
        if len(outside):
            raise ValueError(f"label {int(outside[0])} is not one of the {num_classes} classes")
        for feature_map, label in zip(maps.to(self.features.dtype), labels.tolist(), strict=True):
            if self.rule == "ema" and self.valid[label]:
                old = self.features[label]
                feature_map = F.normalize(old.lerp(feature_map, 1 - self.momentum), dim=0)
            self.features[label] = feature_map
            self.valid[label] = True
