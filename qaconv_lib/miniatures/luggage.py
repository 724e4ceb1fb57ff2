"""Hair, hats, bags and what hands hold, as primitives."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from .colours import Colour
from .domains import PART
from .geometry import Paint, Primitive
from .people import Person
from .textures import bag_paint, plain

IDENTITY = np.eye(3)
Place = Callable[..., np.ndarray]


def _tube(
    start: np.ndarray,
    end: np.ndarray,
    r0: float,
    r1: float,
    colour: Colour,
    label: str,
    fold: float = 0.0,
) -> Primitive:
    start, end = np.asarray(start, float), np.asarray(end, float)
    return Primitive(
        start, end, (r0, r1), IDENTITY, (1, 1, 1), plain(colour), PART[label], start, fold
    )


def _box(
    centre: np.ndarray, half: Iterable[float], axes: np.ndarray, paint: Paint, label: str
) -> Primitive:
    centre = np.asarray(centre, float)
    wide, tall, deep = half
    return Primitive(
        centre,
        centre,
        (1, 1),
        axes,
        (wide, tall, deep),
        paint,
        PART[label],
        np.zeros(3),
        0.0,
        box=True,
    )


def head_cover(
    person: Person, ball: Callable[..., Primitive], at: Place, place: Place
) -> list[Primitive]:
    """Hair, hat, hood and scarf."""
    h = person.body.height
    hair, wear, top = person.hair, person.headwear, person.top
    colour = plain(hair.colour)
    grow = hair.volume
    shapes: list[Primitive] = []
    hooded = wear.kind == "hood"
    if hair.style in ("short", "bob", "long", "ponytail", "bun") and not hooded:
        shapes.append(ball(0, 0.016, -0.013, 0.0485 * grow, 0.057, 0.052 * grow, colour))
    if hair.style == "afro" and wear.kind == "none":
        shapes.append(ball(0, 0.024, -0.016, 0.068 * grow, 0.066 * grow, 0.062 * grow, colour))
    if hair.style == "bob":
        shapes.append(ball(0, -0.016, -0.022, 0.053 * grow, 0.05, 0.038, colour))
    if hair.style == "long" and not hooded:
        shapes += [
            ball(0, -0.02, -0.026, 0.050 * grow, 0.055, 0.034, colour),
            _tube(
                at(0, -0.01, -0.03),
                place(0, 0.775 * h, -0.062 * h),
                0.046 * h * grow,
                0.034 * h * grow,
                hair.colour,
                "head",
                0.5,
            ),
        ]
        for side in (1, -1):
            shapes.append(
                _tube(
                    at(side * 0.038, 0, 0.0),
                    place(side * 0.05 * h, 0.79 * h, 0.012 * h),
                    0.017 * h,
                    0.012 * h,
                    hair.colour,
                    "head",
                    0.4,
                )
            )
    if hair.style == "ponytail" and not hooded:
        shapes.append(
            _tube(
                at(0, 0.02, -0.062),
                place(0, 0.80 * h, -0.075 * h),
                0.02 * h,
                0.012 * h,
                hair.colour,
                "head",
            )
        )
    if hair.style == "bun" and wear.kind == "none":
        shapes.append(ball(0, 0.045, -0.055, 0.026, 0.024, 0.024, colour))
    hat = plain(wear.colour)
    if wear.kind == "cap":
        shapes += [
            ball(0, 0.034, -0.004, 0.0515, 0.040, 0.058, hat),
            ball(0, 0.030, 0.062, 0.038, 0.006, 0.042, hat),
        ]
    elif wear.kind == "beanie":
        shapes.append(ball(0, 0.032, -0.006, 0.053, 0.050, 0.060, hat))
        if wear.glasses:
            shapes.append(ball(0, 0.088, -0.006, 0.018, 0.017, 0.018, plain(wear.second)))
    elif wear.kind == "sunhat":
        shapes += [
            ball(0, 0.036, -0.004, 0.053, 0.044, 0.060, hat),
            ball(0, 0.028, -0.002, 0.100, 0.010, 0.105, hat),
        ]
    elif hooded:
        cloth = plain(top.colour)
        shapes += [
            ball(0, 0.010, -0.018, 0.060, 0.070, 0.058, cloth),
            ball(0, -0.055, -0.012, 0.056, 0.040, 0.055, cloth),
        ]
    if top.collar == "hood" and not hooded:
        back = place(0, 0.842 * h, -0.055 * h)
        half = (0.062 * h, 0.030 * h, 0.034 * h)
        shapes.append(
            Primitive(
                back,
                back,
                (1, 1),
                IDENTITY,
                half,
                plain(top.colour),
                PART["torso"],
                back,
                top.folds,
            )
        )
    elif top.collar == "fur":
        ring = place(0, 0.845 * h, -0.006 * h)
        half = (0.066 * h, 0.024 * h, 0.055 * h)
        shapes.append(
            Primitive(
                ring,
                ring,
                (1, 1),
                IDENTITY,
                half,
                plain(top.collar_colour),
                PART["torso"],
                ring,
                1.5,
            )
        )
    if wear.scarf:
        ring = place(0, 0.852 * h, 0.004 * h)
        half = (0.053 * h, 0.026 * h, 0.053 * h)
        shapes.append(
            Primitive(
                ring,
                ring,
                (1, 1),
                IDENTITY,
                half,
                plain(wear.scarf_colour),
                PART["torso"],
                ring,
                1.5,
            )
        )
        shapes.append(
            _tube(
                place(0.03 * h, 0.84 * h, 0.055 * h),
                place(0.035 * h, 0.71 * h, 0.075 * h),
                0.022 * h,
                0.02 * h,
                wear.scarf_colour,
                "torso",
                1.0,
            )
        )
    return shapes


def worn_bag(person: Person, place: Place, axes: np.ndarray) -> list[Primitive]:
    """Backpack, shoulder bag or cross-body bag; straps are painted on the torso."""
    bag, h = person.bag, person.body.height
    size, paint = bag.size, bag_paint(person)
    shapes: list[Primitive] = []
    depth = 0.7 * (person.body.chest * h + person.top.ease)
    if bag.kind == "backpack":
        z = -depth - 0.035 * h * size
        width, tall = 0.068 * h * size, 0.082 * h * size
        middle = place(0, 0.715 * h, z)
        shapes += [
            _box(middle, (width, tall, 0.036 * h * size), axes, paint, "bag"),
            Primitive(
                place(-0.35 * width, 0.715 * h + 0.8 * tall, z),
                place(0.35 * width, 0.715 * h + 0.8 * tall, z),
                (width * 0.62, width * 0.62),
                axes,
                (1, 0.8, 0.7),
                paint,
                PART["bag"],
                np.zeros(3),
                0.4,
            ),
            Primitive(
                place(0, 0.715 * h - 0.9 * tall, z),
                place(0, 0.715 * h, z),
                (width * 1.02, width * 1.02),
                axes,
                (1, 0.5, 0.62),
                paint,
                PART["bag"],
                np.array([0, -0.9 * tall, 0]),
                0.4,
            ),
            _box(
                place(0, 0.715 * h - 0.4 * tall, z - 0.04 * h * size),
                (0.72 * width, 0.5 * tall, 0.018 * h),
                axes,
                plain(bag.second if bag.emblem else bag.colour),
                "bag",
            ),
        ]
    elif bag.kind in ("shoulder", "crossbody"):
        big = bag.kind == "shoulder"
        x = bag.side * (person.body.hips * h + person.top.ease + 0.035)
        y = (0.60 if big else 0.54) * h
        half = np.array([0.030, 0.078 if big else 0.055, 0.095 if big else 0.075]) * size
        shapes.append(_box(place(x, y, -0.02), half, axes, paint, "bag"))
        anchor = bag.side if big else 0.4 * bag.side
        for z in (-0.05, 0.05):
            shapes.append(
                _tube(
                    place(x, y + half[1], z),
                    place(
                        anchor * 0.075 * h + (0 if big else bag.side * 0.03 * h),
                        (0.80 if big else 0.66) * h,
                        0.6 * z + (0 if big else np.sign(z) * 0.03),
                    ),
                    0.009,
                    0.009,
                    bag.strap,
                    "bag",
                )
            )
    return shapes


def hand_luggage(
    person: Person, arms: str, busy_side: int, side: int, hand: np.ndarray
) -> list[Primitive]:
    """What hangs from or lies in the hand of one side (+1 left, -1 right)."""
    bag = person.bag
    shapes: list[Primitive] = []
    hangs = bag.kind in ("handbag", "shopping", "suitcase") and bag.side == side
    if hangs and arms not in ("straps", "pockets"):
        grip = hand + np.array([0, -0.02, 0.0])
        if bag.kind == "suitcase":
            centre = np.array([grip[0], 0.30, grip[2] - 0.28])
            shapes.append(
                _box(
                    centre,
                    (0.17 * bag.size, 0.26 * bag.size, 0.10),
                    IDENTITY,
                    bag_paint(person),
                    "bag",
                )
            )
            shapes.append(_tube(grip, centre + [0, 0.25, 0], 0.01, 0.01, (0.3, 0.3, 0.3), "bag"))
        else:
            half = (
                np.array([0.05, 0.10, 0.13])
                if bag.kind == "handbag"
                else np.array([0.06, 0.16, 0.13])
            )
            half = half * bag.size
            centre = grip + np.array([0, -half[1] - 0.09, 0.0])
            shapes.append(_box(centre, half, IDENTITY, bag_paint(person), "bag"))
            for z in (-0.7, 0.7):
                shapes.append(
                    _tube(grip, centre + [0, half[1], z * half[2]], 0.008, 0.008, bag.strap, "bag")
                )
    label = "left forearm" if side > 0 else "right forearm"
    if arms == "phone" and side == busy_side:
        box = _box(
            hand + np.array([0, 0.045, 0.02]),
            (0.035, 0.065, 0.008),
            IDENTITY,
            plain((0.08, 0.08, 0.09)),
            label,
        )
        shapes.append(box)
    elif bag.handheld in ("cup", "umbrella") and side == -bag.side and arms == "swing":
        long = 0.32 if bag.handheld == "umbrella" else 0.06
        thick = 0.022 if bag.handheld == "umbrella" else 0.03
        shapes.append(
            _tube(
                hand + np.array([0, 0.05, 0]),
                hand - np.array([0, long, 0.02]),
                thick,
                0.8 * thick,
                bag.handheld_colour,
                label,
            )
        )
    return shapes
