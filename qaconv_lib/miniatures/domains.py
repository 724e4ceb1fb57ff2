"""The four drawn domains: every range that people, clothes, cameras and boxes are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PART_NAMES: tuple[str, ...] = (
    "background",
    "head",
    "torso",
    "hips",
    "left upper arm",
    "right upper arm",
    "left forearm",
    "right forearm",
    "left thigh",
    "right thigh",
    "left shin",
    "right shin",
    "left foot",
    "right foot",
    "bag",
    "other person",
    "occluder",
)
"""Names of the labels in part maps; a label is an index into this tuple. Left and right are the
person's own. Hips include skirts and coat tails, forearms include hands, bags include straps."""

PART: dict[str, int] = {name: index for index, name in enumerate(PART_NAMES)}

Range = tuple[float, float]
Weights = dict[str, float]


@dataclass(frozen=True)
class Domain:
    """Ranges and probabilities of one drawn domain.

    Ranges are (low, high) of a uniform draw, weights need not sum to one, lengths are metres,
    angles degrees.
    """

    name: str
    cameras: int
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

    def __post_init__(self) -> None:
        for field in ("redraw_lower", "redraw_second", "occlusion", "company", "cut_feet"):
            value = getattr(self, field)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"{field} of domain {self.name!r} must be in [0, 1], got {value}")


_SUMMER: dict[str, Any] = dict(
    season="summer",
    tops={
        "tshirt": 0.50,
        "shirt": 0.14,
        "polo": 0.12,
        "tank": 0.06,
        "dress": 0.07,
        "jacket": 0.05,
        "hoodie": 0.03,
        "sweater": 0.03,
    },
    bottoms={"jeans": 0.28, "trousers": 0.17, "shorts": 0.33, "skirt": 0.12, "leggings": 0.10},
    shoes={"sneakers": 0.6, "sandals": 0.2, "leather": 0.15, "boots": 0.05},
    headwear={"none": 0.90, "cap": 0.07, "sunhat": 0.03},
)
_WINTER: dict[str, Any] = dict(
    season="winter",
    tops={
        "jacket": 0.42,
        "coat": 0.18,
        "hoodie": 0.17,
        "sweater": 0.12,
        "shirt": 0.06,
        "tshirt": 0.05,
    },
    bottoms={"jeans": 0.48, "trousers": 0.32, "leggings": 0.12, "skirt": 0.04, "shorts": 0.04},
    shoes={"sneakers": 0.5, "boots": 0.3, "leather": 0.2},
    headwear={"none": 0.68, "beanie": 0.13, "hood": 0.10, "cap": 0.09},
)
_ALL: dict[str, Any] = dict(
    season="all",
    tops={
        "tshirt": 0.24,
        "shirt": 0.11,
        "polo": 0.05,
        "tank": 0.02,
        "dress": 0.05,
        "jacket": 0.25,
        "coat": 0.10,
        "hoodie": 0.10,
        "sweater": 0.08,
    },
    bottoms={"jeans": 0.38, "trousers": 0.26, "shorts": 0.13, "skirt": 0.09, "leggings": 0.14},
    shoes={"sneakers": 0.55, "sandals": 0.08, "leather": 0.2, "boots": 0.17},
    headwear={"none": 0.82, "cap": 0.08, "beanie": 0.05, "hood": 0.04, "sunhat": 0.01},
)
_PATTERNS = {
    "plain": 0.60,
    "stripes": 0.09,
    "pinstripes": 0.03,
    "check": 0.03,
    "plaid": 0.06,
    "yoke": 0.04,
    "block": 0.05,
    "band": 0.03,
    "gradient": 0.03,
    "print": 0.04,
}

