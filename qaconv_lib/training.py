"""One trainer for every loss: schedule, resumable runs (chapter 7)."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from qaconv_lib.checkpoints import make_folder
from qaconv_lib.distributed import add_up, process_count, process_rank, share
from qaconv_lib.graph_sampling import class_similarities, make_sampler
from qaconv_lib.models import ReidModel, TrainingConfig, choose_device
from qaconv_lib.run_folder import STATE, Board, Stopwatch, write_log
from qaconv_lib.run_state import read_state, write_state
from qaconv_lib.shortage import naming_shortage
from qaconv_lib.steps import TrainingStep, shortage_in_training
from qaconv_lib.transforms import ReidImages, make_augmentation


class Trainer:
    """Trains a `ReidModel` by stochastic gradient descent (section 5.1).

    Every epoch draws its shuffling and augmentation from `(seed, epoch)`, so a run that was stopped
    and resumed goes through the same batches as one that was not. Where several workers load the
    images, each draws numbers of its own, which depend on their number too.

    Precision, micro-batches and clipping are described at `TrainingStep`.

    Where torchrun has started several processes, each takes its share of every batch (chapter 13).
    The first of them writes the files.

    Attributes:
        model: the model in training.
        epoch: epochs done.
        history: one dictionary an epoch: epoch, loss, accuracy (share of the images whose
            best-scored class is their own), learning_rate.
        timings: as many dictionaries: seconds, images_per_second, peak_megabytes.
        step: what is done with a batch.

    Args:
        config: the settings.
        table: training images as `load_dataset` gives them.
        device: where to train; the GPU if there is one, else the CPU.
        run_folder: where to keep `last.safetensors` and `log.csv` after every epoch; None keeps
            nothing. If the state is there already, training goes on from it.
        tensorboard: write the log for TensorBoard too, into the run folder.
        teacher: the trained model that `config.teacher` wants.

    Raises:
        ValueError: fewer images than a batch, a batch that processes and micro-batches cannot share
            evenly, an unknown device, float16 on a CPU, a run folder that holds a run with other
            settings or on other images, or TensorBoard without a run folder.
        ImportError: the package tensorboard is wanted and not installed.
        ShortOfMemoryError: memory ran out; it names the settings to lower.
    """

    def __init__(
        self,
        config: TrainingConfig,
        table: pd.DataFrame,
        *,
        device: str | torch.device | None = None,
        run_folder: str | Path | None = None,
        tensorboard: bool = False,
        teacher: ReidModel | None = None,
    ):
        if len(table) < config.batch_size:
            raise ValueError(
                f"{len(table)} training images do not fill one batch of {config.batch_size}"
            )
        if config.batch_size % process_count():
            raise ValueError(
                f"batch_size {config.batch_size} cannot be shared by {process_count()} processes"
            )
        if config.batch_size // process_count() % config.accumulate:
            raise ValueError(
                f"accumulate {config.accumulate} does not divide the "
                f"{config.batch_size // process_count()} images of a process"
            )
        if tensorboard and run_folder is None:
            raise ValueError("a log for TensorBoard wants a run folder")
        self.config, self.table = config, table
        self.device = choose_device(device)
        self.images_hash = _fingerprint(table)
        torch.manual_seed(config.seed)
        self.images = ReidImages(
            table,
            config.height,
            config.width,
            make_augmentation(config.occlusion, occlusion_share=config.occlusion_share),
            keep_in_memory=config.workers == 0,
        )
        self.model = ReidModel(config, len(self.images.identities))
        with naming_shortage(*self._shortage()):
            self.model = self.model.to(self.device)
        # Depthwise convolutions run about a third faster on a CPU with channels stored last.
        self.model.backbone.to(memory_format=torch.channels_last)
        self.sampler = make_sampler(
            config.sampler,
            self.images.labels,
            config.batch_size,
            config.images_per_identity,
            lambda chosen: class_similarities(self.model, table.iloc[chosen]),
            config.seed,
        )
        self.optimizer = torch.optim.SGD(
            self._parameter_groups(),
            momentum=config.momentum,
            weight_decay=config.weight_decay,
            nesterov=config.momentum > 0,
        )
        self.step = TrainingStep(self.model, self.optimizer, teacher)
        self.epoch = 0
        self.history: list[dict] = []
        self.timings: list[dict] = []
        self._set_rates()
        self.checkpoint = None if run_folder is None else Path(run_folder) / STATE
        if self.checkpoint is not None:
            make_folder(self.checkpoint.parent)  # now, and not after the first epoch
        if self.checkpoint is not None and self.checkpoint.exists():
            self._resume(self.checkpoint)
        self._board = None
        if tensorboard and self.checkpoint is not None and process_rank() == 0:
            self._board = Board(self.checkpoint.parent, self.epoch)

    def _parameter_groups(self) -> list[dict]:
        trunk = list(self.model.backbone.trunk.parameters())
        known = {id(parameter) for parameter in trunk}
        new = [p for p in self.model.parameters() if id(p) not in known and p.requires_grad]
        return [
            {
                "params": [p for p in trunk if p.requires_grad],
                "base_rate": self.config.backbone_learning_rate,
            },
            {"params": new, "base_rate": self.config.learning_rate},
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
        while self.epoch < last:
            watch = Stopwatch(self.device)
            with _same_kernels(), naming_shortage(*self._shortage()):
                self.history.append(self._train_epoch(progress))
            size = self.config.batch_size
            self.timings.append(watch.timing(len(self.images) // size * size))
            self.epoch += 1
            if self.checkpoint is not None and process_rank() == 0:
                self._save(self.checkpoint)
            if self._board is not None:
                self._board.write(self.history[-1] | self.timings[-1])
            if after_epoch is not None:
                after_epoch(self)
        return self.model

    def _shortage(self) -> tuple[str, str]:
        return shortage_in_training(self.model, self.config.batch_size)

    def _warm_start(self, progress: bool) -> None:
        """Take over the trunk of a softmax model trained for `warm_start` epochs."""
        first = dataclasses.replace(
            self.config, loss="softmax", epochs=self.config.warm_start, warm_start=0, teacher=None
        )
        trainer = Trainer(first, self.table, device=self.device)
        trained = trainer.train(progress=progress).backbone.trunk
        self.model.backbone.trunk.load_state_dict(trained.state_dict())

    def _train_epoch(self, progress: bool) -> dict:
        factor = self._set_rates()
        loader = self._batches()
        self.model.train()
        loss_sum, right = 0.0, 0.0
        hidden = not progress or process_rank() > 0
        bar = tqdm(loader, desc=f"epoch {self.epoch + 1}", unit="batch", disable=hidden)
        for images, labels in bar:
            loss, hits = self.train_step(images.to(self.device), labels.to(self.device))
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
        # One seed an epoch: what was drawn before does not matter, so resuming is exact.
        seed = self.config.seed * 100_003 + self.epoch + 1
        torch.manual_seed(seed)
        size, workers = self.config.batch_size, self.config.workers
        if self.sampler is not None:
            self.sampler.set_epoch(self.epoch)
            batches = [batch[share(size)] for batch in self.sampler]
        elif process_count() == 1:
            return DataLoader(self.images, size, shuffle=True, drop_last=True, num_workers=workers)
        else:
            order = torch.randperm(len(self.images))
            batches = order[: len(order) // size * size].view(-1, size)[:, share(size)].tolist()
        torch.manual_seed(seed + (process_rank() << 40))  # augmentation differs between processes
        return DataLoader(self.images, batch_sampler=batches, num_workers=workers)

    def train_step(self, images: Tensor, labels: Tensor) -> tuple[float, int]:
        """One step on images (b, 3, H, W) and labels (b,): its loss, and the right answers.

        Of several processes each gives its share of the batch, and gets the loss of that share.
        """
        value, right = self.step(images, labels)
        if value != value:
            raise FloatingPointError(
                f"the loss is not a number in epoch {self.epoch + 1}; lower learning_rate "
                f"({self.config.learning_rate}) or backbone_learning_rate "
                f"({self.config.backbone_learning_rate})"
            )
        return value, right

    def _save(self, checkpoint: Path) -> None:
        write_state(checkpoint, self)
        write_log(checkpoint.parent, self.history, self.timings)

    def _resume(self, checkpoint: Path) -> None:
        read_state(checkpoint, self)
        if process_rank() == 0:
            write_log(checkpoint.parent, self.history, self.timings)


@contextmanager
def _same_kernels() -> Iterator[None]:
    """On a GPU, let cuDNN take kernels that give the same bits every time."""
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark = before


def _fingerprint(table: pd.DataFrame) -> str:
    """Names and identities of the images, not their folder: data that moved may be taken up."""
    rows = zip(table["path"], table["identity"], strict=True)
    lines = "\n".join(f"{identity} {Path(path).name}" for path, identity in rows)
    return hashlib.sha256(lines.encode()).hexdigest()[:16]
