"""What the ablations and side experiments compare (chapters 16 and 17)."""

from __future__ import annotations

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
