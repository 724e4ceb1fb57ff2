"""A model and its settings, and the file that holds both (chapter 7)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm.auto import tqdm

from qaconv_lib._checks import naming_shortage
from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.backbones import Backbone, check_fit, make_backbone
from qaconv_lib.beyond.distillation import check_distillation
from qaconv_lib.beyond.graph_sampling import check_sampling
from qaconv_lib.beyond.pairs import check_margin
from qaconv_lib.losses import LOSSES, MatchingLoss, PooledLoss, compares_maps, loss_class
from qaconv_lib.transforms import ReidImages

#: What `TrainingConfig.precision` may be.
PRECISIONS = ("float32", "bfloat16", "float16")


def _later(default: Any) -> Any:
    """A setting that came after the first records, which do not name it.

    Its default is what was done before there was a choice, and stays (see `differing_settings`).
    """
    return dataclasses.field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run, apart from the images.

    The defaults are the paper's (section 5.1) with a ResNet-50; momentum, weight decay and
    Nesterov are those of its released code.
    """

    loss: str = "qaconv"  #: or another of `LOSSES`
    backbone: str = "resnet50"
    pretrained: bool = True  #: start from ImageNet weights
    final_layer: str = "layer3"
    neck_channels: int | None = 128
    neck_size: int = 1
    pixels: str | None = None  #: see `make_backbone`
    frozen_stages: int = 0
    height: int = 384  #: of an image, in pixels
    width: int = 128  #: of an image, in pixels
    occlusion: str = "occlusion"
    occlusion_share: float = 0.8  #: of the width; only for "occlusion"
    batch_size: int = 32  #: images a step, over all processes and micro-batches
    epochs: int = 60
    decay_epochs: int = 40  #: both rates are divided by 10 after this many epochs
    learning_rate: float = 0.01  #: of new layers
    backbone_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_start: int = 0  #: epochs of softmax training before the first one, in the same way
    kernel_size: int = 1  #: QAConv and pairwise loss
    tied: bool = False  #: QAConv and pairwise loss
    gamma: float = 2.0  #: QAConv and class memory
    memory_update: str = "replace"  #: QAConv and class memory
    margin: float = 0.5  #: Arc loss only, radians
    scale: float = 30.0  #: Arc loss only
    center_weight: float = 0.0005  #: center loss only
    workers: int = 0  #: processes that load images; augmentation depends on how many there are
    seed: int = 0
    # A further setting is declared with `_later`: what was trained before it stays current.
    weights: str | None = _later(None)  # a file to start from instead; see `make_backbone`
    neck_norm: bool = _later(True)
    frozen_norm: bool = _later(False)
    #: of the backbone and of matching, in training; float16 wants a GPU (see `TrainingStep`)
    precision: str = _later("float32")
    accumulate: int = _later(1)  #: micro-batches that a batch is taken in, one after the other
    clip_norm: float | None = _later(None)  #: longest gradient, all parameters together
    sampler: str = _later("shuffle")  #: or "pk" or "graph"; see `graph_sampling`
    images_per_identity: int = _later(4)  #: in a batch; not for "shuffle"
    triplet_margin: float | None = _later(None)  #: pairwise loss only, logits
    teacher: str | None = _later(None)  #: backbone of the run that teaches; see `Run.teacher`
    distill_temperature: float = _later(4.0)
    distill_weight: float = _later(1.0)

    def __post_init__(self) -> None:
        if self.weights is not None:
            object.__setattr__(self, "weights", os.fspath(self.weights))
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        least = {"height": 1, "width": 1, "batch_size": 2, "epochs": 1, "decay_epochs": 0}
        least["accumulate"] = 1
        for name, minimum in (least | {"workers": 0, "seed": 0, "warm_start": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int) or not minimum <= value < 2**31:
                raise ValueError(f"{name} must be a whole number from {minimum}, got {value!r}")
        for name in ("learning_rate", "backbone_learning_rate", "momentum", "weight_decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")
        if self.precision not in PRECISIONS:
            raise ValueError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {self.precision!r}"
            )
        if self.batch_size % self.accumulate or self.batch_size < 2 * self.accumulate:
            raise ValueError(
                f"accumulate must divide batch_size ({self.batch_size}) into micro-batches of at "
                f"least 2 images, got {self.accumulate}"
            )
        if self.loss == "pairwise" and self.accumulate > 1:
            raise ValueError(
                "accumulate must be 1 for the loss pairwise, whose pairs lie within a batch; got "
                f"{self.accumulate}"
            )
        if self.clip_norm is not None and not 0 < self.clip_norm < math.inf:
            raise ValueError(f"clip_norm must be positive, or None, got {self.clip_norm}")
        check_sampling(self.sampler, self.batch_size, self.images_per_identity)
        if self.triplet_margin is not None:
            check_margin(self.triplet_margin)
        if self.teacher is not None:
            check_distillation(self)

    @classmethod
    def from_dict(cls, values: dict) -> TrainingConfig:
        """Build from a dictionary; ValueError names entries that are not settings."""
        unknown = set(values) - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(**values)

    def digest(self) -> str:
        """Eight digits that name the settings; a later one that has its default has no part."""
        named = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if "later" not in field.metadata or getattr(self, field.name) != field.default
        }
        text = json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]


