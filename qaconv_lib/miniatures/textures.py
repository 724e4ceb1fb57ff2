"""How garments and faces are coloured: albedo as a function of the place on the surface."""

from __future__ import annotations

import numpy as np

from .domains import PART, Colour
from .geometry import Hit, Paint
from .people import Person
from .prints import PRINTS, linear, printed, repeat
from .wardrobe import Bottom, Emblem, Pattern, Top


def plain(colour: Colour, spread: float = 0.0) -> Paint:
    """One colour everywhere, darker by ``spread`` towards the end of the axis."""
    value = linear(colour)

    def paint(hit: Hit) -> np.ndarray:
        return value * (1 - spread * hit.along)[:, None]

    return paint


def weave(pattern: Pattern, colour: Colour, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Albedo (N, 3) of a patterned cloth at ``across`` and ``down`` metres."""
    first, second, third = linear(colour), linear(pattern.second), linear(pattern.third)
    out = np.tile(first, (len(across), 1))
    period, duty = pattern.period, pattern.duty
    if pattern.kind == "stripes":
        out[(down / period) % 1 < duty] = second
    elif pattern.kind == "pinstripes":
        out[(across / (0.6 * period)) % 1 < 0.35] = 0.5 * (first + second)
    elif pattern.kind == "check":
        out[((across / period) % 1 < 0.5) ^ ((down / period) % 1 < 0.5)] = second
    elif pattern.kind == "plaid":
        period = max(period, 0.06)
        bands = ((across / period) % 1 < duty).astype(np.float32)
        bands += ((down / period) % 1 < duty).astype(np.float32)
        out = out + (0.5 * bands)[:, None] * (second - out)
        fine = ((across / period + 0.3) % 1 < 0.1) | ((down / period + 0.3) % 1 < 0.1)
        out[fine] = 0.5 * (out[fine] + third)
    elif pattern.kind == "yoke":
        out[down < 0.10 + pattern.period] = second
    elif pattern.kind == "block":
        out[down > 0.22 + pattern.period] = second
    elif pattern.kind == "band":
        out[np.abs(down - 0.22) < 0.5 * max(pattern.period, 0.05)] = second
    elif pattern.kind == "gradient":
        share = np.clip(down / 0.55, 0, 1)[:, None]
        out = out + share * (second - out)
    elif pattern.kind == "print":
        phase = np.random.default_rng(pattern.seed).uniform(0, 6.28, 4)
        wave = 2.2 / max(period, 0.04)
        value = np.sin(wave * across * 2 + phase[0]) * np.sin(wave * down * 2 + phase[1])
        value += 0.7 * np.sin(wave * (across - 1.3 * down) + phase[2])
        out[value > 0.55] = second
        out[value < -1.0] = third
    elif pattern.kind == "sides":
        out[np.abs(np.sin(across / 0.15)) > 0.9] = second
    elif pattern.kind in PRINTS:
        bitmap = printed(pattern.kind, pattern.seed, (colour, pattern.second, pattern.third))
        out = repeat(bitmap, across / (8 * period), down / (8 * period))
    return out


def _stamp(out: np.ndarray, emblem: Emblem, x: np.ndarray, y: np.ndarray) -> None:
    """Print an emblem at offsets ``x``, ``y`` metres from its centre."""
    u, v = 2 * x / emblem.width, 2 * y / emblem.height
    inside = (np.abs(u) < 1) & (np.abs(v) < 1)
    if emblem.shape == "disc":
        inside = u * u + v * v < 1
    elif emblem.shape == "lines":
        inside &= (v * 1.5 + 0.25) % 1 < 0.55
    elif emblem.shape == "text":
        inside = (np.abs(u) < 1) & (np.abs(v) < 0.45) & ((u * 3.5) % 1 < 0.7)
    colour = np.tile(linear(emblem.colour), (len(u), 1))
    if emblem.shape in PRINTS:
        seed, rest = int(1e9 * emblem.width), (emblem.colour[::-1], (0.12, 0.12, 0.13))
        colour = repeat(printed(emblem.shape, seed, (emblem.colour, *rest)), u / 2, v / 2)
    if emblem.shape in ("block", "disc"):  # a motif, not a patch
        motif = np.sin(5.0 * u + 2.0 * v) * np.sin(4.0 * v - 1.5 * u + 20 * emblem.width)
        colour = colour * (1 - 0.45 * np.clip(3 * motif, 0, 1))[:, None]
    out[inside] = 0.9 * colour[inside] + 0.1 * out[inside]


def torso_paint(person: Person, shoulder_y: float, waist_y: float, hip_y: float) -> Paint:
    """Colours of the upper garment on the torso, with collar, front, print and bag straps.

    Positions of hits are rest coordinates in metres: x the person's left, y height.
    """
    top: Top = person.top
    skin = linear(person.body.skin)
    bottom_paint = leg_paint(person, 0, hip_y)
    radius = person.body.chest * person.body.height + top.ease

    def paint(hit: Hit) -> tuple[np.ndarray, np.ndarray]:
        x, y = hit.position[:, 0], hit.position[:, 1]
        drop = shoulder_y - y
        front = np.cos(hit.angle) > 0
        out = weave(top.pattern, top.colour, hit.angle * radius, drop)
        labels = np.where(y < hip_y + 0.04, PART["hips"], PART["torso"])
        if top.puffy:
            out *= (1 - 0.25 * top.puffy * (np.cos(drop * 75) > 0.75))[:, None]
        if top.zip or top.kind in ("shirt", "polo"):
            deep = 0.18 if top.kind == "polo" else 9.0
            out[front & (np.abs(x) < 0.007) & (drop < deep)] = linear(top.colour) * 0.55
        if top.emblem.place in ("front", "chest", "back"):
            side = ~front if top.emblem.place == "back" else front
            part, left = out[side], 0.07 if top.emblem.place == "chest" else 0.0
            _stamp(part, top.emblem, x[side] - left, drop[side] - top.emblem.drop)
            out[side] = part
        if top.opening:
            edge = top.opening * (0.75 + 1.3 * np.clip(drop, 0, 0.7))
            inside = front & (np.abs(x) < edge)
            seam = front & (np.abs(np.abs(x) - edge) < 0.008)
            out[inside] = linear(top.inner)
            under = inside & (y < hip_y - top.inner_hem)
            out[under] = bottom_paint(Hit(*(field[under] for field in hit)))
            out[seam] = linear(top.colour) * 0.5
        _neckline(out, top, skin, x, drop, front)
        if top.belt:
            out[np.abs(y - waist_y) < 0.022] = linear(person.bottom.belt_colour)
        if top.tucked:
            low = y < waist_y
            out[low] = bottom_paint(Hit(*(field[low] for field in hit)))
            if person.bottom.belt:
                out[np.abs(y - waist_y) < 0.018] = linear(person.bottom.belt_colour)
            labels = np.where(low, PART["hips"], labels)
        elif top.cuff and top.kind in ("hoodie", "sweater", "jacket"):
            out[y < hip_y - top.hem + 0.05] = linear(top.collar_colour) * 0.8
        straps = _straps(person, x, drop, front)
        out[straps] = linear(person.bag.strap)
        return out, np.where(straps, PART["bag"], labels)

    return paint


def _neckline(
    out: np.ndarray, top: Top, skin: np.ndarray, x: np.ndarray, drop: np.ndarray, front: np.ndarray
) -> None:
    above = drop + 0.035
    if top.collar == "v" or (top.collar == "shirt" and not top.zip):
        deep = 0.13 if top.collar == "v" else 0.07
        shown = front & (np.abs(x) < 0.07 * (1 - above / deep)) & (above < deep)
        out[shown] = skin if not top.opening else linear(top.inner)
    elif top.collar == "round":
        out[front & (x * x + (1.3 * above) ** 2 < 0.075**2)] = skin
        ring = np.abs(np.sqrt(x * x + (1.3 * above) ** 2) - 0.08) < 0.008
        out[front & ring] = linear(top.collar_colour)
    if top.collar == "shirt":
        wing = front & (np.abs(np.abs(x) - 0.055 + 0.3 * above) < 0.016) & (above < 0.085)
        out[wing] = linear(top.collar_colour)


def _straps(person: Person, x: np.ndarray, drop: np.ndarray, front: np.ndarray) -> np.ndarray:
    bag, reach = person.bag, 0.062 * person.body.height
    if bag.kind == "backpack":
        return (np.abs(np.abs(x) - 0.8 * reach) < 0.021) & (drop < 0.33) & front
    if bag.kind == "crossbody":
        line = bag.side * (-reach + 0.46 * (drop + 0.03))
        return (np.abs(x - line) < 0.019) & (drop < 0.55)
    if bag.kind == "shoulder":
        return (np.abs(x - bag.side * 1.15 * reach) < 0.016) & (drop < 0.3)
    return np.zeros(len(x), bool)


def sleeve_paint(person: Person, side: int, first: float, last: float) -> Paint:
    """Colours of a sleeve; ``first`` and ``last`` are shares of the arm at the cone's ends."""
    top = person.top
    emblem_here = top.emblem.place == ("left arm" if side > 0 else "right arm")
    length = 0.31 * person.body.height
    same = top.pattern.kind in ("stripes", "check", "plaid", "pinstripes", "print")

    def paint(hit: Hit) -> np.ndarray:
        share = first + (last - first) * hit.along
        down = share * length
        if same:
            out = weave(top.pattern, top.sleeve_colour, hit.angle * 0.05, down)
        else:
            out = np.tile(linear(top.sleeve_colour), (len(share), 1))
        if top.pattern.kind == "yoke" and top.sleeve_colour == top.colour:
            out[down < 0.06] = linear(top.pattern.second)
        if top.puffy:
            out *= (1 - 0.25 * top.puffy * (np.cos(down * 75) > 0.75))[:, None]
        if top.cuff:
            out[share > top.sleeve - 0.07] = linear(top.collar_colour)
        if emblem_here:
            outward = np.abs(hit.angle - side * np.pi / 2) < 0.8
            out[outward & (np.abs(share - 0.2) < 0.09)] = linear(top.emblem.colour)
        return out

    return paint


def leg_paint(person: Person, side: int, hip_y: float) -> Paint:
    """Colours of the lower garment; ``side`` is 0 on the pelvis, else +1 left or -1 right."""
    bottom: Bottom = person.bottom
    leg = 0.475 * person.body.height

    def paint(hit: Hit) -> np.ndarray:
        down = hip_y - hit.position[:, 1]
        share = down / leg
        out = weave(bottom.pattern, bottom.colour, hit.angle * 0.1, down)
        if bottom.wash:
            front = np.exp(-((hit.angle / 0.9) ** 2))
            worn = np.exp(-(((share - 0.3) / 0.2) ** 2))
            worn = worn + 0.6 * np.exp(-(((share - 0.75) / 0.15) ** 2))
            out = out * (1 + bottom.wash * front * worn)[:, None]
        if bottom.stripe and side:
            out[np.abs(hit.angle - side * np.pi / 2) < 0.28] = linear(bottom.stripe_colour)
        if bottom.turn_up:
            out[np.abs(share - bottom.length) < 0.05] = linear(bottom.colour) * 1.35 + 0.03
        if side == 0:
            belt = linear(bottom.belt_colour) if bottom.belt else linear(bottom.colour) * 0.7
            out[np.abs(down + 0.10 * person.body.height) < 0.012] = belt
        return out

    return paint


def face_paint(person: Person, scale: float) -> Paint:
    """Skin, eyes, brows, mouth, beard and cropped hair; ``scale`` is the person's height."""
    skin, hair = linear(person.body.skin), linear(person.hair.colour)
    bare = person.hair.style == "bald"
    lips = skin * np.array([0.75, 0.5, 0.5], np.float32)

    def paint(hit: Hit) -> np.ndarray:
        x, y, z = (hit.position / scale).T
        out = np.tile(skin, (len(x), 1))
        front = z > 0.015
        eyes = front & (np.abs(np.abs(x) - 0.018) < 0.0095) & (np.abs(y - 0.001) < 0.005)
        brows = front & (np.abs(np.abs(x) - 0.018) < 0.012) & (np.abs(y - 0.011) < 0.003)
        out[eyes] = 0.4 * skin
        out[brows] = 0.65 * skin + 0.35 * hair
        out[front & (np.abs(x) < 0.013) & (np.abs(y + 0.038) < 0.004)] = lips
        if person.headwear.glasses:
            around = np.abs(np.abs(x) - 0.02)
            rim = front & (np.abs(y - 0.001) < 0.009) & (around > 0.008) & (around < 0.016)
            out[rim] = 0.2 * skin
        if person.hair.beard:
            out[(z > -0.01) & (y < -0.026) & ~(front & (np.abs(y + 0.038) < 0.004))] = hair
        if person.headwear.mask:
            out[(z > -0.005) & (y < -0.010)] = np.array([0.75, 0.82, 0.88], np.float32)
        if not bare:
            line = 0.02 + 0.03 * person.hair.hairline
            out[(y > line) | ((z < -0.012) & (y > -0.03))] = hair
        return out

    return paint


def bag_paint(person: Person) -> Paint:
    """Colours of a bag: seams, a zip, and perhaps a patch and a second colour below."""
    bag = person.bag
    first, second = linear(bag.colour), linear(bag.second)

    def paint(hit: Hit) -> np.ndarray:
        out = np.tile(first, (len(hit.angle), 1))
        x, y = hit.position[:, 0], hit.position[:, 1]
        if bag.emblem:
            out[(np.abs(y - 0.04) < 0.03) & (np.abs(x) < 0.06)] = second
        if bag.two_tone:
            out[y < -0.02] = second
        out[(np.abs(y - 0.095) < 0.007) | (np.abs(y + 0.03) < 0.006)] = first * 0.6 + 0.05
        return out

    return paint
