"""What the experiments compare: variants (chapter 13 and appendix C), and trials made of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from qaconv_lib.experiments.profiles import Profile
from qaconv_lib.experiments.runs import Run, file_label
from qaconv_lib.losses import TABLE1_LOSSES

DIRECTIONS = (("market", "duke"), ("duke", "market"))
SOURCES = ("market", "duke", "msmt17")  # of Tables 3 and 4
_TEACHER = "efficientnet_lite2"  # one of the networks of `table3`
# The shorter of the two is what a warm start takes in all.
_LONGER = {f"{n} epochs": {"epochs": n, "decay_epochs": m} for n, m in ((7, 6), (10, 8))}
_VARIANTS: dict[str, dict[str, dict]] = {
    "occlusion": {"white square": {}, "random erasing": {"occlusion": "erasing"},
                  "cutout": {"occlusion": "cutout"}, "nothing hidden": {"occlusion": "none"}},
    "occlusion-size": {"square up to 0.8 of the width": {},
                       "square up to 0.4 of the width": {"occlusion_share": 0.4},
                       "square up to the whole width": {"occlusion_share": 1.0}},
    "memory": {"newest map": {}, "moving average": {"memory_update": "ema"}},
    "focal": {"focal weight": {}, "no focal weight": {"gamma": 0.0}},
    "head": {"a weight for each location": {}, "tied weights": {"tied": True}},
    "kernel": {"kernels of 1 × 1": {}, "kernels of 3 × 3": {"kernel_size": 3}},
    "start": {"ImageNet weights": {}, "warm start": {"warm_start": 2},
              "random weights": {"pretrained": False, "frozen_stages": 0}},
    "epochs": {"usual schedule": {}} | _LONGER,
    "epochs-arc": {"Arc loss, usual schedule": {}, "Arc loss, 10 epochs": _LONGER["10 epochs"]},
    "source-size": {"all identities": {}}
                   | {f"{number} identities": {"identities": number} for number in (100, 50, 25)},
    "image-size": {"usual size": {}, "96 × 48 pixels": {"height": 96, "width": 48},
                   "192 × 96 pixels": {"height": 192, "width": 96}},
    "layer": {"map of layer3": {}, "map of layer4": {"final_layer": "layer4"},
              "map of layer2": {"final_layer": "layer2"}},
    "distill": {"student alone": {}, "the teacher": {"backbone": _TEACHER},
                "student, taught": {"teacher": _TEACHER},
                "8 channels, alone": {"neck_channels": 8},
                "8 channels, taught": {"neck_channels": 8, "teacher": _TEACHER}},
}  # fmt: skip
#: By name, the loss and the settings of each variant; the first is the model used elsewhere.
ABLATIONS: dict[str, tuple[str, dict[str, dict]]] = {
    name: ("arc" if name == "epochs-arc" else "qaconv", variants)
    for name, variants in _VARIANTS.items()
}
# Ablations whose variants are numbers or networks chosen beside those of the small profiles.
_FOR_SMALL_PROFILES = ("epochs", "epochs-arc", "image-size", "distill")


def check_variants(name: str, profile: Profile) -> None:
    """Raise ValueError if an experiment's variants mean nothing at a profile."""
    if name in _FOR_SMALL_PROFILES and profile.base.backbone.startswith("resnet"):
        raise ValueError(
            f"{name} cannot be run at the {profile.name} profile: its variants "
            f"({', '.join(list(ABLATIONS[name][1])[1:])}) are made for the laptop profile"
        )


def graph_sampling_settings(profile: Profile) -> dict[str, tuple[str, dict]]:
    """What `graph-sampling` compares at a profile: by name, the loss and its settings.

    Each run of a profile sees the same number of images. (Of random images, most would be in no
    triplet.)
    """
    compared: dict[str, tuple[str, dict]] = {"class memory": ("qaconv", {})}
    drawn = {"random images": "shuffle", "random people": "pk", "graph": "graph"}
    for words, sampler in drawn.items():
        compared[f"pairs, {words}"] = "pairwise", {"sampler": sampler, "triplet_margin": None}
    for words in ("random people", "graph"):
        settings = {"sampler": drawn[words], "triplet_margin": 16.0} | profile.triplets
        compared[f"triplets, {words}"] = "pairwise", settings
    return compared


def source_name(profile: Profile, role: str) -> str:
    """The dataset trained on for "market", "duke" or "msmt17"; of MSMT17 all images are used."""
    return profile.datasets[role] + ("-all" if role == "msmt17" else "")


@dataclass(frozen=True)
class Trial:
    """A training run and a dataset its model is tested on."""

    run: Run
    target: str  #: dataset whose query and gallery images are used
    post: bool = False  #: test re-ranking and TLift too

    @property
    def name(self) -> str:
        """Name of the trial's record."""
        return f"{self.run.name}-on-{file_label(self.target, 'test')}"


#: A trial of any seed: loss, source and target by role, settings, and `post`.
Row = tuple[str, str, str, dict, bool]


def trials_of(rows: Iterable[Row], profile: Profile, seed: int) -> list[Trial]:
    """The trials of one seed."""
    return [
        Trial(
            Run(loss, source_name(profile, source), profile.name, seed, settings),
            profile.datasets[target],
            post,
        )
        for loss, source, target, settings, post in rows
    ]


def loss_rows(profile: Profile, losses: Sequence[str] = TABLE1_LOSSES) -> list[Row]:
    """Every loss in both directions, and within the domain."""
    return [
        (loss, source, target, {}, target != source or loss == "qaconv")
        for loss in losses
        for source, other in DIRECTIONS
        for target in (other, source)
    ]


def backbone_rows(*targets: str) -> Callable[[Profile], list[Row]]:
    """QAConv with both backbones, from three sources to the targets."""
    return lambda profile: [
        ("qaconv", source, target, settings, True)
        for settings in profile.backbones.values()
        for source in SOURCES
        for target in targets
        if target != source
    ]


def layer_rows(profile: Profile) -> list[Row]:
    """Pooled losses on layer4 and on layer3, in both directions."""
    return [
        (loss, *direction, settings, not settings)
        for loss, layer3 in profile.on_layer3.items()
        for direction in DIRECTIONS
        for settings in ({}, layer3)
    ]


def ablation_rows(name: str) -> Callable[[Profile], list[Row]]:
    """The variants of an ablation."""
    loss, variants = ABLATIONS[name]
    return lambda profile: [(loss, *DIRECTIONS[0], s, False) for s in variants.values()]


def graph_sampling_rows(profile: Profile) -> list[Row]:
    """`graph_sampling_settings`, in both directions."""
    compared = graph_sampling_settings(profile).values()
    return [(loss, *direction, s, False) for loss, s in compared for direction in DIRECTIONS]
