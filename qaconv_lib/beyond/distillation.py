"""A small model taught by a larger one (chapter 13).

After Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._checks import check_above_zero
from qaconv_lib.losses import MatchingLoss
from qaconv_lib.matching import QAConv
from qaconv_lib.models import ReidModel


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float = 4.0) -> Tensor:
    """Binary cross-entropy of the student's similarities against the teacher's.

    With logits z of the student and t of the teacher, both (b, b) with b > 1, s = sigmoid(z / T)
    and u = sigmoid(t / T), a pair costs -T**2 * (u * log(s) + (1 - u) * log(1 - s)), averaged over
    all ordered pairs of two different images. T**2 keeps the gradient's size when the temperature
    T changes; the larger T, the more pairs that are surely different count.
    """
    size = len(student)
    if student.shape != (size, size) or size < 2 or teacher.shape != student.shape:
        raise ValueError(
            "student and teacher must have one shape (b, b) with b > 1, got "
            f"{tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    check_above_zero(temperature=temperature)
    target = torch.sigmoid(teacher.detach() / temperature)
    cost = F.binary_cross_entropy_with_logits(student / temperature, target, reduction="none")
    others = ~torch.eye(size, dtype=torch.bool, device=student.device)
    return temperature**2 * cost[others].mean()


class Distillation(nn.Module):
    """What a teacher adds to the loss of a training step; `Trainer` takes it as `teacher`.

    Both models see the same augmented images. The student's logits are those that evaluation would
    give, brought to the scale of the teacher's (`on_the_scale_of`). The teacher compares maps by
    QAConv and takes images of the same size; `weight` is that of the additional loss.
    """

    def __init__(self, teacher: ReidModel, temperature: float = 4.0, weight: float = 1.0):
        super().__init__()
        if not isinstance(teacher.criterion, MatchingLoss):
            raise ValueError(f"a model with the loss {teacher.config.loss} cannot teach logits")
        self.teacher = teacher.eval().requires_grad_(False)
        self.teacher_matcher = teacher.criterion.matcher
        self.temperature, self.weight = temperature, weight

    def extra_repr(self) -> str:
        return f"{self.teacher.config.backbone}, {self.temperature=}, {self.weight=}"

    def forward(self, matcher: QAConv, images: Tensor, maps: Tensor) -> Tensor:
        """The weighted loss of images (b, 3, H, W) and the student's maps of them."""
        size = self.teacher.config.height, self.teacher.config.width
        if images.shape[2:] != size:
            sizes = "the teacher takes images of {} x {}, the student of {} x {}"
            raise ValueError(sizes.format(*size, *images.shape[2:]))
        with torch.no_grad():
            their_maps = self.teacher.backbone(images)
            wanted = self.teacher_matcher(their_maps, their_maps)
        training = matcher.training
        found = on_the_scale_of(matcher.eval()(maps, maps), wanted)
        matcher.train(training)
        return self.weight * distillation_loss(found, wanted, self.temperature)


def on_the_scale_of(student: Tensor, teacher: Tensor) -> Tensor:
    """The student's logits (b, b), shifted and scaled to the mean and spread of the teacher's.

    Over the pairs of two different images, so that only their order is learned (Sun et al., "Logit
    Standardization in Knowledge Distillation", 2024). Otherwise the weights of the student's
    matcher can grow without end: they enlarge the logits until BN's running statistics follow.
    """
    others = ~torch.eye(len(student), dtype=torch.bool, device=student.device)
    own, wanted = student[others], teacher[others]
    spread = own.std(correction=0).clamp(min=1e-6)
    return (student - own.mean()) / spread * wanted.std(correction=0) + wanted.mean()
