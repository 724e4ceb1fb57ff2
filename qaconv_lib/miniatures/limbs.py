"""Legs, feet, skirts, arms and sleeves as primitives, in body coordinates."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .domains import PART
from .geometry import Paint, Primitive, limb_axes, rotation_x, rotation_z
from .people import Person
from .pose import Pose
from .textures import leg_paint, plain, sleeve_paint, torso_paint

IDENTITY = np.eye(3)
FLAT = 0.4
"""The caps of the torso's and the skirt's cones are this much flatter than spheres."""


def cone(
    start: np.ndarray,
    end: np.ndarray,
    radii: tuple[float, float],
    paint: Paint,
    label: str,
    *,
    axes: np.ndarray = IDENTITY,
    scale: tuple[float, float, float] = (1.0, 1.0, 1.0),
    rest: np.ndarray | None = None,
    fold: float = 0.0,
    open_end: bool = False,
) -> Primitive:
    """A round cone; see :class:`~qaconv_lib.miniatures.geometry.Primitive`."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    return Primitive(
        start,
        end,
        radii,
        axes,
        scale,
        paint,
        PART[label],
        start if rest is None else np.asarray(rest, float),
        fold,
        open_end,
    )


def legs(person: Person, pose: Pose) -> tuple[list[Primitive], float]:
    """Legs, feet and skirt, and how far to raise the body so that the lowest foot touches y = 0."""
    body, bottom = person.body, person.bottom
    h = body.height
    hip_y = 0.515 * h
    shapes: list[Primitive] = []
    lowest = 1.0
    for side, name in ((1, "left"), (-1, "right")):
        phase = pose.phase if side > 0 else pose.phase + np.pi
        swing = pose.stride * np.sin(phase) + 0.04
        bend = 0.06 + 2.3 * pose.stride * max(0.0, np.cos(phase + 0.45)) ** 2
        hip = np.array([side * (0.50 * body.hips + 0.002) * h, hip_y, 0.0])
        tilt = rotation_z(-side * 0.02)
        knee = hip + tilt @ (0.24 * h * np.array([0, -np.cos(swing), np.sin(swing)]))
        low = swing - bend
        ankle = knee + 0.235 * h * np.array([0, -np.cos(low), np.sin(low)])
        shapes += _one_leg(person, side, name, hip, knee, ankle)
        foot_pitch = np.clip(low + 0.1, -0.9, 0.25)
        toe = ankle + rotation_x(-foot_pitch) @ np.array([side * 0.012 * h, -0.022 * h, 0.098 * h])
        heel = ankle + rotation_x(-foot_pitch) @ np.array([0, -0.018 * h, -0.018 * h])
        shapes += _foot(person, name, knee, ankle, heel, toe)
        lowest = min(lowest, heel[1] - 0.022 * h, toe[1] - 0.018 * h)
    covers = bottom.kind == "skirt" or person.top.kind == "dress"
    if covers:
        shapes.append(_skirt(person, hip_y, pose))
    return shapes, -lowest


