"""One trainer for every loss: steps, schedule, resumable runs (built in chapter 7)."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from qaconv_lib._checks import check_choice, is_number, naming_shortage
from qaconv_lib._files import check_writable, read_checkpoint, write_checkpoint, write_whole
from qaconv_lib._processes import add_up, peak_megabytes, process_count, process_rank, share
from qaconv_lib.config import TrainingConfig, plain
from qaconv_lib.datasets import content_key
from qaconv_lib.losses import MatchingLoss, PooledLoss
from qaconv_lib.models import ReidModel, choose_device, load_weights
from qaconv_lib.transforms import ReidImages, make_augmentation

STATE, LOG = "last.safetensors", "log.csv"
LOG_COLUMNS = "epoch loss accuracy learning_rate seconds images_per_second peak_megabytes".split()


class Trainer:
    """Trains a `ReidModel` by stochastic gradient descent (section 5.1).

    Every epoch draws its shuffling and augmentation from `(seed, epoch)`, so a run that was
    interrupted and resumed goes through the same batches as one that was not. What goes beyond the
    paper is passed in. Several processes each take their share of every batch; the first writes.

    Attributes:
        model: the model in training.
        epoch: epochs done.
        history: one dictionary per epoch: epoch, loss, accuracy (share of the images whose
            best-scored class is their own), learning_rate.
        timings: one dictionary per epoch: seconds, images_per_second, peak_megabytes.

    Args:
        config: the settings.
        table: training images as `load_dataset` gives them.
        device: where to train; the GPU if there is one, else the CPU.
        run_folder: where to keep `last.safetensors` and `log.csv` after every epoch; None keeps
            nothing. If the state is there already, training goes on from it.
        criterion: a loss to use instead of the one that `config.loss` names.
        augmentation: of an image (3, H, W) in [0, 1], instead of the one that `config` names.
        sampler: given this trainer, returns the batches of image numbers to iterate over in every
            epoch, after `set_epoch(epoch)`; None shuffles all images.
        parallel: wraps the module that is differentiated where several processes train, as
            `scale.distributed.data_parallel` does.
        **step: `teacher`, `precision`, `accumulate` and `clip_norm` of `TrainingStep`.
    """

    def __init__(
        self,
        config: TrainingConfig,
        table: pd.DataFrame,
        *,
        device: str | torch.device | None = None,
        run_folder: str | Path | None = None,
        criterion: MatchingLoss | PooledLoss | None = None,
        augmentation: nn.Module | None = None,
        sampler: Callable[[Trainer], Any] | None = None,
        parallel: Callable[[nn.Module], nn.Module] | None = None,
        **step: Any,
    ):
        size = config.batch_size
        if len(table) < size:
            raise ValueError(f"{len(table)} training images do not fill one batch of {size}")
        if size % process_count():
            raise ValueError(f"batch_size {size} cannot be shared by {process_count()} processes")
        if process_count() > 1 and parallel is None:
            raise ValueError("several processes train only with a `parallel` that joins gradients")
        self.config, self.table, self.augmentation = config, table, augmentation
        self.device = choose_device(device)
        torch.manual_seed(config.seed)
        self.images = ReidImages(
            table,
            config.height,
            config.width,
            make_augmentation(config.occlusion, True, config.occlusion_share)
            if augmentation is None
            else augmentation,
            keep_in_memory=config.workers == 0,
        )
        self.model = ReidModel(config, len(self.images.identities), criterion)
        with naming_shortage(*self._shortage()):
            self.model = self.model.to(self.device)
        self.sampler = sampler(self) if sampler is not None else None
        self.optimizer = torch.optim.SGD(
            self._parameter_groups(),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.step = TrainingStep(self.model, self.optimizer, parallel=parallel, **step)
        self.epoch = 0
        self.history: list[dict] = []
        self.timings: list[dict] = []
        self._set_rates()
        self.checkpoint = None if run_folder is None else Path(run_folder) / STATE
        if self.checkpoint is not None:
            self.images_hash = content_key(table)
            check_writable(self.checkpoint.parent)  # now, and not after the first epoch
            if self.checkpoint.exists():
                self._read_state(self.checkpoint)
                self._write_log()

    def _parameter_groups(self) -> list[dict]:
        learned = [p for p in self.model.parameters() if p.requires_grad]
        trunk = set(self.model.backbone.trunk.parameters())
        rates = self.config.backbone_learning_rate, self.config.learning_rate
        return [
            {"params": [p for p in learned if p in trunk], "base_rate": rates[0]},
            {"params": [p for p in learned if p not in trunk], "base_rate": rates[1]},
        ]

    def _set_rates(self) -> float:
        """Step decay: both rates fall to a tenth after `decay_epochs`. Returns the factor."""
        factor = 0.1 if self.epoch >= self.config.decay_epochs else 1.0
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_rate"] * factor
        return factor

    def train(
        self,
        *,
        epochs: int | None = None,
        progress: bool = False,
        after_epoch: Callable[[Trainer], None] | None = None,
    ) -> ReidModel:
        """Train until `epochs` are done (by default the configured number) and return the model.

        Args:
            epochs: stop once this many epochs have been done in all.
            progress: show a progress bar for every epoch.
            after_epoch: called after every epoch, e.g. to measure or to print.
        """
        last = self.config.epochs if epochs is None else min(epochs, self.config.epochs)
        if self.config.warm_start and not self.epoch:
            self._warm_start(progress)
        size = self.config.batch_size
        while self.epoch < last:
            start = time.perf_counter()
            # On a GPU, kernels that give the same bits every time.
            same_kernels = torch.backends.cudnn.flags(enabled=True, deterministic=True)
            with same_kernels, naming_shortage(*self._shortage()):
                self.history.append(self._train_epoch(progress))
            seconds = time.perf_counter() - start
            rate = round(len(self.images) // size * size / seconds, 1)
            timing = {"seconds": round(seconds, 3), "images_per_second": rate}
            self.timings.append(timing | {"peak_megabytes": peak_megabytes(str(self.device))})
            self.epoch += 1
            if self.checkpoint is not None and process_rank() == 0:
                self._write_state(self.checkpoint)
                self._write_log()
            if after_epoch is not None:
                after_epoch(self)
        return self.model

    def _shortage(self) -> tuple[str, str]:
        """What is being done when memory runs out, and what to lower."""
        config = self.config
        size = f"{config.batch_size} images of {config.height} x {config.width} pixels"
        return (
            f"training on {size} ({self.model.num_classes:,} identities)",
            "raise accumulate, set precision to bfloat16, or lower batch_size, height or width",
        )

    def _warm_start(self, progress: bool) -> None:
        """Take over the trunk of a softmax model trained for `warm_start` epochs."""
        config = TrainingConfig.from_dict(
            dataclasses.asdict(self.config)
            | {"loss": "softmax", "epochs": self.config.warm_start, "warm_start": 0}
        )
        first = Trainer(config, self.table, device=self.device, parallel=self.step.parallel)
        trained = first.train(progress=progress).backbone.trunk
        self.model.backbone.trunk.load_state_dict(trained.state_dict())

    def _train_epoch(self, progress: bool) -> dict:
        factor = self._set_rates()
        loader = self._batches()
        self.model.train()
        loss_sum, right = 0.0, 0.0
        hidden = not progress or process_rank() > 0
        bar = tqdm(loader, desc=f"epoch {self.epoch + 1}", unit="batch", disable=hidden)
        for images, labels in bar:
            loss, hits = self.step(images.to(self.device), labels.to(self.device))
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"the loss is {loss} in epoch {self.epoch + 1}; lower learning_rate "
                    f"({self.config.learning_rate}) or backbone_learning_rate "
                    f"({self.config.backbone_learning_rate})"
                )
            loss_sum += loss
            right += hits
            bar.set_postfix(loss=f"{loss:.3f}")
        loss_sum, right = add_up(loss_sum, right)
        return {
            "epoch": self.epoch + 1,
            "loss": loss_sum / (len(loader) * process_count()),
            "accuracy": right / (len(loader) * self.config.batch_size),
            "learning_rate": self.config.learning_rate * factor,
        }

    def _batches(self) -> DataLoader:
        """The batches of an epoch, or this process's share of each."""
        # One seed per epoch: what was drawn before does not matter, so resuming is exact.
        seed = self.config.seed * 100_003 + self.epoch + 1
        torch.manual_seed(seed)
        size, workers = self.config.batch_size, self.config.workers
        if self.sampler is None and process_count() == 1:
            return DataLoader(self.images, size, shuffle=True, drop_last=True, num_workers=workers)
        batches: Iterable[list[int]]
        if self.sampler is not None:
            self.sampler.set_epoch(self.epoch)
            batches = self.sampler
        else:
            order = torch.randperm(len(self.images))
            batches = order[: len(order) // size * size].view(-1, size).tolist()
        own = [batch[share(size)] for batch in batches]
        torch.manual_seed(seed + (process_rank() << 40))  # augmentation differs between processes
        return DataLoader(self.images, batch_sampler=own, num_workers=workers)

    def _decisive(self) -> dict[str, Any]:
        """What decides the run: a state is not resumed with anything else."""
        step = self.step
        return dataclasses.asdict(self.config) | {
            "images": self.images_hash,
            "criterion": type(self.model.criterion).__name__,
            "sampler": "" if self.sampler is None else repr(self.sampler),
            "augmentation": "" if self.augmentation is None else repr(self.augmentation),
            "teacher": "" if step.teacher is None else step.teacher.extra_repr(),
            "precision": step.precision,
            "accumulate": step.accumulate,
            "clip_norm": step.clip_norm,
        }

    def _write_state(self, path: Path) -> None:
        """Everything the next epoch depends on: weights, memory, momentum, loss scaling."""
        tensors = {f"model.{key}": value for key, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            if state.get("momentum_buffer") is not None:
                tensors[f"momentum.{index}"] = state["momentum_buffer"]
        details = {
            "decisive": self._decisive(),
            "history": self.history,
            "timings": self.timings,
            "scaling": self.step.scaler.state_dict(),
        }
        write_checkpoint(path, tensors, details)

    def _read_state(self, path: Path) -> None:
        """Go on from a state; ValueError if it is damaged or belongs to another run."""
        tensors, details = read_checkpoint(path)
        stored, mine = details.get("decisive") or {}, self._decisive()
        if other := [name for name in mine if stored.get(name, "") != mine[name]]:
            raise ValueError(
                f"{path} belongs to a run of other images or settings ({', '.join(other)}); give "
                "another run folder, or remove this one"
            )
        load_weights(self.model, _part(tensors, "model."), str(path))
        state, buffers = self.optimizer.state_dict(), _part(tensors, "momentum.")
        wanted = [p for group in self.optimizer.param_groups for p in group["params"]]
        shapes = {str(index): parameter.shape for index, parameter in enumerate(wanted)}
        if any(shapes.get(index) != buffer.shape for index, buffer in buffers.items()):
            raise ValueError(f"{path} is damaged: its momentum is of another model")
        state["state"] = {int(i): {"momentum_buffer": buffer} for i, buffer in buffers.items()}
        self.optimizer.load_state_dict(state)
        if details["scaling"]:  # empty but for float16
            self.step.scaler.load_state_dict(details["scaling"])
        self.history, self.timings = details["history"], details["timings"]
        self.epoch = len(self.history)

    def _write_log(self) -> None:
        """Write `log.csv`, one row per epoch."""
        if self.checkpoint is None or process_rank() > 0:
            return
        rows = [row | timing for row, timing in zip(self.history, self.timings, strict=True)]
        table = pd.DataFrame(rows, columns=LOG_COLUMNS).astype({"peak_megabytes": "Int64"})
        content = table.to_csv(index=False, lineterminator="\n")
        try:
            write_whole(self.checkpoint.parent / LOG, content.encode())
        except OSError as error:  # as while a spreadsheet has it open; training goes on
            warnings.warn(f"the log is not kept: {error}", stacklevel=2)


class TrainingStep:
    """What happens to a batch: maps, loss, gradients, new parameters, new memory (section 5.1).

    Args:
        model: the model, on the device where it is trained.
        optimizer: of its parameters.
        teacher: a module that adds to the loss, called with the matcher, the images (b, 3, H, W)
            and their maps; see `beyond.distillation.Distillation`.
        precision: of the backbone and of matching; everything after the best matches stays
            float32. "float16", for GPUs only, scales the loss and skips steps that overflow.
        accumulate: micro-batches that a batch is taken in. Parameters and memory are updated once,
            after the last; BN takes its statistics over a micro-batch.
        clip_norm: longest gradient, all parameters together.
        parallel: see `Trainer`.
    """

    def __init__(
        self,
        model: ReidModel,
        optimizer: torch.optim.Optimizer,
        *,
        teacher: nn.Module | None = None,
        precision: str = "float32",
        accumulate: int = 1,
        clip_norm: float | None = None,
        parallel: Callable[[nn.Module], nn.Module] | None = None,
    ):
        device = next(model.parameters()).device
        accumulate, clip_norm = plain("accumulate", accumulate), plain("clip_norm", clip_norm)
        check_step(model.config, precision, accumulate, clip_norm)
        images = model.config.batch_size // process_count()
        if images % accumulate:
            raise ValueError(f"accumulate {accumulate} does not divide a process's {images} images")
        self.model, self.optimizer, self.parallel = model, optimizer, parallel
        self.teacher = None if teacher is None else teacher.to(device)
        self.precision, self.accumulate, self.clip_norm = precision, accumulate, clip_norm
        loss = _Loss(model, self.teacher, precision)
        self._loss: Any = loss if parallel is None else parallel(loss)
        self.scaler = _scaler(device, precision)

    def __call__(self, images: Tensor, labels: Tensor) -> tuple[float, int]:
        """Step on images (b, 3, H, W) and labels (b,): the loss, and how many were right.

        Each of several processes gives its share of the batch, and gets the loss of that share.
        """
        criterion = self.model.criterion
        remembered, losses, right = [], [], []
        self.optimizer.zero_grad()
        parts = list(zip(*(t.chunk(self.accumulate) for t in (images, labels)), strict=True))
        for number, (some, their_labels) in enumerate(parts, start=1):
            # Several processes exchange gradients after the last micro-batch only.
            waiting = number < len(parts) and hasattr(self._loss, "no_sync")
            with self._loss.no_sync() if waiting else nullcontext():
                maps, loss, hits = self._loss(some, their_labels)
                loss = loss * (len(some) / len(images))  # losses are means over the images
                self.scaler.scale(loss).backward()
            remembered.append((maps.detach(), getattr(criterion, "last_vectors", None)))
            losses.append(loss.detach())
            right.append(hits)
        if self.clip_norm is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        all_maps, vectors = zip(*remembered, strict=True)
        if vectors[0] is not None:
            criterion.last_vectors = torch.cat(vectors)
        criterion.after_step(torch.cat(all_maps), labels)  # only now: section 5.1
        return float(torch.stack(losses).sum()), int(torch.cat(right).sum())


class _Loss(nn.Module):
    """From images and labels to maps, loss and right answers: what is differentiated."""

    def __init__(self, model: ReidModel, teacher: nn.Module | None, precision: str):
        super().__init__()
        self.model, self.teacher, self.precision = model, teacher, precision

    def forward(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        criterion, dtype = self.model.criterion, getattr(torch, self.precision)
        low = dtype != torch.float32
        with torch.autocast(images.device.type, dtype) if low else nullcontext():
            maps = self.model.backbone(images)
        compared = maps.to(dtype) if low and isinstance(criterion, MatchingLoss) else maps
        loss, hits = criterion(compared, labels)
        if self.teacher is not None and isinstance(criterion, MatchingLoss):
            loss = loss + self.teacher(criterion.matcher, images, maps)
        return maps, loss, hits


def check_step(
    config: TrainingConfig, precision: str, accumulate: int, clip_norm: float | None
) -> None:
    """Raise ValueError unless a step can be computed like this; see `TrainingStep`."""
    check_choice("precision", precision, "float32", "bfloat16", "float16")
    if not isinstance(accumulate, int) or accumulate < 1:
        raise ValueError(f"accumulate must be a whole number from 1, got {accumulate!r}")
    if config.batch_size % accumulate or config.batch_size < 2 * accumulate:
        raise ValueError(
            f"accumulate must divide batch_size ({config.batch_size}) into micro-batches of at "
            f"least 2 images, got {accumulate}"
        )
    if config.loss == "pairwise" and accumulate > 1:
        raise ValueError(f"accumulate must be 1 for the loss pairwise, got {accumulate}")
    if clip_norm is not None and not (is_number(clip_norm) and 0 < clip_norm < math.inf):
        raise ValueError(f"clip_norm must be positive, or None, got {clip_norm!r}")


def _scaler(device: torch.device, precision: str) -> torch.amp.GradScaler:
    enabled = precision == "float16"
    if enabled and device.type == "cpu":
        raise ValueError('precision "float16" needs a GPU; on a CPU take "bfloat16"')
    return torch.amp.GradScaler(device.type, enabled=enabled)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
