"""Hair, hats, bags and what hands hold, as primitives."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from .geometry import Primitive, ball, cone, slab, tube
from .people import Person
from .textures import bag_paint, plain

Place = Callable[..., np.ndarray]
_ORIGIN = np.zeros(3)
_HATS: dict[str, list[tuple[float, ...]]] = {  # place and half axes, in the head's frame
    "none": [],
    "cap": [(0, 0.034, -0.004, 0.0515, 0.040, 0.058), (0, 0.030, 0.062, 0.038, 0.006, 0.042)],
    "beanie": [(0, 0.032, -0.006, 0.053, 0.050, 0.060)],
    "sunhat": [(0, 0.036, -0.004, 0.053, 0.044, 0.060), (0, 0.028, -0.002, 0.100, 0.010, 0.105)],
    "hood": [(0, 0.010, -0.018, 0.060, 0.070, 0.058), (0, -0.055, -0.012, 0.056, 0.040, 0.055)],
}


def head_cover(
    person: Person, blob: Callable[..., Primitive], at: Place, place: Place
) -> list[Primitive]:
    """Hair, hat, hood and scarf; ``blob`` and ``at`` are in the head's frame, not the trunk's."""
    h = person.body.height
    hair, wear, top = person.hair, person.headwear, person.top
    colour, grow = plain(hair.colour), hair.volume
    hooded, bare, style = wear.kind == "hood", wear.kind == "none", hair.style
    shapes: list[Primitive] = []
    lock = partial(cone, paint=colour, label="head")
    if style in ("short", "bob", "long", "ponytail", "bun") and not hooded:
        shapes.append(blob(0, 0.016, -0.013, 0.0485 * grow, 0.057, 0.052 * grow, colour))
    if style == "afro" and bare:
        shapes.append(blob(0, 0.024, -0.016, 0.068 * grow, 0.066 * grow, 0.062 * grow, colour))
    if style == "bob":
        shapes.append(blob(0, -0.016, -0.022, 0.053 * grow, 0.05, 0.038, colour))
    if style == "long" and not hooded:
        ends = (at(0, -0.01, -0.03), place(0, 0.775 * h, -0.062 * h))
        shapes.append(blob(0, -0.02, -0.026, 0.050 * grow, 0.055, 0.034, colour))
        shapes.append(lock(*ends, (0.046 * h * grow, 0.034 * h * grow), fold=0.5))
        for side in (1, -1):
            ends = (at(side * 0.038, 0, 0.0), place(side * 0.05 * h, 0.79 * h, 0.012 * h))
            shapes.append(lock(*ends, (0.017 * h, 0.012 * h), fold=0.4))
    if style == "ponytail" and not hooded:
        ends = (at(0, 0.02, -0.062), place(0, 0.80 * h, -0.075 * h))
        shapes.append(lock(*ends, (0.02 * h, 0.012 * h)))
    if style == "bun" and bare:
        shapes.append(blob(0, 0.045, -0.055, 0.026, 0.024, 0.024, colour))
    hat, cloth = plain(wear.colour), plain(top.colour)
    for part in _HATS[wear.kind]:
        shapes.append(blob(*part, cloth if hooded else hat))
    if wear.kind == "beanie" and wear.glasses:
        shapes.append(blob(0, 0.088, -0.006, 0.018, 0.017, 0.018, plain(wear.second)))
    if top.collar == "hood" and not hooded:
        back, half = place(0, 0.842 * h, -0.055 * h), (0.062 * h, 0.030 * h, 0.034 * h)
        shapes.append(ball(back, half, cloth, "torso", fold=top.folds))
    elif top.collar == "fur":
        ring, half = place(0, 0.845 * h, -0.006 * h), (0.066 * h, 0.024 * h, 0.055 * h)
        shapes.append(ball(ring, half, plain(top.collar_colour), "torso", fold=1.5))
    if wear.scarf:
        scarf = plain(wear.scarf_colour)
        ring, half = place(0, 0.852 * h, 0.004 * h), (0.053 * h, 0.026 * h, 0.053 * h)
        ends = (place(0.03 * h, 0.84 * h, 0.055 * h), place(0.035 * h, 0.71 * h, 0.075 * h))
        shapes.append(ball(ring, half, scarf, "torso", fold=1.5))
        shapes.append(cone(*ends, (0.022 * h, 0.02 * h), scarf, "torso", fold=1.0))
    return shapes


def worn_bag(person: Person, place: Place, axes: np.ndarray) -> list[Primitive]:
    """Backpack, shoulder bag or cross-body bag; straps are painted on the torso."""
    bag, body, h = person.bag, person.body, person.body.height
    size, paint = bag.size, bag_paint(person)
    if bag.kind == "backpack":
        z = -0.7 * (body.chest * h + person.top.ease) - 0.035 * h * size
        width, tall = 0.068 * h * size, 0.082 * h * size
        y = 0.715 * h
        pouch = partial(cone, paint=paint, label="bag", axes=axes, fold=0.4)
        upper = (place(-0.35 * width, y + 0.8 * tall, z), place(0.35 * width, y + 0.8 * tall, z))
        lower = (place(0, y - 0.9 * tall, z), place(0, y, z))
        pocket = (0.72 * width, 0.5 * tall, 0.018 * h)
        second = plain(bag.second if bag.emblem else bag.colour)
        box = (width, tall, 0.036 * h * size)
        back = slab(place(0, y, z), box, paint, "bag", axes=axes, rest=_ORIGIN)
        return [
            back,
            pouch(*upper, (width * 0.62, width * 0.62), scale=(1, 0.8, 0.7), rest=_ORIGIN),
            pouch(
                *lower, (width * 1.02, width * 1.02), scale=(1, 0.5, 0.62), rest=(0, -0.9 * tall, 0)
            ),
            slab(place(0, y - 0.4 * tall, z - 0.04 * h * size), pocket, second, "bag", axes=axes),
        ]
    if bag.kind not in ("shoulder", "crossbody"):
        return []
    big = bag.kind == "shoulder"
    x = bag.side * (body.hips * h + person.top.ease + 0.035)
    y = (0.60 if big else 0.54) * h
    half = np.array([0.030, 0.078 if big else 0.055, 0.095 if big else 0.075]) * size
    shapes = [slab(place(x, y, -0.02), half, paint, "bag", axes=axes, rest=_ORIGIN)]
    for z in (-0.05, 0.05):
        if big:
            top = place(bag.side * 0.075 * h, 0.80 * h, 0.6 * z)
        else:
            across = 0.4 * bag.side * 0.075 * h + bag.side * 0.03 * h
            top = place(across, 0.66 * h, 0.6 * z + np.sign(z) * 0.03)
        shapes.append(tube(place(x, y + half[1], z), top, 0.009, plain(bag.strap), "bag"))
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
            half = np.array([0.17 * bag.size, 0.26 * bag.size, 0.10])
            grey = plain((0.3, 0.3, 0.3))
            handles = [tube(grip, centre + [0, 0.25, 0], 0.01, grey, "bag")]
        else:
            half = np.array([0.05, 0.10, 0.13] if bag.kind == "handbag" else [0.06, 0.16, 0.13])
            half = half * bag.size
            centre = grip + np.array([0, -half[1] - 0.09, 0.0])
            strap = plain(bag.strap)
            tops = [centre + [0, half[1], z * half[2]] for z in (-0.7, 0.7)]
            handles = [tube(grip, top, 0.008, strap, "bag") for top in tops]
        shapes += [slab(centre, half, bag_paint(person), "bag", rest=_ORIGIN), *handles]
    label = "left forearm" if side > 0 else "right forearm"
    if arms == "phone" and side == busy_side:
        centre, black = hand + np.array([0, 0.045, 0.02]), plain((0.08, 0.08, 0.09))
        shapes.append(slab(centre, (0.035, 0.065, 0.008), black, label))
    elif bag.handheld in ("cup", "umbrella") and side == -bag.side and arms == "swing":
        long, thick = (0.32, 0.022) if bag.handheld == "umbrella" else (0.06, 0.03)
        ends = (hand + np.array([0, 0.05, 0]), hand - np.array([0, long, 0.02]))
        shapes.append(cone(*ends, (thick, 0.8 * thick), plain(bag.handheld_colour), label))
    return shapes
