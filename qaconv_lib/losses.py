"""Training losses (built in chapters 6 and 12).

A training loss turns the backbone's maps (b, d, h, w) and the labels (b,) of a mini-batch into the
loss and a bool (b,) that says which images it got right. Afterwards its `similarity` compares
images. Sizes: `num_classes` training identities, `channels` d, `height` h and `width` w of maps.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._processes import gather
from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.memory import ClassMemory


def focal_loss(
    logits: Tensor, targets: Tensor, gamma: float = 2.0, valid: Tensor | None = None
) -> Tensor:
    """Binary cross-entropy of every pair, weighted by how wrong it is (Eq. 1 and 2, chapter 6).

    With p the sigmoid of the logit of an image's own class, and one minus the sigmoid elsewhere, a
    pair costs -(1 - p)**gamma * log(p). Costs are summed over classes, averaged over the batch.

    Args:
        logits: shape (b, c).
        targets: class indices, shape (b,).
        gamma: focusing parameter; 0 gives plain binary cross-entropy.
        valid: bool, shape (c,); classes that are False are left out.

    Returns:
        A scalar.
    """
    shape = tuple(logits.shape)
    if len(shape) != 2 or 0 in shape:
        raise ValueError(f"logits must have shape (b, c) with b > 0 and c > 0, got {shape}")
    if targets.shape != shape[:1]:
        raise ValueError(f"targets must have shape {shape[:1]}, got {tuple(targets.shape)}")
    if valid is not None and (valid.shape != shape[1:] or valid.dtype != torch.bool):
        found = f"{valid.dtype} of shape {tuple(valid.shape)}"
        raise ValueError(f"valid must be bool of shape {shape[1:]}, got {found}")
    if targets.dtype.is_floating_point or targets.dtype == torch.bool:
        raise ValueError(f"targets must be class indices (integers), got {targets.dtype}")
    if targets.min() < 0 or targets.max() >= shape[1]:
        raise ValueError(f"targets must lie in 0..{shape[1] - 1}, got {targets.tolist()}")
    if not 0 <= gamma < math.inf:
        raise ValueError(f"gamma must be finite and at least 0, got {gamma}")
    positive = F.one_hot(targets.long(), shape[1]).bool()
    if valid is not None:
        logits, positive = logits[:, valid], positive[:, valid]
    signed = torch.where(positive, logits, -logits)  # p = sigmoid(signed)
    weight = torch.exp(gamma * F.logsigmoid(-signed))  # (1 - p)**gamma
    return -(weight * F.logsigmoid(signed)).sum() / len(logits)


class MatchingLoss(nn.Module):
    """What the losses share whose models compare maps by QAConv; a subclass gives `forward`."""

    def __init__(self, height: int, width: int, *, kernel_size: int = 1, tied: bool = False):
        super().__init__()
        self.matcher = QAConv(height, width, kernel_size=kernel_size, tied=tied)

    def after_step(self, maps: Tensor, labels: Tensor) -> None:
        """Nothing, unless a loss keeps a memory."""

    def similarity(
        self, query_maps: Tensor, gallery_maps: Tensor, *, progress: bool = False
    ) -> Tensor:
        """Logits of "same person", shape (q, g); see `match_gallery`."""
        return match_gallery(self.matcher, query_maps, gallery_maps, progress=progress)


class QAConvLoss(MatchingLoss):
    """Focal loss of a mini-batch against a class memory, pairs scored by QAConv (sections 3.2-3.4).

    Only classes the memory has seen are scored: its empty slots enter neither the loss nor the
    statistics of the BN layers. The loss of an empty memory is 0. For `gamma` see `focal_loss`, for
    `update` see `ClassMemory`.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int,
        height: int,
        width: int,
        *,
        kernel_size: int = 1,
        tied: bool = False,
        gamma: float = 2.0,
        update: str = "replace",
    ):
        super().__init__(height, width, kernel_size=kernel_size, tied=tied)
        self.memory = ClassMemory(num_classes, channels, height, width, update)
        self.gamma = gamma

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and right answers (bool, shape (b,))."""
        return _focal_over_memory(self.memory, maps, labels, self.matcher, self.gamma)

    def after_step(self, maps: Tensor, labels: Tensor) -> None:
        """Refresh the memory with the maps of all processes, after the parameters are stepped."""
        self.memory.update(*gather(maps.detach(), labels))


def _focal_over_memory(
    memory: ClassMemory,
    maps: Tensor,
    labels: Tensor,
    score: Callable[[Tensor, Tensor], Tensor],
    gamma: float,
) -> tuple[Tensor, Tensor]:
    """Focal loss and right answers from the logits of the classes that the memory has seen."""
    valid = memory.valid
    if not valid.any():
        return maps.sum() * 0.0, torch.zeros_like(labels, dtype=torch.bool)
    # Maps of half precision are compared in half precision; BN, FC and loss never are.
    scored = score(maps, memory.features[valid].to(maps.dtype))
    logits = scored.new_full((len(scored), len(valid)), -torch.inf)
    logits[:, valid] = scored
    return focal_loss(logits, labels, gamma, valid), logits.argmax(dim=1) == labels


class PooledLoss(nn.Module):
    """What the pooled baselines share: one vector per image, compared by the cosine (section 5.3).

    Maps are averaged over their locations and normalised by a BN layer whose shift is held at zero.
    A subclass gives `forward`. If its `after_step` remembers the batch, it does so by
    `last_vectors` (b, d), which `forward` sets; the training step joins those of a batch in parts.
    """

    last_vectors: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.bn = nn.BatchNorm1d(channels)
        self.bn.bias.requires_grad_(False)

    def embed(self, maps: Tensor) -> Tensor:
        """Pool and normalise maps (b, d, h, w) to vectors (b, d)."""
        return self.bn(maps.mean(dim=(2, 3)))

    def after_step(self, maps: Tensor, labels: Tensor) -> None:
        """Nothing, unless a loss keeps a memory."""

    @torch.no_grad()
    def similarity(
        self, query_maps: Tensor, gallery_maps: Tensor, *, progress: bool = False
    ) -> Tensor:
        """Cosines, shape (q, g), moved from [-1, 1] to [0, 1]."""
        was_training, device = self.training, self.bn.weight.device
        self.eval()
        vectors = (self.embed(maps.to(device)) for maps in (query_maps, gallery_maps))
        queries, gallery = (F.normalize(each, dim=1) for each in vectors)
        self.train(was_training)
        return (1 + queries @ gallery.T) / 2


class SoftmaxLoss(PooledLoss):
    """Softmax cross-entropy: a linear layer without bias classifies pooled vectors (Table 1)."""

    def __init__(self, num_classes: int, channels: int):
        super().__init__(channels)
        self.classifier = nn.Linear(channels, num_classes, bias=False)
        nn.init.normal_(self.classifier.weight, std=0.001)

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and right answers (bool, shape (b,))."""
        logits = self.classifier(self.embed(maps))
        return F.cross_entropy(logits, labels), logits.argmax(dim=1) == labels


