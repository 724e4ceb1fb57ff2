"""From image files to tensors, and the augmentations of training (built in chapters 2 and 7)."""

from __future__ import annotations

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset

from qaconv_lib._checks import check_choice
from qaconv_lib.datasets import load_image

OCCLUSIONS = ("occlusion", "erasing", "cutout", "none")


def to_tensor(image: Image.Image, height: int, width: int) -> Tensor:
    """Resize an image, bicubic as in the released code, to uint8 of shape (3, height, width)."""
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


class RandomOcclusion(nn.Module):
    """White out one square, so that every part of the body must learn to match (section 5.1).

    Images are (3, H, W) in [0, 1]; the side is uniform from 1 pixel to `max_share` of the width.
    """

    def __init__(self, max_share: float = 0.8):
        super().__init__()
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must lie in (0, 1], got {max_share}")
        self.max_share = max_share

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = _randint(1, min(height, max(1, int(self.max_share * width))))
        return _fill(image, _randint(0, height - side), _randint(0, width - side), side, 1.0)


class Cutout(nn.Module):
    """Black out one square whose centre may lie anywhere (DeVries and Taylor, 2017).

    Images are (3, H, W) in [0, 1]; the side is half of the width, and may be cut off by the border.
    """

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = max(1, width // 2)
        top, left = (_randint(0, length - 1) - side // 2 for length in (height, width))
        return _fill(image, top, left, side, 0.0)


def _fill(image: Tensor, top: int, left: int, side: int, value: float) -> Tensor:
    """A copy with one square in one colour, cut off by the border."""
    image = image.clone()
    image[..., max(0, top) : top + side, max(0, left) : left + side] = value
    return image


def make_augmentation(
    occlusion: str = "occlusion", flip: bool = True, occlusion_share: float = 0.8
) -> nn.Module:
    """Augmentation of one training image (3, H, W) in [0, 1]: a flip, then an occlusion.

    `occlusion` is "occlusion" as in the paper, with squares up to `occlusion_share` of the width,
    "erasing" (Zhong et al., 2020), "cutout" (DeVries and Taylor, 2017) or "none".
    """
    from torchvision.transforms import v2  # takes half a second to import

    check_choice("occlusion", occlusion, *OCCLUSIONS)
    hide = (RandomOcclusion(occlusion_share), v2.RandomErasing(p=0.5), Cutout(), nn.Identity())
    mirror = v2.RandomHorizontalFlip() if flip else nn.Identity()
    return nn.Sequential(mirror, hide[OCCLUSIONS.index(occlusion)])


class ReidImages(Dataset):
    """The images of a table, resized, with their labels.

    Items are `(image, label)`: a tensor (3, height, width) in [0, 1], augmented anew each time, and
    the position of its identity among the sorted ones. `keep_in_memory` keeps resized images
    (3*height*width bytes each) after their first use; each of several workers would keep its own.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        height: int,
        width: int,
        augmentation: nn.Module | None = None,
        keep_in_memory: bool = True,
    ):
        self.paths = [str(path) for path in table["path"]]
        self.identities, labels = np.unique(table["identity"].to_numpy(), return_inverse=True)
        self.labels = labels.tolist()
        self.height, self.width = height, width
        self.augmentation, self.keep_in_memory = augmentation, keep_in_memory
        self._kept: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self._kept.get(index)
        if pixels is None:
            pixels = to_tensor(load_image(self.paths[index]), self.height, self.width)
            if self.keep_in_memory:
                self._kept[index] = pixels
        image = pixels.float() / 255
        return image if self.augmentation is None else self.augmentation(image), self.labels[index]


def _randint(low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, ()))  # both included
