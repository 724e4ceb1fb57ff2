"""The static scene behind the people: ground and walls by ray casting, things painted on top."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from .cameras import FRAME, Camera
from .furniture import furnish

Field = np.ndarray


@lru_cache(maxsize=48)
def scene_picture(camera: Camera) -> Image.Image:
    """The empty frame of a camera, sRGB, of size :data:`~qaconv_lib.miniatures.cameras.FRAME`."""
    rng = np.random.default_rng(camera.scene_seed)
    rows, columns = FRAME
    x, y = np.meshgrid(np.arange(columns) + 0.5 - columns / 2, np.arange(rows) + 0.5 - rows / 2)
    rays = camera.rays(x, y).astype(np.float32)
    dx, dy, dz = rays[..., 0], rays[..., 1], -rays[..., 2]
    reach = np.where(dy < -1e-3, -camera.height / np.minimum(dy, -1e-3), np.float32(np.inf))
    slant = rng.uniform(-0.15, 0.15) if camera.indoors else rng.uniform(-0.5, 0.5)
    cos, sin = float(np.cos(slant)), float(np.sin(slant))
    towards = dz * cos + dx * sin
    to_wall = camera.wall_distance / np.maximum(towards, 0.05)
    sides = rng.uniform(4.2, 6.0) if camera.indoors else np.inf
    to_side = sides / np.maximum(np.abs(dx), 1e-3)
    nearest = np.minimum(reach, np.minimum(to_wall, to_side))
    along, up, deep = dx * nearest, camera.height + dy * nearest, dz * nearest
    out = _floor(camera, rng, along, deep)
    power = float(camera.ambient + camera.sun * np.sin(camera.sun_elevation))
    light = np.full(FRAME, power, np.float32)
    light *= _shade_patches(camera, rng, along, deep)
    on_side, on_wall = (to_side <= nearest), (to_wall <= nearest)
    facade = _facade(camera, rng, along * cos - deep * sin, up)
    out = np.where(on_wall[..., None], facade, out)
    if camera.indoors:
        panel = _facade(camera, rng, deep * np.where(dx > 0, 1, -1.3), up)
        out = np.where((on_side & ~on_wall)[..., None], 0.85 * panel, out)
    vertical = on_side | on_wall
    light = np.where(vertical, power * rng.uniform(0.5, 0.9), light)
    foot = np.where(vertical, np.clip(up / 0.5, 0, 1), 1.0)
    light *= 0.65 + 0.35 * foot
    if camera.indoors:  # a polished floor reflects the far end
        gloss = np.exp(-((camera.wall_distance - deep) / 4.0))
        light *= np.where(vertical, 1, 1 + 0.5 * np.clip(gloss, 0, 1))
    out = out * light[..., None]
    out *= (1 + 0.05 * smooth_noise(rng, FRAME, 30) + 0.05 * smooth_noise(rng, FRAME, 3))[..., None]
    out *= (1 + 0.025 * rng.standard_normal(FRAME).astype(np.float32))[..., None]
    out *= np.asarray(camera.light_colour, np.float32)
    furnish(out, camera, rng)
    out = gaussian_filter(out, (0.7, 0.7, 0))
    return Image.fromarray((255 * np.clip(out, 0, 1) ** (1 / 2.2)).astype(np.uint8))


def smooth_noise(rng: np.random.Generator, shape: tuple[int, int], grain: float) -> Field:
    """Smooth noise of zero mean and unit spread; ``grain`` is its size in pixels."""
    step = max(1, int(grain / 3))
    small = (shape[0] // step + 2, shape[1] // step + 2)
    field = gaussian_filter(rng.standard_normal(small).astype(np.float32), grain / step)
    size = (shape[1], shape[0])
    field = np.asarray(Image.fromarray(field).resize(size, Image.Resampling.BILINEAR))
    return (field - field.mean()) / (field.std() + 1e-6)


def _grey(rng: np.random.Generator, low: float, high: float, tint: float = 0.05) -> np.ndarray:
    """A muted linear albedo (3,), its brightness given in sRGB."""
    colour = rng.uniform(low, high) * (1 + tint * rng.normal(size=3))
    return (np.clip(colour, 0.03, 0.97) ** 2.2).astype(np.float32)


def _cells(rng: np.random.Generator, i: Field, j: Field, spread: float) -> Field:
    """A brightness factor for each cell of a grid, by hashing its indices."""
    table = (1 + spread * rng.standard_normal(4096)).astype(np.float32)
    return table[(i.astype(np.int32) * 73 + j.astype(np.int32) * 1259) & 4095]


def _floor(camera: Camera, rng: np.random.Generator, x: Field, z: Field) -> Field:
    """Albedo of the ground at ``x``, ``z`` metres: one covering, perhaps with a road or lawn."""
    turn = rng.choice([0.0, np.pi / 4]) + 0.25 * rng.normal()
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    u, v = x * cos - z * sin, x * sin + z * cos
    covers = {
        "plaza": ["tiles", "pavers", "slabs"],
        "campus": ["slabs", "pavers", "tiles", "asphalt"],
        "shops": ["tiles", "slabs", "pavers"],
        "street": ["asphalt", "slabs"],
        "corridor": ["tiles", "tiles", "lino"],
    }[camera.scene]
    out = _cover(rng, str(rng.choice(covers)), u, v, camera.indoors)
    if camera.indoors:
        return out
    middle, wide = rng.uniform(*camera.distance), rng.uniform(1.5, 5)
    offset = v - middle * np.cos(turn) - rng.uniform(-2, 4)
    if camera.scene == "street" or rng.random() < 0.12:
        band = np.abs(offset) < wide
        out = np.where(band[..., None], _cover(rng, "asphalt", u, v, False), out)
        kerb = np.abs(np.abs(offset) - wide) < 0.09
        out = np.where(kerb[..., None], _grey(rng, 0.6, 0.75), out)
        line = (np.abs(offset) < 0.06) & ((u % 3.0) < 1.7)
        out = np.where(line[..., None], np.array([0.6, 0.6, 0.55], np.float32), out)
    elif rng.random() < (0.6 if camera.scene == "campus" else 0.12):
        lawn = offset > rng.uniform(0.5, 3)
        out = np.where(lawn[..., None], _cover(rng, "grass", u, v, False), out)
    elif rng.random() < 0.6:
        stripe = (np.abs(offset) % rng.uniform(2.0, 4.0)) < rng.uniform(0.15, 0.5)
        out = np.where(stripe[..., None], _cover(rng, "pavers", v, u, False), out)
    return out


def _cover(rng: np.random.Generator, kind: str, u: Field, v: Field, indoors: bool) -> Field:
    shape = u.shape
    base = _grey(rng, 0.55, 0.8, 0.04) if indoors else _grey(rng, 0.42, 0.72, 0.04)
    if kind in ("tiles", "pavers", "slabs"):
        long, wide = {"tiles": (0.6, 0.6), "pavers": (0.24, 0.12), "slabs": (1.4, 1.1)}[kind]
        scale = rng.uniform(0.8, 1.3)
        i = np.floor(v / (wide * scale))
        shifted = u / (long * scale) + 0.5 * (i % 2) * (kind == "pavers")
        j = np.floor(shifted)
        value = _cells(rng, i, j, 0.03 if indoors else 0.07)
        gap = 0.025 if kind == "slabs" else 0.05
        joint = ((v / (wide * scale)) % 1 < gap) | (shifted % 1 < gap)
        value = np.where(joint, value * rng.uniform(0.65, 0.85), value)
        if kind == "tiles" and rng.random() < 0.3:
            value = np.where((i + j) % 2 == 0, value, value * rng.uniform(0.75, 0.9))
        return value[..., None] * base
    if kind == "grass":
        green = np.array([0.10, 0.16, 0.05], np.float32) * np.float32(rng.uniform(0.7, 1.4))
        green = green * np.array([rng.uniform(0.8, 1.7), 1, 1], np.float32)
        value = 1 + 0.25 * smooth_noise(rng, shape, 2) + 0.2 * smooth_noise(rng, shape, 14)
        return np.clip(value, 0.3, 2)[..., None] * green
    if kind == "asphalt":
        base = _grey(rng, 0.30, 0.48, 0.02)
    value = 1 + 0.08 * smooth_noise(rng, shape, 1.5) + 0.07 * smooth_noise(rng, shape, 40)
    return value[..., None] * base


def _shade_patches(camera: Camera, rng: np.random.Generator, x: Field, z: Field) -> Field:
    """Shadows that buildings and trees throw on the ground, as a factor."""
    share = float(camera.sun * np.sin(camera.sun_elevation))
    share = share / (share + camera.ambient)
    if camera.indoors:
        return 1 + 0.12 * np.sin(z * rng.uniform(0.8, 1.6)).astype(np.float32)
    lit = np.ones(x.shape, np.float32)
    if rng.random() < 0.5:  # the straight edge of a building's shadow
        angle, where = rng.uniform(-1.2, 1.2), rng.uniform(*camera.distance)
        edge = (z - where) * np.cos(angle) + x * np.sin(angle)
        lit *= 1 / (1 + np.exp(-6 * edge * rng.choice([-1, 1])))
    if rng.random() < 0.4:  # dappled light under a tree
        lit *= np.clip(0.6 + 0.7 * smooth_noise(rng, x.shape, 16), 0, 1)
    return 1 - 0.75 * share * (1 - lit)


def _facade(camera: Camera, rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Albedo of a wall at ``x`` along it and height ``y``, metres."""
    kinds = {
        "plaza": ["brick", "panels", "glass", "hedge"],
        "campus": ["brick", "hedge", "trees"],
        "shops": ["shops", "shops", "glass"],
        "street": ["brick", "panels", "shops", "trees"],
        "corridor": ["doors", "panels", "glass", "doors"],
    }[camera.scene]
    kind = str(rng.choice(kinds))
    if kind in ("hedge", "trees"):
        return _greenery(rng, x, y, 1.6 if kind == "hedge" else 9.0)
    if kind in ("glass", "shops"):
        return _glazing(rng, x, y, kind == "shops")
    out = _masonry(rng, x, y, kind)
    if kind == "doors":
        return _doors(rng, out, x, y)
    return _windows(rng, out, x, y)


