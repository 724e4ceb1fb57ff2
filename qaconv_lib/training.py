"""One trainer for every loss: schedule, resumable runs (chapter 7)."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from qaconv_lib._checks import naming_shortage
from qaconv_lib._files import (
    make_folder,
    read_checkpoint,
    write_checkpoint,
    write_json,
    write_whole,
)
from qaconv_lib._processes import (
    add_up,
    data_parallel,
    naming_lost_processes,
    peak_megabytes,
    process_count,
    process_rank,
    share,
)
from qaconv_lib.beyond.distillation import Distillation, make_distillation
from qaconv_lib.beyond.graph_sampling import class_similarities, make_sampler
from qaconv_lib.losses import MatchingLoss, compares_maps
from qaconv_lib.models import (
    ReidModel,
    TrainingConfig,
    choose_device,
    differing_settings,
    load_weights,
)
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


# steps ------------------------------------------------------------


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


# run_state ------------------------------------------------------------


def write_state(path: Path, trainer: Trainer) -> None:
    """Write everything the next epoch depends on: weights, memory, momentum, loss scaling."""
    tensors = {f"model.{key}": value for key, value in trainer.model.state_dict().items()}
    for index, state in trainer.optimizer.state_dict()["state"].items():
        if state.get("momentum_buffer") is not None:
            tensors[f"momentum.{index}"] = state["momentum_buffer"]
    details = {
        "config": dataclasses.asdict(trainer.config),
        "num_classes": trainer.model.num_classes,
        "images": trainer.images_hash,
        "epoch": trainer.epoch,
        "history": trainer.history,
        "timings": trainer.timings,
    }
    if scaling := trainer.step.state():
        details["scaling"] = scaling
    write_checkpoint(path, tensors, details)


def read_state(path: Path, trainer: Trainer) -> None:
    """Put a trainer where the run in the file was.

    Raises:
        ValueError: the file is damaged, or of a run with other settings or on other images.
    """
    tensors, details = read_checkpoint(path)
    if not isinstance(details.get("config"), dict):
        raise ValueError(f"{path} is damaged: it does not say its settings")
    if other := differing_settings(details.get("config"), trainer.config):
        raise ValueError(
            f"{path} belongs to a run with other settings ({', '.join(other)}); "
            "give another run folder, or remove this one"
        )
    if details.get("images") != trainer.images_hash:
        raise ValueError(
            f"{path} belongs to a run on other images; give another run folder, or remove this one"
        )
    epoch: Any = details.get("epoch")
    history: Any = details.get("history")
    if not _rows(history, epoch) or epoch > trainer.config.epochs:
        raise ValueError(f"{path} is damaged: it does not say which epochs are done")
    load_weights(trainer.model, _part(tensors, "model."), str(path))
    state, buffers = trainer.optimizer.state_dict(), _part(tensors, "momentum.")
    wanted = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    shapes = {str(index): parameter.shape for index, parameter in enumerate(wanted)}
    if any(shapes.get(index) != buffer.shape for index, buffer in buffers.items()):
        raise ValueError(f"{path} is damaged: its momentum is of another model")
    state["state"] = {int(i): {"momentum_buffer": buffer} for i, buffer in buffers.items()}
    trainer.optimizer.load_state_dict(state)
    try:
        trainer.step.restore(details.get("scaling", {}))
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    timings: Any = details.get("timings")  # which older files lack
    trainer.timings = timings if _rows(timings, epoch) else [{} for _ in history]
    trainer.epoch, trainer.history = epoch, history


def _rows(values: object, count: object) -> bool:
    """Whether values are a list of so many dictionaries."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(isinstance(row, dict) for row in values)


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


# run_folder ------------------------------------------------------------

STATE, LOG, BOARD = "last.safetensors", "log.csv", "tensorboard"
ABOUT, README = "run.json", "README.md"
#: Columns of `log.csv`; the last three are empty where an epoch was not timed.
LOG_COLUMNS = (
    "epoch",
    "loss",
    "accuracy",
    "learning_rate",
    "seconds",
    "images_per_second",
    "peak_megabytes",
)
#: Settings that `train` and `evaluate` have a flag for, with its type and help; see `flag_of`.
SETTING_FLAGS: dict[str, tuple[type, str]] = {
    "backbone": (str, "network, e.g. resnet152"),
    "weights": (str, "file with the weights to start from"),
    "height": (int, "of an image, in pixels"),
    "width": (int, "of an image, in pixels"),
    "batch_size": (int, "images a step"),
    "accumulate": (int, "micro-batches that a batch is taken in, to save memory"),
    "precision": (str, "float32, bfloat16, or on a GPU float16"),
    "clip_norm": (float, "longest gradient, all parameters together"),
    "epochs": (int, "how many"),
    "decay_epochs": (int, "epochs after which the rates fall to a tenth"),
    "workers": (int, "processes that load images"),
}


class Stopwatch:
    """Takes the time of an epoch from the moment it is made.

    Args:
        device: where is trained: its memory is looked at.
    """

    def __init__(self, device: object):
        self.device, self.start = str(device), time.perf_counter()

    def timing(self, images: int) -> dict:
        """Seconds, images a second, and the most memory held so far (see `peak_megabytes`)."""
        seconds = time.perf_counter() - self.start
        return {
            "seconds": round(seconds, 3),
            "images_per_second": round(images / max(seconds, 1e-9), 1),
            "peak_megabytes": peak_megabytes(self.device),
        }


