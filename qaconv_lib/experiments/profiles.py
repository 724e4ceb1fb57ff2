"""Profiles: the size of an experiment, and what it may vary beyond the paper (chapter 7)."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
from torch import nn

from qaconv_lib._checks import check_above_zero, check_choice
from qaconv_lib.backbones import BACKBONES, map_size
from qaconv_lib.beyond.distillation import Distillation
from qaconv_lib.beyond.graph_sampling import check_sampling, sampler_by_name
from qaconv_lib.beyond.pairs import PairwiseLoss
from qaconv_lib.config import TrainingConfig, later
from qaconv_lib.losses import LOSSES, compares_maps
from qaconv_lib.models import ReidModel
from qaconv_lib.scale.distributed import data_parallel
from qaconv_lib.training import Trainer, check_step
from qaconv_lib.transforms import make_augmentation

_LAYER3 = {"final_layer": "layer3"}


@dataclass(frozen=True)
class RunConfig(TrainingConfig):
    """The settings of an experiment: the paper's, and those that become arguments of `Trainer`."""

    precision: str = later("float32")
    accumulate: int = later(1)
    clip_norm: float | None = later(None)
    sampler: str = later("shuffle")  #: or "pk" or "graph"; see `beyond.graph_sampling`
    images_per_identity: int = later(4)  #: in a batch; not for "shuffle"
    triplet_margin: float | None = later(None)  #: pairwise loss only, logits
    teacher: str | None = later(None)  #: backbone of the run that teaches; see `Run.teacher`
    distill_temperature: float = later(4.0)
    distill_weight: float = later(1.0)
    colour_jitter: float = later(0.0)  #: of brightness, contrast and saturation in training
    random_start: str | None = later(None)  #: starts as PyTorch does: "neck", "fc" or "logit_bn"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step(self, self.precision, self.accumulate, self.clip_norm)
        check_sampling(self.sampler, self.batch_size, self.images_per_identity)
        if self.triplet_margin is not None:
            check_above_zero(triplet_margin=self.triplet_margin)
        if self.random_start is not None:
            check_choice("random_start", self.random_start, "neck", "fc", "logit_bn")
            if not compares_maps(self.loss) or self.neck_channels is None:
                raise ValueError("random_start needs a loss that compares maps, and a neck")
        if not 0 <= self.colour_jitter < 1:
            raise ValueError(f"colour_jitter must be from 0 to below 1, got {self.colour_jitter}")
        if self.teacher is not None:
            if self.teacher not in BACKBONES:
                raise ValueError(
                    f"teacher must be one of {', '.join(BACKBONES)}, got {self.teacher!r}"
                )
            if not compares_maps(self.loss):
                raise ValueError(f"a model with the loss {self.loss} cannot be taught logits")
            for name in ("distill_temperature", "distill_weight"):
                if not 0 < getattr(self, name) < math.inf:
                    raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def trainer(
        self, table: pd.DataFrame, *, teacher: ReidModel | None = None, **more: Any
    ) -> Trainer:
        """A `Trainer` with all that these settings name; `more` are `device` and `run_folder`."""
        if (self.teacher is None) != (teacher is None):
            raise ValueError("a teacher's model and the setting `teacher` go together")
        criterion = augmentation = distillation = None
        if self.colour_jitter:
            from torchvision.transforms import v2

            usual = make_augmentation(self.occlusion, True, self.occlusion_share)
            augmentation = nn.Sequential(v2.ColorJitter(*[self.colour_jitter] * 3), usual)
        if self.triplet_margin is not None:
            size = map_size(self.height, self.width, self.final_layer)
            head: dict[str, Any] = {"kernel_size": self.kernel_size, "tied": self.tied}
            criterion = PairwiseLoss(*size, **head, triplet_margin=self.triplet_margin)
        if teacher is not None:
            distillation = Distillation(teacher, self.distill_temperature, self.distill_weight)
        trainer = Trainer(
            self,
            table,
            criterion=criterion,
            augmentation=augmentation,
            sampler=sampler_by_name(self.sampler, self.images_per_identity),
            teacher=distillation,
            parallel=data_parallel,
            **{name: getattr(self, name) for name in ("precision", "accumulate", "clip_norm")},
            **more,
        )
        if self.random_start is not None and not trainer.epoch:
            model: Any = trainer.model
            neck, matcher = model.backbone.neck[0], model.criterion.matcher
            part = neck if self.random_start == "neck" else getattr(matcher, self.random_start)
            part.reset_parameters()
        return trainer


@dataclass(frozen=True)
class Profile:
    """The size of an experiment: the training settings, and those of single losses."""

    name: str
    base: RunConfig  #: settings that all losses share
    datasets: dict[str, str]  #: what stands for each of "market", "duke", "cuhk03" and "msmt17"
    backbones: dict[str, dict]  #: settings of the "small" and the "large" backbone
    changes: dict[str, dict] = field(default_factory=dict)  #: replace the shared settings, by loss
    #: Pooled losses that are tried on QAConv's layer too, and their settings there.
    on_layer3: dict[str, dict] = field(default_factory=lambda: {"softmax": _LAYER3, "arc": _LAYER3})
    triplets: dict = field(default_factory=dict)  #: settings of hard triplets, unlike all pairs
    searched: dict[str, dict] = field(default_factory=dict)  #: chosen by `search`, by loss
    identities: int | None = None  #: training identities used; None for all

    def config(self, loss: str, seed: int = 0, **more: Any) -> RunConfig:
        """Settings of one run."""
        changes = self.changes.get(loss, {}) | self.searched.get(loss, {}) | more
        return dataclasses.replace(self.base, loss=loss, seed=seed, **changes)


