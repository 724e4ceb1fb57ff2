"""IBN-Net: ResNets in which some channels are normalised image by image.

X. Pan, P. Luo, J. Shi and X. Tang, "Two at Once" (ECCV 2018), with the authors' submodule names.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

_RELEASE = "https://github.com/XingangPan/IBN-Net/releases/download/v1.0/"
_FILES = """resnet18_ibn_a-2f571257 resnet34_ibn_a-94bc1577 resnet50_ibn_a-d9d0bb7b
resnet101_ibn_a-59ea0ac6 resnet18_ibn_b-bc2f3c11 resnet34_ibn_b-04134c37
resnet50_ibn_b-9ca61e85 resnet101_ibn_b-c55f6dba"""
#: Where the ImageNet weights of each variant are published.
IBN_WEIGHTS = {file.partition("-")[0]: f"{_RELEASE}{file}.pth" for file in _FILES.split()}


class InstanceBatchNorm(nn.Module):
    """Instance normalisation of the first half of the channels, BN of the rest (IBN-a)."""

    def __init__(self, channels: int):
        super().__init__()
        self.IN = nn.InstanceNorm2d(channels // 2, affine=True)
        self.BN = nn.BatchNorm2d(channels - channels // 2)

    def forward(self, maps: Tensor) -> Tensor:
        """Normalise maps of shape (b, c, h, w)."""
        half = self.IN.num_features
        return torch.cat([self.IN(maps[:, :half]), self.BN(maps[:, half:])], dim=1)


class NormalisedSum(nn.Module):
    """A residual block whose sum passes instance normalisation before its last ReLU (IBN-b)."""

    relu: nn.Module
    downsample: nn.Module

    def __init__(self, block: BasicBlock | Bottleneck):
        super().__init__()
        for name, module in block.named_children():
            setattr(self, name, module)
        self.steps = ["conv1", "bn1", "relu", "conv2", "bn2"]
        if isinstance(block, Bottleneck):
            self.steps += ["relu", "conv3", "bn3"]
        self.IN = nn.InstanceNorm2d(getattr(self, self.steps[-1]).num_features, affine=True)

    def forward(self, maps: Tensor) -> Tensor:
        """From maps (b, c, h, w) to maps of the block's channels and stride."""
        result = maps
        for step in self.steps:
            result = getattr(self, step)(result)
        shortcut = self.downsample(maps) if hasattr(self, "downsample") else maps
        return self.relu(self.IN(result + shortcut))


def add_instance_norm(network: ResNet, variant: str) -> None:
    """Turn a ResNet of torchvision into an IBN-Net, in place.

    Variant "a" puts `InstanceBatchNorm` behind the first convolution of every block of layer1 to
    layer3. "b" normalises the stem, and the sum of the last block of layer1 and layer2.
    """
    if variant == "a":
        for block in (*network.layer1, *network.layer2, *network.layer3):
            block.bn1 = InstanceBatchNorm(block.bn1.num_features)
    else:
        network.bn1 = nn.InstanceNorm2d(network.bn1.num_features, affine=True)
        for layer in (network.layer1, network.layer2):
            layer[-1] = NormalisedSum(layer[-1])
