"""Colours of clothes, and how they are drawn at random."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from .domains import Domain

Colour = tuple[float, float, float]  # sRGB, 0 to 1

_BASIC = {
    "black": (0.15, 0.15, 0.16),
    "charcoal": (0.26, 0.26, 0.28),
    "grey": (0.47, 0.47, 0.48),
    "light grey": (0.70, 0.70, 0.70),
    "white": (0.93, 0.93, 0.92),
    "navy": (0.15, 0.18, 0.31),
    "denim": (0.28, 0.37, 0.52),
    "dark denim": (0.16, 0.20, 0.31),
    "pale denim": (0.52, 0.62, 0.70),
    "beige": (0.76, 0.69, 0.57),
    "khaki": (0.56, 0.50, 0.37),
    "olive": (0.32, 0.34, 0.22),
    "brown": (0.34, 0.24, 0.17),
    "burgundy": (0.39, 0.11, 0.16),
    "sky": (0.55, 0.71, 0.86),
    "red": (0.74, 0.14, 0.15),
    "royal": (0.15, 0.27, 0.62),
    "bottle": (0.10, 0.29, 0.22),
    "pink": (0.89, 0.65, 0.70),
    "mustard": (0.77, 0.60, 0.21),
    "teal": (0.14, 0.43, 0.46),
    "purple": (0.37, 0.25, 0.48),
    "orange": (0.86, 0.43, 0.17),
    "yellow": (0.93, 0.82, 0.35),
    "mint": (0.64, 0.83, 0.73),
    "cream": (0.91, 0.87, 0.77),
    "magenta": (0.74, 0.22, 0.46),
    "green": (0.28, 0.52, 0.27),
    "lavender": (0.68, 0.64, 0.81),
    "salmon": (0.88, 0.53, 0.46),
}
PALETTES: dict[str, dict[str, float]] = {
    "summer tops": {
        "white": 20,
        "black": 12,
        "grey": 6,
        "light grey": 7,
        "navy": 7,
        "sky": 6,
        "red": 6,
        "royal": 4,
        "pink": 6,
        "yellow": 3,
        "mint": 3,
        "cream": 4,
        "teal": 3,
        "green": 3,
        "purple": 2,
        "orange": 3,
        "salmon": 3,
        "magenta": 2,
        "beige": 3,
        "lavender": 2,
        "olive": 2,
        "mustard": 1,
        "charcoal": 3,
    },
    "winter tops": {
        "black": 24,
        "charcoal": 12,
        "navy": 12,
        "grey": 9,
        "olive": 5,
        "brown": 5,
        "burgundy": 4,
        "beige": 5,
        "khaki": 4,
        "red": 4,
        "royal": 4,
        "white": 3,
        "light grey": 4,
        "bottle": 3,
        "teal": 2,
        "purple": 3,
        "mustard": 1,
        "cream": 2,
        "pink": 1,
        "dark denim": 3,
        "orange": 1,
        "sky": 2,
    },
    "summer bottoms": {
        "black": 20,
        "denim": 12,
        "pale denim": 10,
        "dark denim": 10,
        "navy": 8,
        "beige": 9,
        "khaki": 8,
        "white": 5,
        "grey": 7,
        "light grey": 3,
        "olive": 4,
        "brown": 3,
        "red": 1,
        "pink": 1,
        "charcoal": 6,
        "sky": 1,
        "royal": 1,
    },
    "winter bottoms": {
        "black": 28,
        "dark denim": 18,
        "denim": 14,
        "navy": 9,
        "charcoal": 10,
        "khaki": 6,
        "grey": 6,
        "brown": 4,
        "olive": 3,
        "beige": 3,
        "pale denim": 4,
    },
    "shoes": {
        "black": 28,
        "white": 22,
        "grey": 10,
        "brown": 12,
        "navy": 6,
        "charcoal": 8,
        "red": 3,
        "beige": 5,
        "royal": 2,
        "pink": 1,
        "orange": 1,
        "light grey": 4,
    },
    "bags": {
        "black": 34,
        "charcoal": 10,
        "grey": 8,
        "navy": 11,
        "brown": 10,
        "beige": 5,
        "red": 5,
        "royal": 4,
        "olive": 4,
        "white": 3,
        "pink": 3,
        "teal": 2,
        "purple": 2,
        "orange": 2,
    },
    "accents": {
        "white": 30,
        "black": 16,
        "red": 12,
        "yellow": 6,
        "grey": 7,
        "royal": 6,
        "navy": 7,
        "orange": 4,
        "green": 3,
        "cream": 5,
        "sky": 4,
        "pink": 3,
    },
}
_DENIMS = {"denim": 4, "dark denim": 4, "pale denim": 2, "black": 3, "charcoal": 1}


def choose(rng: np.random.Generator, weights: Mapping[str, float]) -> str:
    """One key, with probability proportional to its weight."""
    names = list(weights)
    share = np.array([weights[name] for name in names], float)
    return names[int(rng.choice(len(names), p=share / share.sum()))]


def as_colour(values: Iterable[float]) -> Colour:
    """Three numbers as a colour."""
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """``colour`` with its brightness and its channels changed a little."""
    moved = np.asarray(colour) * np.exp(amount * 1.6 * rng.normal()) + amount * rng.normal(size=3)
    return as_colour(np.clip(moved, 0.04, 0.96))


def draw_colour(rng: np.random.Generator, palette: str, amount: float = 0.04) -> Colour:
    """A colour of one of :data:`PALETTES`, changed a little."""
    return jitter(rng, _BASIC[choose(rng, PALETTES[palette])], amount)


def season_palette(domain: Domain, what: str, rng: np.random.Generator) -> str:
    """Name of the palette for ``what`` ("tops" or "bottoms") in the domain's season."""
    season = domain.season
    if season == "all":
        season = "summer" if rng.random() < 0.5 else "winter"
    return f"{season} {what}"


def denim(rng: np.random.Generator) -> Colour:
    """A colour of jeans."""
    return jitter(rng, _BASIC[choose(rng, _DENIMS)], 0.04)