class ArcLoss(PooledLoss):
    """Arc loss: softmax cross-entropy of angles, the true class handicapped by a margin (Table 1).

    With theta the angle between a vector and a class's weights, the logit of a class is
    scale * cos(theta), that of the true class scale * cos(theta + margin) (ArcFace, Deng et al.,
    CVPR 2019, Eq. 3). Beyond theta = pi - margin, where cos(theta + margin) would rise again, the
    true class gets scale * (cos(theta) - margin * sin(margin)), as its authors' code has it. The
    margin is in radians; `scale` is the inverse temperature of the softmax.
    """

    def __init__(
        self, num_classes: int, channels: int, *, margin: float = 0.5, scale: float = 30.0
    ):
        super().__init__(channels)
        if not 0 <= margin < math.pi / 2:
            raise ValueError(f"margin must lie in [0, pi/2) radians, got {margin}")
        if not 0 < scale < math.inf:
            raise ValueError(f"scale must be positive, got {scale}")
        self.margin, self.scale = margin, scale
        self.classifier = nn.Linear(channels, num_classes, bias=False)
        nn.init.xavier_normal_(self.classifier.weight)

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and right answers without the margin (bool, shape (b,))."""
        vectors = F.normalize(self.embed(maps), dim=1)
        cosine = vectors @ F.normalize(self.classifier.weight, dim=1).T
        true = cosine.gather(1, labels[:, None])
        sine = (1 - true.square()).clamp(min=1e-8).sqrt()
        moved = true * math.cos(self.margin) - sine * math.sin(self.margin)  # cos(theta + margin)
        beyond = true <= -math.cos(self.margin)
        moved = torch.where(beyond, true - self.margin * math.sin(self.margin), moved)
        logits = self.scale * cosine.scatter(1, labels[:, None], moved)
        return F.cross_entropy(logits, labels), cosine.argmax(dim=1) == labels


class CenterLoss(SoftmaxLoss):
    """Softmax cross-entropy, and half the squared distance to the centre of the class (Table 1).

    The centres are not parameters: after every step each moves towards the vectors of its class, by
    rate * (sum of the differences) / (1 + how many) (Wen et al., ECCV 2016, Eq. 4). `weight` is
    that of the distance, averaged over the mini-batch, in the loss.
    """

    centers: Tensor

    def __init__(
        self, num_classes: int, channels: int, *, weight: float = 0.0005, rate: float = 0.5
    ):
        super().__init__(num_classes, channels)
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight must not be negative, got {weight}")
        if not 0 < rate <= 1:
            raise ValueError(f"rate must lie in (0, 1], got {rate}")
        self.weight, self.rate = weight, rate
        self.register_buffer("centers", torch.zeros(num_classes, channels))

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and right answers (bool, shape (b,))."""
        vectors = self.embed(maps)
        self.last_vectors = vectors.detach()
        logits = self.classifier(vectors)
        distance = (vectors - self.centers[labels]).square().sum(dim=1).mean() / 2
        loss = F.cross_entropy(logits, labels) + self.weight * distance
        return loss, logits.argmax(dim=1) == labels

    @torch.no_grad()
    def after_step(self, maps: Tensor, labels: Tensor) -> None:
        """Move the centres towards the vectors that the loss has just seen."""
        vectors, labels = gather(self.last_vectors, labels)
        difference = torch.zeros_like(self.centers)
        difference.index_add_(0, labels, vectors - self.centers[labels])
        counts = torch.bincount(labels, minlength=len(self.centers))[:, None]
        self.centers += self.rate * difference / (1 + counts)


