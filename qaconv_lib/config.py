"""The settings of a training run (chapter 7)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from dataclasses import dataclass
from typing import Any

from qaconv_lib._checks import check_choice, is_number
from qaconv_lib.losses import LOSSES

#: Settings that older checkpoints name and that are now arguments of `Trainer`.
ARGUMENTS_OF_TRAINER = (
    *("precision", "accumulate", "clip_norm", "sampler", "images_per_identity", "random_start"),
    *("triplet_margin", "teacher", "distill_temperature", "distill_weight", "colour_jitter"),
)


def plain(name: str, value: Any) -> Any:
    """A setting as JSON can hold it: a number of NumPy or PyTorch becomes Python's, a path text."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    value = value.item() if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 else value
    if not isinstance(value, (str, int, float, type(None))):
        raise TypeError(f"{name} must be a number or text, got {value!r}")
    return value


def later(default: Any) -> Any:
    """A setting newer than the first records, which do not name it.

    Its default is what was done before there was a choice (see `differing_settings`).
    """
    return dataclasses.field(default=default, metadata={"later": True})


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides a training run of the paper, apart from the images.

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
    batch_size: int = 32  #: images per step, over all processes and micro-batches
    epochs: int = 60
    decay_epochs: int = 40  #: both rates are divided by 10 after this many epochs
    learning_rate: float = 0.01  #: of new layers
    backbone_learning_rate: float = 0.001
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_start: int = 0  #: epochs of softmax training before the first one
    kernel_size: int = 1  #: QAConv and pairwise loss
    tied: bool = False  #: QAConv and pairwise loss
    gamma: float = 2.0  #: QAConv and class memory
    memory_update: str = "replace"  #: QAConv and class memory
    margin: float = 0.5  #: Arc loss only, radians
    scale: float = 30.0  #: Arc loss only
    center_weight: float = 0.0005  #: center loss only
    workers: int = 0  #: processes that load images; augmentation depends on their number
    seed: int = 0
    weights: str | None = later(None)  #: a network or a model of `save_model` to start from instead
    neck_norm: bool = later(True)
    frozen_norm: bool = later(False)

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # now, and not when the trained model is saved
            value = plain(field.name, getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            finite = is_number(value) and math.isfinite(value)
            if isinstance(field.default, float) and not finite:
                raise ValueError(f"{field.name} must be a finite number, got {value!r}")
            if isinstance(field.default, bool) and value not in (False, True):
                raise ValueError(f"{field.name} must be True or False, got {value!r}")
        check_choice("loss", self.loss, *LOSSES)
        least = {"height": 1, "width": 1, "batch_size": 2, "epochs": 1, "decay_epochs": 0}
        for name, minimum in (least | {"workers": 0, "seed": 0, "warm_start": 0}).items():
            value = getattr(self, name)
            if not isinstance(value, int) or not minimum <= value < 2**31:
                raise ValueError(f"{name} must be a whole number from {minimum}, got {value!r}")
        for name in ("learning_rate", "backbone_learning_rate", "momentum", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative, got {getattr(self, name)}")

    @classmethod
    def from_dict(cls, values: dict) -> TrainingConfig:
        """Build from the dictionary in a checkpoint; ValueError names entries that are unknown."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := set(values) - known - set(ARGUMENTS_OF_TRAINER):
            raise ValueError(f"unknown settings: {', '.join(sorted(unknown))}")
        return cls(**{name: value for name, value in values.items() if name in known})

    def digest(self) -> str:
        """Eight digits that name the settings; a later one that has its default has no part."""
        named = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if "later" not in field.metadata or getattr(self, field.name) != field.default
        }
        return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()[:8]


def differing_settings(stored: object, config: TrainingConfig) -> list[str]:
    """Names of the settings in which a configuration read from a file differs from `config`.

    A setting that the file does not name did not exist when it was written, and counts as its
    default, which is what was done then.
    """
    mine = json.loads(json.dumps(dataclasses.asdict(config)))
    if not isinstance(stored, dict):
        return sorted(mine)
    theirs = {field.name: field.default for field in dataclasses.fields(config)} | stored
    if type(config) is TrainingConfig:
        theirs = {k: v for k, v in theirs.items() if k not in ARGUMENTS_OF_TRAINER}
    return sorted(key for key in theirs if key not in mine or mine[key] != theirs[key])