def differing_settings(stored: object, config: TrainingConfig) -> list[str]:
    """Names of the settings in which a configuration from a file differs from `config`.

    Every comparison of settings goes through here. A setting that the file does not name did not
    exist when it was written, and counts as its default, which is what was done then.

    Args:
        stored: the dictionary in a checkpoint or record, as it comes back from the file.
        config: the settings it is held against.
    """
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    if not isinstance(stored, dict):
        return sorted(mine)
    defaults = {field.name: field.default for field in dataclasses.fields(config)}
    theirs = defaults | stored
    return sorted(key for key in theirs if key not in mine or mine[key] != theirs[key])


class ReidModel(nn.Module):
    """A backbone and the training loss that holds its matcher.

    Args:
        config: what to build.
        num_classes: training identities.
    """

    def __init__(self, config: TrainingConfig, num_classes: int):
        super().__init__()
        self.config, self.num_classes = config, num_classes
        self.backbone = make_backbone(
            config.backbone,
            pretrained=config.pretrained,
            weights=config.weights,
            final_layer=config.final_layer,
            neck_channels=config.neck_channels,
            neck_size=config.neck_size,
            neck_norm=config.neck_norm,
            unit_channels=compares_maps(config.loss),
            pixels=config.pixels,
            frozen_stages=config.frozen_stages,
            frozen_norm=config.frozen_norm,
        )
        self.criterion = make_criterion(config, num_classes, self.backbone)

    @torch.no_grad()
    def extract(
        self, table: pd.DataFrame, *, batch_size: int = 64, progress: bool = False
    ) -> Tensor:
        """Feature maps of the images of a table, in its order: shape (n, d, h, w), on the CPU."""
        if not len(table):
            raise ValueError("the table has no images to extract features from")
        images = ReidImages(table, self.config.height, self.config.width, keep_in_memory=False)
        loader = DataLoader(images, batch_size, num_workers=self.config.workers)
        device = next(self.parameters()).device
        was_training = self.training
        self.eval()
        size = f"{self.config.height} x {self.config.width} pixels"
        with naming_shortage(
            f"extracting features of {len(table):,} images of {size}, {batch_size} at a time",
            "lower batch_size of `extract`, height or width, or extract fewer images at once",
        ):
            maps = [
                self.backbone(batch.to(device)).cpu()
                for batch, _ in tqdm(loader, desc="features", unit="batch", disable=not progress)
            ]
            self.train(was_training)
            return torch.cat(maps)

    def similarity(
        self, query_maps: Tensor, gallery_maps: Tensor, *, progress: bool = False
    ) -> Tensor:
        """Score every query against every gallery image: shape (q, g), float32.

        Models that compare maps give logits, whose sigmoid is a probability; pooled models give
        (1 + cosine) / 2, which is not one.
        """
        return self.criterion.similarity(query_maps, gallery_maps, progress=progress)


