"""Things that stand between a person and the camera."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .colours import Colour, choose
from .domains import PART
from .geometry import Hit, Paint, Primitive
from .textures import linear, plain

IDENTITY = np.eye(3)
Triple = Sequence[float] | np.ndarray  # x, y, z
_PAINTS: tuple[Colour, ...] = (
    (0.85, 0.85, 0.86),
    (0.62, 0.63, 0.65),
    (0.12, 0.12, 0.13),
    (0.45, 0.10, 0.11),
    (0.14, 0.22, 0.42),
    (0.30, 0.31, 0.33),
    (0.75, 0.71, 0.62),
)


def tube(start: Triple, end: Triple, radius: float, paint: Paint) -> Primitive:
    """A capsule."""
    low, high = np.asarray(start, float), np.asarray(end, float)
    return Primitive(low, high, (radius, radius), IDENTITY, (1, 1, 1), paint, PART["occluder"], low)


def _ball(centre: Triple, half: Triple, paint: Paint) -> Primitive:
    middle, (x, y, z) = np.asarray(centre, float), half
    return Primitive(middle, middle, (1, 1), IDENTITY, (x, y, z), paint, PART["occluder"], middle)


def slab(centre: Triple, half: Triple, paint: Paint) -> Primitive:
    """A box."""
    middle, (x, y, z) = np.asarray(centre, float), half
    return Primitive(
        middle, middle, (1, 1), IDENTITY, (x, y, z), paint, PART["occluder"], middle, box=True
    )


def leafy_paint(rng: np.random.Generator) -> Paint:
    """Mottled green."""
    base = linear((rng.uniform(0.18, 0.32), rng.uniform(0.32, 0.45), rng.uniform(0.14, 0.22)))
    table = rng.normal(size=4096).astype(np.float32)
    slant = rng.normal(size=(3, 3)).astype(np.float32)
    slant /= np.linalg.norm(slant, axis=1, keepdims=True)

    def paint(hit: Hit) -> np.ndarray:
        tone = np.ones(len(hit.angle), np.float32)
        for size, amount in ((0.035, 0.30), (0.09, 0.25), (0.22, 0.2)):  # leaves, twigs, boughs
            cell = np.floor(hit.position @ slant.T / size).astype(np.int32)
            tone += amount * table[cell @ np.array([73, 1259, 521], np.int32) & 4095]
        return base * np.clip(tone, 0.2, 2.2)[:, None]

    return paint


def _pole(rng: np.random.Generator) -> list[Primitive]:
    x, z = rng.uniform(-0.32, 0.32), rng.uniform(0.4, 1.0)
    grey = rng.uniform(0.2, 0.7)
    return [tube((x, 0, z), (x, 6, z), rng.uniform(0.035, 0.11), plain((grey, grey, grey)))]


def _planter(rng: np.random.Generator) -> list[Primitive]:
    x, z, height = rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.55)
    tone = rng.uniform(0.4, 0.75)
    shapes = [
        slab(
            (x, height / 2, z),
            (rng.uniform(0.4, 1.0), height / 2, 0.2),
            plain((tone, 0.96 * tone, 0.9 * tone)),
        )
    ]
    if rng.random() < 0.6:
        leaves = leafy_paint(rng)
        for offset in np.linspace(-0.5, 0.5, 4):
            shapes.append(
                _ball((x + offset, height + 0.08, z), (0.25, rng.uniform(0.1, 0.3), 0.2), leaves)
            )
    return shapes


def _car(rng: np.random.Generator) -> list[Primitive]:
    return parked_car(rng, rng.uniform(-2.2, 2.2), 1.3)


def parked_car(rng: np.random.Generator, x: float = 0.0, z: float = 0.0) -> list[Primitive]:
    """A car seen from its side, its middle at ``x``, ``z``."""
    body = linear(_PAINTS[int(rng.integers(len(_PAINTS)))])

    def cabin(hit: Hit) -> np.ndarray:
        glass = (np.abs(hit.position[:, 1] - 1.06) < 0.13) & (
            np.abs((hit.position[:, 0] - x) % 0.9 - 0.45) < 0.41
        )
        return np.where(glass[:, None], np.array([0.05, 0.06, 0.07], np.float32), body)

    flat = plain(tuple((body ** (1 / 2.2)).tolist()))
    tyre = plain((0.08, 0.08, 0.08))
    shapes = [
        _ball((x, 0.58, z), (2.2, 0.34, 0.85), flat),
        slab((x, 0.52, z), (1.9, 0.26, 0.80), flat),
        _ball((x - 0.2, 0.85, z), (1.35, 0.46, 0.72), cabin),
    ]
    for wheel in (-1.3, 1.3):
        shapes.append(_ball((x + wheel, 0.32, z + 0.72), (0.32, 0.32, 0.13), tyre))
        shapes.append(
            _ball((x + wheel, 0.32, z + 0.8), (0.18, 0.18, 0.08), plain((0.6, 0.6, 0.62)))
        )
    return shapes


def _bicycle(rng: np.random.Generator) -> list[Primitive]:
    return parked_bicycle(rng, rng.uniform(-0.6, 0.6), rng.uniform(0.5, 0.8))


def parked_bicycle(rng: np.random.Generator, x: float = 0.0, z: float = 0.0) -> list[Primitive]:
    """A bicycle seen from its side, its middle at ``x``, ``z``."""
    frame = plain(_PAINTS[int(rng.integers(len(_PAINTS)))])
    tyre = plain((0.07, 0.07, 0.07))
    shapes = []
    for hub in (-0.52, 0.52):
        angle = np.linspace(0, 2 * np.pi, 15)
        rim = np.stack(
            [x + hub + 0.33 * np.cos(angle), 0.34 + 0.33 * np.sin(angle), np.full(15, z)], axis=1
        )
        shapes += [tube(rim[k], rim[k + 1], 0.02, tyre) for k in range(14)]
    rear, front = np.array([x - 0.52, 0.34, z]), np.array([x + 0.52, 0.34, z])
    crank, seat = np.array([x - 0.08, 0.30, z]), np.array([x - 0.2, 0.82, z])
    head = np.array([x + 0.38, 0.85, z])
    for start, end in (
        (rear, crank),
        (rear, seat),
        (crank, seat),
        (crank, head),
        (seat, head),
        (head, front),
        (head, head + [0.02, 0.15, 0]),
    ):
        shapes.append(tube(start, end, 0.016, frame))
    shapes.append(_ball(seat + [0, 0.06, 0], (0.13, 0.035, 0.07), tyre))
    shapes.append(tube(head + [0.02, 0.15, -0.25], head + [0.02, 0.15, 0.25], 0.015, tyre))
    return shapes


def _railing(rng: np.random.Generator) -> list[Primitive]:
    grey = rng.uniform(0.15, 0.65)
    paint, z, height = plain((grey, grey, grey)), rng.uniform(0.5, 1.0), rng.uniform(0.7, 1.05)
    shift = rng.uniform(0, 0.5)
    shapes = [tube((-2, y, z), (2, y, z), 0.022, paint) for y in (0.55 * height, height)]
    return shapes + [
        tube((x + shift, 0, z), (x + shift, height, z), 0.022, paint)
        for x in (-1.5, -0.75, 0, 0.75, 1.5)
    ]


def _bush(rng: np.random.Generator) -> list[Primitive]:
    x, paint = rng.uniform(-0.7, 0.7), leafy_paint(rng)
    return [
        _ball(
            (x + 0.35 * rng.normal(), rng.uniform(0.1, 0.45), rng.uniform(0.6, 1.0)),
            rng.uniform(0.18, 0.42, 3),
            paint,
        )
        for _ in range(6)
    ]


_KINDS = {
    "pole": _pole,
    "planter": _planter,
    "car": _car,
    "bicycle": _bicycle,
    "railing": _railing,
    "bush": _bush,
}


def sample_obstacle(rng: np.random.Generator) -> list[Primitive]:
    """Primitives of a thing in front of the origin (towards +z): pole, planter, car and others."""
    kind = choose(
        rng,
        {"pole": 0.33, "planter": 0.2, "car": 0.07, "bicycle": 0.16, "railing": 0.12, "bush": 0.12},
    )
    return _KINDS[kind](rng)
