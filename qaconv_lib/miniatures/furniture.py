"""Things that stand about: in the scene, or between a person and the camera."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from .cameras import FRAME, Camera
from .domains import choose, colour, weights
from .geometry import FAR, Hit, Paint, Primitive, Raster, ball, slab, tube
from .textures import linear, plain

_TONES = "85 85 86,62 63 65,12 12 13,45 10 11,14 22 42,30 31 33,75 71 62"
_PAINTS = [colour(text) for text in _TONES.split(",")]
_WHAT = {
    "plaza": weights("lamp 2, tree 2, bench 2, bin 2, bicycle 2, post 2"),
    "campus": weights("tree 4, lamp 2, bench 2, bicycle 3, bin 1, bush 3"),
    "shops": weights("bin 2, bicycle 3, post 3, sign 3, bench 1"),
    "street": weights("car 5, lamp 2, tree 3, post 2, bin 1, bush 1"),
    "corridor": weights("bin 2, bench 3, sign 2, pillar 2"),
}


def furnish(out: np.ndarray, camera: Camera, rng: np.random.Generator) -> None:
    """Draw furniture into a radiance image (rows, columns, 3), behind where people walk."""
    raster = Raster(FRAME, (-FRAME[1] / 2, -FRAME[0] / 2, FRAME[1] / 2, FRAME[0] / 2), camera.focal)
    near, far = camera.distance[1] + 0.5, camera.wall_distance - 0.4
    mask = Image.new("L", (FRAME[1], FRAME[0]), 0)
    pen = ImageDraw.Draw(mask)
    ring = np.linspace(0, 2 * np.pi, 24)
    ring = np.stack([np.cos(ring), 0 * ring, 0.5 * np.sin(ring)], axis=1)
    for _ in range(int(rng.integers(5, 11))):
        kind = choose(rng, _WHAT[camera.scene])
        depth = rng.uniform(near, max(far, near + 0.3))
        if kind in ("post", "lamp") and rng.random() < 0.3:
            depth = rng.uniform(*camera.distance)
        x = rng.uniform(-0.6, 0.6) * depth * FRAME[1] / camera.focal
        base = np.array([x, 0.0, -depth])
        for shape in _FURNITURE[kind](rng):
            raster.draw(shape, camera.rotation, camera.to_camera(base))
        shadow = base + {"car": 2.0, "bush": 0.9, "tree": 0.6}.get(kind, 0.35) * ring
        points = camera.project(shadow) + [FRAME[1] / 2, FRAME[0] / 2]
        pen.polygon([tuple(point) for point in points], fill=255)
    out *= (1 - 0.5 * gaussian_filter(np.asarray(mask, np.float32) / 255, 5))[..., None]
    drawn = raster.depth < FAR
    light = (camera.rotation @ camera.sun_direction()).astype(np.float32)
    lambert = np.maximum(raster.normal @ light, 0)
    sky = 0.65 + 0.35 * (raster.normal @ camera.rotation[:, 1].astype(np.float32))
    shaded = raster.albedo * (camera.ambient * sky + camera.sun * lambert)[..., None]
    soft = gaussian_filter(drawn.astype(np.float32), 0.6)[..., None]
    out[...] = np.where(drawn[..., None], shaded * soft + out * (1 - soft), out)


def sample_obstacle(rng: np.random.Generator) -> list[Primitive]:
    """Primitives of a thing in front of the origin, towards +z."""
    return _OBSTACLES[choose(rng, _IN_THE_WAY)](rng)


def _leaves(rng: np.random.Generator) -> Paint:
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


def _grey(value: float) -> Paint:
    return plain((value, value, value))


def _tree(rng: np.random.Generator) -> list[Primitive]:
    bark = plain((0.33, 0.27, 0.22))
    height = rng.uniform(2.2, 3.5)
    shapes = [tube((0, 0, 0), (rng.normal() * 0.1, height, 0), rng.uniform(0.09, 0.2), bark)]
    leaves = _leaves(rng)
    for _ in range(7):
        centre = rng.normal(size=3) * [0.8, 0.4, 0.6] + [0, height + 0.6, 0]
        shapes.append(ball(centre, rng.uniform(0.5, 0.9, 3), leaves))
    return shapes


def _bush(rng: np.random.Generator) -> list[Primitive]:
    leaves = _leaves(rng)
    shapes = []
    for _ in range(7):
        centre = (0.5 * rng.normal(), rng.uniform(0.2, 0.6), 0.2 * rng.normal())
        shapes.append(ball(centre, rng.uniform(0.25, 0.5, 3), leaves))
    return shapes


def _lamp(rng: np.random.Generator) -> list[Primitive]:
    grey = _grey(rng.uniform(0.15, 0.6))
    return [tube((0, 0, 0), (0, 6, 0), 0.06, grey), tube((0, 0, 0), (0, 0.6, 0), 0.1, grey)]


def _post(rng: np.random.Generator) -> list[Primitive]:
    grey, height = _grey(rng.uniform(0.2, 0.8)), rng.uniform(0.7, 1.1)
    return [tube((x, 0, 0), (x, height, 0), 0.06, grey) for x in (-1.4, 0, 1.4)]


def _bin(rng: np.random.Generator) -> list[Primitive]:
    body = plain(tuple(rng.uniform(0.15, 0.5, 3)))
    lid = tube((0, 0.92, 0), (0, 0.94, 0), 0.25, _grey(0.2))
    return [tube((0, 0.15, 0), (0, 0.8, 0), 0.24, body), lid]


def _bench(rng: np.random.Generator) -> list[Primitive]:
    wood = plain((rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.42), 0.26))
    iron = plain((0.15, 0.15, 0.16))
    legs = [slab((x, 0.22, 0), (0.03, 0.22, 0.2), iron) for x in (-0.65, 0.65)]
    seat, back = ((0, 0.45, 0), (0.8, 0.03, 0.22)), ((0, 0.75, -0.2), (0.8, 0.13, 0.02))
    return [slab(*seat, wood), slab(*back, wood), *legs]


def _sign(rng: np.random.Generator) -> list[Primitive]:
    face = plain(tuple(rng.uniform(0.3, 0.9, 3)))
    centre = (0, rng.uniform(0.6, 1.0), 0)
    return [slab(centre, (rng.uniform(0.25, 0.5), rng.uniform(0.4, 0.7), 0.04), face)]


def _pillar(rng: np.random.Generator) -> list[Primitive]:
    grey = rng.uniform(0.55, 0.85)
    return [slab((0, 2.5, 0), (0.28, 2.5, 0.28), plain((grey, grey, 0.97 * grey)))]


def _car(rng: np.random.Generator, x: float = 0.0, z: float = 0.0) -> list[Primitive]:
    """A car seen from its side, its middle at ``x``, ``z``."""
    body = linear(_PAINTS[int(rng.integers(len(_PAINTS)))])

    def cabin(hit: Hit) -> np.ndarray:
        across = np.abs((hit.position[:, 0] - x) % 0.9 - 0.45) < 0.41
        glass = (np.abs(hit.position[:, 1] - 1.06) < 0.13) & across
        return np.where(glass[:, None], np.array([0.05, 0.06, 0.07], np.float32), body)

    flat, tyre, hub = plain(tuple((body ** (1 / 2.2)).tolist())), _grey(0.08), (0.6, 0.6, 0.62)
    shapes = [
        ball((x, 0.58, z), (2.2, 0.34, 0.85), flat),
        slab((x, 0.52, z), (1.9, 0.26, 0.80), flat),
        ball((x - 0.2, 0.85, z), (1.35, 0.46, 0.72), cabin),
    ]
    for wheel in (-1.3, 1.3):
        shapes.append(ball((x + wheel, 0.32, z + 0.72), (0.32, 0.32, 0.13), tyre))
        shapes.append(ball((x + wheel, 0.32, z + 0.8), (0.18, 0.18, 0.08), plain(hub)))
    return shapes


def _bicycle(rng: np.random.Generator, x: float = 0.0, z: float = 0.0) -> list[Primitive]:
    """A bicycle seen from its side, its middle at ``x``, ``z``."""
    frame, tyre = plain(_PAINTS[int(rng.integers(len(_PAINTS)))]), _grey(0.07)
    shapes = []
    angle = np.linspace(0, 2 * np.pi, 15)
    for hub in (-0.52, 0.52):
        across, up = x + hub + 0.33 * np.cos(angle), 0.34 + 0.33 * np.sin(angle)
        rim = np.stack([across, up, np.full(15, z)], axis=1)
        shapes += [tube(rim[k], rim[k + 1], 0.02, tyre) for k in range(14)]
    rear, front = np.array([x - 0.52, 0.34, z]), np.array([x + 0.52, 0.34, z])
    crank, seat = np.array([x - 0.08, 0.30, z]), np.array([x - 0.2, 0.82, z])
    head = np.array([x + 0.38, 0.85, z])
    bars = [(rear, crank), (rear, seat), (crank, seat), (crank, head), (seat, head), (head, front)]
    for start, end in [*bars, (head, head + [0.02, 0.15, 0])]:
        shapes.append(tube(start, end, 0.016, frame))
    shapes.append(ball(seat + [0, 0.06, 0], (0.13, 0.035, 0.07), tyre))
    shapes.append(tube(head + [0.02, 0.15, -0.25], head + [0.02, 0.15, 0.25], 0.015, tyre))
    return shapes


_FURNITURE = {
    **{"tree": _tree, "bush": _bush, "lamp": _lamp, "post": _post, "bin": _bin, "bench": _bench},
    **{"sign": _sign, "pillar": _pillar, "car": _car, "bicycle": _bicycle},
}


def _pole(rng: np.random.Generator) -> list[Primitive]:
    x, z = rng.uniform(-0.32, 0.32), rng.uniform(0.4, 1.0)
    grey = _grey(rng.uniform(0.2, 0.7))
    return [tube((x, 0, z), (x, 6, z), rng.uniform(0.035, 0.11), grey)]


def _planter(rng: np.random.Generator) -> list[Primitive]:
    x, z, height = rng.uniform(-0.7, 0.7), rng.uniform(0.6, 1.0), rng.uniform(0.3, 0.55)
    tone = rng.uniform(0.4, 0.75)
    stone, half = plain((tone, 0.96 * tone, 0.9 * tone)), (rng.uniform(0.4, 1.0), height / 2, 0.2)
    shapes = [slab((x, height / 2, z), half, stone)]
    if rng.random() < 0.6:
        leaves = _leaves(rng)
        for offset in np.linspace(-0.5, 0.5, 4):
            half = (0.25, rng.uniform(0.1, 0.3), 0.2)
            shapes.append(ball((x + offset, height + 0.08, z), half, leaves))
    return shapes


def _railing(rng: np.random.Generator) -> list[Primitive]:
    grey = _grey(rng.uniform(0.15, 0.65))
    z, height, shift = rng.uniform(0.5, 1.0), rng.uniform(0.7, 1.05), rng.uniform(0, 0.5)
    bars = [tube((-2, y, z), (2, y, z), 0.022, grey) for y in (0.55 * height, height)]
    across = [x + shift for x in (-1.5, -0.75, 0, 0.75, 1.5)]
    return bars + [tube((x, 0, z), (x, height, z), 0.022, grey) for x in across]


def _low_bush(rng: np.random.Generator) -> list[Primitive]:
    x, leaves = rng.uniform(-0.7, 0.7), _leaves(rng)
    shapes = []
    for _ in range(6):
        centre = (x + 0.35 * rng.normal(), rng.uniform(0.1, 0.45), rng.uniform(0.6, 1.0))
        shapes.append(ball(centre, rng.uniform(0.18, 0.42, 3), leaves))
    return shapes


_IN_THE_WAY = weights("pole 0.33, planter 0.2, car 0.07, bicycle 0.16, railing 0.12, bush 0.12")
_OBSTACLES = {
    "pole": _pole,
    "planter": _planter,
    "car": lambda rng: _car(rng, rng.uniform(-2.2, 2.2), 1.3),
    "bicycle": lambda rng: _bicycle(rng, rng.uniform(-0.6, 0.6), rng.uniform(0.5, 0.8)),
    "railing": _railing,
    "bush": _low_bush,
}
