"""A person in a pose as a list of primitives, in body coordinates with the ground at y = 0."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .geometry import Paint, Primitive, rotation_x, rotation_y
from .limbs import FLAT, arm, cone, legs
from .luggage import hand_luggage, head_cover, worn_bag
from .people import Person
from .pose import Pose
from .textures import face_paint, leg_paint, plain, torso_paint


def build_figure(person: Person, pose: Pose) -> list[Primitive]:
    """All primitives of a clothed person; the lowest foot touches y = 0."""
    shapes, drop = legs(person, pose)
    shapes += _trunk(person, pose)
    for shape in shapes:
        shape.start = shape.start + [0.0, drop, 0.0]
        shape.end = shape.end + [0.0, drop, 0.0]
    return shapes


def _trunk(person: Person, pose: Pose) -> list[Primitive]:
    body, top = person.body, person.top
    h = body.height
    hip_y, waist_y, chest_y, shoulder_y = (np.array([0.515, 0.62, 0.735, 0.815]) * h).tolist()
    pivot = np.array([0.0, 0.56 * h, 0.0])
    turn = rotation_y(pose.twist - 0.22 * pose.stride * np.sin(pose.phase)) @ rotation_x(pose.lean)
    axes = turn.T

    def place(*point: float) -> np.ndarray:
        return pivot + turn @ (np.array(point) - pivot)

    depth = 0.68 + 0.06 * max(body.weight, 0)
    cloth = torso_paint(person, shoulder_y, waist_y, hip_y)
    fold, ease = top.folds, top.ease
    hips, waist, chest = body.hips * h, body.waist * h, body.chest * h
    shapes = []

    def segment(y0: float, y1: float, r0: float, r1: float, sz: float = depth) -> None:
        shapes.append(
            cone(
                place(0, y0, 0),
                place(0, y1, 0),
                (r0, r1),
                cloth,
                "torso",
                axes=axes,
                scale=(1, FLAT, sz),
                rest=np.array([0, y0, 0]),
                fold=fold,
            )
        )

    pelvis = leg_paint(person, 0, hip_y)
    if top.kind == "dress":
        pelvis = cloth
    shapes.append(
        cone(
            np.array([0, hip_y + 0.005 * h, 0]),
            np.array([0, hip_y + 0.05 * h, 0]),
            (hips * 0.86, hips * 0.95),
            pelvis,
            "hips",
            scale=(1, FLAT, 0.74),
            fold=person.bottom.folds,
        )
    )
    legs = (0.50 * body.hips + 0.049 * body.limb) * h + person.bottom.ease
    hem = max(hips, legs) + ease + 0.006
    worn_out = top.kind != "dress" and not top.tucked
    if worn_out:  # cloth hangs from the chest and does not follow the waist
        waist = max(waist, (0.80 if body.female else 0.88) * min(chest, hem))
    low = hem if worn_out else hips * 0.95 + ease
    segment(hip_y + 0.045 * h, waist_y, low * 0.97, waist + ease)
    segment(waist_y, chest_y, waist + ease, chest + ease)
    segment(chest_y, 0.79 * h, chest + ease, 0.066 * h + ease)
    width = body.shoulder * h
    for side in (1, -1):
        start = np.array([0, 0.790 * h, 0])
        shapes.append(
            cone(
                place(*start),
                place(side * width, 0.778 * h, 0),
                (0.044 * h + ease, 0.030 * h + ease),
                cloth,
                "torso",
                axes=axes,
                scale=(1, 1, 0.95),
                rest=start,
                fold=fold,
            )
        )
        start = np.array([0.010 * h * side, 0.835 * h, -0.008 * h])
        shapes.append(
            cone(
                place(*start),
                place(side * 0.95 * width, 0.788 * h, -0.004 * h),
                (0.027 * h, 0.024 * h + ease),
                cloth,
                "torso",
                axes=axes,
                rest=start,
                fold=fold,
            )
        )
        if body.female:
            start = np.array([side * 0.045 * h, 0.735 * h, 0.6 * depth * chest])
            shapes.append(
                cone(
                    place(*start),
                    place(*start),
                    (0.038 * h + ease,) * 2,
                    cloth,
                    "torso",
                    axes=axes,
                    rest=start,
                    fold=0.5 * fold,
                )
            )
    if body.weight > 0.3:
        start = np.array([0, 0.625 * h, 0.03 * h * body.weight])
        shapes.append(
            cone(
                place(*start),
                place(*start),
                (waist * 0.95 + ease,) * 2,
                cloth,
                "torso",
                axes=axes,
                scale=(1, 0.9, depth),
                rest=start,
                fold=fold,
            )
        )
    if worn_out:
        start = np.array([0, hip_y + 0.045 * h, 0])
        end = np.array([0, hip_y - top.hem, 0])
        swing = 0.5 * pose.stride * (top.hem > 0.12)
        shapes.append(
            cone(
                place(*start),
                end,
                (hem * 0.97, hem * (1 + top.flare)),
                cloth,
                "torso",
                axes=axes,
                scale=(1, FLAT, 0.76 + swing),
                rest=start,
                fold=fold,
                open_end=True,
            )
        )
    for side, name in ((1, "left"), (-1, "right")):
        one_arm, hand = arm(person, pose, side, name, place)
        shapes += one_arm
        shapes += hand_luggage(person, pose.arms, pose.side, side, hand)
    shapes += _head(person, pose, place, turn)
    shapes += worn_bag(person, place, axes)
    return shapes


def _head(
    person: Person, pose: Pose, place: Callable[..., np.ndarray], turn: np.ndarray
) -> list[Primitive]:
    body, h = person.body, person.body.height
    size = body.head
    look = turn @ rotation_y(pose.head_turn)
    centre = place(0, 0.925 * h, 0.012 * h)
    axes = look.T
    face = face_paint(person, h)

    def at(x: float, y: float, z: float) -> np.ndarray:
        return centre + look @ (np.array([x, y, z]) * h * size)

    def ball(
        x: float, y: float, z: float, sx: float, sy: float, sz: float, paint: Paint
    ) -> Primitive:
        point = at(x, y, z)
        half = tuple(np.array([sx, sy, sz]) * h * size)
        return cone(
            point,
            point,
            (1.0, 1.0),
            paint,
            "head",
            axes=axes,
            scale=half,
            rest=np.array([x, y, z]) * h * size,
        )

    neck = plain(body.skin, 0.0)
    shapes = [
        cone(
            place(0, 0.80 * h, -0.006 * h),
            place(0, 0.885 * h, 0.008 * h),
            (0.035 * h * body.limb, 0.029 * h * body.limb),
            neck,
            "head",
        ),
        ball(0, 0.006, -0.004, 0.0445, 0.060, 0.054, face),
        ball(0, -0.028, 0.016, 0.036, 0.036, 0.036, face),
        ball(0, -0.012, 0.053, 0.008, 0.012, 0.008, plain(body.skin)),
    ]
    for side in (1, -1):
        shapes.append(ball(side * 0.044, -0.005, -0.004, 0.006, 0.014, 0.009, plain(body.skin)))
    return shapes + head_cover(person, ball, at, place)
