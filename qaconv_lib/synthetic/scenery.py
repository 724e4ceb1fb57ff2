"""The static scene behind the people, painted once for each camera."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .scenes import FRAME, Camera


def _noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> np.ndarray:
    """Smooth noise of unit spread."""
    field = gaussian_filter(rng.standard_normal(shape).astype(np.float32), grain, mode="wrap")
    return field / (field.std() + 1e-6)


@lru_cache(maxsize=48)
def scene_picture(camera: Camera) -> Image.Image:
    """The empty frame of a camera, sRGB, of size :data:`~qaconv_lib.synthetic.scenes.FRAME`."""
    rng = np.random.default_rng(camera.scene_seed)
    rows, columns = FRAME
    x, y = np.meshgrid(np.arange(columns) + 0.5 - columns / 2, np.arange(rows) + 0.5 - rows / 2)
    rays = camera.rays(x, y).astype(np.float32)
    ground = np.tile(np.float32([0.25, 0.25, 0.24]), (rows, columns, 1))
    reach = -camera.height / np.minimum(rays[..., 1], -1e-3)
    z = -rays[..., 2] * reach
    wall = (z > camera.wall_distance) | (rays[..., 1] > -1e-3)
    out = np.where(wall[..., None], np.float32([0.35, 0.33, 0.3]), ground)
    out *= (1 + 0.1 * _noise(rng, FRAME, 12))[..., None]
    return Image.fromarray((255 * np.clip(out, 0, 1) ** (1 / 2.2)).astype(np.uint8))
