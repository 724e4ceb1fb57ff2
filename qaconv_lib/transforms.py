"""From image files to tensors, and the augmentations of training (built in chapters 2 and 7)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision.transforms import v2

from qaconv_lib.datasets import load_image

OCCLUSIONS = ("occlusion", "erasing", "cutout", "none")


def to_tensor(image: Image.Image, height: int, width: int) -> Tensor:
    """Resize an image, bicubic as in the released code, to uint8 of shape (3, height, width)."""
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).contiguous()


class RandomOcclusion(nn.Module):
    """White out one square, so that every part of the body must learn to match (section 5.1).

    The side is uniform between 1 pixel and `max_share` of the width; the square lies anywhere
    inside the image. Takes and returns an image (3, H, W) with values in [0, 1].

    Args:
        max_share: largest side, as a share of the image's width; 0.8 in the paper.
    """

    def __init__(self, max_share: float = 0.8):
        super().__init__()
        if not 0 < max_share <= 1:
            raise ValueError(f"max_share must lie in (0, 1], got {max_share}")
        self.max_share = max_share

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = _randint(1, min(height, max(1, int(self.max_share * width))))
        top, left = _randint(0, height - side), _randint(0, width - side)
        image = image.clone()
        image[..., top : top + side, left : left + side] = 1.0
        return image


class Cutout(nn.Module):
    """Black out one square of fixed size whose centre may lie anywhere (DeVries and Taylor, 2017).

    The part of the square that falls outside the image is lost. Takes and returns an image
    (3, H, W) with values in [0, 1].

    Args:
        share: side of the square, as a share of the image's width.
    """

    def __init__(self, share: float = 0.5):
        super().__init__()
        if not 0 < share <= 1:
            raise ValueError(f"share must lie in (0, 1], got {share}")
        self.share = share

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        side = max(1, int(self.share * width))
        top, left = _randint(0, height - 1) - side // 2, _randint(0, width - 1) - side // 2
        image = image.clone()
        image[..., max(0, top) : top + side, max(0, left) : left + side] = 0.0
        return image


def make_augmentation(
    occlusion: str = "occlusion", flip: bool = True, occlusion_share: float = 0.8
) -> nn.Module:
    """Augmentation of one training image (3, H, W) in [0, 1]: a flip, then something hidden.

    Args:
        occlusion: "occlusion" as in the paper, "erasing" (Zhong et al., 2020), "cutout" (DeVries
            and Taylor, 2017) or "none".
        flip: mirror an image from left to right in half of the cases.
        occlusion_share: largest side of the paper's square, as a share of the width.

    Raises:
        ValueError: an unknown kind of occlusion, or a share outside (0, 1].
    """
    hide: dict[str, Callable[[], nn.Module]] = {
        "occlusion": lambda: RandomOcclusion(occlusion_share),
        "erasing": lambda: v2.RandomErasing(p=0.5),
        "cutout": Cutout,
        "none": nn.Identity,
    }
    if occlusion not in hide:
        raise ValueError(f"occlusion must be one of {', '.join(OCCLUSIONS)}, got {occlusion!r}")
    mirror = v2.RandomHorizontalFlip() if flip else nn.Identity()
    return nn.Sequential(mirror, hide[occlusion]())


class ReidImages(Dataset):
    """The images of a table, resized, with their labels.

    Items are `(image, label)`: a tensor (3, height, width) in [0, 1] and the position of the
    image's identity among the table's sorted identities.

    Args:
        table: images as `load_dataset` gives them.
        height: rows of pixels.
        width: columns of pixels.
        augmentation: applied to every image each time it is taken; None for evaluation.
        keep_in_memory: hold the resized images (3*height*width bytes each) after their first use.
            Pays when one process loads them; with several workers each would hold its own.
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
        self.augmentation = augmentation
        self._kept: dict[int, Tensor] | None = {} if keep_in_memory else None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self._pixels(index).float() / 255
        if self.augmentation is not None:
            image = self.augmentation(image)
        return image, self.labels[index]

    def _pixels(self, index: int) -> Tensor:
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        pixels = to_tensor(load_image(self.paths[index]), self.height, self.width)
        if self._kept is not None:
            self._kept[index] = pixels
        return pixels


def _randint(low: int, high: int) -> int:
    """A whole number from low to high, both included, from PyTorch's generator."""
    return int(torch.randint(low, high + 1, ()))
