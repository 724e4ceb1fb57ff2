"""Light on the figures, their shadows, and what the sensor makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .cameras import Camera
from .geometry import FAR, Raster


def shade(raster: Raster, camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """Radiance (rows, columns, 3) of everything drawn: sun, sky, folds and soft occlusion."""
    drawn = raster.depth < FAR
    out = np.zeros_like(raster.albedo)
    i, j = np.nonzero(drawn)
    if len(i) == 0:
        return out
    normal = raster.normal[i, j] + folds(raster.rest[i, j], raster.fold[i, j], rng)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = (camera.rotation @ camera.sun_direction()).astype(np.float32)
    sky = camera.rotation[:, 1].astype(np.float32)
    lambert = np.maximum(normal @ light, 0)
    lambert *= 1 - 0.8 * cast_shadow(raster, light)[i, j]
    hemisphere = 0.68 + 0.32 * (normal @ sky)
    facing = 0.86 + 0.14 * np.maximum(normal[:, 2], 0)
    hemisphere *= facing * (1 - 0.55 * _crevices(raster, drawn)[i, j])
    tint = np.asarray(camera.light_colour, np.float32)
    power = camera.ambient * hemisphere[:, None] + camera.sun * lambert[:, None] * tint
    grain = 1 + 0.03 * rng.standard_normal(len(i)).astype(np.float32)
    out[i, j] = raster.albedo[i, j] * power * grain[:, None]
    out[i, j] += 0.012 * camera.ambient  # haze and sheen: no cloth is quite black
    return out


def folds(rest: np.ndarray, strength: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Tilt of the normals (N, 3) by a few warped waves over the cloth."""
    tilt = np.zeros_like(rest)
    warp = rng.normal(size=3) * 9
    bend = 1.4 * np.sin(rest @ warp.astype(np.float32) + rng.uniform(0, 6.28))
    for frequency, amount in ((14, 0.22), (24, 0.20), (38, 0.16), (60, 0.13)):
        direction = rng.normal(size=3) * [0.8, 1.0, 0.6]
        direction = (direction / np.linalg.norm(direction)).astype(np.float32)
        phase = frequency * (rest @ direction) + bend + rng.uniform(0, 6.28)
        tilt += (amount * np.cos(phase) * strength)[:, None] * direction
    return tilt


def _crevices(raster: Raster, drawn: np.ndarray) -> np.ndarray:
    """How far each point lies behind its surroundings, 0 to 1."""
    nearest = raster.depth[drawn].min()
    depth = np.where(drawn, np.minimum(raster.depth, nearest + 3), 0)
    sigma = 0.05 * raster.shape[0]
    weight = gaussian_filter(drawn.astype(np.float32), sigma, truncate=2.0)
    around = gaussian_filter(depth, sigma, truncate=2.0) / np.maximum(weight, 1e-3)
    return np.clip((depth - around - 0.01) / 0.15, 0, 1)


def cast_shadow(raster: Raster, light: np.ndarray) -> np.ndarray:
    """Shadow of the figures on themselves, by marching towards the light in the depth buffer."""
    depth = raster.depth
    rows, columns = depth.shape
    typical = float(np.median(depth[depth < FAR]))
    shadow = np.zeros(depth.shape, np.float32)
    for distance in (0.04, 0.07, 0.10, 0.14, 0.19, 0.25, 0.32):
        dx = int(round(distance * light[0] / (typical * raster.step[0])))
        dy = int(round(-distance * light[1] / (typical * raster.step[1])))
        if abs(dx) >= columns or abs(dy) >= rows:
            continue
        here = (slice(max(-dy, 0), rows - max(dy, 0)), slice(max(-dx, 0), columns - max(dx, 0)))
        there = (slice(max(dy, 0), rows - max(-dy, 0)), slice(max(dx, 0), columns - max(-dx, 0)))
        gap = depth[here] - distance * light[2] - depth[there]
        hidden = (gap > 0.025) & (gap < 0.45)
        shadow[here] = np.maximum(shadow[here], hidden)
    return gaussian_filter(shadow, 1.5)