def _masonry(rng: np.random.Generator, x: Field, y: Field, kind: str) -> Field:
    brick = kind == "brick"
    if brick:
        base = _grey(rng, 0.40, 0.62) * np.array([1.25, 0.9, 0.75], np.float32)
        long, tall, spread, gaps, tone = 0.26, 0.09, 0.10, (0.1, 0.05), 1.2
    else:
        base = _grey(rng, 0.5, 0.82)
        long, tall = rng.uniform(1.2, 2.4), rng.uniform(0.8, 1.6)
        spread, gaps, tone = 0.025, (0.02, 0.012), 0.7
    i = np.floor(y / tall)
    shifted = x / long + 0.5 * (i % 2) * brick
    value = _cells(rng, i, np.floor(shifted), spread)
    joint = ((y / tall) % 1 < gaps[0]) | (shifted % 1 < gaps[1])
    value = np.where(joint, value * tone, value)
    return np.where(y < 0.25, value * 0.75, value)[..., None] * base


def _windows(rng: np.random.Generator, out: Field, x: Field, y: Field) -> Field:
    pitch, low = rng.uniform(2.2, 4.0), rng.uniform(0.7, 1.3)
    u = (x + rng.uniform(0, 4)) % pitch
    width = pitch * rng.uniform(0.35, 0.65)
    inside = (u < width) & (np.abs((y - low) % 3.2 - 0.8) < 0.8) & (y > low)
    frame = inside & ((u < 0.07) | (u > width - 0.07) | (np.abs(u - width / 2) < 0.035))
    dark = _cells(rng, np.floor((x) / pitch), np.floor(y / 3), 0.35)
    glass = (np.abs(dark) * 0.06 + 0.02)[..., None] * np.array([0.9, 1.0, 1.15], np.float32)
    out = np.where(inside[..., None], glass, out)
    return np.where(frame[..., None], _grey(rng, 0.3, 0.9), out)


