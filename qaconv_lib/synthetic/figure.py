"""A person in a pose as a list of primitives, in body coordinates with the ground at y = 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .domains import PART
from .geometry import Paint, Primitive, limb_axes, rotation_x, rotation_y, rotation_z
from .luggage import hand_luggage, head_cover, worn_bag
from .people import Person
from .textures import face_paint, leg_paint, plain, sleeve_paint, torso_paint

IDENTITY = np.eye(3)
FLAT = 0.4  # the caps of the torso's cones are this much flatter than spheres


@dataclass(frozen=True)
class Pose:
    """A moment of walking.

    Attributes:
        phase: of the step, radians; the left leg is foremost at pi / 2.
        stride: swing of the thighs in radians; 0 = standing.
        arms: "swing", "phone", "pockets", "straps" or "carry".
        side: the arm meant by "phone": +1 left, -1 right.
        head_turn, twist, lean: radians.
    """

    phase: float
    stride: float
    arms: str
    side: int
    head_turn: float
    twist: float
    lean: float


def sample_pose(person: Person, rng: np.random.Generator, standing: float) -> Pose:
    """A random moment; ``standing`` is the probability of not walking."""
    still = rng.random() < standing
    arms = ["swing", "pockets", "straps", "phone"]
    share = np.array([0.8, 0.08, 0.02, 0.06])
    if person.bag.kind == "backpack":
        share[2] = 0.1
    if person.bag.handheld == "phone":
        share[3] = 0.3
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(0.05 if still else 0.40 * person.body.stride * rng.uniform(0.8, 1.15)),
        arms=str(rng.choice(arms, p=share / share.sum())),
        side=int(rng.choice([-1, 1])),
        head_turn=float(0.22 * rng.normal()),
        twist=float(0.05 * rng.normal()),
        lean=float(person.body.lean + 0.02 * rng.normal()),
    )


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
    """A round cone; see :class:`~qaconv_lib.synthetic.geometry.Primitive`."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    return Primitive(start, end, radii, axes, scale, paint, PART[label],
                     start if rest is None else np.asarray(rest, float), fold, open_end)


def build_figure(person: Person, pose: Pose) -> list[Primitive]:
    """All primitives of a clothed person; the lowest foot touches y = 0."""
    shapes, drop = _legs(person, pose)
    shapes += _trunk(person, pose)
    for shape in shapes:
        shape.start = shape.start + [0.0, drop, 0.0]
        shape.end = shape.end + [0.0, drop, 0.0]
    return shapes


def _legs(person: Person, pose: Pose) -> tuple[list[Primitive], float]:
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
        shapes += _foot(person, name, ankle, heel, toe)
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
        shapes.append(cone(hip, end, (r0 + ease, wide), cloth, thigh, axes=upper, rest=rest_hip,
                           fold=fold, open_end=share < 1))
        if bottom.length > 0.505:
            end = knee + 0.12 * (ankle - knee)
            shapes.append(cone(knee, end, (r1 + 1.5 * ease, r1 + 1.6 * ease + 0.005), cloth, thigh,
                               axes=lower, rest=rest_knee, fold=fold, open_end=True))
        return shapes
    share = min((bottom.length - 0.505) / 0.495, 1.0)
    end = knee + share * (ankle - knee)
    hem = r2 + share * (r3 - r2) + ease * 1.3 + bottom.flare + 0.003
    shapes += [
        cone(hip, knee, (r0 + ease, r1 + ease), cloth, thigh, axes=upper, rest=rest_hip, fold=fold),
        cone(knee, end, (r1 + ease, max(hem, r3 + 0.004)), cloth, shin, axes=lower, rest=rest_knee,
             fold=fold, open_end=True),
    ]
    return shapes


