"""Cameras: where they hang, how they see, and which way people walk past them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .domains import Domain, as_colour, choose
from .geometry import rotation

FRAME = (560, 1000)  # rows and columns of a camera's frame
_SENSOR = ("gain", "gamma", "saturation", "contrast", "blur")
DAYLIGHT = ("sun", "ambient", "sun_azimuth", "sun_elevation")


@dataclass(frozen=True)
class Camera:
    """A static camera over a static scene.

    World coordinates: the camera is at (0, height, 0) and looks along -z, tilted downwards; the
    ground is y = 0; metres and radians.
    """

    height: float
    tilt: float
    focal: float  # frame pixels
    distance: tuple[float, float]  # of people along the ground
    headings: tuple[float, ...]  # preferred headings relative to the camera
    heading_spread: float
    scene: str
    scene_seed: int
    indoors: bool
    wall_distance: float
    sun_azimuth: float  # 0 = behind the camera
    sun_elevation: float
    sun: float
    ambient: float
    light_colour: tuple[float, float, float]
    cast: tuple[float, float, float]
    gain: float
    gamma: float
    saturation: float
    contrast: float
    blur: float
    motion: float
    noise: float
    resolution: float
    jpeg_quality: int

    @property
    def rotation(self) -> np.ndarray:
        """World to camera directions (3, 3)."""
        return rotation("x", self.tilt)

    def to_camera(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) in camera coordinates."""
        return (np.asarray(points) - [0.0, self.height, 0.0]) @ self.rotation.T

    def project(self, points: np.ndarray) -> np.ndarray:
        """World points (..., 3) to frame pixels (..., 2) = (x, y) from the principal point."""
        seen = self.to_camera(points)
        x, y = seen[..., 0] / -seen[..., 2], seen[..., 1] / seen[..., 2]
        return self.focal * np.stack([x, y], axis=-1)

    def rays(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """World directions (..., 3) of frame pixels, of unit depth along the camera's axis."""
        local = np.stack([x / self.focal, -y / self.focal, -np.ones_like(x)], axis=-1)
        return local @ self.rotation

    def sun_direction(self) -> np.ndarray:
        """Unit vector towards the light (3,), world coordinates."""
        up, along = np.sin(self.sun_elevation), np.cos(self.sun_elevation)
        return np.array([along * np.sin(self.sun_azimuth), up, along * np.cos(self.sun_azimuth)])


def sample_camera(domain: Domain, rng: np.random.Generator) -> Camera:
    """Draw a camera of a domain; its scene is built from ``scene_seed`` when first needed."""

    def within(limits: tuple[float, float]) -> float:
        return float(rng.uniform(*limits))

    height = within(domain.camera_height)
    near, far = domain.distance
    middle = rng.uniform(near + 0.2 * (far - near), far - 0.2 * (far - near))
    distance = (max(near, middle - 0.3 * (far - near)), min(far, middle + 0.3 * (far - near)))
    scene = choose(rng, domain.scenes)
    indoors = scene == "corridor"
    axis = rng.uniform(-np.pi, np.pi)
    headings = (float(axis), float(axis + np.pi)) if rng.random() < 0.6 else (float(axis),)
    warmth = domain.warmth * rng.normal()
    cast = np.exp(domain.cast * rng.normal(size=3))
    cast /= cast.mean()
    return Camera(
        height=height,
        tilt=float(np.arctan2(height - 0.95, 0.5 * sum(distance))),
        focal=within(domain.focal),
        distance=(float(distance[0]), float(distance[1])),
        headings=headings,
        heading_spread=float(rng.uniform(0.25, 0.6)),
        scene=scene,
        scene_seed=int(rng.integers(1 << 30)),
        indoors=indoors,
        wall_distance=float(distance[1] + rng.uniform(1.5, 4 if indoors else 9)),
        sun_azimuth=float(rng.uniform(-2.6, 2.6)),
        sun_elevation=float(np.radians(within(domain.sun_elevation if not indoors else (60, 88)))),
        sun=within(domain.sun) * (0.45 if indoors else 1.0),
        ambient=within(domain.ambient),
        light_colour=as_colour(np.exp(warmth * np.array([1.0, 0.2, -1.1]))),
        cast=as_colour(cast),
        **{name: within(getattr(domain, name)) for name in _SENSOR},
        motion=float(rng.uniform(0, domain.motion)),
        noise=within(domain.noise),
        resolution=within(domain.resolution),
        jpeg_quality=int(rng.integers(domain.jpeg_quality[0], domain.jpeg_quality[1] + 1)),
    )