def _doors(rng: np.random.Generator, out: Field, x: Field, y: Field) -> Field:
    pitch = rng.uniform(3.0, 5.0)
    u = (x + rng.uniform(0, 4)) % pitch
    door = (u < 0.95) & (y < 2.1)
    wood = _grey(rng, 0.35, 0.65) * np.array([1.2, 1.0, 0.75], np.float32)
    out = np.where(door[..., None], wood, out)
    out = np.where(((np.abs(u - 0.95) < 0.05) & (y < 2.1))[..., None], _grey(rng, 0.2, 0.8), out)
    board = (np.abs(u - pitch * 0.65) < 0.6) & (np.abs(y - 1.6) < 0.45)
    paper = _cells(rng, np.floor(x / 0.28), np.floor(y / 0.3), 0.4)
    return np.where(board[..., None], np.abs(paper)[..., None] * _grey(rng, 0.5, 0.8, 0.15), out)


def _glazing(rng: np.random.Generator, x: Field, y: Field, shop: bool) -> Field:
    pitch = rng.uniform(1.0, 2.6)
    u = (x + rng.uniform(0, 2)) % pitch
    content = np.abs(_cells(rng, np.floor(x / 0.35), np.floor(y / 0.4), 0.4 if shop else 0.2))
    content = content * np.clip(1 + 0.45 * smooth_noise(rng, x.shape, 12), 0.1, 3)
    tint = _grey(rng, 0.22, 0.42, 0.12)
    out = (content * np.where(y > 1.9, 0.6, 1.0))[..., None] * tint
    hue = _cells(rng, np.floor(x / 0.35) + 7, np.floor(y / 0.4), 0.15)[..., None]
    out = out * np.where(shop, np.concatenate([hue, np.ones_like(hue), 2 - hue], -1), 1.0)
    mullion = (u < 0.07) | (np.abs(y - 2.3) < 0.06) | (y < 0.25)
    out = np.where(mullion[..., None], _grey(rng, 0.25, 0.75), out)
    if shop:
        sign = (y > 2.5) & (y < 3.2)
        colour = _grey(rng, 0.4, 0.7, 0.35)
        out = np.where(sign[..., None], colour, out)
        letters = sign & (np.abs(y - 2.85) < 0.18) & ((x % 0.4) < 0.22) & ((x % 6) < 3.5)
        out = np.where(letters[..., None], np.array([0.8, 0.8, 0.75], np.float32), out)
    out = np.where((y > 3.3)[..., None], _grey(rng, 0.45, 0.7), out)
    return out.astype(np.float32)


def _greenery(rng: np.random.Generator, x: Field, y: Field, height: float) -> Field:
    shape = x.shape
    leaf = np.array([0.07, 0.12, 0.035], np.float32) * np.float32(rng.uniform(0.6, 1.5))
    leaf = leaf * np.array([rng.uniform(0.8, 1.8), 1.0, rng.uniform(0.8, 1.4)], np.float32)
    clumps = 0.45 * smooth_noise(rng, shape, 9) + 0.35 * smooth_noise(rng, shape, 3)
    out = np.clip(1 + clumps + 0.25 * np.clip(y, 0, 2), 0.15, 2.5)[..., None] * leaf
    beyond = y > height + 0.15 * smooth_noise(rng, shape, 10)
    back = _windows(rng, _masonry(rng, x, y, str(rng.choice(["brick", "panels"]))), x, y)
    sky = np.array([0.65, 0.70, 0.75], np.float32)
    return np.where(beyond[..., None], back if height < 5 else sky, out)