# The pooled baselines of the paper use layer4, without the neck.
_POOLED = {"final_layer": "layer4", "neck_channels": None}
_BASELINES = {loss: _POOLED for loss in LOSSES if not compares_maps(loss)}
# Batches of the graph sampler; at the paper's size the settings of version 2.1 of the code, apart
# from its mixed precision and adaptive schedule. It clips network and matcher separately.
_GRAPH = {"sampler": "graph", "images_per_identity": 4}
_GRAPH_PAPER = {"sampler": "graph", "images_per_identity": 2, "batch_size": 64}
_GRAPH_PAPER |= {"triplet_margin": 16.0, "tied": True, "frozen_norm": True, "clip_norm": 8.0}
_GRAPH_PAPER |= {"learning_rate": 0.005, "backbone_learning_rate": 0.0005}
_LITE = RunConfig(backbone="efficientnet_lite0", neck_channels=64, frozen_stages=3)
#: What datasets are called in the experiments, at any size.
DOMAINS = ("market", "duke", "cuhk03", "msmt17")
_MINIATURES = {name: f"mini-{name}" for name in DOMAINS}
_LITES = {size: {"backbone": f"efficientnet_lite{n}"} for size, n in (("small", 0), ("large", 2))}


def rates(new: float, trunk: float, **more: Any) -> dict:
    """Settings: learning rates of new layers and of the backbone, and more."""
    return {"learning_rate": new, "backbone_learning_rate": trunk} | more


PROFILES = {
    "smoke": Profile(
        "smoke",
        dataclasses.replace(
            _LITE, neck_channels=16, height=64, width=32, batch_size=16, epochs=1, decay_epochs=1
        ),
        _MINIATURES,
        _LITES,
        _BASELINES | {"pairwise": _GRAPH},
        identities=20,
    ),
    "laptop": Profile(
        "laptop",
        dataclasses.replace(_LITE, height=128, width=64, epochs=5, decay_epochs=4),
        _MINIATURES,
        _LITES,
        _BASELINES | {"pairwise": _GRAPH},
        on_layer3={"softmax": rates(0.2, 0.2) | _LAYER3, "arc": rates(0.05, 0.05) | _LAYER3},
        triplets=rates(0.0005, 0.05, images_per_identity=2),
        searched={
            "qaconv": rates(0.1, 0.1),
            "softmax": rates(0.1, 0.1),
            "arc": rates(0.02, 0.02, margin=0.5),
            "center": rates(0.1, 0.1, center_weight=0.05),
            "class-memory": rates(0.1, 0.1),
            "pairwise": rates(0.01, 0.01, triplet_margin=None),
        },
    ),
    # The general model: a large training set, so batches of like people instead of a class memory.
    "general": Profile(
        "general",
        dataclasses.replace(
            _LITE, height=128, width=64, epochs=3, decay_epochs=2, colour_jitter=0.3
        ),
        _MINIATURES,
        {
            "small": {},
            "large": {"backbone": "efficientnet_lite2", "height": 192, "width": 96},
        },
        _BASELINES | {"pairwise": _GRAPH},
        searched={"pairwise": rates(0.01, 0.01)},
    ),
    "paper": Profile(
        "paper",
        RunConfig(backbone="resnet152", workers=4),  # "unless otherwise stated"
        dict(zip(DOMAINS, ("market1501", "dukemtmc", "cuhk03-np-detected", "msmt17"), strict=True)),
        {"small": {"backbone": "resnet50"}, "large": {"backbone": "resnet152"}},
        _BASELINES | {"pairwise": _GRAPH_PAPER},
    ),
}
# Settings that say how a run is computed, not what it compares; and the forms of their values.
_MEANS = {"accumulate": "[0-9]+", "precision": ".*", "workers": "[0-9]+"}


def get_profile(name: str) -> Profile:
    """A profile by name, perhaps with means of computing: "paper" or "paper+precision=bfloat16".

    They change results a little, so its records are never mixed with those of the plain profile.
    """
    known, *means = name.split("+")
    if known not in PROFILES:
        raise ValueError(f"unknown profile {known!r}; known are {', '.join(PROFILES)}")
    if not means:
        return PROFILES[known]
    profile, given = PROFILES[known], dict[str, Any]()
    for part in means:
        setting, _, value = part.partition("=")
        if not re.fullmatch(_MEANS.get(setting, "(?!)"), value):
            raise ValueError(
                f"profile {name!r}: {part!r} is not a means of computing; there are "
                f"{', '.join(_MEANS)}, such as {known}+precision=bfloat16"
            )
        parsed = int(value) if value.isdecimal() else value
        if given.setdefault(setting, parsed) != parsed:
            raise ValueError(f"profile {name!r} has two values of {setting}")
    new = {k: v for k, v in sorted(given.items()) if v != getattr(profile.base, k)}
    name = "+".join([known, *(f"{setting}={value}" for setting, value in new.items())])
    return dataclasses.replace(profile, name=name, base=dataclasses.replace(profile.base, **new))


def profile_with(name: str, **means: str | int | None) -> str:
    """Name of a profile with means of computing; those that it has anyway, or None, add nothing."""
    given = (f"{setting}={value}" for setting, value in means.items() if value is not None)
    return get_profile("+".join([name, *given])).name
