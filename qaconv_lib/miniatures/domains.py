"""The ranges of the four domains, the palettes, and functions that choose from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

_LIMBS = ("upper arm", "forearm", "thigh", "shin", "foot")
PART_NAMES: tuple[str, ...] = (
    *("background", "head", "torso", "hips"),
    *(f"{side} {limb}" for limb in _LIMBS for side in ("left", "right")),
    *("bag", "other person", "occluder"),
)
"""Names of the labels in part maps; a label is an index into this tuple. Left and right are the
person's own. Hips include skirts and coat tails, forearms include hands, bags include straps."""

PART: dict[str, int] = {name: index for index, name in enumerate(PART_NAMES)}

Range = tuple[float, float]
Weights = dict[str, float]
Colour = tuple[float, float, float]  # sRGB, 0 to 1
Option = TypeVar("Option", str, Colour)


def weights(text: str) -> Weights:
    """Weights of words from a list such as ``"none 0.9, cap 0.1"``."""
    pairs = (part.strip().rsplit(" ", 1) for part in text.split(","))
    return {word: float(weight) for word, weight in pairs}


def colour(text: str) -> Colour:
    """A colour written as three numbers in hundredths."""
    red, green, blue = (float(value) / 100 for value in text.split())
    return red, green, blue


@dataclass(frozen=True)
class Domain:
    """Ranges (low, high) of uniform draws, probabilities and weights; metres and degrees."""

    name: str
    season: str  # "summer", "winter" or "all": which palettes are used
    # wardrobe
    tops: Weights
    bottoms: Weights
    shoes: Weights
    bags: Weights
    headwear: Weights
    patterns: Weights
    scarf: float
    female: float
    skins: tuple[float, ...]  # weights of the skin tones, light to dark
    # cameras
    scenes: Weights
    camera_height: Range
    distance: Range
    focal: Range
    cast: float  # standard deviation of the log white balance
    gain: Range
    gamma: Range
    saturation: Range
    contrast: Range
    blur: Range  # pixels of the 128 x 64 image
    motion: float  # largest horizontal motion blur, pixels
    noise: Range  # grey levels of 255
    resolution: Range  # rows of the sensor crop as a fraction of the output's
    jpeg_quality: tuple[int, int]
    # light
    sun: Range  # strength of the direct light
    ambient: Range
    sun_elevation: Range
    warmth: float  # standard deviation of the light's colour temperature
    # boxes and company
    box_jitter: float
    box_bias: Range  # detector boxes are this much larger or smaller
    cut_feet: float
    occlusion: float
    company: float
    standing: float
    # look-alikes
    redraw_lower: float = 0.30
    redraw_second: float = 0.20
    colour_jitter: float = 0.03


