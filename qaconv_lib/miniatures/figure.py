"""A person in a pose as a list of primitives, in body coordinates with the ground at y = 0."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from .geometry import Paint, Primitive, ball, cone, limb_axes, rotation
from .luggage import Place, hand_luggage, head_cover, worn_bag
from .people import Person, Pose
from .textures import face_paint, leg_paint, plain, sleeve_paint, torso_paint

_X = np.array([1.0, 0.0, 0.0])
_FLAT = 0.4  # the caps of the torso's and the skirt's cones are this much flatter than spheres
_SIDES = ((1, "left"), (-1, "right"))


def build_figure(person: Person, pose: Pose) -> list[Primitive]:
    """All primitives of a clothed person; the lowest foot touches y = 0."""
    shapes, drop = _legs(person, pose)
    shapes += _trunk(person, pose)
    for shape in shapes:
        shape.start = shape.start + [0.0, drop, 0.0]
        shape.end = shape.end + [0.0, drop, 0.0]
    return shapes


def _skirted(person: Person) -> bool:
    return person.bottom.kind == "skirt" or person.top.kind == "dress"


def _legs(person: Person, pose: Pose) -> tuple[list[Primitive], float]:
    """Legs, feet and skirt, and how far to raise the body so that the lowest foot touches y = 0."""
    body, h = person.body, person.body.height
    hip_y = 0.515 * h
    shapes: list[Primitive] = []
    lowest = 1.0
    for side, name in _SIDES:
        phase = pose.phase if side > 0 else pose.phase + np.pi
        swing = pose.stride * np.sin(phase) + 0.04
        bend = 0.06 + 2.3 * pose.stride * max(0.0, np.cos(phase + 0.45)) ** 2
        hip = np.array([side * (0.50 * body.hips + 0.002) * h, hip_y, 0.0])
        tilt = rotation("z", -side * 0.02)
        knee = hip + tilt @ (0.24 * h * np.array([0, -np.cos(swing), np.sin(swing)]))
        low = swing - bend
        ankle = knee + 0.235 * h * np.array([0, -np.cos(low), np.sin(low)])
        shapes += _one_leg(person, side, name, hip, knee, ankle)
        pitch = rotation("x", -np.clip(low + 0.1, -0.9, 0.25))
        toe = ankle + pitch @ np.array([side * 0.012 * h, -0.022 * h, 0.098 * h])
        heel = ankle + pitch @ np.array([0, -0.018 * h, -0.018 * h])
        shapes += _foot(person, f"{name} foot", knee, ankle, heel, toe)
        lowest = min(lowest, heel[1] - 0.022 * h, toe[1] - 0.018 * h)
    if _skirted(person):
        shapes.append(_skirt(person, hip_y, pose))
    return shapes, -lowest


def _one_leg(
    person: Person, side: int, name: str, hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray
) -> list[Primitive]:
    body, bottom, h = person.body, person.bottom, person.body.height
    r0, r1, r2, r3 = np.array([0.049, 0.034, 0.0315, 0.0185]) * h * body.limb
    thigh = partial(cone, label=f"{name} thigh", axes=limb_axes(hip, knee, _X))
    shin = partial(cone, label=f"{name} shin", axes=limb_axes(knee, ankle, _X))
    skirted = _skirted(person)
    skin = plain(bottom.tights_colour if skirted and bottom.tights else body.skin, 0.08)
    long = not skirted and bottom.length > 0.6
    shapes: list[Primitive] = []
    if not long:
        shapes.append(thigh(hip, knee, (r0, r1), skin))
    if skirted or bottom.length < 0.97:
        calf = knee + 0.32 * (ankle - knee) - 0.006 * h * shin.keywords["axes"][2]
        shapes += [
            shin(knee, calf, (r1, r2 * 1.06), skin),
            shin(calf, ankle, (r2 * 1.06, r3), skin),
        ]
    if skirted:
        return shapes
    ease, hip_y = bottom.ease, 0.515 * h
    cloth: dict[str, Any] = {"paint": leg_paint(person, side, hip_y), "fold": bottom.folds}
    above, below = np.array([0, hip_y, 0]), np.array([0, hip_y - 0.24 * h, 0])
    if long:
        share = min((bottom.length - 0.505) / 0.495, 1.0)
        hem = r2 + share * (r3 - r2) + ease * 1.3 + bottom.flare + 0.003
        radii = (r1 + ease, max(hem, r3 + 0.004))
        end = knee + share * (ankle - knee)
        upper = thigh(hip, knee, (r0 + ease, r1 + ease), rest=above, **cloth)
        return [*shapes, upper, shin(knee, end, radii, rest=below, open_end=True, **cloth)]
    share = min(bottom.length / 0.505, 1.0)
    radii = (r0 + ease, r0 + share * (r1 - r0) + 1.5 * ease + 0.004)
    end = hip + share * (knee - hip)
    shapes.append(thigh(hip, end, radii, rest=above, open_end=share < 1, **cloth))
    if bottom.length > 0.505:
        radii = (r1 + 1.5 * ease, r1 + 1.6 * ease + 0.005)
        end = knee + 0.12 * (ankle - knee)
        cloth["label"] = f"{name} thigh"
        shapes.append(shin(knee, end, radii, rest=below, open_end=True, **cloth))
    return shapes


def _foot(
    person: Person, label: str, knee: np.ndarray, ankle: np.ndarray, heel: np.ndarray,
    toe: np.ndarray,
) -> list[Primitive]:  # fmt: skip
    shoes, h = person.shoes, person.body.height
    axes = limb_axes(toe, heel, _X)  # y along the foot, z downwards
    up = -axes[2] if axes[2][1] < 0 else axes[2]
    sandals, boots = shoes.kind == "sandals", shoes.kind == "boots"
    upper = plain(person.body.skin if sandals else shoes.colour)
    length = toe - heel
    part = partial(cone, label=label)
    shapes = [
        part(heel, toe, (0.023 * h, 0.020 * h), upper, axes=axes, scale=(1.0, 1.0, 0.9)),
        part(ankle, heel + 0.3 * length, (0.0195 * h, 0.021 * h), upper),
    ]
    low, radii = (heel - 0.013 * h * up, toe - 0.010 * h * up), (0.024 * h, 0.022 * h)
    shapes.append(part(*low, radii, plain(shoes.sole), axes=axes, scale=(1.0, 1.0, 0.55)))
    if sandals:
        middle = heel + 0.65 * length + 0.004 * h * up
        shapes.append(part(middle, middle, (0.022 * h, 0.022 * h), plain(shoes.colour)))
    shaft = 0.11 * h if boots else 0.235 * h * shoes.sock_height
    if shaft > 0 and not sandals:
        top = ankle + shaft * (knee - ankle) / np.linalg.norm(knee - ankle)
        radii = (0.0195 * h, 0.0195 * h + 0.05 * shaft)
        shapes.append(part(ankle, top, radii, plain(shoes.colour if boots else shoes.sock)))
    return shapes


def _skirt(person: Person, hip_y: float, pose: Pose) -> Primitive:
    """The open cone of a skirt or of a dress below the hips."""
    body, h = person.body, person.body.height
    if person.top.kind == "dress":
        length, flare = person.top.hem, person.top.flare
        paint: Paint = torso_paint(person, 0.82 * h, 0.62 * h, 0.0)
    else:
        length, flare = person.bottom.length * 0.475 * h, person.bottom.flare
        paint = leg_paint(person, 0, hip_y)
    radius = body.hips * h + 0.012
    wide = radius * (0.92 + 0.9 * flare * length / 0.4) + 0.02 * length
    start, end = np.array([0, hip_y + 0.02 * h, 0.0]), np.array([0, hip_y - max(length, 0.18), 0.0])
    scale = (1, _FLAT, min(0.78 + 0.5 * pose.stride, 1.0))
    return cone(start, end, (radius, wide), paint, "hips", scale=scale, fold=1.4, open_end=True)


def _trunk(person: Person, pose: Pose) -> list[Primitive]:
    body, top, h = person.body, person.top, person.body.height
    hip_y, waist_y, chest_y, shoulder_y = (np.array([0.515, 0.62, 0.735, 0.815]) * h).tolist()
    pivot = np.array([0.0, 0.56 * h, 0.0])
    turn = rotation("y", pose.twist - 0.22 * pose.stride * np.sin(pose.phase)) @ rotation(
        "x", pose.lean
    )

    def place(*point: float) -> np.ndarray:
        return pivot + turn @ (np.array(point) - pivot)

    depth = 0.68 + 0.06 * max(body.weight, 0)
    cloth = torso_paint(person, shoulder_y, waist_y, hip_y)
    fold, ease = top.folds, top.ease
    hips, waist, chest = body.hips * h, body.waist * h, body.chest * h
    torso = partial(cone, paint=cloth, label="torso", axes=turn.T, fold=fold)
    pelvis = cone(
        np.array([0, hip_y + 0.005 * h, 0]),
        np.array([0, hip_y + 0.05 * h, 0]),
        (hips * 0.86, hips * 0.95),
        cloth if top.kind == "dress" else leg_paint(person, 0, hip_y),
        "hips",
        scale=(1, _FLAT, 0.74),
        fold=person.bottom.folds,
    )
    shapes = [pelvis]
    legs = (0.50 * body.hips + 0.049 * body.limb) * h + person.bottom.ease
    hem = max(hips, legs) + ease + 0.006
    worn_out = top.kind != "dress" and not top.tucked
    if worn_out:  # cloth hangs from the chest and does not follow the waist
        waist = max(waist, (0.80 if body.female else 0.88) * min(chest, hem))
    low = hem if worn_out else hips * 0.95 + ease
    for y0, y1, r0, r1 in (
        (hip_y + 0.045 * h, waist_y, low * 0.97, waist + ease),
        (waist_y, chest_y, waist + ease, chest + ease),
        (chest_y, 0.79 * h, chest + ease, 0.066 * h + ease),
    ):
        ends, scale = (place(0, y0, 0), place(0, y1, 0)), (1, _FLAT, depth)
        shapes.append(torso(*ends, (r0, r1), scale=scale, rest=[0, y0, 0]))
    width = body.shoulder * h
    for side, _ in _SIDES:
        start, end = np.array([0, 0.790 * h, 0]), place(side * width, 0.778 * h, 0)
        radii = (0.044 * h + ease, 0.030 * h + ease)
        shapes.append(torso(place(*start), end, radii, scale=(1, 1, 0.95), rest=start))
        start = np.array([0.010 * h * side, 0.835 * h, -0.008 * h])
        end = place(side * 0.95 * width, 0.788 * h, -0.004 * h)
        shapes.append(torso(place(*start), end, (0.027 * h, 0.024 * h + ease), rest=start))
        if body.female:
            start = np.array([side * 0.045 * h, 0.735 * h, 0.6 * depth * chest])
            radii = (0.038 * h + ease,) * 2
            shapes.append(torso(place(*start), place(*start), radii, rest=start, fold=0.5 * fold))
    if body.weight > 0.3:
        start = np.array([0, 0.625 * h, 0.03 * h * body.weight])
        radii = (waist * 0.95 + ease,) * 2
        shapes.append(torso(place(*start), place(*start), radii, scale=(1, 0.9, depth), rest=start))
    if worn_out:
        start, end = np.array([0, hip_y + 0.045 * h, 0]), np.array([0, hip_y - top.hem, 0])
        radii = (hem * 0.97, hem * (1 + top.flare))
        scale = (1, _FLAT, 0.76 + 0.5 * pose.stride * (top.hem > 0.12))
        shapes.append(torso(place(*start), end, radii, scale=scale, rest=start, open_end=True))
    for side, name in _SIDES:
        arm, hand = _arm(person, pose, side, name, place)
        shapes += arm + hand_luggage(person, pose.arms, pose.side, side, hand)
    return shapes + _head(person, pose, place, turn) + worn_bag(person, place, turn.T)


def _arm_angles(person: Person, pose: Pose, side: int) -> tuple[float, float, float, float]:
    """Swing of the upper arm, bend of the elbow, spread, and inward turn of the forearm."""
    swing = 0.85 * pose.stride * np.sin(pose.phase + (np.pi if side > 0 else 0.0))
    bend = 0.22 + 0.55 * max(0.0, swing) + 0.3 * pose.stride
    spread = person.body.arm_spread + 0.05 * max(person.body.weight, 0)
    if pose.arms == "phone" and side == pose.side:
        return 0.35, 1.75, spread, 0.5
    if pose.arms == "pockets":
        return -0.2, 0.65, spread + 0.12, 0.5
    if pose.arms == "straps":
        return 0.15, 2.3, spread, 0.15
    if person.bag.kind in ("handbag", "shopping", "suitcase") and side == person.bag.side:
        return (-0.35 if person.bag.kind == "suitcase" else 0.25 * swing), 0.12, spread, 0.1
    return swing, bend, spread, 0.1


def _arm(
    person: Person, pose: Pose, side: int, name: str, place: Place
) -> tuple[list[Primitive], np.ndarray]:
    """One arm with its sleeve, and where the hand is (3,)."""
    body, top, h = person.body, person.top, person.body.height
    swing, bend, spread, inward = _arm_angles(person, pose, side)
    shoulder = place(side * (body.shoulder + 0.003) * h, 0.782 * h, 0)
    hang = rotation("z", side * spread)
    elbow = shoulder + hang @ (0.168 * h * np.array([0, -np.cos(swing), np.sin(swing)]))
    low = swing + bend
    fore = np.array([-side * np.sin(inward) * np.sin(min(low, 1.6)), -np.cos(low), np.sin(low)])
    fore = hang @ (fore / np.linalg.norm(fore))
    wrist = elbow + 0.148 * h * fore
    hand = wrist + 0.045 * h * fore
    fingers = hand + 0.035 * h * fore
    upper = partial(cone, label=f"{name} upper arm", axes=limb_axes(shoulder, elbow, _X))
    lower = partial(cone, label=f"{name} forearm", axes=limb_axes(elbow, wrist, _X))
    r0, r1, r2 = np.array([0.0285, 0.0225, 0.0155]) * h * body.limb
    skin = plain(body.skin, 0.05)
    shapes = [
        lower(wrist, hand, (0.0165 * h, 0.019 * h), skin, scale=(0.75, 1, 1)),
        lower(hand, fingers, (0.018 * h, 0.011 * h), skin, scale=(0.7, 1, 1)),
    ]
    share, ease = top.sleeve, top.ease + 0.003
    if share < 0.53:
        shapes.append(upper(shoulder, elbow, (r0, r1), skin))
    if share < 0.95:
        shapes.append(lower(elbow, wrist, (r1, r2), skin))
    if share > 0:
        part = min(share / 0.53, 1.0)
        radii = (r0 + ease, r0 + part * (r1 - r0) + 1.15 * ease)
        cloth = sleeve_paint(person, side, 0.0, 0.53 * part)
        end = shoulder + part * (elbow - shoulder)
        shapes.append(upper(shoulder, end, radii, cloth, fold=top.folds, open_end=part < 1))
    if share > 0.53:
        part = min((share - 0.53) / 0.44, 1.0)
        radii = (r1 + 1.15 * ease, r1 + part * (r2 - r1) + 0.9 * ease + 0.003)
        cloth = sleeve_paint(person, side, 0.53, 0.53 + 0.44 * part)
        end = elbow + part * (wrist - elbow)
        shapes.append(lower(elbow, end, radii, cloth, fold=top.folds, open_end=True))
    return shapes, hand


def _head(person: Person, pose: Pose, place: Place, turn: np.ndarray) -> list[Primitive]:
    body, h, size = person.body, person.body.height, person.body.head
    look = turn @ rotation("y", pose.head_turn)
    centre = place(0, 0.925 * h, 0.012 * h)

    def at(x: float, y: float, z: float) -> np.ndarray:
        return centre + look @ (np.array([x, y, z]) * h * size)

    def blob(
        x: float, y: float, z: float, sx: float, sy: float, sz: float, paint: Paint
    ) -> Primitive:
        half, rest = np.array([sx, sy, sz]) * h * size, np.array([x, y, z]) * h * size
        return ball(at(x, y, z), half, paint, "head", axes=look.T, rest=rest)

    face, skin = face_paint(person, h), plain(body.skin)
    neck = (place(0, 0.80 * h, -0.006 * h), place(0, 0.885 * h, 0.008 * h))
    return [
        cone(*neck, (0.035 * h * body.limb, 0.029 * h * body.limb), skin, "head"),
        blob(0, 0.006, -0.004, 0.0445, 0.060, 0.054, face),
        blob(0, -0.028, 0.016, 0.036, 0.036, 0.036, face),
        blob(0, -0.012, 0.053, 0.008, 0.012, 0.008, skin),
        *(blob(side * 0.044, -0.005, -0.004, 0.006, 0.014, 0.009, skin) for side, _ in _SIDES),
        *head_cover(person, blob, at, place),
    ]
