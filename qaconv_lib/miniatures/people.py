"""Families of look-alikes and the persons in them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from . import wardrobe
from .domains import Colour, Domain, choose, colour, draw_colour, jitter, season_palette, weights
from .wardrobe import Bag, Bottom, Headwear, Shoes, Top

_SKINS = [colour(text) for text in ("91 74 64", "82 64 52", "69 50 38", "50 34 25", "35 23 17")]
_HAIR_STYLES = (
    weights("short 0.62, crop 0.26, bald 0.04, afro 0.03, bob 0.03"),
    weights("long 0.42, ponytail 0.28, bob 0.15, bun 0.08, short 0.05, afro 0.02"),
)
_RED, _BLUE = (0.72, 0.16, 0.12), (0.10, 0.30, 0.62)  # for changed clothes
_HAIR_COLOURS = {
    colour(text): share
    for text, share in weights(
        "10 8.5 8 0.45, 15 10 8 0.25, 30 20 13 0.13, 55 42 26 0.08, 46 45 44 0.035, 40 18 10 0.03"
    ).items()
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
    style: str  # "short", "crop", "bald", "bob", "long", "ponytail", "bun", "afro"
    colour: Colour
    hairline: float
    volume: float
    beard: bool


@dataclass(frozen=True)
class Family:
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


def sample_family(domain: Domain, rng: np.random.Generator) -> Family:
    """Draw the traits that a group of look-alikes shares."""
    female = bool(rng.random() < domain.female)
    top = wardrobe.sample_top(domain, rng, female)
    bottom = wardrobe.sample_bottom(domain, rng, female)
    style, tone = choose(rng, _HAIR_STYLES[female]), choose(rng, _HAIR_COLOURS)
    return Family(female, top, bottom, style, tone, wardrobe.sample_bag(domain, rng, female))


def _sample_body(domain: Domain, rng: np.random.Generator, female: bool) -> Body:
    weight = float(np.clip(0.45 * rng.normal(), -1, 1.2))
    wide = 1 + 0.10 * weight
    skin = choose(rng, dict(zip(_SKINS, domain.skins, strict=True)))
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

    Shoes, hat, print and build are a person's own, colours of clothes change a little, and some
    parts are redrawn: lower and second colour with the domain's probabilities, others at random.
    """
    female, amount = family.female, domain.colour_jitter
    top, bottom, bag = family.top, family.bottom, family.bag
    same_sleeve = top.sleeve_colour == top.colour
    colour = jitter(rng, top.colour, amount)
    top = replace(
        top,
        colour=colour,
        sleeve_colour=colour if same_sleeve else jitter(rng, top.sleeve_colour, amount),
        hem=top.hem + float(rng.normal(0, 0.012)),
        ease=max(0.0, top.ease + float(rng.normal(0, 0.002))),
        emblem=wardrobe.sample_emblem(rng, top.kind),
    )
    bottom = replace(bottom, colour=jitter(rng, bottom.colour, amount))
    if rng.random() < domain.redraw_lower:
        bottom = replace(bottom, colour=draw_colour(rng, season_palette(domain, "bottoms", rng)))
    if rng.random() < domain.redraw_second:
        palette, inner = season_palette(domain, "tops", rng), draw_colour(rng, "summer tops")
        pattern = replace(top.pattern, second=draw_colour(rng, palette))
        top = replace(top, inner=inner, pattern=pattern)
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
            bag = wardrobe.sample_bag(domain, rng, female)
        elif part == "bottom":
            bottom = replace(wardrobe.sample_bottom(domain, rng, female), colour=bottom.colour)
        elif part == "hair":
            style, tone = choose(rng, _HAIR_STYLES[female]), choose(rng, _HAIR_COLOURS)
            hair = replace(hair, style=style, colour=tone)
        elif part == "sleeves" and top.kind not in ("jacket", "coat", "tank"):
            top = replace(top, sleeve=float(rng.choice([0.25, 0.4, 0.6, 0.97])))
        else:
            pattern = replace(top.pattern, period=float(rng.uniform(0.03, 0.13)))
            collar = draw_colour(rng, "accents")
            top = replace(top, pattern=pattern, collar_colour=collar, cuff=not top.cuff)
    body, shoes = _sample_body(domain, rng, female), wardrobe.sample_shoes(domain, rng)
    headwear, seed = wardrobe.sample_headwear(domain, rng), int(rng.integers(1 << 30))
    return Person(body, hair, top, bottom, shoes, bag, headwear, seed)


@dataclass(frozen=True)
class Pose:
    phase: float  # of the step, radians; the left leg is foremost at pi / 2
    stride: float  # swing of the thighs, radians; 0 = standing
    arms: str  # "swing", "phone", "pockets" or "straps"
    side: int  # the arm meant by "phone": +1 left, -1 right
    head_turn: float  # radians, as the others
    twist: float
    lean: float


def sample_pose(person: Person, rng: np.random.Generator, standing: float) -> Pose:
    """A random moment; ``standing`` is the probability of not walking."""
    still = rng.random() < standing
    arms = {"swing": 0.8, "pockets": 0.08, "straps": 0.02, "phone": 0.06}
    if person.bag.kind == "backpack":
        arms["straps"] = 0.1
    if person.bag.handheld == "phone":
        arms["phone"] = 0.3
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(0.05 if still else 0.40 * person.body.stride * rng.uniform(0.8, 1.15)),
        arms=choose(rng, arms),
        side=int(rng.choice([-1, 1])),
        head_turn=float(0.22 * rng.normal()),
        twist=float(0.05 * rng.normal()),
        lean=float(person.body.lean + 0.02 * rng.normal()),
    )


def _paint(what: str, person: Person) -> Person:
    """With red or blue clothes, whichever is farther; with fair hair if it was dark, else dark."""
    part = getattr(person, what)
    if what == "hair":
        new = (0.78, 0.66, 0.42) if sum(part.colour) < 1.0 else (0.10, 0.085, 0.08)
    else:
        new = max(_RED, _BLUE, key=lambda other: np.square(np.subtract(part.colour, other)).sum())
    sleeves = {"sleeve_colour": new} if what == "top" else {}
    return replace(person, **{what: replace(part, colour=new, **sleeves)})


#: By what is changed: makes of one person another, alike in everything else (chapter 11).
CHANGES: dict[str, Callable[[Person], Person]] = {
    "top": partial(_paint, "top"),
    "trousers": partial(_paint, "bottom"),
    "hair": partial(_paint, "hair"),
}
