"""Images as surveillance cameras record them; only `mini-world` is drawn this way.

More of everything than in the miniatures: light, wrinkles, passers-by, boxes, and what a sensor, a
video codec and a detector do to an image.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter
from scipy.ndimage import gaussian_filter, uniform_filter1d

from . import render
from .cameras import DAYLIGHT, FRAME, Camera, sample_camera
from .domains import Domain, Range
from .geometry import FAR, Raster
from .people import Person
from .render import LINEAR, Window, detect, generators, inside_frame, tight_window
from .scenery import smooth_noise
from .shading import cast_shadow, folds, tone

_DAILY = (*DAYLIGHT, "light_colour", "gain", "contrast", "scene_seed", "wall_distance")
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Look:
    """How one camera records people; ranges (low, high) are of its images."""

    rows: Range  # height of the stored image, pixels
    shape: float  # width over height of every image, 0 = that of the box
    detail: Range  # recorded rows per stored row
    blur: Range  # recorded pixels
    motion: float  # largest horizontal blur, recorded pixels
    grain: Range  # noise, grey levels
    blotch: float  # share of the noise that neighbouring pixels have in common
    chroma: float  # blur of the colours, recorded pixels
    halo: float  # strength of sharpening
    quality: tuple[int, int]  # of the video's compression
    veil: Range  # share of grey that fog or stray light adds
    interlaced: float  # probability that even and odd rows differ in time
    domain: Domain  # boxes and company


def sample_view(domain: Domain, rng: Generator) -> tuple[Camera, Look]:
    """Draw a camera: near or far, low or high, and old or new."""
    height = float(rng.choice([rng.uniform(1.4, 3.0), rng.uniform(2.5, 5.0), rng.uniform(4.5, 9)]))
    near = rng.uniform(max(3.0, 0.8 * height), max(10.0, 2.2 * height))
    far = near * rng.uniform(1.3, 2.0)
    focal = rng.uniform(200, 380) * np.hypot(0.5 * (near + far), height) / 1.7
    jitter = rng.uniform(0.04, 0.13)
    largest = 1 + rng.uniform(0.02, 0.35)
    domain = replace(
        domain,
        camera_height=(height, height), distance=(near, far), focal=(focal, focal),
        box_jitter=jitter, box_bias=(1 - 0.8 * jitter, largest), cut_feet=rng.uniform(0, 0.25),
        occlusion=rng.uniform(0.02, 0.3), company=rng.uniform(0.05, 0.4),
        standing=rng.uniform(0.05, 0.5),
    )  # fmt: skip
    rows, shape = rng.uniform(80, 170), 0.0
    kind = rng.random()
    if kind < 0.3:  # all resized, as in Market-1501
        rows, shape = (128.0 if kind < 0.2 else 256.0), 0.5
    old = rng.random()  # 0 = a modern camera in good light
    best = rng.uniform(0.5, 1.3) if kind < 0.3 else rng.uniform(0.75, 1.3)
    quality = int(rng.integers(30, 95))
    look = Look(
        rows=(rows, rows if shape else min(320.0, rows * rng.uniform(1.2, 2.5))),
        shape=shape,
        detail=(0.65 * best, min(best, 1.0)),
        blur=(0.1, 0.3 + 0.7 * rng.random()),
        motion=float(rng.uniform(0, 2.5)),
        grain=(0.5, 1 + 7 * old * rng.random()),
        blotch=float(rng.uniform(0.2, 1)),
        chroma=float(rng.uniform(0, 1.4)),
        halo=float(max(0.0, rng.uniform(-0.8, 1.6))),
        quality=(quality, min(95, quality + 15)),
        veil=(0.0, float(0.25 * rng.random() ** 2)),
        interlaced=0.6 * (rng.random() < 0.06),
        domain=domain,
    )
    return sample_camera(domain, rng), look


def vary(camera: Camera, domain: Domain, rng: Generator) -> Camera:
    """The same camera on another day, turned to another part of the place, under another light."""
    other = sample_camera(domain, rng)
    night = not other.indoors and rng.random() < 0.07
    sun = other.sun * (0.15 if night else rng.choice([0.15, 1.0, 1.8]))
    changed = {name: getattr(other, name) for name in _DAILY}
    changed["scene"] = other.scene if camera.indoors == other.indoors else camera.scene
    changed["sun"], changed["ambient"] = float(sun), other.ambient * (0.6 if night else 1.0)
    return replace(camera, **changed)


def photograph(
    person: Person, camera: Camera, look: Look, rng: Generator, *, heading: float,
    passers_by: Sequence[Person],
) -> Image.Image:  # fmt: skip
    """Draw one person as a camera's recording shows them, cut out by a detector."""
    where, poses, company, box, light, film = generators(rng, 6)
    domain, position = look.domain, render.spot(camera, where)
    placed = [render.place(person, domain, position, heading, None, poses)]
    window = detect(tight_window(placed[0], camera), domain, box)
    if box.random() < 0.06:  # without the head
        left, top, right, bottom = window
        window = left, top + box.uniform(0.06, 0.2) * (bottom - top), right, bottom
    placed += render.in_the_way(domain, position, passers_by, company)
    for side in ("behind", "beside", "far"):
        if company.random() < domain.company * (0.6 if side == "far" else 0.4):
            placed.append(render.other_person(domain, position, passers_by, side, company))
    rows, share = float(np.exp(film.uniform(*np.log(look.rows)))), film.uniform(*look.detail)
    shape = look.shape or (window[2] - window[0]) / (window[3] - window[1])
    size = round(rows), max(16, round(rows * shape))
    finest = float(np.clip(1.3 * rows * share, 104, 256)) / rows
    drawing = round(size[0] * finest), round(size[1] * finest)
    raster = render.trace(camera, window, placed, drawing)
    view = replace(
        camera,
        sun=camera.sun * light.uniform(0.6, 1.3),
        ambient=camera.ambient * light.uniform(0.8, 1.15),
        sun_azimuth=camera.sun_azimuth + 0.4 * light.normal(),
        gain=camera.gain * float(np.exp(0.12 * light.normal())),
    )
    sunlit = _shade_over(view, drawing, light)
    radiance = _background(camera, window, drawing, where)
    factor = render.shadow_factor(view, window, placed, drawing)
    direct = view.sun / (view.sun + 2 * view.ambient)
    radiance = radiance * (factor * (1 - direct * (1 - sunlit)))[..., None]
    drawn = gaussian_filter((raster.depth < FAR).astype(np.float32), 0.5)[..., None]
    radiance = radiance + drawn * (_lit(raster, view, sunlit, light) - radiance)
    sensor = max(32, round(size[0] * share)), max(14, round(size[1] * share))
    return _record(radiance, view, look, sensor, film).resize(
        size[::-1],
        Image.Resampling(int(film.choice([2, 3]))),  # bilinear or bicubic
    )