DOMAINS: dict[str, Domain] = {
    "market": Domain(
        name="market",
        cameras=6,
        **_SUMMER,
        bags={
            "none": 0.38,
            "backpack": 0.28,
            "shoulder": 0.12,
            "crossbody": 0.09,
            "handbag": 0.05,
            "shopping": 0.07,
            "suitcase": 0.01,
        },
        patterns=_PATTERNS,
        scarf=0.01,
        female=0.45,
        skins=(0.45, 0.40, 0.10, 0.03, 0.02),
        scenes={"plaza": 0.45, "campus": 0.3, "shops": 0.25},
        camera_height=(2.2, 3.4),
        distance=(7.0, 13.0),
        focal=(850.0, 1050.0),
        cast=0.07,
        gain=(0.9, 1.2),
        gamma=(0.85, 1.15),
        saturation=(0.8, 1.15),
        contrast=(0.9, 1.15),
        blur=(0.35, 0.75),
        motion=1.5,
        noise=(1.0, 3.0),
        resolution=(0.75, 1.0),
        jpeg_quality=(70, 92),
        sun=(0.2, 0.9),
        ambient=(0.55, 0.8),
        sun_elevation=(35.0, 70.0),
        warmth=0.05,
        box_jitter=0.06,
        box_bias=(1.0, 1.10),
        cut_feet=0.08,
        occlusion=0.13,
        company=0.12,
        standing=0.12,
    ),
    "duke": Domain(
        name="duke",
        cameras=8,
        **_WINTER,
        bags={
            "none": 0.32,
            "backpack": 0.42,
            "shoulder": 0.09,
            "crossbody": 0.08,
            "handbag": 0.05,
            "shopping": 0.03,
            "suitcase": 0.01,
        },
        patterns={**_PATTERNS, "plain": 0.72, "print": 0.01, "stripes": 0.05},
        scarf=0.15,
        female=0.42,
        skins=(0.40, 0.28, 0.12, 0.10, 0.10),
        scenes={"campus": 0.5, "street": 0.3, "plaza": 0.2},
        camera_height=(4.2, 6.2),
        distance=(11.0, 19.0),
        focal=(1000.0, 1300.0),
        cast=0.09,
        gain=(0.85, 1.15),
        gamma=(0.85, 1.2),
        saturation=(0.6, 1.0),
        contrast=(0.85, 1.1),
        blur=(0.5, 1.0),
        motion=1.5,
        noise=(1.5, 4.5),
        resolution=(0.5, 0.8),
        jpeg_quality=(60, 88),
        sun=(0.05, 0.7),
        ambient=(0.6, 0.85),
        sun_elevation=(18.0, 45.0),
        warmth=0.06,
        box_jitter=0.09,
        box_bias=(1.02, 1.22),
        cut_feet=0.08,
        occlusion=0.22,
        company=0.15,
        standing=0.10,
    ),
    "cuhk03": Domain(
        name="cuhk03",
        cameras=2,
        **{**_ALL, "season": "summer"},
        bags={
            "none": 0.33,
            "backpack": 0.36,
            "shoulder": 0.13,
            "crossbody": 0.08,
            "handbag": 0.04,
            "shopping": 0.06,
        },
        patterns=_PATTERNS,
        scarf=0.02,
        female=0.45,
        skins=(0.5, 0.4, 0.08, 0.01, 0.01),
        scenes={"corridor": 0.7, "plaza": 0.3},
        camera_height=(3.0, 4.4),
        distance=(6.5, 11.0),
        focal=(800.0, 1000.0),
        cast=0.13,
        gain=(0.82, 1.12),
        gamma=(0.85, 1.25),
        saturation=(0.7, 1.1),
        contrast=(0.8, 1.15),
        blur=(0.3, 0.8),
        motion=1.0,
        noise=(1.5, 4.0),
        resolution=(0.7, 1.0),
        jpeg_quality=(70, 92),
        sun=(0.05, 0.45),
        ambient=(0.6, 0.9),
        sun_elevation=(35.0, 75.0),
        warmth=0.08,
        box_jitter=0.11,
        box_bias=(0.92, 1.16),
        cut_feet=0.18,
        occlusion=0.12,
        company=0.12,
        standing=0.08,
    ),
    "msmt17": Domain(
        name="msmt17",
        cameras=15,
        **_ALL,
        bags={
            "none": 0.36,
            "backpack": 0.30,
            "shoulder": 0.12,
            "crossbody": 0.08,
            "handbag": 0.05,
            "shopping": 0.07,
            "suitcase": 0.02,
        },
        patterns=_PATTERNS,
        scarf=0.06,
        female=0.45,
        skins=(0.45, 0.33, 0.12, 0.06, 0.04),
        scenes={"plaza": 0.2, "campus": 0.25, "street": 0.2, "shops": 0.1, "corridor": 0.25},
        camera_height=(2.4, 5.2),
        distance=(7.0, 17.0),
        focal=(850.0, 1250.0),
        cast=0.11,
        gain=(0.75, 1.25),
        gamma=(0.8, 1.25),
        saturation=(0.65, 1.15),
        contrast=(0.85, 1.15),
        blur=(0.3, 0.9),
        motion=1.5,
        noise=(1.0, 4.5),
        resolution=(0.6, 1.0),
        jpeg_quality=(65, 92),
        sun=(0.05, 1.1),
        ambient=(0.5, 0.85),
        sun_elevation=(12.0, 70.0),
        warmth=0.09,
        box_jitter=0.08,
        box_bias=(0.98, 1.16),
        cut_feet=0.10,
        occlusion=0.18,
        company=0.15,
        standing=0.12,
    ),
}
"""The four domains, by name."""


def get_domain(name: str) -> Domain:
    """The domain called ``name``.

    Raises:
        ValueError: if there is no such domain.
    """
    if name not in DOMAINS:
        raise ValueError(f"unknown domain {name!r}; there are {', '.join(DOMAINS)}")
    return DOMAINS[name]


def check_domain(domain: object) -> Domain:
    """``domain`` itself, or a TypeError if it is not a :class:`Domain`."""
    if not isinstance(domain, Domain):
        raise TypeError(
            f"domain must be a Domain such as DOMAINS['market'], got {type(domain).__name__}"
        )
    return domain
