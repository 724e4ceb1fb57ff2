"""Profiles: how large an experiment is (chapter 7)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field

from qaconv_lib.models import TrainingConfig


@dataclass(frozen=True)
class Profile:
    """How large an experiment is: the training settings, and what a loss has of its own.

    Attributes:
        name: smoke, laptop or paper.
        base: settings that all losses share.
        changes: settings that replace the shared ones, by loss.
        searched: settings chosen on a validation split, by loss and source; see `search`.
        tried: the settings that `search` tries, by loss.
        identities: training identities used; None for all.
    """

    name: str
    base: TrainingConfig
    changes: dict[str, dict] = field(default_factory=dict)
    searched: dict[tuple[str, str], dict] = field(default_factory=dict)
    tried: dict[str, list[dict]] = field(default_factory=dict)
    identities: int | None = None

    def config(self, loss: str, source: str, seed: int = 0, **more) -> TrainingConfig:
        """Settings of one run."""
        changes = self.changes.get(loss, {}) | self.searched.get((loss, source), {}) | more
        return dataclasses.replace(self.base, loss=loss, seed=seed, **changes)


# The pooled baselines of the paper use layer4, without the neck.
_POOLED = {"final_layer": "layer4", "neck_channels": None}
_LAPTOP = TrainingConfig(
    backbone="efficientnet_lite0",
    neck_channels=64,
    frozen_stages=3,
    height=128,
    width=64,
    epochs=10,
    decay_epochs=7,
)


def _rates(new: float, trunk: float, **more) -> dict:
    """A candidate of the search: half the epochs, these learning rates."""
    rates = {"learning_rate": new, "backbone_learning_rate": trunk}
    return rates | {"epochs": 5, "decay_epochs": 4} | more


# The paper's rates first. The pooled baseline may also take the layer that QAConv takes.
_TRIED = [_rates(0.01, 0.001), _rates(0.02, 0.02), _rates(0.05, 0.01)]
_TRIED_POOLED = [*_TRIED, _rates(0.05, 0.01, final_layer="layer3")]
# What the search found best, for either loss and on either source.
_CHOSEN = {"learning_rate": 0.02, "backbone_learning_rate": 0.02}
PROFILES = {
    "smoke": Profile(
        "smoke",
        dataclasses.replace(
            _LAPTOP, height=64, width=32, neck_channels=16, batch_size=16, epochs=1, decay_epochs=1
        ),
        {"softmax": _POOLED},
        tried={"qaconv": [{}], "softmax": [{}]},
        identities=20,
    ),
    "laptop": Profile(
        "laptop",
        _LAPTOP,
        {"softmax": _POOLED},
        searched={
            ("qaconv", "mini-market"): _CHOSEN,
            ("qaconv", "mini-duke"): _CHOSEN,
            ("softmax", "mini-market"): _CHOSEN,
            ("softmax", "mini-duke"): _CHOSEN,
        },
        tried={"qaconv": _TRIED, "softmax": _TRIED_POOLED},
    ),
    "paper": Profile(
        "paper",
        TrainingConfig(workers=4),
        {"softmax": _POOLED},
        tried={"qaconv": [{}], "softmax": [{}]},
    ),
}


def get_profile(name: str) -> Profile:
    """A profile by name; ValueError lists the known ones."""
    if name not in PROFILES:
        raise ValueError(f"unknown profile {name!r}; known are {', '.join(PROFILES)}")
    return PROFILES[name]