def _shade_over(camera: Camera, shape: tuple[int, int], rng: Generator) -> np.ndarray:
    """Share of the sun that reaches each pixel: all of it, beside an edge, or under leaves."""
    kind = rng.random()
    if camera.indoors or kind > 0.45:
        return np.ones(shape, np.float32)
    if kind < 0.12:
        leaves = smooth_noise(rng, shape, rng.uniform(0.04, 0.12) * shape[0])
        return np.clip(0.5 + rng.uniform(0.5, 2) * leaves, 0, 1)
    y, x = np.mgrid[: shape[0], : shape[1]] / np.float32(shape[0])
    angle = rng.uniform(0, 2 * np.pi)
    edge = (y - rng.uniform(0.1, 0.9)) * np.sin(angle) + (x - 0.25) * np.cos(angle)
    return np.clip(0.5 + edge / rng.uniform(0.01, 0.2), 0, 1).astype(np.float32)


def _background(
    camera: Camera, window: Window, shape: tuple[int, int], rng: Generator
) -> np.ndarray:
    """Radiance of a part of the scene: at the right height, but anywhere across, either way."""
    left, top, right, bottom = inside_frame(window)
    width, zoom = right - left, np.exp(0.15 * rng.normal())
    shift = rng.uniform(-FRAME[1] / 2, FRAME[1] / 2 - width) - left
    down = 0.06 * (bottom - top) * rng.normal()
    x, y, half = left + right + 2 * shift, top + bottom + 2 * down, 0.5 * zoom
    beside, above = half * width, half * (bottom - top)
    moved = (x / 2 - beside, y / 2 - above, x / 2 + beside, y / 2 + above)
    crop = render.cut_scene(camera, moved, shape)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    softness = float(rng.choice([0.0, rng.uniform(0, 0.02), 0.15], p=[0.6, 0.3, 0.1]))
    if softness:  # out of focus, or nearly featureless
        crop = crop.filter(ImageFilter.BoxBlur(softness * shape[0]))
    return LINEAR[np.asarray(crop)] * np.float32(np.exp(0.15 * rng.normal()))


