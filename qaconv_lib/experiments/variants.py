"""What the experiments compare: variants (chapters 16 and 17), and trials made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from qaconv_lib.experiments.profiles import Profile
from qaconv_lib.experiments.runs import Run
from qaconv_lib.losses import TABLE1_LOSSES

DIRECTIONS = (("market", "duke"), ("duke", "market"))

# The shorter of the two is what a warm start takes in all.
_LONGER = {
    "7 epochs": {"epochs": 7, "decay_epochs": 6},
    "10 epochs": {"epochs": 10, "decay_epochs": 8},
}
_TEACHER = "efficientnet_lite2"
#: Ablations: by name, the loss and the variants compared, each with its settings. The first is the
#: model used elsewhere.
ABLATIONS: dict[str, tuple[str, dict[str, dict]]] = {
    "occlusion": (
        "qaconv",
        {
            "white square": {},
            "random erasing": {"occlusion": "erasing"},
            "cutout": {"occlusion": "cutout"},
            "nothing hidden": {"occlusion": "none"},
        },
    ),
    "occlusion-size": (
        "qaconv",
        {
            "square up to 0.8 of the width": {},
            "square up to 0.4 of the width": {"occlusion_share": 0.4},
            "square up to the whole width": {"occlusion_share": 1.0},
        },
    ),
    "memory": ("qaconv", {"newest map": {}, "moving average": {"memory_update": "ema"}}),
    "focal": ("qaconv", {"focal weight": {}, "no focal weight": {"gamma": 0.0}}),
    "head": ("qaconv", {"a weight for each location": {}, "tied weights": {"tied": True}}),
    "kernel": ("qaconv", {"kernels of 1 × 1": {}, "kernels of 3 × 3": {"kernel_size": 3}}),
    "start": (
        "qaconv",
        {
            "ImageNet weights": {},
            "warm start": {"warm_start": 2},
            "random weights": {"pretrained": False, "frozen_stages": 0},
        },
    ),
    "epochs": ("qaconv", {"usual schedule": {}} | _LONGER),
    "epochs-arc": (
        "arc",
        {"Arc loss, usual schedule": {}, "Arc loss, 10 epochs": _LONGER["10 epochs"]},
    ),
    "source-size": (
        "qaconv",
        {"all identities": {}} | {f"{n} identities": {"identities": n} for n in (100, 50, 25)},
    ),
    "image-size": (
        "qaconv",
        {
            "usual size": {},
            "96 × 48 pixels": {"height": 96, "width": 48},
            "192 × 96 pixels": {"height": 192, "width": 96},
        },
    ),
    "layer": (
        "qaconv",
        {
            "map of layer3": {},
            "map of layer4": {"final_layer": "layer4"},
            "map of layer2": {"final_layer": "layer2"},
        },
    ),
    "distill": (  # its teacher is one of the networks of `table3`
        "qaconv",
        {
            "student alone": {},
            "the teacher": {"backbone": _TEACHER},
            "student, taught": {"teacher": _TEACHER},
            "8 channels, alone": {"neck_channels": 8},
            "8 channels, taught": {"neck_channels": 8, "teacher": _TEACHER},
        },
    ),
}


def _pairs(sampler: str, margin: float | None = None) -> tuple[str, dict]:
    return "pairwise", {"sampler": sampler, "triplet_margin": margin}


#: What `graph-sampling` compares: by name, the loss and its settings. Each run of a profile sees
#: the same number of images. (Of random images, most would be in no triplet.)
GRAPH_SAMPLING: dict[str, tuple[str, dict]] = {
    "class memory": ("qaconv", {}),
    "pairs, random images": _pairs("shuffle"),
    "pairs, random people": _pairs("pk"),
    "pairs, graph": _pairs("graph"),
    "triplets, random people": _pairs("pk", 16.0),
    "triplets, graph": _pairs("graph", 16.0),
}


def graph_sampling_settings(profile: Profile) -> dict[str, tuple[str, dict]]:
    """`GRAPH_SAMPLING` at a profile: triplets have settings of their own."""
    return {
        name: (loss, settings | (profile.triplets if settings.get("triplet_margin") else {}))
        for name, (loss, settings) in GRAPH_SAMPLING.items()
    }


#: Ablations whose variants are numbers or networks chosen beside those of the small profiles.
FOR_SMALL_PROFILES = ("epochs", "epochs-arc", "image-size", "distill")


def check_variants(name: str, profile: Profile) -> None:
    """Raise ValueError if an experiment's variants mean nothing at a profile."""
    if name in FOR_SMALL_PROFILES and profile.base.backbone.startswith("resnet"):
        raise ValueError(
            f"{name} cannot be run at the {profile.name} profile: its variants "
            f"({', '.join(list(ABLATIONS[name][1])[1:])}) are made for the laptop profile; run it "
            "with --profile laptop, or train single models with `python -m qaconv_lib train`"
        )


@dataclass(frozen=True)
class Trial:
    """A training run and a dataset its model is tested on.

    Attributes:
        run: the training run.
        target: dataset whose query and gallery images are used.
        post: test re-ranking and TLift too.
    """

    run: Run
    target: str
    post: bool = False

    @property
    def name(self) -> str:
        """Name of the trial's record."""
        return f"{self.run.name}-on-{self.target}"


def loss_trials(
    profile: Profile, seed: int, losses: Sequence[str] = TABLE1_LOSSES
) -> Iterator[Trial]:
    """Every loss in both directions, and within the domain."""
    for loss in losses:
        for source, target in DIRECTIONS:
            run = Run(loss, profile.datasets[source], profile.name, seed)
            yield Trial(run, profile.datasets[target], post=True)
            yield Trial(run, profile.datasets[source], post=loss == "qaconv")


def backbone_trials(profile: Profile, seed: int, targets: Sequence[str]) -> Iterator[Trial]:
    """QAConv with both backbones, from three sources to the targets."""
    for settings in profile.backbones.values():
        for source in ("market", "duke", "msmt17"):
            images = profile.datasets[source] + ("-all" if source == "msmt17" else "")
            run = Run("qaconv", images, profile.name, seed, settings)
            for target in targets:
                if target != source:
                    yield Trial(run, profile.datasets[target], post=True)


def layer_trials(profile: Profile, seed: int) -> Iterator[Trial]:
    """Pooled losses on layer4 and on layer3, in both directions."""
    for loss, layer3 in profile.on_layer3.items():
        for source, target in DIRECTIONS:
            for settings in ({}, layer3):
                run = Run(loss, profile.datasets[source], profile.name, seed, settings)
                yield Trial(run, profile.datasets[target], post=not settings)


def ablation_trials(name: str) -> Callable[[Profile, int], Iterator[Trial]]:
    """The variants of an ablation, as a function of profile and seed."""
    loss, variants = ABLATIONS[name]

    def trials(profile: Profile, seed: int) -> Iterator[Trial]:
        source, target = (profile.datasets[role] for role in DIRECTIONS[0])
        for settings in variants.values():
            yield Trial(Run(loss, source, profile.name, seed, settings), target)

    return trials


def graph_sampling_trials(profile: Profile, seed: int) -> Iterator[Trial]:
    """`graph_sampling_settings`, in both directions."""
    for loss, settings in graph_sampling_settings(profile).values():
        for source, target in DIRECTIONS:
            run = Run(loss, profile.datasets[source], profile.name, seed, settings)
            yield Trial(run, profile.datasets[target])
