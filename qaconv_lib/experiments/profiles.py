"""Profiles: how large an experiment is, and what it may vary beyond the paper (chapter 7)."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from qaconv_lib._checks import check_above_zero
from qaconv_lib.backbones import BACKBONES, map_size
from qaconv_lib.beyond.distillation import Distillation
from qaconv_lib.beyond.graph_sampling import check_sampling, sampler_by_name
from qaconv_lib.beyond.pairs import PairwiseLoss
from qaconv_lib.config import TrainingConfig, later
from qaconv_lib.losses import LOSSES, compares_maps
from qaconv_lib.models import ReidModel
from qaconv_lib.scale.distributed import data_parallel
from qaconv_lib.training import Trainer, check_step

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

    def __post_init__(self) -> None:
        super().__post_init__()
        check_step(self, self.precision, self.accumulate, self.clip_norm)
        check_sampling(self.sampler, self.batch_size, self.images_per_identity)
        if self.triplet_margin is not None:
            check_above_zero(triplet_margin=self.triplet_margin)
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
        """A `Trainer` with everything that these settings name.

        Args:
            table: training images.
            teacher: the trained model of the backbone that `teacher` names.
            **more: `device` and `run_folder`.
        """
        if (self.teacher is None) != (teacher is None):
            raise ValueError("a teacher's model and the setting `teacher` go together")
        criterion = distillation = None
        if self.triplet_margin is not None:
            size = map_size(self.height, self.width, self.final_layer)
            criterion = PairwiseLoss(
                *size,
                kernel_size=self.kernel_size,
                tied=self.tied,
                triplet_margin=self.triplet_margin,
            )
        if teacher is not None:
            distillation = Distillation(teacher, self.distill_temperature, self.distill_weight)
        return Trainer(
            self,
            table,
            criterion=criterion,
            sampler=sampler_by_name(self.sampler, self.images_per_identity),
            teacher=distillation,
            precision=self.precision,
            accumulate=self.accumulate,
            clip_norm=self.clip_norm,
            parallel=data_parallel,
            **more,
        )


@dataclass(frozen=True)
class Profile:
    """How large an experiment is: the training settings, and what a loss has of its own.

    Attributes:
        name: smoke, laptop or paper.
        base: settings that all losses share.
        datasets: the dataset that stands for each of "market", "duke", "cuhk03" and "msmt17".
        backbones: settings of the "small" and the "large" backbone.
        changes: settings that replace the shared ones, by loss.
        on_layer3: pooled losses that are tried on QAConv's layer too, and their settings there.
        triplets: settings of hard triplets, where they are not those of all pairs.
        searched: settings chosen on validation splits, by loss; see `search`.
        tried: the settings that `search` tries, by loss. A loss without an entry in `searched` has
            not been searched yet.
        identities: training identities used; None for all.
    """

    name: str
    base: RunConfig
    datasets: dict[str, str]
    backbones: dict[str, dict]
    changes: dict[str, dict] = field(default_factory=dict)
    on_layer3: dict[str, dict] = field(default_factory=lambda: {"softmax": _LAYER3, "arc": _LAYER3})
    triplets: dict = field(default_factory=dict)
    searched: dict[str, dict] = field(default_factory=dict)
    tried: dict[str, list[dict]] = field(default_factory=dict)
    identities: int | None = None

    def config(self, loss: str, seed: int = 0, **more: Any) -> RunConfig:
        """Settings of one run."""
        changes = self.changes.get(loss, {}) | self.searched.get(loss, {}) | more
        return dataclasses.replace(self.base, loss=loss, seed=seed, **changes)


# The pooled baselines of the paper use layer4, without the neck.
_POOLED = {"final_layer": "layer4", "neck_channels": None}
_BASELINES = {loss: _POOLED for loss in LOSSES if not compares_maps(loss)}
# Batches of the graph sampler; at the paper's size the settings of version 2.1 of the code.
_GRAPH = {"sampler": "graph", "images_per_identity": 4}
_GRAPH_PAPER = {
    "sampler": "graph",
    "images_per_identity": 2,
    "batch_size": 64,
    "triplet_margin": 16.0,
    "tied": True,
    "frozen_norm": True,
    "learning_rate": 0.005,
    "backbone_learning_rate": 0.0005,
}
_LAPTOP = RunConfig(
    backbone="efficientnet_lite0",
    neck_channels=64,
    frozen_stages=3,
    height=128,
    width=64,
    epochs=5,
    decay_epochs=4,
)
_MINIATURES = {name: f"mini-{name}" for name in ("market", "duke", "cuhk03", "msmt17")}
_LITES = {
    "small": {"backbone": "efficientnet_lite0"},
    "large": {"backbone": "efficientnet_lite2"},
}


def _rates(new: float, trunk: float, **more: Any) -> dict:
    return {"learning_rate": new, "backbone_learning_rate": trunk} | more


# The paper's rates first, then larger ones: the schedule is a twelfth of the paper's.
_RATES = [(0.01, 0.001), (0.02, 0.02), (0.05, 0.01), (0.05, 0.05), (0.1, 0.1), (0.2, 0.2)]
_TRIED = {
    "qaconv": [_rates(*pair) for pair in _RATES],
    # Two pooled baselines are tried on the layer that QAConv takes, too, for `pooled-layer`.
    "softmax": [_rates(*pair) for pair in _RATES]
    + [_rates(*pair, final_layer="layer3") for pair in [*_RATES[1:], (0.4, 0.4)]],
    # The others: what they have of their own, first at the rates that softmax and QAConv do best
    # with. Arc loss has a steeper gradient, and was tried at lower ones too. A row whose best
    # candidate lay at its end was made longer.
    "arc": [_rates(0.1, 0.1, margin=margin) for margin in (0.2, 0.5)]
    + [_rates(0.05, 0.05, margin=0.2)]
    + [_rates(0.02, 0.02, margin=margin) for margin in (0.2, 0.5)]
    + [_rates(0.01, 0.01, margin=0.5)]
    + [_rates(rate, rate, margin=0.5, final_layer="layer3") for rate in (0.01, 0.02, 0.05, 0.1)],
    "center": [_rates(0.1, 0.1, center_weight=weight) for weight in (0.0005, 0.005, 0.05, 0.5)],
    "class-memory": [_rates(rate, rate) for rate in (0.02, 0.05, 0.1, 0.2)],
    # Cross-entropy and triplets at the rates around QAConv's best. With triplets the scale of the
    # matcher falls to zero at all of these; they want a low rate of the new layers (appendix C).
    "pairwise": [
        _rates(rate, rate, triplet_margin=None) for rate in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    ]
    + [
        _rates(rate, rate, triplet_margin=16.0)
        for rate in (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
    ]
    + [_rates(0.0005, trunk, triplet_margin=16.0) for trunk in (0.05, 0.1, 0.2)]
    + [_rates(0.0005, 0.05, triplet_margin=16.0, images_per_identity=2)]
    + [_rates(0.1, 0.1, triplet_margin=4.0), _rates(0.1, 0.1, images_per_identity=2)],
}
_DEFAULT_ONLY: dict[str, list[dict]] = {loss: [{}] for loss in LOSSES}

PROFILES = {
    "smoke": Profile(
        "smoke",
        dataclasses.replace(
            _LAPTOP, height=64, width=32, neck_channels=16, batch_size=16, epochs=1, decay_epochs=1
        ),
        _MINIATURES,
        _LITES,
        _BASELINES | {"pairwise": _GRAPH},
        tried=_DEFAULT_ONLY,
        identities=20,
    ),
    "laptop": Profile(
        "laptop",
        _LAPTOP,
        _MINIATURES,
        _LITES,
        _BASELINES | {"pairwise": _GRAPH},
        on_layer3={
            "softmax": _rates(0.2, 0.2) | _LAYER3,
            "arc": _rates(0.05, 0.05) | _LAYER3,
        },
        triplets=_rates(0.0005, 0.05, images_per_identity=2),
        searched={
            "qaconv": _rates(0.1, 0.1),
            "softmax": _rates(0.1, 0.1),
            "arc": _rates(0.02, 0.02, margin=0.5),
            "center": _rates(0.1, 0.1, center_weight=0.05),
            "class-memory": _rates(0.1, 0.1),
            "pairwise": _rates(0.01, 0.01, triplet_margin=None),
        },
        tried=_TRIED,
    ),
    "paper": Profile(
        "paper",
        RunConfig(backbone="resnet152", workers=4),  # "unless otherwise stated"
        {
            "market": "market1501",
            "duke": "dukemtmc",
            "cuhk03": "cuhk03-np-detected",
            "msmt17": "msmt17",
        },
        {"small": {"backbone": "resnet50"}, "large": {"backbone": "resnet152"}},
        _BASELINES | {"pairwise": _GRAPH_PAPER},
        tried=_DEFAULT_ONLY,
    ),
}


#: Settings that say how a run is computed, not what it compares; `profile_with` takes them.
MEANS: dict[str, type] = {"accumulate": int, "precision": str, "workers": int}


def get_profile(name: str) -> Profile:
    """A profile by name, perhaps with means of computing: "paper" or "paper+precision=bfloat16"."""
    known, *means = name.split("+")
    if known not in PROFILES:
        raise ValueError(f"unknown profile {known!r}; known are {', '.join(PROFILES)}")
    if not means:
        return PROFILES[known]
    given = {}
    for part in means:
        setting, _, value = part.partition("=")
        wrong = setting not in MEANS or (MEANS[setting] is int and not value.isdecimal())
        if wrong or setting in given:
            raise ValueError(
                f"profile {name!r}: {part!r} is no means of computing; there are "
                f"{', '.join(MEANS)}, each once, such as {known}+precision=bfloat16"
            )
        given[setting] = MEANS[setting](value)
    base = dataclasses.replace(PROFILES[known].base, **given)
    return dataclasses.replace(PROFILES[known], name=profile_with(known, **given), base=base)


def profile_with(name: str, **means: str | int | None) -> str:
    """Name of a profile with means of computing; those that it has anyway, or None, add nothing.

    Its records stand beside those of the plain profile and are never mixed with them: lower
    precision rounds otherwise, micro-batches have BN statistics of their own, and workers draw
    their own augmentation.
    """
    base = get_profile(name).base
    new = {k: v for k, v in means.items() if v is not None and getattr(base, k) != v}
    return "+".join([name, *(f"{setting}={value}" for setting, value in sorted(new.items()))])
