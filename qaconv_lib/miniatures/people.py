"""Families of look-alikes and the persons in them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .colours import Colour, choose, draw_colour, jitter, season_palette
from .domains import Domain, check_domain
from .wardrobe import (
    Bag,
    Bottom,
    Headwear,
    Shoes,
    Top,
    sample_bag,
    sample_bottom,
    sample_emblem,
    sample_headwear,
    sample_shoes,
    sample_top,
)

_SKINS: tuple[Colour, ...] = (
    (0.91, 0.74, 0.64),
    (0.82, 0.64, 0.52),
    (0.69, 0.50, 0.38),
    (0.50, 0.34, 0.25),
    (0.35, 0.23, 0.17),
)
_HAIR_COLOURS: dict[Colour, float] = {
    (0.10, 0.085, 0.08): 0.45,
    (0.15, 0.10, 0.08): 0.25,
    (0.30, 0.20, 0.13): 0.13,
    (0.55, 0.42, 0.26): 0.08,
    (0.46, 0.45, 0.44): 0.035,
    (0.40, 0.18, 0.10): 0.03,
}


@dataclass(frozen=True)
class Body:
    """Build; half widths are fractions of the height."""

    height: float  # metres
    female: bool
    weight: float  # -1 thin to 1 heavy
    shoulder: float
    chest: float
    waist: float
    hips: float
    limb: float  # thickness of the limbs, 1 = average
    head: float
    skin: Colour
    stride: float
    lean: float  # radians
    arm_spread: float


@dataclass(frozen=True)
class Hair:
    """Hair and beard."""

    style: str  # "short", "crop", "bald", "bob", "long", "ponytail", "bun", "afro"
    colour: Colour
    hairline: float
    volume: float
    beard: bool


@dataclass(frozen=True)
class Family:
    """What look-alikes share."""

    female: bool
    top: Top
    bottom: Bottom
    hair_style: str
    hair_colour: Colour
    bag: Bag


@dataclass(frozen=True)
class Person:
    """One identity: everything that stays the same from camera to camera."""

    body: Body
    hair: Hair
    top: Top
    bottom: Bottom
    shoes: Shoes
    bag: Bag
    headwear: Headwear
    seed: int  # of the small irregularities of the cloth


def _hair_style(female: bool, rng: np.random.Generator) -> str:
    if female:
        return choose(
            rng,
            {"long": 0.42, "ponytail": 0.28, "bob": 0.15, "bun": 0.08, "short": 0.05, "afro": 0.02},
        )
    return choose(rng, {"short": 0.62, "crop": 0.26, "bald": 0.04, "afro": 0.03, "bob": 0.03})


def _hair_colour(rng: np.random.Generator) -> Colour:
    colours = list(_HAIR_COLOURS)
    weights = np.array(list(_HAIR_COLOURS.values()))
    return colours[int(rng.choice(len(colours), p=weights / weights.sum()))]


def sample_family(domain: Domain, rng: np.random.Generator) -> Family:
    """Draw the traits that a group of look-alikes shares.

    Args:
        domain: where they live; one of :data:`~qaconv_lib.miniatures.domains.DOMAINS`.
        rng: source of randomness.

    Returns:
        The shared traits; :func:`sample_person` draws members.
    """
    check_domain(domain)
    female = bool(rng.random() < domain.female)
    return Family(
        female=female,
        top=sample_top(domain, rng, female),
        bottom=sample_bottom(domain, rng, female),
        hair_style=_hair_style(female, rng),
        hair_colour=_hair_colour(rng),
        bag=sample_bag(domain, rng, female),
    )


def _sample_body(domain: Domain, rng: np.random.Generator, female: bool) -> Body:
    weight = float(np.clip(0.45 * rng.normal(), -1, 1.2))
    wide = 1 + 0.10 * weight
    shares = np.asarray(domain.skins) / np.sum(domain.skins)
    skin = _SKINS[int(rng.choice(len(_SKINS), p=shares))]
    return Body(
        height=float(rng.normal(1.62, 0.055) if female else rng.normal(1.74, 0.065)),
        female=female,
        weight=weight,
        shoulder=float((0.090 if female else 0.101) * rng.uniform(0.96, 1.05)),
        chest=float((0.081 if female else 0.088) * wide * rng.uniform(0.96, 1.04)),
        waist=float((0.066 if female else 0.077) * (1 + 0.17 * weight) * rng.uniform(0.95, 1.05)),
        hips=float((0.090 if female else 0.083) * wide * rng.uniform(0.96, 1.04)),
        limb=float((0.94 if female else 1.0) * wide * rng.uniform(0.95, 1.05)),
        head=float(rng.uniform(0.95, 1.05)),
        skin=jitter(rng, skin, 0.025),
        stride=float(rng.uniform(0.75, 1.1)),
        lean=float(rng.normal(0.04, 0.03)),
        arm_spread=float(rng.uniform(0.06, 0.16)),
    )


def sample_person(domain: Domain, family: Family, rng: np.random.Generator) -> Person:
    """Draw one identity of a family of look-alikes.

    Small things (shoes, hat, print, build) are a person's own; colours of the family's clothes
    change a little; the lower colour and the second colour are redrawn with the domain's
    probabilities, and one or two further parts are redrawn at random.

    Args:
        domain: where the person lives.
        family: traits to share.
        rng: source of randomness.
    """
    check_domain(domain)
    if not isinstance(family, Family):
        raise TypeError(f"family must be a Family, got {type(family).__name__}")
    female = family.female
    top, bottom, bag = family.top, family.bottom, family.bag
    amount = domain.colour_jitter
    same_sleeve = top.sleeve_colour == top.colour
    colour = jitter(rng, top.colour, amount)
    top = replace(
        top,
        colour=colour,
        sleeve_colour=colour if same_sleeve else jitter(rng, top.sleeve_colour, amount),
        hem=top.hem + float(rng.normal(0, 0.012)),
        ease=max(0.0, top.ease + float(rng.normal(0, 0.002))),
        emblem=sample_emblem(rng, top.kind),
    )
    bottom = replace(bottom, colour=jitter(rng, bottom.colour, amount))
    if rng.random() < domain.redraw_lower:
        bottom = replace(bottom, colour=draw_colour(rng, season_palette(domain, "bottoms", rng)))
    if rng.random() < domain.redraw_second:
        palette = season_palette(domain, "tops", rng)
        top = replace(
            top,
            inner=draw_colour(rng, "summer tops"),
            pattern=replace(top.pattern, second=draw_colour(rng, palette)),
        )
    hair = Hair(
        style=family.hair_style,
        colour=family.hair_colour,
        hairline=float(rng.uniform(0.25, 0.55)),
        volume=float(rng.uniform(0.9, 1.15)),
        beard=bool(not female and rng.random() < 0.15),
    )
    parts = ["bag", "bottom", "hair", "sleeves", "details"]
    for part in rng.choice(parts, size=int(rng.integers(1, 3)), replace=False):
        if part == "bag":
            bag = sample_bag(domain, rng, female)
        elif part == "bottom":
            bottom = replace(sample_bottom(domain, rng, female), colour=bottom.colour)
        elif part == "hair":
            hair = replace(hair, style=_hair_style(female, rng), colour=_hair_colour(rng))
        elif part == "sleeves" and top.kind not in ("jacket", "coat", "tank"):
            top = replace(top, sleeve=float(rng.choice([0.25, 0.4, 0.6, 0.97])))
        else:
            top = replace(
                top,
                pattern=replace(top.pattern, period=float(rng.uniform(0.03, 0.13))),
                collar_colour=draw_colour(rng, "accents"),
                cuff=not top.cuff,
            )
    return Person(
        body=_sample_body(domain, rng, female),
        hair=hair,
        top=top,
        bottom=bottom,
        shoes=sample_shoes(domain, rng),
        bag=bag,
        headwear=sample_headwear(domain, rng),
        seed=int(rng.integers(1 << 30)),
    )