def ground_shadow(
    camera: Camera, window: Sequence[float], points: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Factor (48, 24) by which bodies at points (N, 3) with radii (N,) darken the ground."""
    left, top, right, bottom = window
    x = left + (np.arange(24) + 0.5) * (right - left) / 24
    y = top + (np.arange(48) + 0.5) * (bottom - top) / 48
    grid_x, grid_y = np.meshgrid(x, y)
    rays = camera.rays(grid_x, grid_y)
    down = np.minimum(rays[..., 1], -1e-3)
    reach = -camera.height / down
    ground = np.stack([rays[..., 0] * reach, rays[..., 2] * reach], axis=-1).astype(np.float32)
    valid = (rays[..., 1] < -0.01) & (-ground[..., 1] < camera.wall_distance)
    sun = camera.sun_direction()
    foot = points[:, [0, 2]] - sun[[0, 2]] * (points[:, 1:2] / max(sun[1], 0.2))
    direct = _soft_discs(ground, foot, radii * 1.1)
    low = points[:, 1] < 0.5
    contact = _soft_discs(ground, points[low][:, [0, 2]], 0.12 + 0.5 * points[low][:, 1])
    share = camera.sun * sun[1] / (camera.sun * sun[1] + camera.ambient)
    factor = (1 - 0.8 * share * direct) * (1 - 0.45 * contact)
    return np.where(valid, factor, 1.0).astype(np.float32)


def _soft_discs(ground: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    centres = centres.astype(np.float32)
    distance = (ground[..., None, 0] - centres[:, 0]) ** 2
    distance += (ground[..., None, 1] - centres[:, 1]) ** 2
    return np.clip(1.3 - distance / radii.astype(np.float32) ** 2, 0, 1).max(axis=-1)


def tone(image: np.ndarray, grey: np.ndarray, camera: Camera) -> np.ndarray:
    """Radiance (H, W, 3), of brightness ``grey`` (H, W), with saturation, gamma and contrast."""
    image = grey[..., None] + camera.saturation * (image - grey[..., None])
    image = np.clip(image, 0, None)
    image = image / (1 + 0.12 * image * image)  # soft shoulder instead of hard clipping
    image = np.clip(image, 0, 1) ** np.float32(camera.gamma / 2.2)
    return 0.42 + camera.contrast * (image - 0.42)


def develop(
    radiance: np.ndarray, camera: Camera, size: tuple[int, int], rng: np.random.Generator
) -> np.ndarray:
    """What the sensor records: colour, tone, resolution, blur and noise; (H, W, 3) uint8."""
    exposure = camera.gain * np.exp(0.06 * rng.normal())
    image = radiance * (exposure * np.asarray(camera.cast, np.float32))
    grey = image @ np.array([0.30, 0.59, 0.11], np.float32)
    image = np.clip(tone(image, grey, camera), 0, 1)
    share = min(1.0, camera.resolution * rng.uniform(0.85, 1.12))
    rows, columns = max(16, round(size[0] * share)), max(8, round(size[1] * share))
    picture = Image.fromarray((255 * image).astype(np.uint8))
    small = picture.resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0)
    pixels = np.asarray(small, np.float32)
    blur = camera.blur * share * rng.uniform(0.8, 1.2)
    pixels = gaussian_filter(pixels, (blur, blur, 0), truncate=3.0)
    motion = camera.motion * share * rng.uniform(0, 0.6)
    if motion > 0.3:
        pixels = gaussian_filter1d(pixels, motion, axis=1)
    fine = rng.standard_normal((rows, columns, 1)) + 0.5 * rng.standard_normal((rows, columns, 3))
    pixels = np.clip(pixels + camera.noise * fine, 0, 255)
    small = Image.fromarray(pixels.astype(np.uint8))
    return np.asarray(small.resize((size[1], size[0]), Image.Resampling.BICUBIC))