_SUMMER = {
    "tops": "tshirt 0.50, shirt 0.14, polo 0.12, tank 0.06, dress 0.07, jacket 0.05, hoodie 0.03, "
    "sweater 0.03",
    "bottoms": "jeans 0.28, trousers 0.17, shorts 0.33, skirt 0.12, leggings 0.10",
    "shoes": "sneakers 0.6, sandals 0.2, leather 0.15, boots 0.05",
    "headwear": "none 0.90, cap 0.07, sunhat 0.03",
}
_WINTER = {
    "tops": "jacket 0.42, coat 0.18, hoodie 0.17, sweater 0.12, shirt 0.06, tshirt 0.05",
    "bottoms": "jeans 0.48, trousers 0.32, leggings 0.12, skirt 0.04, shorts 0.04",
    "shoes": "sneakers 0.5, boots 0.3, leather 0.2",
    "headwear": "none 0.68, beanie 0.13, hood 0.10, cap 0.09",
}
_ALL = {
    "tops": "tshirt 0.24, shirt 0.11, polo 0.05, tank 0.02, dress 0.05, jacket 0.25, coat 0.10, "
    "hoodie 0.10, sweater 0.08",
    "bottoms": "jeans 0.38, trousers 0.26, shorts 0.13, skirt 0.09, leggings 0.14",
    "shoes": "sneakers 0.55, sandals 0.08, leather 0.2, boots 0.17",
    "headwear": "none 0.82, cap 0.08, beanie 0.05, hood 0.04, sunhat 0.01",
}
_PATTERNS = weights(
    "plain 0.60, stripes 0.09, pinstripes 0.03, check 0.03, plaid 0.06, yoke 0.04, block 0.05, "
    "band 0.03, gradient 0.03, print 0.04"
)
_PLAINER = weights("plain 0.72, stripes 0.05, print 0.01")
_BAGS = ("none", "backpack", "shoulder", "crossbody", "handbag", "shopping", "suitcase")
# One row per field, one column per domain.
_TABLE: dict[str, tuple] = {
    "name": ("market", "duke", "cuhk03", "msmt17"),
    "season": ("summer", "winter", "summer", "all"),
    **{
        what: tuple(weights(season[what]) for season in (_SUMMER, _WINTER, _ALL, _ALL))
        for what in _ALL
    },
    "bags": tuple(
        dict(zip(_BAGS, shares, strict=True))
        for shares in (
            (0.38, 0.28, 0.12, 0.09, 0.05, 0.07, 0.01),
            (0.32, 0.42, 0.09, 0.08, 0.05, 0.03, 0.01),
            (0.33, 0.36, 0.13, 0.08, 0.04, 0.06, 0.0),
            (0.36, 0.30, 0.12, 0.08, 0.05, 0.07, 0.02),
        )
    ),
    "patterns": (_PATTERNS, {**_PATTERNS, **_PLAINER}, _PATTERNS, _PATTERNS),
    "scenes": (
        weights("plaza 0.45, campus 0.3, shops 0.25"),
        weights("campus 0.5, street 0.3, plaza 0.2"),
        weights("corridor 0.7, plaza 0.3"),
        weights("plaza 0.2, campus 0.25, street 0.2, shops 0.1, corridor 0.25"),
    ),
    "scarf": (0.01, 0.15, 0.02, 0.06),
    "female": (0.45, 0.42, 0.45, 0.45),
    "skins": (
        (0.45, 0.4, 0.1, 0.03, 0.02),
        (0.4, 0.28, 0.12, 0.1, 0.1),
        (0.5, 0.4, 0.08, 0.01, 0.01),
        (0.45, 0.33, 0.12, 0.06, 0.04),
    ),
    "camera_height": ((2.2, 3.4), (4.2, 6.2), (3.0, 4.4), (2.4, 5.2)),
    "distance": ((7.0, 13.0), (11.0, 19.0), (6.5, 11.0), (7.0, 17.0)),
    "focal": ((850.0, 1050.0), (1000.0, 1300.0), (800.0, 1000.0), (850.0, 1250.0)),
    "cast": (0.07, 0.09, 0.13, 0.11),
    "gain": ((0.9, 1.2), (0.85, 1.15), (0.82, 1.12), (0.75, 1.25)),
    "gamma": ((0.85, 1.15), (0.85, 1.2), (0.85, 1.25), (0.8, 1.25)),
    "saturation": ((0.8, 1.15), (0.6, 1.0), (0.7, 1.1), (0.65, 1.15)),
    "contrast": ((0.9, 1.15), (0.85, 1.1), (0.8, 1.15), (0.85, 1.15)),
    "blur": ((0.35, 0.75), (0.5, 1.0), (0.3, 0.8), (0.3, 0.9)),
    "motion": (1.5, 1.5, 1.0, 1.5),
    "noise": ((1.0, 3.0), (1.5, 4.5), (1.5, 4.0), (1.0, 4.5)),
    "resolution": ((0.75, 1.0), (0.5, 0.8), (0.7, 1.0), (0.6, 1.0)),
    "jpeg_quality": ((70, 92), (60, 88), (70, 92), (65, 92)),
    "sun": ((0.2, 0.9), (0.05, 0.7), (0.05, 0.45), (0.05, 1.1)),
    "ambient": ((0.55, 0.8), (0.6, 0.85), (0.6, 0.9), (0.5, 0.85)),
    "sun_elevation": ((35.0, 70.0), (18.0, 45.0), (35.0, 75.0), (12.0, 70.0)),
    "warmth": (0.05, 0.06, 0.08, 0.09),
    "box_jitter": (0.06, 0.09, 0.11, 0.08),
    "box_bias": ((1.0, 1.1), (1.02, 1.22), (0.92, 1.16), (0.98, 1.16)),
    "cut_feet": (0.08, 0.08, 0.18, 0.1),
    "occlusion": (0.13, 0.22, 0.12, 0.18),
    "company": (0.12, 0.15, 0.12, 0.15),
    "standing": (0.12, 0.1, 0.08, 0.12),
}