def write_log(folder: Path, history: Sequence[dict], timings: Sequence[dict]) -> None:
    """Write `log.csv`, a row an epoch, whole or not at all; nothing is done if it is right already.

    All of it is written from the state of the run, so no row is there twice, and one of an epoch
    whose state was lost goes.

    Args:
        folder: the run folder.
        history: what the trainer keeps of every epoch.
        timings: what `Stopwatch.timing` gave for it; empty for epochs that nobody timed.
    """
    text = io.StringIO()
    rows = csv.DictWriter(text, LOG_COLUMNS, extrasaction="ignore", lineterminator="\n")
    rows.writeheader()
    for row, timing in zip(history, timings, strict=True):
        rows.writerow(row | timing)
    content, path = text.getvalue().encode(), folder / LOG
    if not path.is_file() or path.read_bytes() != content:
        write_whole(path, content)


class Board:
    """The log for TensorBoard, in the run folder's `tensorboard`.

    Args:
        folder: the run folder.
        epoch: epochs done; what an interrupted run wrote of later ones is hidden.

    Raises:
        ImportError: the package tensorboard is not installed.
    """

    def __init__(self, folder: Path, epoch: int):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ImportError(
                "a log for TensorBoard needs its package: pip install tensorboard"
            ) from error
        self._writer = SummaryWriter(str(folder / BOARD), purge_step=epoch + 1)

    def write(self, row: dict) -> None:
        """Add the numbers of an epoch."""
        for name, value in row.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, row["epoch"])
        self._writer.flush()


def describe_run(folder: Path, about: dict) -> None:
    """Write `run.json` and `README.md` beside the state of a run.

    Args:
        folder: the run folder; it exists.
        about: what `run.json` holds: "command", "evaluate", "model" (where the model will lie),
            "run", "config", "images", "identities", "cameras" and the entries of `provenance`. A
            list "starts" is added: device, versions and commit of each start, and the epoch it
            began after.
    """
    start = {key: about.pop(key) for key in ("epoch", "device", "threads", "versions", "commit")}
    about = {"what": "A training run of qaconv_lib; README.md says more", **about}
    about["starts"] = [*_starts(folder / ABOUT), start]
    write_json(folder / ABOUT, about)
    write_whole(folder / README, _readme(about).encode())


def _starts(path: Path) -> list:
    """Earlier starts of the run; none of a file that is not there or damaged."""
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return []
    return starts if isinstance(starts, list) else []


def _readme(about: dict) -> str:
    run, start = about["run"], about["starts"][-1]
    versions = ", ".join(f"{name} {number}" for name, number in start["versions"].items())
    settings = "\n".join(f"| {name} | {value} |" for name, value in about["config"].items())
    unreadable = about.get("unreadable_images", 0)
    left_out = f" ({unreadable:,} that cannot be read were left out)" if unreadable else ""
    return f"""# {run["loss"]} on {run["source"]}, {run["profile"]} profile, seed {run["seed"]}

This folder belongs to a training run of `qaconv_lib`, the library of the QAConv book. This starts
it, and takes it up again after an interruption:

    {about["command"]}

It was started last on {start["device"]}, with {versions}; commit {start["commit"] or "unknown"}.
It trains on {about["images"]:,} images{left_out} of {about["identities"]:,} identities by \
{about["cameras"]:,} cameras.

| file | what it is |
|---|---|
| `{STATE}` | the state after the last epoch that was done: weights, momentum, memory, history |
| `{LOG}` | a row an epoch: loss, accuracy, rate, seconds, images a second, peak memory in MB |
| `{ABOUT}` | the settings, the versions and the device of every start |
| `{BOARD}` | the log for TensorBoard, if it was asked for |

**To go on** after an interruption, give the command again. It takes up `{STATE}` and, on the same
device with the same versions, ends with the weights of a run that was not interrupted. Other
settings or other images are refused. To start anew, remove `{STATE}`.

**To evaluate**, once the run is through and its model lies at
`{about["model"]}`:

    {about["evaluate"]}

## Settings

| setting | value |
|---|---|
{settings}
"""


def flag_of(setting: str) -> str:
    """The flag of a setting: "--batch-size" of "batch_size"."""
    return "--" + setting.replace("_", "-")


def command_line(command: str, run: dict, *words: str) -> str | None:
    """What to type to have a command on a run; None where a setting has no flag.

    Args:
        command: "train" or "evaluate".
        run: loss, source, profile, seed and settings.
        *words: what follows the source, and further flags.
    """
    if set(run["settings"]) - set(SETTING_FLAGS) or None in run["settings"].values():
        return None
    parts = ["python", "-m", "qaconv_lib", command, run["loss"], run["source"], *words]
    parts += ["--profile", run["profile"], "--seed", str(run["seed"])]
    for name, value in run["settings"].items():
        parts += [flag_of(name), str(value)]
    return shlex.join(parts)
