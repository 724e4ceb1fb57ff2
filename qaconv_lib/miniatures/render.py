"""Images of people, with a label for every pixel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image

from .cameras import FRAME, Camera
from .domains import PART, Domain
from .figure import build_figure
from .furniture import sample_obstacle
from .geometry import FAR, Primitive, Raster, rotation
from .people import Person, sample_pose
from .scenery import scene_picture
from .shading import develop, ground_shadow, shade

LINEAR = (np.arange(256, dtype=np.float32) / 255) ** 2.2
_OVERSAMPLE = 1.5  # rendered rows and columns per row and column of the image
Window = tuple[float, float, float, float]


class Drawing(NamedTuple):
    """An image before JPEG compression, (H, W, 3) uint8, and its labels."""

    image: np.ndarray
    parts: np.ndarray  # (H, W) uint8, indices into `domains.PART_NAMES`


class Placed(NamedTuple):
    """Primitives with their place in the world and a label that overrides their own."""

    shapes: list[Primitive]
    turn: np.ndarray
    position: np.ndarray
    label: int | None

    def world(self) -> tuple[np.ndarray, np.ndarray]:
        """Points (N, 3) along the axes, and their radii (N,)."""
        points, radii = [], []
        for shape in self.shapes:
            first, last = (0.8, 0.8) if shape.box else shape.radii
            for share in (0.0, 0.5, 1.0):
                points.append(shape.start + share * (shape.end - shape.start))
                radii.append((first + share * (last - first)) * max(shape.scale))
        return np.array(points) @ self.turn.T + self.position, np.array(radii)


def generators(rng: Generator, count: int) -> list[Generator]:
    """Independent generators for the parts of one image, so that they do not disturb others."""
    return [np.random.default_rng(int(seed)) for seed in rng.integers(1 << 62, size=count)]


def place(
    person: Person, domain: Domain, position: np.ndarray, heading: float, label: int | None,
    rng: Generator,
) -> Placed:  # fmt: skip
    azimuth = np.arctan2(-position[0], -position[2])
    shapes = build_figure(person, sample_pose(person, rng, domain.standing))
    return Placed(shapes, rotation("y", heading + azimuth), position, label)


def spot(camera: Camera, rng: Generator) -> np.ndarray:
    """A place on the ground within the frame (3,)."""
    distance = rng.uniform(*camera.distance)
    half = 0.5 * FRAME[1] / camera.focal * distance
    return np.array([rng.uniform(-0.72, 0.72) * half, 0.0, -distance])


def tight_window(placed: Placed, camera: Camera) -> Window:
    """Smallest window around a figure, a little wider than long limbs need."""
    points, radii = placed.world()
    depth = -camera.to_camera(points)[:, 2]
    pixels, reach = camera.project(points), camera.focal * np.minimum(radii, 0.16) / depth
    left, right = np.min(pixels[:, 0] - reach), np.max(pixels[:, 0] + reach)
    top, bottom = np.min(pixels[:, 1] - reach), np.max(pixels[:, 1] + reach)
    height = 1.03 * (bottom - top)
    width = np.clip(1.06 * (right - left), 0.40 * height, 0.56 * height)
    x, y = (left + right) / 2, (top + bottom) / 2
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def detect(window: Window, domain: Domain, rng: Generator) -> Window:
    """The box a detector would give: shifted, scaled, perhaps without the feet."""
    left, top, right, bottom = window
    width, height = right - left, bottom - top
    amount = domain.box_jitter
    scale = rng.uniform(*domain.box_bias) * np.exp(amount * 0.7 * rng.normal())
    aspect = np.exp(amount * 0.6 * rng.normal())
    x = (left + right) / 2 + 0.8 * amount * width * rng.normal()
    y = (top + bottom) / 2 + 0.45 * amount * height * rng.normal()
    height, width = height * scale, width * scale * aspect
    top, bottom = y - height / 2, y + height / 2
    if rng.random() < domain.cut_feet:
        bottom -= rng.uniform(0.08, 0.28) * height
    return (x - width / 2, top, x + width / 2, bottom)


def inside_frame(window: Window) -> Window:
    """The window moved (and, if it must, shrunk) so that it lies in the frame."""
    left, top, right, bottom = window
    x, y = FRAME[1] / 2 - 1, FRAME[0] / 2 - 1
    right_by = max(0.0, -x - left) - max(0.0, right - x)
    down_by = max(0.0, -y - top) - max(0.0, bottom - y)
    left, right = max(left + right_by, -x), min(right + right_by, x)
    return left, max(top + down_by, -y), right, min(bottom + down_by, y)


def trace(
    camera: Camera, window: Window, placed: Sequence[Placed], shape: tuple[int, int]
) -> Raster:
    """Bodies and things as a window of the camera shows them, `shape` (rows, columns)."""
    raster = Raster(shape, window, camera.focal)
    for group in placed:
        offset, turn = camera.to_camera(group.position), camera.rotation @ group.turn
        for primitive in group.shapes:
            raster.draw(primitive, turn, offset, group.label)
    return raster


def cut_scene(camera: Camera, window: Window, shape: tuple[int, int]) -> Image.Image:
    """The empty scene in a window of the camera, scaled to `shape` (rows, columns)."""
    x, y = FRAME[1] / 2, FRAME[0] / 2
    left, top, right, bottom = inside_frame(window)
    box = (left + x, top + y, right + x, bottom + y)
    return scene_picture(camera).resize(shape[::-1], Image.Resampling.BILINEAR, box=box)


def shadow_factor(
    camera: Camera, window: Window, placed: Sequence[Placed], shape: tuple[int, int]
) -> np.ndarray:
    """Factor of the light on the ground (rows, columns) that the bodies leave."""
    bodies = zip(*(group.world() for group in placed), strict=True)
    points, radii = (np.concatenate(values) for values in bodies)
    factor = Image.fromarray(ground_shadow(camera, window, points, radii))
    return np.asarray(factor.resize(shape[::-1], Image.Resampling.BICUBIC))


def _expose(
    camera: Camera, window: Window, placed: Sequence[Placed], size: tuple[int, int], rng: Generator
) -> Drawing:
    """Draw everything in a window of the frame and develop it."""
    if min(size) < 16:
        raise ValueError(f"size must be (rows, columns), both at least 16, got {size}")
    shape = round(_OVERSAMPLE * size[0]), round(_OVERSAMPLE * size[1])
    raster = trace(camera, window, placed, shape)
    radiance = LINEAR[np.asarray(cut_scene(camera, window, shape))]
    if placed:
        radiance = radiance * shadow_factor(camera, window, placed, shape)[..., None]
    drawn = raster.depth < FAR
    radiance = np.where(drawn[..., None], shade(raster, camera, rng), radiance)
    nearest = (((np.arange(length) + 0.5) * _OVERSAMPLE).astype(int) for length in size)
    return Drawing(develop(radiance, camera, size, rng), raster.label[np.ix_(*nearest)])


def other_person(
    domain: Domain, position: np.ndarray, people: Sequence[Person], where: str, rng: Generator
) -> Placed:
    """Another person in front of, behind or "beside" the one at ``position``."""
    person = people[int(rng.integers(len(people)))]
    near = {
        "front": (0.25, 0.5), "behind": (0.35, 0.75), "beside": (0.45, 0.65), "far": (0.0, 2.0),
    }[where]  # fmt: skip
    spot = position + [rng.choice([-1, 1]) * rng.uniform(*near), 0.0, 0.0]
    if where == "front":
        spot[2] += rng.uniform(0.5, 1.1)
    elif where == "behind":
        spot[2] -= rng.uniform(0.0, 2.5)
    elif where == "far":
        spot[2] -= rng.uniform(2.0, 9.0)
    return place(person, domain, spot, rng.uniform(-np.pi, np.pi), PART["other person"], rng)


def in_the_way(
    domain: Domain, position: np.ndarray, people: Sequence[Person], rng: Generator
) -> list[Placed]:
    """Perhaps a person or a thing in front of ``position``."""
    if rng.random() >= domain.occlusion:
        return []
    if people and rng.random() < 0.35:
        return [other_person(domain, position, people, "front", rng)]
    return [Placed(sample_obstacle(rng), np.eye(3), position, PART["occluder"])]


def render_person(
    person: Person, camera: Camera, domain: Domain, rng: Generator, *,
    heading: float | None = None, bystanders: Sequence[Person] = (), labelled_box: bool = False,
    size: tuple[int, int] = (128, 64),
) -> Drawing:  # fmt: skip
    """Draw one person as one camera sees them.

    Equal generators give equal drawings, and the same scene with or without ``labelled_box``: a
    tight box, as a person would mark it, instead of a detector's.

    Args:
        domain: its probabilities of occlusion, company and box errors are used.
        heading: walking direction in radians relative to the camera; 0 faces it, pi / 2 walks
            towards the image's right. None: drawn from the camera's habit.
        bystanders: people who may walk beside, behind or in front.
        size: rows and columns of the image, at least 16.
    """
    place_rng, pose_rng, company_rng, box_rng, light_rng = generators(rng, 5)
    position = spot(camera, place_rng)
    habit = camera.headings[int(place_rng.integers(len(camera.headings)))]
    habit += camera.heading_spread * place_rng.normal()
    heading = habit if heading is None else heading
    placed = [place(person, domain, position, heading, None, pose_rng)]
    window = tight_window(placed[0], camera)
    placed += in_the_way(domain, position, bystanders, company_rng)
    if bystanders and company_rng.random() < domain.company:
        placed.append(other_person(domain, position, bystanders, "behind", company_rng))
    if not labelled_box:
        window = detect(window, domain, box_rng)
    return _expose(camera, window, placed, size, light_rng)


def render_background(
    camera: Camera, domain: Domain, rng: Generator, *, size: tuple[int, int] = (128, 64),
    bystanders: Sequence[Person] = (),
) -> Drawing:  # fmt: skip
    """Draw a false detection: a piece of the scene, perhaps with a sliver of a bystander."""
    place_rng, company_rng, light_rng = generators(rng, 3)
    position = spot(camera, place_rng)
    head = camera.project(position + np.array([0, place_rng.uniform(1.3, 2.1), 0]))
    foot = camera.project(position)
    height = foot[1] - head[1]
    width = height * place_rng.uniform(0.42, 0.56)
    y = foot[1] - height + height * place_rng.uniform(-0.6, 0.35)
    window = (foot[0] - width / 2, y, foot[0] + width / 2, y + height)
    placed = []
    if bystanders and company_rng.random() < 0.35:
        placed.append(other_person(domain, position, bystanders, "beside", company_rng))
    return _expose(camera, inside_frame(window), placed, size, light_rng)
