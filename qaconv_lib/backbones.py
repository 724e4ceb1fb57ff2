"""From images to feature maps (built in chapter 2).

A backbone is a classification network cut before its end, so that its output still has a height and
a width, followed by a small convolution, the neck, that reduces the channels.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn

from qaconv_lib.archives import data_folders

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
LITES = ("efficientnet_lite0", "efficientnet_lite2")
BACKBONES = (*RESNETS, *LITES)
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

    def __init__(
        self,
        trunk: nn.Sequential,
        trunk_channels: int,
        stride: int,
        *,
        neck_channels: int | None,
        neck_size: int,
        unit_channels: bool,
        pixels: str,
        frozen_stages: int,
    ):
        super().__init__()
        self.trunk = trunk
        stages = _stages(trunk)
        if not 0 <= frozen_stages <= len(stages):
            raise ValueError(
                f"frozen_stages must lie in 0..{len(stages)} for this network, got {frozen_stages}"
            )
        self.frozen_stages = frozen_stages
        for stage in stages[:frozen_stages]:
            stage.requires_grad_(False)
        self.neck = nn.Identity()
        if neck_channels is not None:
            convolution = nn.Conv2d(
                trunk_channels, neck_channels, neck_size, padding=neck_size // 2, bias=False
            )
            nn.init.kaiming_normal_(convolution.weight, mode="fan_out")
            self.neck = nn.Sequential(convolution, nn.BatchNorm2d(neck_channels))
        self.channels = neck_channels or trunk_channels
        self.stride = stride
        self.unit_channels = unit_channels
        mean, std = _PIXELS[pixels]
        self.register_buffer("pixel_mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images of shape (b, 3, H, W), values in [0, 1], into maps (b, d, h, w)."""
        maps = (images - self.pixel_mean) / self.pixel_std
        for number, stage in enumerate(_stages(self.trunk)):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                maps = stage(maps)
        maps = self.neck(maps)
        return F.normalize(maps, dim=1) if self.unit_channels else maps

    def train(self, mode: bool = True) -> Backbone:
        """Switch to training or evaluation; frozen stages keep the BN statistics they have."""
        super().train(mode)
        for stage in _stages(self.trunk)[: self.frozen_stages]:
            stage.eval()
        return self

    def map_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns (h, w) of the map of an image of `height` x `width` pixels."""
        return -(-height // self.stride), -(-width // self.stride)


def make_backbone(
    name: str,
    *,
    pretrained: bool = False,
    final_layer: str = "layer3",
    neck_channels: int | None = 128,
    neck_size: int = 1,
    unit_channels: bool = True,
    pixels: str | None = None,
    frozen_stages: int = 0,
) -> Backbone:
    """Build a backbone: images to maps of shape (b, d, h, w) (section 5.1, built in chapter 2).

    The neck is a convolution without bias, then BatchNorm. The paper names only a 1x1 convolution;
    its released code has the BatchNorm too, and without it training from random weights fails.

    Args:
        name: resnet18, resnet34, resnet50, resnet101, resnet152 (torchvision), or
            efficientnet_lite0 and efficientnet_lite2 (timm), the small networks of the laptop
            profile.
        pretrained: start from ImageNet weights. Those of the EfficientNets lie in the `data`
            folder; those of the ResNets come from torchvision's registry, over the network.
        final_layer: layer2, layer3 or layer4: a stride of 8, 16 or 32 pixels.
        neck_channels: channels `d` of the maps; None leaves the neck out.
        neck_size: side of the neck's convolution; 1 in the paper, 3 in the released code.
        unit_channels: scale the channels of every location to unit length.
        pixels: statistics subtracted from the input: "imagenet", "half" (mean and deviation 0.5) or
            "none", as the released code has it; None takes those the ImageNet weights were
            trained with.
        frozen_stages: how many leading stages keep their weights and BN statistics; the stem is
            the first, then come a ResNet's layers or EfficientNet's groups of blocks.

    Raises:
        ValueError: an unknown name, layer or pixel statistic, a neck of an impossible size, or
            more frozen stages than there are.
        FileNotFoundError: the weights of an EfficientNet are not in the data folder.
        ConnectionError: torchvision could not fetch the weights of a ResNet.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; known are {', '.join(BACKBONES)}")
    if final_layer not in _LITE_GROUPS:
        raise ValueError(f"final_layer must be layer2, layer3 or layer4, got {final_layer!r}")
    if neck_channels is not None and neck_channels < 1:
        raise ValueError(f"neck_channels must be at least 1 or None, got {neck_channels}")
    if neck_size < 1 or neck_size % 2 == 0:
        raise ValueError(f"neck_size must be odd and at least 1, got {neck_size}")
    pixels = pixels or ("imagenet" if name in RESNETS else "half")
    if pixels not in _PIXELS:
        raise ValueError(f"pixels must be one of {', '.join(_PIXELS)}, got {pixels!r}")
    build = _resnet if name in RESNETS else _efficientnet_lite
    trunk, channels = build(name, pretrained, final_layer)
    return Backbone(
        trunk,
        channels,
        stride={"layer2": 8, "layer3": 16, "layer4": 32}[final_layer],
        neck_channels=neck_channels,
        neck_size=neck_size,
        unit_channels=unit_channels,
        pixels=pixels,
        frozen_stages=frozen_stages,
    )


