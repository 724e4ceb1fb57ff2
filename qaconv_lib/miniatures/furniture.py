"""Things that stand about in a scene: trees, cars, bicycles, posts, bins, benches, signs."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter

from .colours import choose
from .geometry import FAR, Primitive, Raster
from .obstacles import leafy_paint, parked_bicycle, parked_car, slab, tube
from .scenes import FRAME, Camera
from .textures import plain


def furnish(out: np.ndarray, camera: Camera, rng: np.random.Generator, power: float) -> None:
    """Draw furniture into a radiance picture (rows, columns, 3), behind where people walk."""
    weights = {
        "plaza": {"lamp": 2, "tree": 2, "bench": 2, "bin": 2, "bicycle": 2, "post": 2},
        "campus": {"tree": 4, "lamp": 2, "bench": 2, "bicycle": 3, "bin": 1, "bush": 3},
        "shops": {"bin": 2, "bicycle": 3, "post": 3, "sign": 3, "bench": 1},
        "street": {"car": 5, "lamp": 2, "tree": 3, "post": 2, "bin": 1, "bush": 1},
        "corridor": {"bin": 2, "bench": 3, "sign": 2, "pillar": 2},
    }[camera.scene]
    raster = Raster(FRAME, (-FRAME[1] / 2, -FRAME[0] / 2, FRAME[1] / 2, FRAME[0] / 2), camera.focal)
    near, far = camera.distance[1] + 0.5, camera.wall_distance - 0.4
    feet = []
    for _ in range(int(rng.integers(5, 11))):
        kind = choose(rng, weights)
        depth = rng.uniform(near, max(far, near + 0.3))
        if kind in ("post", "lamp") and rng.random() < 0.3:
            depth = rng.uniform(*camera.distance)
        x = rng.uniform(-0.6, 0.6) * depth * FRAME[1] / camera.focal
        base = np.array([x, 0.0, -depth])
        for shape in _MAKERS[kind](rng):
            raster.draw(shape, camera.rotation, camera.to_camera(base))
        feet.append((base, {"car": 2.0, "bush": 0.9, "tree": 0.6}.get(kind, 0.35)))
    _blob_shadows(out, camera, feet)
    drawn = raster.depth < FAR
    light = (camera.rotation @ camera.sun_direction()).astype(np.float32)
    lambert = np.maximum(raster.normal @ light, 0)
    sky = 0.65 + 0.35 * (raster.normal @ camera.rotation[:, 1].astype(np.float32))
    shaded = raster.albedo * (camera.ambient * sky + camera.sun * lambert)[..., None]
    soft = gaussian_filter(drawn.astype(np.float32), 0.6)[..., None]
    out[...] = np.where(drawn[..., None], shaded * soft + out * (1 - soft), out)


def _blob_shadows(out: np.ndarray, camera: Camera, feet: list[tuple[np.ndarray, float]]) -> None:
    mask = Image.new("L", (FRAME[1], FRAME[0]), 0)
    pen = ImageDraw.Draw(mask)
    for base, radius in feet:
        ring = np.linspace(0, 2 * np.pi, 24)
        edge = base + radius * np.stack([np.cos(ring), 0 * ring, 0.5 * np.sin(ring)], axis=1)
        points = camera.project(edge) + [FRAME[1] / 2, FRAME[0] / 2]
        pen.polygon([tuple(p) for p in points], fill=255)
    soft = gaussian_filter(np.asarray(mask, np.float32) / 255, 5)
    out *= (1 - 0.5 * soft)[..., None]


def _tree(rng: np.random.Generator) -> list[Primitive]:
    bark = plain((0.33, 0.27, 0.22))
    height = rng.uniform(2.2, 3.5)
    shapes = [tube((0, 0, 0), (rng.normal() * 0.1, height, 0), rng.uniform(0.09, 0.2), bark)]
    leaves = leafy_paint(rng)
    for _ in range(7):
        centre = rng.normal(size=3) * [0.8, 0.4, 0.6] + [0, height + 0.6, 0]
        half = rng.uniform(0.5, 0.9, 3)
        shapes.append(Primitive(centre, centre, (1, 1), np.eye(3), tuple(half), leaves, 1, centre))
    return shapes


def _bush(rng: np.random.Generator) -> list[Primitive]:
    leaves = leafy_paint(rng)
    shapes = []
    for _ in range(7):
        centre = np.array([0.5 * rng.normal(), rng.uniform(0.2, 0.6), 0.2 * rng.normal()])
        half = tuple(rng.uniform(0.25, 0.5, 3))
        shapes.append(Primitive(centre, centre, (1, 1), np.eye(3), half, leaves, 1, centre))
    return shapes


def _lamp(rng: np.random.Generator) -> list[Primitive]:
    grey = rng.uniform(0.15, 0.6)
    return [
        tube((0, 0, 0), (0, 6, 0), 0.06, plain((grey,) * 3)),
        tube((0, 0, 0), (0, 0.6, 0), 0.1, plain((grey,) * 3)),
    ]


def _post(rng: np.random.Generator) -> list[Primitive]:
    grey, height = rng.uniform(0.2, 0.8), rng.uniform(0.7, 1.1)
    return [tube((x, 0, 0), (x, height, 0), 0.06, plain((grey,) * 3)) for x in (-1.4, 0, 1.4)]


def _bin(rng: np.random.Generator) -> list[Primitive]:
    body = tuple(rng.uniform(0.15, 0.5, 3))
    return [
        tube((0, 0.15, 0), (0, 0.8, 0), 0.24, plain(body)),
        tube((0, 0.92, 0), (0, 0.94, 0), 0.25, plain((0.2, 0.2, 0.2))),
    ]


def _bench(rng: np.random.Generator) -> list[Primitive]:
    wood = plain((rng.uniform(0.35, 0.6), rng.uniform(0.3, 0.42), 0.26))
    iron = plain((0.15, 0.15, 0.16))
    return [
        slab((0, 0.45, 0), (0.8, 0.03, 0.22), wood),
        slab((0, 0.75, -0.2), (0.8, 0.13, 0.02), wood),
        slab((-0.65, 0.22, 0), (0.03, 0.22, 0.2), iron),
        slab((0.65, 0.22, 0), (0.03, 0.22, 0.2), iron),
    ]


def _sign(rng: np.random.Generator) -> list[Primitive]:
    face = plain(tuple(rng.uniform(0.3, 0.9, 3)))
    return [
        slab(
            (0, rng.uniform(0.6, 1.0), 0),
            (rng.uniform(0.25, 0.5), rng.uniform(0.4, 0.7), 0.04),
            face,
        )
    ]


def _pillar(rng: np.random.Generator) -> list[Primitive]:
    grey = rng.uniform(0.55, 0.85)
    return [slab((0, 2.5, 0), (0.28, 2.5, 0.28), plain((grey, grey, 0.97 * grey)))]


_MAKERS = {
    "tree": _tree,
    "bush": _bush,
    "lamp": _lamp,
    "post": _post,
    "bin": _bin,
    "bench": _bench,
    "sign": _sign,
    "pillar": _pillar,
    "car": parked_car,
    "bicycle": parked_bicycle,
}
