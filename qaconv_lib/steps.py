"""One training step: precision, micro-batches, clipped gradients (chapter 7)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from qaconv_lib.distillation import Distillation, make_distillation
from qaconv_lib.distributed import data_parallel, naming_lost_processes
from qaconv_lib.losses import compares_maps
from qaconv_lib.models import ReidModel
from qaconv_lib.pairs import MatchingLoss
from qaconv_lib.shortage import naming_shortage


class TrainingStep:
    """What happens to a batch: maps, loss, gradients, new parameters, new memory (section 5.1).

    `TrainingConfig` has three settings for it.

    - **precision**: with "bfloat16" or "float16" the backbone runs under `torch.autocast`, and
      QAConv compares maps of that type. Parameters, gradients, BN statistics, channel lengths, the
      head after the best matches, the loss and the class memory stay float32. float16 ends at
      65,504, so the loss is scaled before gradients are taken (`GradScaler`); a step whose
      gradients overflow is left out and the scale halved.
    - **accumulate**: the batch is taken in so many micro-batches, and their gradients are added up.
      The parameters are stepped, and memory and centres refreshed, once, after the last: all
      micro-batches meet the memory that the batch before left. Without BN in training mode the
      gradient is that of the whole batch but for rounding. BN takes its statistics over a
      micro-batch, the two layers of QAConv's head too, and moves its running statistics once for
      each: with BN in training mode `accumulate` changes what is learnt. The loss pairwise, whose
      pairs lie within a batch, takes none.
    - **clip_norm**: the gradient of all parameters, taken as one vector, is made no longer than
      this, once a step, after the scaling is undone.

    Args:
        model: the model, on the device where it is trained.
        optimizer: of its parameters.
        teacher: the trained model that the configuration's `teacher` wants.

    Raises:
        ValueError: "float16" on a device that is no GPU.
    """

    def __init__(
        self,
        model: ReidModel,
        optimizer: torch.optim.Optimizer,
        teacher: ReidModel | None = None,
    ):
        device, config = next(model.parameters()).device, model.config
        check_precision(config.precision, device)
        self.model, self.optimizer = model, optimizer
        self._loss = data_parallel(_Loss(model, make_distillation(config, teacher, device)))
        self._scaler = _scaler(device, config.precision == "float16")

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[float, int]:
        """Step on images (b, 3, H, W) and labels (b,): the loss, and how many were right."""
        config, criterion = self.model.config, self.model.criterion
        remembered, losses, right = [], [], []
        self.optimizer.zero_grad()
        parts = list(zip(*(t.chunk(config.accumulate) for t in (images, labels)), strict=True))
        with naming_shortage(*shortage_in_training(self.model, len(images))):
            for number, (some, their_labels) in enumerate(parts, start=1):
                with naming_lost_processes(), self._waiting(number < len(parts)):
                    maps, loss, hits = self._loss(some, their_labels)
                    loss = loss * (len(some) / len(images))  # losses are means over the images
                    self._scaler.scale(loss).backward()
                remembered.append((maps.detach(), getattr(criterion, "last_vectors", None)))
                losses.append(loss.detach())
                right.append(hits)
            if config.clip_norm is not None:
                self._scaler.unscale_(self.optimizer)
                nn.utils.clip_grad_norm_(self.model.parameters(), config.clip_norm)
            self._scaler.step(self.optimizer)
            self._scaler.update()
            maps, vectors = zip(*remembered, strict=True)
            if vectors[0] is not None:
                criterion.last_vectors = torch.cat(vectors)
            criterion.after_step(torch.cat(maps), labels)  # only now: section 5.1
        return float(torch.stack(losses).sum()), int(torch.cat(right).sum())

    def state(self) -> dict:
        """What the next step depends on beside model and optimiser, as JSON holds it."""
        return self._scaler.state_dict()

    def restore(self, state: dict) -> None:
        """Go on from what `state` gave.

        Raises:
            ValueError: it is of a step with another precision, or damaged.
        """
        wanted = self.state()
        if not isinstance(state, dict) or set(state) != set(wanted):
            raise ValueError("the state of the loss scaling is not one")
        if wanted:
            self._scaler.load_state_dict(state)

    def _waiting(self, waiting: bool) -> AbstractContextManager[None]:
        """Where several processes train, they exchange gradients after the last micro-batch."""
        if waiting and isinstance(self._loss, DistributedDataParallel):
            return self._loss.no_sync()
        return nullcontext()


class _Loss(nn.Module):
    """From images and labels to maps, loss and right answers: what is differentiated."""

    def __init__(self, model: ReidModel, distillation: Distillation | None):
        super().__init__()
        self.model, self.distillation = model, distillation

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        config, criterion = self.model.config, self.model.criterion
        dtype, low = getattr(torch, config.precision), config.precision != "float32"
        with torch.autocast(images.device.type, dtype) if low else nullcontext():
            maps = self.model.backbone(images)
        compared = maps.to(dtype) if low and compares_maps(config.loss) else maps
        loss, hits = criterion(compared, labels)
        if self.distillation is not None and isinstance(criterion, MatchingLoss):
            loss = loss + self.distillation(criterion.matcher, images, maps)
        return maps, loss, hits


def check_precision(precision: str, device: torch.device) -> None:
    """Raise ValueError if a device does not train at this precision."""
    if precision == "float16" and device.type == "cpu":
        raise ValueError('precision "float16" wants a GPU; on a CPU take "bfloat16"')


def _scaler(device: torch.device, enabled: bool) -> torch.amp.GradScaler:
    if hasattr(torch.amp, "GradScaler"):
        return torch.amp.GradScaler(device.type, enabled=enabled)
    return torch.cuda.amp.GradScaler(enabled=enabled)  # before PyTorch 2.3


def shortage_in_training(model: ReidModel, images: int) -> tuple[str, str]:
    """What was being done when memory ran out, and what to lower."""
    config = model.config
    parts = f" in {config.accumulate} micro-batches" if config.accumulate > 1 else ""
    precision = "" if config.precision != "float32" else ", set precision to bfloat16"
    return (
        f"training on {images} images of {config.height} x {config.width} pixels{parts} "
        f"({model.num_classes:,} identities)",
        f"raise accumulate ({config.accumulate}){precision}, or lower batch_size, height or width; "
        "`train ... --predict-memory` says what a step takes",
    )
