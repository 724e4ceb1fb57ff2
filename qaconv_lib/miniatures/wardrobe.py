"""Clothes: garments and how they are drawn at random."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .domains import Colour, Domain, Weights, choose, draw_colour, jitter, season_palette, weights


@dataclass(frozen=True)
class Pattern:
    """A woven or printed pattern; lengths in metres."""

    kind: str
    second: Colour
    third: Colour
    period: float
    duty: float
    seed: int


@dataclass(frozen=True)
class Emblem:
    place: str  # "none", "front", "chest", "back", "left arm", "right arm"
    shape: str  # "block", "disc", "lines", "text"
    colour: Colour
    width: float
    height: float
    drop: float  # metres from the shoulder line to the print's centre


@dataclass(frozen=True)
class Top:
    kind: str
    colour: Colour
    pattern: Pattern
    emblem: Emblem
    sleeve: float  # share of the arm that is covered, 0 to 1
    sleeve_colour: Colour
    cuff: bool
    hem: float  # metres below the hip joint; negative: above
    flare: float
    ease: float  # metres of looseness
    opening: float  # half width in metres of an open front, 0 = closed
    inner: Colour
    inner_hem: float
    zip: bool
    collar: str  # "none", "round", "v", "shirt", "hood", "fur"
    collar_colour: Colour
    tucked: bool
    belt: bool
    puffy: float
    folds: float


@dataclass(frozen=True)
class Bottom:
    kind: str
    colour: Colour
    pattern: Pattern
    length: float  # share of the leg that is covered
    ease: float
    flare: float
    wash: float
    stripe: bool
    stripe_colour: Colour
    belt: bool
    belt_colour: Colour
    turn_up: bool
    tights: bool
    tights_colour: Colour
    folds: float


@dataclass(frozen=True)
class Shoes:
    kind: str
    colour: Colour
    sole: Colour
    sock: Colour
    sock_height: float  # share of the shin


@dataclass(frozen=True)
class Bag:
    """Main bag, and what is in the hands."""

    kind: str
    side: int  # +1 = the person's left
    colour: Colour
    second: Colour
    strap: Colour
    size: float
    emblem: bool
    two_tone: bool
    handheld: str  # "none", "phone", "cup", "umbrella"
    handheld_colour: Colour


@dataclass(frozen=True)
class Headwear:
    kind: str
    colour: Colour
    second: Colour
    scarf: bool
    scarf_colour: Colour
    mask: bool
    glasses: bool


_EMBLEMS = weights("none 0.45, front 0.27, chest 0.11, back 0.12, left arm 0.025, right arm 0.025")
_SHAPES = weights("block 0.25, disc 0.2, lines 0.3, text 0.25")
_HANDHELD = weights("none 0.76, phone 0.14, cup 0.07, umbrella 0.03")
_EASE = {
    **dict.fromkeys(("jacket", "coat"), (0.014, 0.030)),
    **dict.fromkeys(("hoodie", "sweater"), (0.010, 0.022)),
}
_OPEN = {"jacket": 0.45, "coat": 0.4, "hoodie": 0.3, "shirt": 0.2}


def sample_pattern(domain: Domain, rng: np.random.Generator, palette: str) -> Pattern:
    return Pattern(
        kind=choose(rng, domain.patterns),
        second=draw_colour(rng, palette),
        third=draw_colour(rng, "accents"),
        period=float(rng.choice([0.03, 0.045, 0.06, 0.09, 0.13])),
        duty=float(rng.uniform(0.3, 0.6)),
        seed=int(rng.integers(1 << 30)),
    )


def sample_emblem(rng: np.random.Generator, kind: str) -> Emblem:
    places = _EMBLEMS
    if kind in ("shirt", "coat", "dress"):
        places = {**places, "front": 0.03, "back": 0.02, "none": 0.75}
    place = choose(rng, places)
    small = place in ("chest", "left arm", "right arm")
    return Emblem(
        place=place,
        shape=choose(rng, _SHAPES),
        colour=draw_colour(rng, "accents"),
        width=float(rng.uniform(0.05, 0.08) if small else rng.uniform(0.15, 0.28)),
        height=float(rng.uniform(0.04, 0.07) if small else rng.uniform(0.07, 0.22)),
        drop=float(rng.uniform(0.12, 0.16) if small else rng.uniform(0.17, 0.25)),
    )


def _choose_kind(
    rng: np.random.Generator, kinds: Weights, female: bool, men: dict[str, float]
) -> str:
    """A kind of garment; factors say how much rarer some are on men."""
    return choose(rng, kinds if female else {k: w * men.get(k, 1.0) for k, w in kinds.items()})


def sample_top(domain: Domain, rng: np.random.Generator, female: bool) -> Top:
    kind = _choose_kind(rng, domain.tops, female, {"dress": 0.0, "tank": 0.4})
    palette = season_palette(domain, "tops", rng)
    colour = draw_colour(rng, palette)
    sleeve = {
        "tshirt": rng.uniform(0.22, 0.42),
        "polo": rng.uniform(0.25, 0.4),
        "tank": 0.0,
        "dress": rng.choice([0.0, 0.2, 0.3, 0.95]),
        "shirt": rng.choice([0.3, 0.55, 0.95, 0.95]),
    }.get(kind, 0.97)
    hem = {
        "coat": rng.uniform(0.12, 0.42),
        "dress": rng.uniform(0.22, 0.5),
        "jacket": rng.uniform(-0.03, 0.12),
        "hoodie": rng.uniform(0.0, 0.07),
    }.get(kind, rng.uniform(-0.02, 0.09))
    open_front = rng.random() < _OPEN.get(kind, 0.0)
    collar = {
        "tshirt": choose(rng, {"round": 0.7, "v": 0.3}),
        "polo": "shirt",
        "shirt": "shirt",
        "tank": "v",
        "dress": choose(rng, {"round": 0.5, "v": 0.5}),
        "hoodie": "hood",
        "sweater": choose(rng, {"round": 0.7, "v": 0.3}),
        "jacket": choose(rng, {"none": 0.25, "hood": 0.4, "shirt": 0.25, "fur": 0.1}),
        "coat": choose(rng, {"shirt": 0.5, "hood": 0.3, "fur": 0.2}),
    }[kind]
    second_sleeve = kind in ("tshirt", "jacket", "hoodie") and rng.random() < 0.12
    return Top(
        kind=kind,
        colour=colour,
        pattern=sample_pattern(domain, rng, palette),
        emblem=sample_emblem(rng, kind),
        sleeve=float(sleeve),
        sleeve_colour=draw_colour(rng, palette) if second_sleeve else colour,
        cuff=bool(rng.random() < 0.15),
        hem=float(hem),
        flare=float(rng.uniform(0.02, 0.12) if kind in ("dress", "coat") else rng.uniform(0, 0.02)),
        ease=float(rng.uniform(*_EASE.get(kind, (0.002, 0.016)))),
        opening=float(rng.uniform(0.035, 0.10)) if open_front else 0.0,
        inner=draw_colour(rng, "summer tops"),
        inner_hem=float(rng.uniform(-0.02, 0.06)),
        zip=bool(rng.random() < (0.6 if kind in ("jacket", "hoodie") else 0.0)),
        collar=collar,
        collar_colour=jitter(rng, colour, 0.06)
        if rng.random() < 0.6
        else draw_colour(rng, palette),
        tucked=bool(kind in ("shirt", "polo", "tshirt", "tank") and rng.random() < 0.22),
        belt=bool(kind in ("coat", "dress") and rng.random() < 0.3),
        puffy=float(rng.uniform(0.4, 1.0)) if kind == "jacket" and rng.random() < 0.3 else 0.0,
        folds=float(rng.uniform(0.5, 1.1)),
    )


def sample_bottom(domain: Domain, rng: np.random.Generator, female: bool) -> Bottom:
    kind = _choose_kind(rng, domain.bottoms, female, {"skirt": 0.0, "leggings": 0.15})
    palette = season_palette(domain, "bottoms", rng)
    colour = draw_colour(rng, palette)
    if kind == "jeans" or (kind == "shorts" and rng.random() < 0.35):
        colour = draw_colour(rng, "jeans")
    if kind == "skirt" and rng.random() < 0.4:
        colour = draw_colour(rng, "summer tops")
    length = {
        "shorts": rng.uniform(*((0.22, 0.36) if female and rng.random() < 0.6 else (0.38, 0.56))),
        "skirt": rng.choice([rng.uniform(0.22, 0.42), rng.uniform(0.45, 0.85)]),
        "leggings": rng.choice([0.72, 0.97, 0.97]),
        "jeans": rng.choice([0.92, 0.98, 0.98]),
    }.get(kind, 0.98)
    pattern = sample_pattern(domain, rng, palette)
    if rng.random() < (0.3 if kind == "skirt" else 0.85):
        pattern = replace(pattern, kind="plain")
    slim = female or rng.random() < 0.35
    ease = {
        "leggings": 0.001,
        "jeans": rng.uniform(0.003, 0.012 if slim else 0.022),
        "shorts": rng.uniform(0.006, 0.03),
    }.get(kind, rng.uniform(0.008, 0.028))
    return Bottom(
        kind=kind,
        colour=colour,
        pattern=pattern,
        length=float(length),
        ease=float(ease),
        flare=float(rng.uniform(0.0, 0.15) if kind == "skirt" else rng.uniform(-0.004, 0.012)),
        wash=float(rng.uniform(0.1, 0.5)) if kind == "jeans" else 0.0,
        stripe=bool(kind in ("trousers", "shorts", "leggings") and rng.random() < 0.14),
        stripe_colour=draw_colour(rng, "accents"),
        belt=bool(rng.random() < 0.3),
        belt_colour=draw_colour(rng, "shoes"),
        turn_up=bool(kind in ("jeans", "shorts") and rng.random() < 0.15),
        tights=bool(rng.random() < (0.7 if domain.season == "winter" else 0.2)),
        tights_colour=draw_colour(rng, "winter bottoms"),
        folds=float(rng.uniform(0.5, 1.1)),
    )


def sample_shoes(domain: Domain, rng: np.random.Generator) -> Shoes:
    kind = choose(rng, domain.shoes)
    colour = draw_colour(rng, "shoes")
    light_sole = kind == "sneakers" and rng.random() < 0.65
    return Shoes(
        kind=kind,
        colour=colour,
        sole=(0.88, 0.88, 0.86) if light_sole else (0.13, 0.12, 0.12),
        sock=draw_colour(rng, "shoes"),
        sock_height=float(rng.choice([0.0, 0.12, 0.3, 0.75], p=[0.3, 0.4, 0.25, 0.05])),
    )


def sample_bag(domain: Domain, rng: np.random.Generator, female: bool) -> Bag:
    """A bag, and what is in the hands."""
    colour = draw_colour(rng, "bags")
    return Bag(
        kind=_choose_kind(rng, domain.bags, female, {"handbag": 0.2}),
        side=1 if rng.random() < 0.5 else -1,
        colour=colour,
        second=draw_colour(rng, "bags"),
        strap=colour if rng.random() < 0.7 else draw_colour(rng, "bags"),
        size=float(rng.uniform(0.8, 1.2)),
        emblem=bool(rng.random() < 0.4),
        two_tone=bool(rng.random() < 0.3),
        handheld=choose(rng, _HANDHELD),
        handheld_colour=draw_colour(rng, "accents"),
    )


def sample_headwear(domain: Domain, rng: np.random.Generator) -> Headwear:
    return Headwear(
        kind=choose(rng, domain.headwear),
        colour=draw_colour(rng, "winter tops" if domain.season == "winter" else "bags"),
        second=draw_colour(rng, "accents"),
        scarf=bool(rng.random() < domain.scarf),
        scarf_colour=draw_colour(rng, "winter tops"),
        mask=bool(rng.random() < 0.03),
        glasses=bool(rng.random() < 0.25),
    )