def _one_leg(
    person: Person, side: int, name: str, hip: np.ndarray, knee: np.ndarray, ankle: np.ndarray
) -> list[Primitive]:
    body, bottom = person.body, person.bottom
    h, hip_y = body.height, 0.515 * body.height
    thigh, shin = f"{name} thigh", f"{name} shin"
    r0, r1, r2, r3 = np.array([0.049, 0.034, 0.0315, 0.0185]) * h * body.limb
    x = np.array([1.0, 0.0, 0.0])
    upper, lower = limb_axes(hip, knee, x), limb_axes(knee, ankle, x)
    skirted = bottom.kind == "skirt" or person.top.kind == "dress"
    bare = bottom.tights_colour if skirted and bottom.tights else body.skin
    calf = knee + 0.32 * (ankle - knee) - 0.006 * h * lower[2]
    rest_knee = np.array([0, hip_y - 0.24 * h, 0])
    skin = plain(bare, 0.08)
    long = not skirted and bottom.length > 0.6
    shapes: list[Primitive] = []
    if not long:
        shapes.append(cone(hip, knee, (r0, r1), skin, thigh, axes=upper))
    if skirted or bottom.length < 0.97:
        shapes += [
            cone(knee, calf, (r1, r2 * 1.06), skin, shin, axes=lower),
            cone(calf, ankle, (r2 * 1.06, r3), skin, shin, axes=lower),
        ]
    if skirted:
        return shapes
    cloth, ease, fold = leg_paint(person, side, hip_y), bottom.ease, bottom.folds
    rest_hip = np.array([0, hip_y, 0])
    if not long:
        share = min(bottom.length / 0.505, 1.0)
        end = hip + share * (knee - hip)
        wide = r0 + share * (r1 - r0) + 1.5 * ease + 0.004
        shapes.append(
            cone(
                hip,
                end,
                (r0 + ease, wide),
                cloth,
                thigh,
                axes=upper,
                rest=rest_hip,
                fold=fold,
                open_end=share < 1,
            )
        )
        if bottom.length > 0.505:
            end = knee + 0.12 * (ankle - knee)
            shapes.append(
                cone(
                    knee,
                    end,
                    (r1 + 1.5 * ease, r1 + 1.6 * ease + 0.005),
                    cloth,
                    thigh,
                    axes=lower,
                    rest=rest_knee,
                    fold=fold,
                    open_end=True,
                )
            )
        return shapes
    share = min((bottom.length - 0.505) / 0.495, 1.0)
    end = knee + share * (ankle - knee)
    hem = r2 + share * (r3 - r2) + ease * 1.3 + bottom.flare + 0.003
    shapes += [
        cone(hip, knee, (r0 + ease, r1 + ease), cloth, thigh, axes=upper, rest=rest_hip, fold=fold),
        cone(
            knee,
            end,
            (r1 + ease, max(hem, r3 + 0.004)),
            cloth,
            shin,
            axes=lower,
            rest=rest_knee,
            fold=fold,
            open_end=True,
        ),
    ]
    return shapes


def _foot(
    person: Person,
    name: str,
    knee: np.ndarray,
    ankle: np.ndarray,
    heel: np.ndarray,
    toe: np.ndarray,
) -> list[Primitive]:
    shoes, h = person.shoes, person.body.height
    label = f"{name} foot"
    axes = limb_axes(toe, heel, np.array([1.0, 0, 0]))  # y along the foot, z downwards
    up = -axes[2] if axes[2][1] < 0 else axes[2]
    sandals = shoes.kind == "sandals"
    upper = plain(person.body.skin if sandals else shoes.colour)
    sole = plain(shoes.sole)
    width = (1.0, 1.0, 0.9)
    shapes = [
        cone(heel, toe, (0.023 * h, 0.020 * h), upper, label, axes=axes, scale=width),
        cone(ankle, heel + 0.3 * (toe - heel), (0.0195 * h, 0.021 * h), upper, label),
        cone(
            heel - 0.013 * h * up,
            toe - 0.010 * h * up,
            (0.024 * h, 0.022 * h),
            sole,
            label,
            axes=axes,
            scale=(1.0, 1.0, 0.55),
        ),
    ]
    if sandals:
        middle = heel + 0.65 * (toe - heel) + 0.004 * h * up
        shapes.append(cone(middle, middle, (0.022 * h, 0.022 * h), plain(shoes.colour), label))
    shaft = 0.11 * h if shoes.kind == "boots" else 0.235 * h * shoes.sock_height
    if shaft > 0 and not sandals:
        boots = shoes.kind == "boots"
        top = ankle + shaft * (knee - ankle) / np.linalg.norm(knee - ankle)
        shapes.append(
            cone(
                ankle,
                top,
                (0.0195 * h, 0.0195 * h + 0.05 * shaft),
                plain(shoes.colour if boots else shoes.sock),
                label,
            )
        )
    return shapes


def _skirt(person: Person, hip_y: float, pose: Pose) -> Primitive:
    """The open cone of a skirt or of a dress below the hips."""
    body, h = person.body, person.body.height
    dress = person.top.kind == "dress"
    length = person.top.hem if dress else person.bottom.length * 0.475 * h
    flare = person.top.flare if dress else person.bottom.flare
    start = np.array([0, hip_y + 0.02 * h, 0.0])
    end = np.array([0, hip_y - max(length, 0.18), 0.0])
    radius = body.hips * h + 0.012
    wide = radius * (0.92 + 0.9 * flare * length / 0.4) + 0.02 * length
    depth = 0.78 + 0.5 * pose.stride
    if dress:
        waist = 0.62 * h
        paint = torso_paint(person, 0.82 * h, waist, 0.0)
    else:
        paint = leg_paint(person, 0, hip_y)
    return cone(
        start,
        end,
        (radius, wide),
        paint,
        "hips",
        scale=(1, FLAT, min(depth, 1.0)),
        rest=start,
        fold=1.4,
        open_end=True,
    )


