"""Models trained with the authors' released code (ShengcaiLiao/QAConv, v1.0 to v2.1)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from qaconv_lib.backbones import RESNETS, STRIDES, map_size
from qaconv_lib.beyond.weights import read_saved, state_dict_of
from qaconv_lib.config import TrainingConfig
from qaconv_lib.models import ReidModel, load_weights

# Networks by the blocks of their first three layers, and whether a block has three convolutions.
_NETWORKS = {
    ((2, 2, 2), False): "resnet18",
    ((3, 4, 6), False): "resnet34",
    ((3, 4, 6), True): "resnet50",
    ((3, 4, 23), True): "resnet101",
    ((3, 8, 36), True): "resnet152",
}


def load_released(
    path: str | Path,
    *,
    height: int = 384,
    width: int = 128,
    final_layer: str | None = None,
    device: str | torch.device = "cpu",
) -> ReidModel:
    """Read a `checkpoint.pth.tar` of the authors' code, ready for evaluation.

    Network, neck and head are recognised by the names and shapes in the file: the ResNet or
    IBN-Net; a 3x3 neck with BatchNorm (v1.0 to v2.0) or with a bias (v2.1); one weight for each of
    the 2hw matches (v1.0) or for each of hw locations, used in both directions (v2.1). The input is
    not normalised, as in that code, whose scores are those at `temperature=10`. No code in the file
    is run. `height` and `width` are those of the training images; `final_layer`, where the network
    was cut, is None for what the neck fits (layer3 without a neck).
    """
    # "model" has the network as `base`, and the neck; "criterion" the matcher (from v1.1 on as a
    # submodule) and, where there is one, the class memory.
    content = read_saved(path)
    if not isinstance(content, Mapping) or not {"model", "criterion"} <= set(content):
        entries = sorted(map(str, content)) if isinstance(content, Mapping) else []
        raise ValueError(
            f"{path} is not a checkpoint of the released QAConv: it should have the entries model "
            f"and criterion, and has {', '.join(entries[:5]) or 'none'}"
        )
    network = state_dict_of(content["model"], f"{path}, entry model,")
    criterion = state_dict_of(content["criterion"], f"{path}, entry criterion,")
    head = [key for key in criterion if key not in ("class_memory", "valid_class")]
    matcher = {key.removeprefix("matcher."): criterion[key] for key in head}
    name = _network_name(list(network), str(path))
    neck = network.get("neck_conv.weight")  # (d, trunk channels, size, size)
    if neck is not None and neck.dim() != 4:
        raise ValueError(f"{path} has a neck_conv.weight of shape {tuple(neck.shape)}, not of four")
    final_layer = final_layer or _layer_of(neck, name)
    if final_layer not in STRIDES:
        raise ValueError(f"final_layer must be one of {', '.join(STRIDES)}, got {final_layer!r}")
    config = TrainingConfig(
        backbone=name,
        pretrained=False,
        final_layer=final_layer,
        neck_channels=None if neck is None else len(neck),
        neck_size=1 if neck is None else neck.shape[-1],
        neck_norm="neck_bn.weight" in network,
        pixels="none",
        height=height,
        width=width,
        tied=_is_tied(matcher, (height, width), final_layer, str(path)),
    )
    model = ReidModel(config, num_classes=1)  # the memory is left out
    tensors = {f"criterion.matcher.{key}": value for key, value in matcher.items()}
    renamed = {_rename(key, final_layer): value for key, value in network.items()}
    tensors |= {key: value for key, value in renamed.items() if key is not None}
    load_weights(model, tensors, str(path))
    return model.to(device).eval()


def _network_name(keys: list[str], source: str) -> str:
    """Name of the network `base`: its depth from the number of blocks, its variant from the IN."""
    found = [re.match(r"base\.layer([123])\.(\d+)\.", key) for key in keys]
    blocks = {match.groups() for match in found if match}
    counts = tuple(sum(layer == number for layer, _ in blocks) for number in "123")
    name = _NETWORKS.get((counts, any(key.endswith(".conv3.weight") for key in keys)))
    if name is None:
        raise ValueError(
            f"{source} holds no ResNet of the released QAConv: base has {counts} blocks in layer1 "
            f"to layer3; known are {', '.join(RESNETS)} and their IBN-Nets"
        )
    if any(key.endswith(".bn1.IN.weight") for key in keys):
        return f"{name}_ibn_a"
    return f"{name}_ibn_b" if any(key.endswith(".IN.weight") for key in keys) else name


def _layer_of(neck: Tensor | None, name: str) -> str:
    """The layer whose channels the neck takes."""
    if neck is None:
        return "layer3"
    wide = name.partition("_")[0] not in ("resnet18", "resnet34")
    layers = {(512 if wide else 128) << k: layer for k, layer in enumerate(STRIDES)}
    return layers.get(neck.shape[1], "layer3")  # what fits none is named when it is loaded


def _is_tied(matcher: dict[str, Tensor], size: tuple[int, int], layer: str, source: str) -> bool:
    """Whether the head has one weight per location, and not one per match."""
    if "fc.weight" not in matcher:
        raise ValueError(f"{source} is not a QAConv: its criterion lacks fc.weight")
    weights, locations = matcher["fc.weight"].numel(), math.prod(map_size(*size, layer))
    if weights not in (locations, 2 * locations):
        raise ValueError(
            f"{source} has a head of {weights} weights; images of {size[0]} x {size[1]} need "
            f"{locations} or {2 * locations}: give the height and width it was trained with"
        )
    return weights == locations


def _rename(key: str, final_layer: str) -> str | None:
    """The name here of an entry of the released network; None for layers after the cut."""
    stem = key.removeprefix("base.")
    part = stem.partition(".")[0]
    if part == "fc" or (part.startswith("layer") and part > final_layer):
        return None
    ours = {"neck_conv": "backbone.neck.0", "neck_bn": "backbone.neck.1"}
    return ours.get(part, f"backbone.trunk.{part}") + stem.removeprefix(part)