def _foot(
    person: Person, name: str, ankle: np.ndarray, heel: np.ndarray, toe: np.ndarray
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
        cone(ankle, heel + 0.3 * (toe - heel), (0.021 * h, 0.021 * h), upper, label),
        cone(heel - 0.013 * h * up, toe - 0.010 * h * up, (0.024 * h, 0.022 * h), sole, label,
             axes=axes, scale=(1.0, 1.0, 0.55)),
    ]
    if sandals:
        middle = heel + 0.65 * (toe - heel) + 0.004 * h * up
        shapes.append(cone(middle, middle, (0.022 * h, 0.022 * h), plain(shoes.colour), label))
    shaft = 0.11 * h if shoes.kind == "boots" else 0.235 * h * shoes.sock_height
    if shaft > 0 and not sandals:
        boots = shoes.kind == "boots"
        top = ankle + np.array([0.0, shaft, 0.0])
        shapes.append(cone(ankle, top, (0.021 * h, 0.0215 * h + 0.03 * shaft),
                           plain(shoes.colour if boots else shoes.sock), label))
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
    return cone(start, end, (radius, wide), paint, "hips", scale=(1, FLAT, min(depth, 1.0)),
                rest=start, fold=1.4, open_end=True)


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
        shapes.append(cone(place(0, y0, 0), place(0, y1, 0), (r0, r1), cloth, "torso", axes=axes,
                           scale=(1, FLAT, sz), rest=np.array([0, y0, 0]), fold=fold))

    pelvis = leg_paint(person, 0, hip_y)
    if top.kind == "dress":
        pelvis = cloth
    shapes.append(cone([0, hip_y + 0.005 * h, 0], [0, hip_y + 0.05 * h, 0],
                       (hips * 0.86, hips * 0.95), pelvis, "hips", scale=(1, FLAT, 0.74),
                       fold=person.bottom.folds))
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
        shapes.append(cone(place(*start), place(side * width, 0.778 * h, 0),
                           (0.044 * h + ease, 0.030 * h + ease), cloth, "torso", axes=axes,
                           scale=(1, 1, 0.95), rest=start, fold=fold))
        start = np.array([0.010 * h * side, 0.835 * h, -0.008 * h])
        shapes.append(cone(place(*start), place(side * 0.95 * width, 0.788 * h, -0.004 * h),
                           (0.027 * h, 0.024 * h + ease), cloth, "torso", axes=axes, rest=start,
                           fold=fold))
        if body.female:
            start = np.array([side * 0.045 * h, 0.735 * h, 0.6 * depth * chest])
            shapes.append(cone(place(*start), place(*start), (0.038 * h + ease,) * 2, cloth,
                               "torso", axes=axes, rest=start, fold=0.5 * fold))
    if body.weight > 0.3:
        start = np.array([0, 0.625 * h, 0.03 * h * body.weight])
        shapes.append(cone(place(*start), place(*start), (waist * 0.95 + ease,) * 2, cloth,
                           "torso", axes=axes, scale=(1, 0.9, depth), rest=start, fold=fold))
    if worn_out:
        start = np.array([0, hip_y + 0.045 * h, 0])
        end = np.array([0, hip_y - top.hem, 0])
        swing = 0.5 * pose.stride * (top.hem > 0.12)
        shapes.append(cone(place(*start), end, (hem * 0.97, hem * (1 + top.flare)), cloth, "torso",
                           axes=axes, scale=(1, 1, 0.76 + swing), rest=start, fold=fold,
                           open_end=True))
    for side, name in ((1, "left"), (-1, "right")):
        arm, wrist, hand = _arm(person, pose, side, name, place)
        shapes += arm
        shapes += hand_luggage(person, pose.arms, pose.side, side, wrist, hand)
    shapes += _head(person, pose, place, turn)
    shapes += worn_bag(person, place, axes)
    return shapes


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


def _arm(person: Person, pose: Pose, side: int, name: str, place) -> tuple:
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
        cone(hand, hand + 0.035 * h * fore, (0.018 * h, 0.011 * h), skin, down, axes=lower,
             scale=(0.7, 1, 1)),
    ]
    share, ease = top.sleeve, top.ease + 0.003
    if share < 0.53:
        shapes.append(cone(shoulder, elbow, (r0, r1), skin, up, axes=upper))
    if share < 0.95:
        shapes.append(cone(elbow, wrist, (r1, r2), skin, down, axes=lower))
    if share <= 0:
        return shapes, wrist, hand
    part = min(share / 0.53, 1.0)
    end = shoulder + part * (elbow - shoulder)
    shapes.append(cone(shoulder, end, (r0 + ease, r0 + part * (r1 - r0) + 1.15 * ease),
                       sleeve_paint(person, side, 0.0, 0.53 * part), up, axes=upper,
                       fold=top.folds, open_end=part < 1))
    if share > 0.53:
        part = min((share - 0.53) / 0.44, 1.0)
        end = elbow + part * (wrist - elbow)
        shapes.append(cone(elbow, end, (r1 + 1.15 * ease, r1 + part * (r2 - r1) + 0.9 * ease + .003),
                           sleeve_paint(person, side, 0.53, 0.53 + 0.44 * part), down, axes=lower,
                           fold=top.folds, open_end=True))
    return shapes, wrist, hand


def _head(person: Person, pose: Pose, place, turn: np.ndarray) -> list[Primitive]:
    body, h = person.body, person.body.height
    size = body.head
    look = turn @ rotation_y(pose.head_turn)
    centre = place(0, 0.925 * h, 0.012 * h)
    axes = look.T
    face = face_paint(person, h)

    def at(x: float, y: float, z: float) -> np.ndarray:
        return centre + look @ (np.array([x, y, z]) * h * size)

    def ball(x: float, y: float, z: float, sx: float, sy: float, sz: float, paint: Paint):
        point = at(x, y, z)
        half = tuple(np.array([sx, sy, sz]) * h * size)
        return cone(point, point, (1.0, 1.0), paint, "head", axes=axes, scale=half,
                    rest=np.array([x, y, z]) * h * size)

    neck = plain(body.skin, 0.0)
    shapes = [
        cone(place(0, 0.80 * h, -0.006 * h), place(0, 0.885 * h, 0.008 * h),
             (0.035 * h * body.limb, 0.029 * h * body.limb), neck, "head"),
        ball(0, 0.006, -0.004, 0.0445, 0.060, 0.054, face),
        ball(0, -0.028, 0.016, 0.036, 0.036, 0.036, face),
        ball(0, -0.012, 0.053, 0.008, 0.012, 0.008, plain(body.skin)),
    ]
    for side in (1, -1):
        shapes.append(ball(side * 0.044, -0.005, -0.004, 0.006, 0.014, 0.009, plain(body.skin)))
    return shapes + head_cover(person, ball, at, place)