def _arm_angles(person: Person, pose: Pose, side: int) -> tuple[float, float, float, float]:
    """Swing of the upper arm, bend of the elbow, spread, and inward turn of the forearm."""
    phase = pose.phase + (np.pi if side > 0 else 0.0)
    swing = 0.85 * pose.stride * np.sin(phase)
    bend = 0.22 + 0.55 * max(0.0, swing) + 0.3 * pose.stride
    spread = person.body.arm_spread + 0.05 * max(person.body.weight, 0)
    inward = 0.1
    if pose.arms == "phone" and side == pose.side:
        swing, bend, inward = 0.35, 1.75, 0.5
    elif pose.arms == "pockets":
        swing, bend, spread, inward = -0.2, 0.65, spread + 0.12, 0.5
    elif pose.arms == "straps":
        swing, bend, inward = 0.15, 2.3, 0.15
    elif person.bag.kind in ("handbag", "shopping", "suitcase") and side == person.bag.side:
        swing, bend = (-0.35 if person.bag.kind == "suitcase" else 0.25 * swing), 0.12
    return swing, bend, spread, inward


def arm(
    person: Person, pose: Pose, side: int, name: str, place: Callable[..., np.ndarray]
) -> tuple[list[Primitive], np.ndarray]:
    """One arm with its sleeve, and where the hand is (3,)."""
    body, top, h = person.body, person.top, person.body.height
    swing, bend, spread, inward = _arm_angles(person, pose, side)
    shoulder = place(side * (body.shoulder + 0.003) * h, 0.782 * h, 0)
    hang = rotation_z(side * spread)
    elbow = shoulder + hang @ (0.168 * h * np.array([0, -np.cos(swing), np.sin(swing)]))
    low = swing + bend
    fore = np.array([-side * np.sin(inward) * np.sin(min(low, 1.6)), -np.cos(low), np.sin(low)])
    fore = hang @ (fore / np.linalg.norm(fore))
    wrist = elbow + 0.148 * h * fore
    hand = wrist + 0.045 * h * fore
    x = np.array([1.0, 0, 0])
    upper, lower = limb_axes(shoulder, elbow, x), limb_axes(elbow, wrist, x)
    r0, r1, r2 = np.array([0.0285, 0.0225, 0.0155]) * h * body.limb
    skin = plain(body.skin, 0.05)
    up, down = f"{name} upper arm", f"{name} forearm"
    shapes = [
        cone(wrist, hand, (0.0165 * h, 0.019 * h), skin, down, axes=lower, scale=(0.75, 1, 1)),
        cone(
            hand,
            hand + 0.035 * h * fore,
            (0.018 * h, 0.011 * h),
            skin,
            down,
            axes=lower,
            scale=(0.7, 1, 1),
        ),
    ]
    share, ease = top.sleeve, top.ease + 0.003
    if share < 0.53:
        shapes.append(cone(shoulder, elbow, (r0, r1), skin, up, axes=upper))
    if share < 0.95:
        shapes.append(cone(elbow, wrist, (r1, r2), skin, down, axes=lower))
    if share <= 0:
        return shapes, hand
    part = min(share / 0.53, 1.0)
    end = shoulder + part * (elbow - shoulder)
    shapes.append(
        cone(
            shoulder,
            end,
            (r0 + ease, r0 + part * (r1 - r0) + 1.15 * ease),
            sleeve_paint(person, side, 0.0, 0.53 * part),
            up,
            axes=upper,
            fold=top.folds,
            open_end=part < 1,
        )
    )
    if share > 0.53:
        part = min((share - 0.53) / 0.44, 1.0)
        end = elbow + part * (wrist - elbow)
        hem = r1 + part * (r2 - r1) + 0.9 * ease + 0.003
        shapes.append(
            cone(
                elbow,
                end,
                (r1 + 1.15 * ease, hem),
                sleeve_paint(person, side, 0.53, 0.53 + 0.44 * part),
                down,
                axes=lower,
                fold=top.folds,
                open_end=True,
            )
        )
    return shapes, hand
