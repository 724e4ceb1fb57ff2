"""Chapters 2 and 7: image tensors and augmentations."""

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib.transforms import (
    OCCLUSIONS,
    Cutout,
    RandomOcclusion,
    ReidImages,
    make_augmentation,
    to_tensor,
)


def table_of(folder, count=3):
    rows = []
    for number in range(count):
        path = folder / f"{number}.png"
        pixels = np.full((20, 10, 3), 40 * number, np.uint8)
        Image.fromarray(pixels).save(path)
        rows.append({"path": str(path), "identity": 7 - number})
    return pd.DataFrame(rows)


def test_to_tensor_resizes_and_keeps_the_order_of_axes():
    pixels = np.zeros((4, 2, 3), np.uint8)
    pixels[:2, :, 0] = 255  # the upper half is red
    tensor = to_tensor(Image.fromarray(pixels), 4, 2)
    assert tensor.shape == (3, 4, 2) and tensor.dtype == torch.uint8
    assert np.array_equal(tensor.permute(1, 2, 0).numpy(), pixels)
    assert to_tensor(Image.fromarray(pixels), 12, 6).shape == (3, 12, 6)


def test_occlusion_is_one_white_square_of_the_promised_size():
    torch.manual_seed(0)
    sides = set()
    for _ in range(300):
        hidden = RandomOcclusion(0.8)(torch.zeros(3, 20, 10)) == 1
        rows, columns = hidden[0].any(1).sum(), hidden[0].any(0).sum()
        assert rows == columns and hidden.sum() == 3 * rows * columns
        sides.add(int(rows))
    assert sides == set(range(1, 9))


def test_cutout_is_black_and_may_reach_over_the_border():
    torch.manual_seed(0)
    areas = {int((Cutout()(torch.ones(3, 20, 10)) == 0)[0].sum()) for _ in range(300)}
    assert max(areas) == 25 and min(areas) < 25


@pytest.mark.parametrize("kind", OCCLUSIONS)
def test_every_augmentation_keeps_shape_and_range(kind):
    torch.manual_seed(0)
    image = make_augmentation(kind)(torch.rand(3, 20, 10))
    assert image.shape == (3, 20, 10) and image.min() >= 0 and image.max() <= 1


def test_half_of_the_images_are_mirrored():
    torch.manual_seed(0)
    image, flip = torch.arange(10.0).expand(3, 20, 10), make_augmentation("none")
    mirrored = sum(bool(flip(image)[0, 0, 0] == 9) for _ in range(400))
    assert 150 < mirrored < 250


@pytest.mark.parametrize("keep", [False, True])
def test_images_and_labels_of_a_table(tmp_path, keep):
    images = ReidImages(table_of(tmp_path), 10, 5, keep_in_memory=keep)
    for _ in range(2):
        items = [images[i] for i in range(len(images))]
        assert [label for _, label in items] == [2, 1, 0]  # sorted identities are 5, 6, 7
        for number, (image, _) in enumerate(items):
            torch.testing.assert_close(image, torch.full((3, 10, 5), 40 * number / 255))


def test_the_share_of_the_occlusion_can_be_set():
    torch.manual_seed(0)
    small = make_augmentation("occlusion", flip=False, occlusion_share=0.2)
    hidden = [int((small(torch.zeros(3, 40, 20)) == 1).sum()) // 3 for _ in range(50)]
    assert max(hidden) == 4**2  # 0.2 of 20 pixels
    for wrong in (0, 1.2):
        with pytest.raises(ValueError, match="max_share"):
            make_augmentation("occlusion", occlusion_share=wrong)
    with pytest.raises(ValueError, match="'blur'"):
        make_augmentation("blur")