def make_criterion(
    config: TrainingConfig, num_classes: int, backbone: Backbone
) -> MatchingLoss | PooledLoss:
    """The training loss of a configuration, for a backbone's maps and so many identities."""
    sizes = [num_classes, backbone.channels]
    if compares_maps(config.loss):
        sizes += backbone.map_size(config.height, config.width)
    if config.loss == "pairwise":
        sizes = sizes[2:]  # it has nothing of its own for each identity
    head = {"kernel_size": config.kernel_size, "tied": config.tied}
    options: dict[str, dict[str, Any]] = {
        "qaconv": head,
        "pairwise": head | {"triplet_margin": config.triplet_margin},
        "arc": {"margin": config.margin, "scale": config.scale},
        "center": {"weight": config.center_weight},
    }
    own = options.get(config.loss, {})
    if config.loss in ("qaconv", "class-memory"):
        own |= {"gamma": config.gamma, "update": config.memory_update}
    return loss_class(config.loss)(*sizes, **own)


def default_device() -> torch.device:
    """The GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_device(name: str | torch.device | None) -> torch.device:
    """A device by name, the GPU if there is one where none is named; ValueError if it is none."""
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise ValueError(
            f"device must be cpu, or cuda on a machine with a GPU, got {name!r}"
        ) from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be cpu or cuda, got {name!r}")
    return device


def save_model(path: str | Path, model: ReidModel, **details: Any) -> None:
    """Write what evaluation needs, floats rounded to half precision, as one safetensors file.

    Class memory, classifier and centres serve training only and are left out.

    Args:
        path: the file; it is replaced whole or not at all.
        model: a trained model.
        **details: more to keep beside the configuration (anything JSON can hold).
    """
    tensors = {
        key: value.half() if value.is_floating_point() else value
        for key, value in model.state_dict().items()
        if not training_only(key)
    }
    about = {"config": dataclasses.asdict(model.config), "num_classes": model.num_classes}
    for key, value in tensors.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} cannot be saved: it is not finite in half precision")
    write_checkpoint(path, tensors, details | about)


def load_model(path: str | Path, device: str | torch.device = "cpu") -> ReidModel:
    """Read a model that `save_model` wrote, ready for evaluation.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, not a checkpoint of this library, or of another shape.
    """
    tensors, details = read_checkpoint(path)
    try:
        config = TrainingConfig.from_dict(details["config"])
        config = dataclasses.replace(config, pretrained=False, weights=None)
        model = ReidModel(config, details["num_classes"])
    except (LookupError, TypeError, ValueError, ArithmeticError, RuntimeError) as error:
        raise ValueError(f"{path} does not describe a model of this library: {error}") from error
    load_weights(model, tensors, str(path))
    return model.to(device).eval()


def load_weights(model: ReidModel, tensors: dict[str, Tensor], source: str) -> None:
    """Copy tensors into a model; ValueError names what is missing, left over or misshapen."""
    wanted = model.state_dict()
    for key in filter(training_only, tensors):  # one row for every training identity
        if key in wanted and len(tensors[key]) != len(wanted[key]):
            raise ValueError(
                f"{source} holds {key} for {len(tensors[key])} training identities, the model has "
                f"{len(wanted[key])}"
            )
    name = f"a model with {model.config.backbone} and {model.config.loss}"
    check_fit(tensors, wanted, source, name, may_lack=training_only)
    model.load_state_dict(tensors, strict=False)


def training_only(key: str) -> bool:
    """Whether an entry of the state dict serves training alone."""
    return key.startswith(("criterion.memory.", "criterion.classifier.", "criterion.centers"))
