"""From images to feature maps (built in chapter 2).

A backbone is a classification network cut before its end, so that its output still has a height and
a width, followed by a small convolution, the neck, that reduces the channels.
"""

from __future__ import annotations

import importlib
from collections import OrderedDict
from collections.abc import Container, Mapping, Sequence
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.fusion import fuse_conv_bn_eval

from qaconv_lib._checks import check_choice
from qaconv_lib._files import data_folders

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
IBN_RESNETS = tuple(f"{name}_ibn_{variant}" for variant in "ab" for name in RESNETS[:-1])
LITES = ("efficientnet_lite0", "efficientnet_lite2")
BACKBONES = (*RESNETS, *IBN_RESNETS, *LITES)
#: Pixels per location of the maps, by the layer where the network is cut.
STRIDES = {"layer2": 8, "layer3": 16, "layer4": 32}
# How many of the seven groups of an EfficientNet-Lite reach the stride of a ResNet's layer.
_LITE_GROUPS = {"layer2": 3, "layer3": 5, "layer4": 7}
# The pixel statistics with which each family's ImageNet weights were trained.
_PIXELS = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "none": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}


class Backbone(nn.Module):
    """A cut network and its neck; call it on images to get feature maps. See `make_backbone`.

    Attributes:
        channels: `d`, the channels of the maps.
        stride: pixels per location, in both directions.
    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(
        self,
        trunk: nn.Sequential,
        neck: nn.Module,
        channels: int,
        final_layer: str,
        *,
        unit_channels: bool,
        pixels: str,
        frozen_stages: int,
        frozen_norm: bool,
    ):
        super().__init__()
        self.trunk, self.neck, self.channels = trunk, neck, channels
        self.final_layer, self.stride = final_layer, STRIDES[final_layer]
        self.unit_channels = unit_channels
        self.frozen_stages, self.frozen_norm = frozen_stages, frozen_norm
        stages = _stages(trunk)
        if not 0 <= frozen_stages <= len(stages):
            raise ValueError(f"frozen_stages must be from 0 to {len(stages)}, got {frozen_stages}")
        for stage in stages[:frozen_stages]:
            stage.requires_grad_(False)
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in _PIXELS[pixels])
        self.register_buffer("pixel_mean", mean, persistent=False)
        self.register_buffer("pixel_std", std, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images of shape (b, 3, H, W), values in [0, 1], into maps (b, d, h, w)."""
        maps = (images - self.pixel_mean) / self.pixel_std
        for number, stage in enumerate(_stages(self.trunk)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                maps = stage(maps)
        maps = self.neck(maps)
        maps = maps.to(torch.promote_types(maps.dtype, torch.float32))  # under autocast
        return F.normalize(maps, dim=1) if self.unit_channels else maps

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation; frozen parts keep their BN statistics."""
        super().train(mode)
        for stage in _stages(self.trunk)[: self.frozen_stages]:
            stage.eval()
        if self.frozen_norm:
            for module in self.trunk.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns (h, w) of the map of an image of `height` x `width` pixels."""
        return map_size(height, width, self.final_layer)


def fold_norms(backbone: Backbone) -> Backbone:
    """A faster copy for evaluation: its convolutions contain the BN after them (appendix A)."""
    copy = deepcopy(backbone).eval()
    for parent in list(copy.modules()):
        for (name, first), (its_name, norm) in pairwise(list(parent.named_children())):
            if isinstance(first, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                setattr(parent, name, fuse_conv_bn_eval(first, norm))
                setattr(parent, its_name, getattr(norm, "act", nn.Identity()))
    return copy


def map_size(height: int, width: int, final_layer: str = "layer3") -> tuple[int, int]:
    """Rows and columns (h, w) of the map of an image of `height` x `width` pixels."""
    stride = STRIDES[final_layer]
    return -(-height // stride), -(-width // stride)


def make_backbone(
    name: str,
    *,
    pretrained: bool = False,
    weights: str | Path | None = None,
    final_layer: str = "layer3",
    neck_channels: int | None = 128,
    neck_size: int = 1,
    neck_norm: bool = True,
    unit_channels: bool = True,
    pixels: str | None = None,
    frozen_stages: int = 0,
    frozen_norm: bool = False,
) -> Backbone:
    """Build a backbone: images to maps of shape (b, d, h, w) (section 5.1, built in chapter 2).

    The neck is a convolution without bias, then BatchNorm. The paper names only a 1x1 convolution;
    its released code has the BatchNorm too, and without it training from random weights fails.

    Args:
        name: resnet18 to resnet152 (torchvision); all of these but the last with _ibn_a or _ibn_b
            appended (IBN-Net); or the small networks of the laptop profile, efficientnet_lite0 and
            efficientnet_lite2 (timm).
        pretrained: start from ImageNet weights. Those of the EfficientNets are in the `data`
            folder, those of the ResNets are published files; see `fetch_weights`.
        weights: a file to start from instead: the state dict of the whole network or of the part
            that is kept; see `read_weights`; or a model of `save_model`, whose trunk is taken.
        final_layer: layer2, layer3 or layer4: a stride of 8, 16 or 32 pixels.
        neck_channels: channels `d` of the maps; None leaves the neck out.
        neck_size: side of the neck's convolution; 1 in the paper, 3 in the released code.
        neck_norm: BatchNorm after the neck's convolution; without it, as in the released v2.1, the
            convolution has a bias.
        unit_channels: scale the channels of every location to unit length.
        pixels: statistics subtracted from the input: "imagenet", "half" (mean and deviation 0.5),
            "none" as in the released code, or None for those of the ImageNet weights.
        frozen_stages: how many leading stages keep their weights and BN statistics: the stem, then
            a ResNet's layers or EfficientNet's groups of blocks.
        frozen_norm: BN layers before the neck normalise by the statistics they have, in training
            too, as in the released v2.1; their weights still train.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; known are {', '.join(BACKBONES)}")
    check_choice("final_layer", final_layer, *STRIDES)
    if neck_channels is not None and neck_channels < 1:
        raise ValueError(f"neck_channels must be at least 1 or None, got {neck_channels}")
    if neck_size < 1 or neck_size % 2 == 0:
        raise ValueError(f"neck_size must be odd and at least 1, got {neck_size}")
    pixels = pixels or ("half" if name in LITES else "imagenet")
    check_choice("pixels", pixels, *_PIXELS)
    network = _network(name)
    trunk, channels = _cut(network, final_layer)
    if weights is not None or pretrained:
        path = Path(weights) if weights is not None else _imagenet_weights(name)
        _load_trunk(trunk, path, name, whole=set(network.state_dict()))
    neck: nn.Module = nn.Identity()
    if neck_channels is not None:
        neck = _neck(channels, neck_channels, neck_size, neck_norm)
    return Backbone(
        trunk,
        neck,
        neck_channels or channels,
        final_layer,
        unit_channels=unit_channels,
        pixels=pixels,
        frozen_stages=frozen_stages,
        frozen_norm=frozen_norm,
    )


def _stages(trunk: nn.Sequential) -> list[nn.Module]:
    """The trunk in the order it runs: the stem, then a ResNet's layers or EfficientNet's groups."""
    parts: dict[str, Any] = dict(trunk.named_children())
    groups = parts.pop("blocks", None) or [parts.pop(n) for n in list(parts) if n[:5] == "layer"]
    return [nn.Sequential(*parts.values()), *groups]


def _neck(trunk_channels: int, channels: int, size: int, norm: bool) -> nn.Sequential:
    convolution = nn.Conv2d(trunk_channels, channels, size, padding=size // 2, bias=not norm)
    nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
    if convolution.bias is None:
        return nn.Sequential(convolution, nn.BatchNorm2d(channels))
    nn.init.zeros_(convolution.bias)
    return nn.Sequential(convolution)


def _network(name: str) -> Any:
    """A whole network with random weights, from a library that is slow to import."""
    if name in LITES:
        import timm

        return timm.create_model(f"tf_{name}", pretrained=False)
    from torchvision.models import get_model

    plain, _, variant = name.partition("_ibn_")
    network = get_model(plain, weights=None)
    if variant:
        extension("ibn").add_instance_norm(network, variant)
    return network


def extension(name: str) -> ModuleType:
    """A module of `beyond`, found by name because this one lies below it."""
    return importlib.import_module(f"qaconv_lib.beyond.{name}")


def _cut(network: Any, final_layer: str) -> tuple[nn.Sequential, int]:
    """The part of a network that runs up to a layer, under its names there, and its channels."""
    parts = OrderedDict(network.named_children())
    if "blocks" in parts:
        blocks = network.blocks[: _LITE_GROUPS[final_layer]]
        parts = OrderedDict(conv_stem=network.conv_stem, bn1=network.bn1, blocks=blocks)
        return nn.Sequential(parts), blocks[-1][-1].conv_pwl.out_channels
    while next(reversed(parts)) != final_layer:
        parts.popitem()
    block = parts[final_layer][-1]
    return nn.Sequential(parts), getattr(block, "conv3", block.conv2).out_channels


def _imagenet_weights(name: str) -> Path:
    if name in LITES:
        places = [folder / "weights" / f"{name}_imagenet.safetensors" for folder in data_folders()]
        for place in filter(Path.is_file, places):
            return place
        looked = ", ".join(map(str, places)) or "a data folder (none found; set QACONV_DATA)"
        raise FileNotFoundError(f"ImageNet weights of {name} not found in {looked}")
    if name in IBN_RESNETS:
        return extension("weights").fetch_weights(extension("ibn").IBN_WEIGHTS[name], name)
    from torchvision.models import get_model_weights

    return extension("weights").fetch_weights(get_model_weights(name)["IMAGENET1K_V1"].url, name)


def _load_trunk(trunk: nn.Sequential, path: Path, name: str, whole: set[str]) -> None:
    """Copy the weights of a network, whole or cut already, into its trunk."""
    tensors, wanted = extension("weights").read_weights(path), trunk.state_dict()
    prefix = "backbone.trunk."  # in a model of `save_model`
    if any(key.startswith(prefix) for key in tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    new = {key for key in wanted if key.endswith("num_batches_tracked")}  # old files lack these
    check_fit(tensors, wanted, str(path), name, may_lack=new, may_add=whole)
    trunk.load_state_dict({key: tensors[key] for key in wanted if key in tensors}, strict=False)


def check_fit(
    tensors: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    source: str,
    model: str,
    *,
    may_lack: Container[str],
    may_add: Container[str] = (),
) -> None:
    """Raise ValueError unless tensors from `source` fit the state dict `wanted` of a model.

    Entries in `may_lack` may be missing from the tensors; those in `may_add` may be left over.
    """
    missing = [key for key in wanted if key not in tensors and key not in may_lack]
    extra = [key for key in tensors if key not in wanted and key not in may_add]
    misshapen = [
        f"{key} of shape {tuple(tensors[key].shape)}, the model has {tuple(value.shape)}"
        for key, value in wanted.items()
        if key in tensors and tensors[key].shape != value.shape
    ]
    faults = {"missing": missing, "left over": extra, "misshapen": misshapen}
    found = "; ".join(f"{fault}: {name_few(keys)}" for fault, keys in faults.items() if keys)
    if found:
        raise ValueError(f"{source} does not contain the weights of {model}; {found}")


def name_few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