def _stages(trunk: nn.Sequential) -> list[nn.Sequential]:
    """The trunk in the order it runs: the stem, then a ResNet's layers or EfficientNet's groups."""
    parts = dict(trunk.named_children())
    if "blocks" in parts:
        return [nn.Sequential(parts["conv_stem"], parts["bn1"]), *parts["blocks"]]
    layers = [module for name, module in parts.items() if name.startswith("layer")]
    stem = [module for name, module in parts.items() if not name.startswith("layer")]
    return [nn.Sequential(*stem), *layers]


def _resnet(name: str, pretrained: bool, final_layer: str) -> tuple[nn.Sequential, int]:
    try:
        network = torchvision.models.get_model(
            name, weights="IMAGENET1K_V1" if pretrained else None
        )
    except OSError as error:  # urllib's errors are OSErrors
        raise ConnectionError(
            f"the ImageNet weights of {name} could not be fetched ({error}); connect once, put the "
            f"file into {torch.hub.get_dir()}/checkpoints, or build with pretrained=False"
        ) from error
    parts = OrderedDict()
    for part, module in network.named_children():
        parts[part] = module
        if part == final_layer:
            break
    last_block = parts[final_layer][-1]
    last_convolution = last_block.conv3 if hasattr(last_block, "conv3") else last_block.conv2
    return nn.Sequential(parts), last_convolution.out_channels


def _efficientnet_lite(name: str, pretrained: bool, final_layer: str) -> tuple[nn.Sequential, int]:
    import timm  # here, because importing it takes longer than everything else together

    network = timm.create_model(f"tf_{name}", pretrained=False)
    trunk = nn.Sequential(
        OrderedDict(
            conv_stem=network.conv_stem,
            bn1=network.bn1,
            blocks=network.blocks[: _LITE_GROUPS[final_layer]],
        )
    )
    if pretrained:
        weights = load_file(_lite_weights(name))
        trunk.load_state_dict({key: weights[key].float() for key in trunk.state_dict()})
    return trunk, trunk.blocks[-1][-1].conv_pwl.out_channels


def _lite_weights(name: str) -> Path:
    places = [folder / "weights" / f"{name}_imagenet.safetensors" for folder in data_folders()]
    for place in places:
        if place.is_file():
            return place
    looked = ", ".join(map(str, places)) or "a data folder (none found; set QACONV_DATA)"
    raise FileNotFoundError(f"ImageNet weights of {name} not found in {looked}")