class ClassMemoryLoss(PooledLoss):
    """QAConv's memory and focal loss with cosines of pooled vectors instead of QAConv (Table 1).

    The cosine with each vector in the class memory passes one BN layer, which starts as QAConv's
    last one does, and enters Eq. (1). For `gamma` and `update` see `QAConvLoss`.
    """

    def __init__(
        self, num_classes: int, channels: int, *, gamma: float = 2.0, update: str = "replace"
    ):
        super().__init__(channels)
        self.memory = ClassMemory(num_classes, channels, 1, 1, update)
        self.logit_bn = nn.BatchNorm1d(1)
        nn.init.constant_(self.logit_bn.bias, -4.0)
        self.gamma = gamma

    def forward(self, maps: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss (a scalar) and right answers (bool, shape (b,)); 0 while the memory is empty."""
        vectors = F.normalize(self.embed(maps), dim=1)
        self.last_vectors = vectors.detach()
        return _focal_over_memory(self.memory, vectors, labels, self._score, self.gamma)

    def _score(self, vectors: Tensor, remembered: Tensor) -> Tensor:
        cosine = vectors @ remembered.flatten(1).T
        return self.logit_bn(cosine.reshape(-1, 1)).view_as(cosine)

    def after_step(self, maps: Tensor, labels: Tensor) -> None:
        """Refresh the memory with the vectors that the loss has just seen."""
        self.memory.update(*gather(self.last_vectors[:, :, None, None], labels))


#: The losses that the paper compares (Table 1).
TABLE1_LOSSES = ("qaconv", "softmax", "arc", "center", "class-memory")
#: Where each loss that a model can be trained with is defined.
LOSSES = {
    "qaconv": "losses:QAConvLoss",
    "softmax": "losses:SoftmaxLoss",
    "arc": "losses:ArcLoss",
    "center": "losses:CenterLoss",
    "class-memory": "losses:ClassMemoryLoss",
    "pairwise": "beyond.pairs:PairwiseLoss",
}


def loss_class(name: str) -> type[MatchingLoss] | type[PooledLoss]:
    """The class of a loss by its name in `LOSSES`."""
    module, _, attribute = LOSSES[name].partition(":")
    return getattr(importlib.import_module(f"qaconv_lib.{module}"), attribute)


def compares_maps(loss: str) -> bool:
    """Whether a model trained with this loss compares maps by QAConv, and not pooled vectors."""
    return loss in ("qaconv", "pairwise")
