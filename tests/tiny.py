"""The smallest settings to train with, and noisy images to train on."""

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from qaconv_lib.experiments.profiles import RunConfig

TINY = RunConfig(
    backbone="resnet18", pretrained=False, final_layer="layer2", neck_channels=8,
    height=32, width=16, batch_size=4, epochs=3, decay_epochs=2,
)  # fmt: skip


def noisy_people(folder: Path, identities: list[int], colours: bool = False) -> pd.DataFrame:
    """A noisy image for each identity; `colours` makes people differ, up to three of them."""
    rng, rows = np.random.default_rng(0), []
    for number, identity in enumerate(identities):
        pixels = rng.integers(0, 90 if colours else 255, (32, 16, 3))
        if colours:
            pixels[..., identity] += 150
        path = folder / f"{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        rows.append({"path": str(path), "identity": identity})
    return pd.DataFrame(rows)