def _lit(raster: Raster, camera: Camera, sunlit: np.ndarray, rng: Generator) -> np.ndarray:
    """Radiance of the figures: sun, sky, bounced light, wrinkles and wear of the cloth."""
    drawn = raster.depth < FAR
    out = np.zeros_like(raster.albedo)
    i, j = np.nonzero(drawn)
    fold, rows = raster.fold[i, j], raster.shape[0]
    normal = raster.normal[i, j] + rng.uniform(0.5, 1.4) * folds(raster.rest[i, j], fold, rng)
    for grain, depth in ((0.035, 0.5), (0.012, 0.3)):
        bump = smooth_noise(rng, raster.shape, max(1.5, grain * rows))
        slope = np.stack(np.gradient(bump), axis=-1)[i, j] * (grain * rows * depth)
        normal[:, :2] += slope[:, ::-1] * np.minimum(fold, 1)[:, None]
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    light = (camera.rotation @ camera.sun_direction()).astype(np.float32)
    sky = camera.rotation[:, 1].astype(np.float32)
    lambert = np.maximum(0.92 * (normal @ light) + 0.08, 0)
    lambert *= (1 - 0.85 * cast_shadow(raster, light)[i, j]) * sunlit[i, j]
    hemisphere = 0.62 + 0.38 * (normal @ sky)
    hemisphere *= (0.8 + 0.2 * np.maximum(normal[:, 2], 0)) * _openness(raster, drawn)[i, j]
    wear = 1 + 0.06 * smooth_noise(rng, raster.shape, 0.06 * rows)[i, j]
    wear += 0.05 * rng.standard_normal(len(i)).astype(np.float32) * np.minimum(fold, 1)
    tint = np.asarray(camera.light_colour, np.float32)
    power = camera.ambient * hemisphere[:, None] + camera.sun * lambert[:, None] * tint
    out[i, j] = raster.albedo[i, j] * power * wear[:, None]
    gloss = np.maximum(normal @ (light + [0, 0, 1]) / np.linalg.norm(light + [0, 0, 1]), 0) ** 12
    out[i, j] += (0.012 * camera.ambient + 0.03 * camera.sun * gloss * sunlit[i, j])[:, None]
    return out


def _openness(raster: Raster, drawn: np.ndarray) -> np.ndarray:
    """How much of the sky each point sees, by the depth around it, on a coarse grid."""
    step = max(1, raster.shape[0] // 64)
    depth = np.where(drawn, np.minimum(raster.depth, raster.depth[drawn].min() + 3), 0)
    coarse, there = depth[::step, ::step], drawn[::step, ::step].astype(np.float32)
    weight, around = (gaussian_filter(field, 3, truncate=2.0) for field in (there, coarse))
    around = Image.fromarray(around / np.maximum(weight, 1e-3))
    around = np.asarray(around.resize(raster.shape[::-1], Image.Resampling.BILINEAR))
    return 1 - 0.55 * np.clip((depth - around - 0.01) / 0.15, 0, 1)


def _record(
    radiance: np.ndarray, camera: Camera, look: Look, sensor: tuple[int, int], rng: Generator
) -> Image.Image:
    """What the recording shows: tone, resolution, blur, noise, sharpening and compression."""
    image = radiance * (camera.gain * np.asarray(camera.cast, np.float32))
    grey = image @ _LUMA
    image *= (0.34 / (grey.mean() + 1e-3)) ** rng.uniform(0.3, 0.8)  # automatic exposure
    image = tone(image, image @ _LUMA, camera)
    veil = rng.uniform(*look.veil)
    image = np.clip(image + veil * (rng.uniform(0.4, 0.8) - image), 0, 1)
    rows, columns = sensor
    whole = Image.fromarray((255 * image).astype(np.uint8))
    small = whole.resize((columns, rows), Image.Resampling.BILINEAR, reducing_gap=2.0)
    blur = rng.uniform(*look.blur)
    pixels = gaussian_filter(np.asarray(small, np.float32), (blur, blur, 0), truncate=3.0)
    motion = round(look.motion * rng.uniform(0, 1) ** 2 * rows / 100)
    if motion > 1:
        pixels = uniform_filter1d(pixels, motion, axis=1)
    luma = (pixels @ _LUMA)[..., None]
    colour = gaussian_filter(pixels - luma, (look.chroma, look.chroma, 0), truncate=2.0)
    noise = rng.standard_normal((rows, columns, 4)).astype(np.float32)
    soft = gaussian_filter(noise, (0.9, 0.9, 0), truncate=2.0) * 2.5
    noise += look.blotch * (soft - noise)
    strength = rng.uniform(*look.grain) * (1.3 - luma / 255)
    pixels = luma + colour + strength * (noise[..., :1] + 0.5 * noise[..., 1:])
    if rng.random() < look.interlaced:
        pixels[1::2] = np.roll(pixels[1::2], 1, axis=1)
    small = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if look.halo > 0:
        small = small.filter(ImageFilter.UnsharpMask(1.3, int(100 * look.halo), 0))
    video = io.BytesIO()
    small.save(video, "JPEG", quality=int(rng.integers(look.quality[0], look.quality[1] + 1)))
    return Image.open(video)
