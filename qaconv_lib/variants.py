"""What the ablations and side experiments compare (chapters 12 and 16)."""

from __future__ import annotations

DIRECTIONS = (("market", "duke"), ("duke", "market"))

# The shorter of the two is what `warm_start` takes in all.
_LONGER = [{"epochs": 7, "decay_epochs": 6}, {"epochs": 10, "decay_epochs": 8}]
_TEACHER = "efficientnet_lite2"
#: Ablations: by name, the loss and the settings compared. The first is the one used elsewhere.
ABLATIONS: dict[str, tuple[str, list[dict]]] = {
    "occlusion": (
        "qaconv",
        [{}, {"occlusion": "erasing"}, {"occlusion": "cutout"}, {"occlusion": "none"}],
    ),
    "occlusion-size": ("qaconv", [{}, {"occlusion_share": 0.4}, {"occlusion_share": 1.0}]),
    "memory": ("qaconv", [{}, {"memory_update": "ema"}]),
    "focal": ("qaconv", [{}, {"gamma": 0.0}]),
    "head": ("qaconv", [{}, {"tied": True}]),
    "kernel": ("qaconv", [{}, {"kernel_size": 3}]),
    "start": ("qaconv", [{}, {"warm_start": 2}, {"pretrained": False, "frozen_stages": 0}]),
    "epochs": ("qaconv", [{}, *_LONGER]),
    "epochs-arc": ("arc", [{}, _LONGER[1]]),
    "source-size": ("qaconv", [{}, {"identities": 100}, {"identities": 50}, {"identities": 25}]),
    "image-size": ("qaconv", [{}, {"height": 96, "width": 48}, {"height": 192, "width": 96}]),
    "layer": ("qaconv", [{}, {"final_layer": "layer4"}, {"final_layer": "layer2"}]),
    # The teacher, which `table3` has trained; its student; a smaller one without and with it.
    "distill": (
        "qaconv",
        [{}, {"backbone": _TEACHER}, {"teacher": _TEACHER}]
        + [{"neck_channels": 8}, {"neck_channels": 8, "teacher": _TEACHER}],
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