#: The four domains by name.
DOMAINS: dict[str, Domain] = {
    row[0]: Domain(**dict(zip(_TABLE, row, strict=True)))
    for row in zip(*_TABLE.values(), strict=True)
}

_BASIC: dict[str, Colour] = {
    name: colour(" ".join(values))
    for name, *values in (
        part.strip().rsplit(" ", 3)
        for part in """
        black 15 15 16, charcoal 26 26 28, grey 47 47 48, light grey 70 70 70, white 93 93 92,
        navy 15 18 31, denim 28 37 52, dark denim 16 20 31, pale denim 52 62 70, beige 76 69 57,
        khaki 56 50 37, olive 32 34 22, brown 34 24 17, burgundy 39 11 16, sky 55 71 86,
        red 74 14 15, royal 15 27 62, bottle 10 29 22, pink 89 65 70, mustard 77 60 21,
        teal 14 43 46, purple 37 25 48, orange 86 43 17, yellow 93 82 35, mint 64 83 73,
        cream 91 87 77, magenta 74 22 46, green 28 52 27, lavender 68 64 81, salmon 88 53 46
        """.split(",")
    )
}
#: Weights of the colours, by what is coloured.
PALETTES: dict[str, dict[str, float]] = {
    what: weights(text)
    for what, text in {
        "summer tops": """
        white 20, black 12, grey 6, light grey 7, navy 7, sky 6, red 6, royal 4, pink 6, yellow 3,
        mint 3, cream 4, teal 3, green 3, purple 2, orange 3, salmon 3, magenta 2, beige 3,
        lavender 2, olive 2, mustard 1, charcoal 3""",
        "winter tops": """
        black 24, charcoal 12, navy 12, grey 9, olive 5, brown 5, burgundy 4, beige 5, khaki 4,
        red 4, royal 4, white 3, light grey 4, bottle 3, teal 2, purple 3, mustard 1, cream 2,
        pink 1, dark denim 3, orange 1, sky 2""",
        "summer bottoms": """
        black 20, denim 12, pale denim 10, dark denim 10, navy 8, beige 9, khaki 8, white 5, grey 7,
        light grey 3, olive 4, brown 3, red 1, pink 1, charcoal 6, sky 1, royal 1""",
        "winter bottoms": """
        black 28, dark denim 18, denim 14, navy 9, charcoal 10, khaki 6, grey 6, brown 4, olive 3,
        beige 3, pale denim 4""",
        "jeans": "denim 4, dark denim 4, pale denim 2, black 3, charcoal 1",
        "shoes": """
        black 28, white 22, grey 10, brown 12, navy 6, charcoal 8, red 3, beige 5, royal 2, pink 1,
        orange 1, light grey 4""",
        "bags": """
        black 34, charcoal 10, grey 8, navy 11, brown 10, beige 5, red 5, royal 4, olive 4, white 3,
        pink 3, teal 2, purple 2, orange 2""",
        "accents": """
        white 30, black 16, red 12, yellow 6, grey 7, royal 6, navy 7, orange 4, green 3, cream 5,
        sky 4, pink 3""",
    }.items()
}


def choose(rng: np.random.Generator, options: Mapping[Option, float]) -> Option:
    """One key, with probability proportional to its weight."""
    share = np.array(list(options.values()), float)
    return list(options)[int(rng.choice(len(options), p=share / share.sum()))]


def as_colour(values: Iterable[float]) -> Colour:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def jitter(rng: np.random.Generator, colour: Colour, amount: float) -> Colour:
    """``colour`` with its brightness and its channels changed a little."""
    moved = np.asarray(colour) * np.exp(amount * 1.6 * rng.normal()) + amount * rng.normal(size=3)
    return as_colour(np.clip(moved, 0.04, 0.96))


def draw_colour(rng: np.random.Generator, palette: str) -> Colour:
    """A colour of one of :data:`PALETTES`, changed a little."""
    return jitter(rng, _BASIC[choose(rng, PALETTES[palette])], 0.04)


def season_palette(domain: Domain, what: str, rng: np.random.Generator) -> str:
    """Name of the palette for ``what`` ("tops" or "bottoms") in the domain's season."""
    if domain.season != "all":
        return f"{domain.season} {what}"
    return f"{'summer' if rng.random() < 0.5 else 'winter'} {what}"
