"""Printed and mottled cloth: small random bitmaps that repeat over a garment or fill an emblem."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter

from .domains import Colour, as_colour

PRINTS = ("camouflage", "floral", "picture", "melange", "geometric")
_SIDE = 64  # texels


def linear(colour: Colour) -> np.ndarray:
    """sRGB to linear light: (3,) float32."""
    return np.asarray(colour, np.float32) ** 2.2


@lru_cache(maxsize=256)
def printed(kind: str, seed: int, colours: tuple[Colour, Colour, Colour]) -> np.ndarray:
    """Albedo (64, 64, 3) of one repeat of a print, one of `PRINTS`, in three colours."""
    rng = np.random.default_rng(seed)
    ground, second, third = (linear(colour) for colour in colours)
    out = np.tile(ground, (_SIDE, _SIDE, 1))
    y, x = np.mgrid[:_SIDE, :_SIDE]

    def clouds(grain: float) -> np.ndarray:
        field = gaussian_filter(rng.standard_normal((_SIDE, _SIDE)), grain, mode="wrap")
        return field / field.std()

    if kind == "camouflage":
        grain = rng.uniform(2, 6)
        out[clouds(grain) > 0.4] = second
        out[clouds(grain) > 0.9] = third
    elif kind == "floral":
        for _ in range(int(rng.integers(8, 40))):
            across, down = ((axis - rng.integers(_SIDE) + 32) % _SIDE - 32 for axis in (x, y))
            petals = rng.uniform(2, 6) * (1 + 0.35 * np.cos(5 * np.arctan2(down, across)))
            bloom = np.hypot(across, down) < petals
            out[bloom] = second if rng.random() < 0.6 else third
    elif kind == "picture":  # as of a photograph: smooth areas, an object, three free colours
        for value in (second, third, linear(as_colour(rng.uniform(0.05, 0.95, 3)))):
            out[clouds(rng.uniform(4, 10)) > rng.uniform(0.2, 1.0)] = value
        out *= np.exp(0.25 * clouds(2))[..., None].astype(np.float32)
    elif kind == "melange":
        amount, grain = rng.uniform(0.1, 0.35), rng.uniform(0.7, 3)
        weft = gaussian_filter(rng.standard_normal((_SIDE, _SIDE)), (grain, 0.6), mode="wrap")
        out = out * np.exp(amount * weft / weft.std())[..., None]
    else:
        count, turn = rng.integers(2, 7), rng.integers(3)
        u, v = (x + y, x - y) if turn == 1 else (x, y + 8 * (x // 16 % 2) * turn)
        value = (u * count // _SIDE % 2) + 2 * (v * count // _SIDE % 2)
        out[value == 3], out[value == 1] = second, (third if rng.random() < 0.5 else ground)
    return np.clip(out, 0, 1).astype(np.float32)


def repeat(bitmap: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Texels (N, 3) at places measured in repeats."""
    i, j = ((_SIDE * place).astype(np.int32) & (_SIDE - 1) for place in (down, across))
    return bitmap[i, j]
