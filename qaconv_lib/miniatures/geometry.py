"""Ray-cast primitives with a depth buffer: boxes, and *round cones*.

A round cone is swept by a sphere whose centre moves and whose radius changes linearly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from .domains import PART

FAR = 1e9


class Hit(NamedTuple):
    """Visible surface points of one primitive; N points."""

    angle: np.ndarray  # (N,) radians around the axis, 0 = front, positive = the person's left
    along: np.ndarray  # (N,) 0 at the start of the axis, 1 at its end
    position: np.ndarray  # (N, 3) metres in the primitive's frame, offset by its rest position
    normal: np.ndarray  # (N, 3) unit normal in the primitive's frame


Paint = Callable[[Hit], "np.ndarray | tuple[np.ndarray, np.ndarray]"]
IDENTITY = np.eye(3)
Point = Sequence[float] | np.ndarray  # x, y, z


@dataclass
class Primitive:
    """One shape in body coordinates (x: the person's left, y: up, z: forward; metres)."""

    start: np.ndarray  # ends of the axis; for a box, both are its centre
    end: np.ndarray
    radii: tuple[float, float]  # of the sphere at both ends, in the scaled frame
    axes: np.ndarray  # rows are the frame's x, y, z axes in body coordinates
    scale: tuple[float, ...]  # stretch along the frame's axes; for a box, its half extents
    paint: Paint  # gives the albedo of hits (N, 3), or albedo and part labels (N,)
    label: int
    rest: np.ndarray  # position that ``start`` has in the texture's coordinates
    fold: float  # strength of cloth folds, 0 for skin
    open_end: bool  # leave the end uncapped, as the hem of a skirt or sleeve
    box: bool


def cone(
    start: Point, end: Point, radii: tuple[float, float], paint: Paint, label: str = "occluder", *,
    axes: np.ndarray = IDENTITY, scale: tuple[float, ...] = (1.0, 1.0, 1.0),
    rest: Point | None = None, fold: float = 0.0, open_end: bool = False, box: bool = False,
) -> Primitive:  # fmt: skip
    """A round cone; by default its texture starts where it does."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    rest = start if rest is None else np.asarray(rest, float)
    return Primitive(start, end, radii, axes, scale, paint, PART[label], rest, fold, open_end, box)


def tube(
    start: Point, end: Point, radius: float, paint: Paint, label: str = "occluder"
) -> Primitive:
    """A capsule."""
    return cone(start, end, (radius, radius), paint, label)


def ball(
    centre: Point, half: Iterable[float], paint: Paint, label: str = "occluder", **options: Any
) -> Primitive:
    """An ellipsoid of three half axes; options as for `cone`."""
    return cone(centre, centre, (1.0, 1.0), paint, label, scale=tuple(half), **options)


def slab(
    centre: Point, half: Iterable[float], paint: Paint, label: str = "occluder", **options: Any
) -> Primitive:
    """A box of three half extents; options as for `cone`."""
    return ball(centre, half, paint, label, box=True, **options)


class Raster:
    """Depth, normal, albedo and label buffers of one window of a pinhole camera.

    Window (left, top, right, bottom, from the principal point) and focal length: frame pixels.
    """

    def __init__(
        self, shape: tuple[int, int], window: tuple[float, float, float, float], focal: float
    ) -> None:
        self.shape = shape
        (rows, columns), (left, top, right, bottom) = shape, window
        slope_x = (left + (np.arange(columns) + 0.5) * (right - left) / columns) / focal
        slope_y = -(top + (np.arange(rows) + 0.5) * (bottom - top) / rows) / focal
        self.slope_x, self.slope_y = slope_x.astype(np.float32), slope_y.astype(np.float32)
        self.step = (self.slope_x[1] - self.slope_x[0], self.slope_y[0] - self.slope_y[1])
        self.depth = np.full(shape, FAR, np.float32)
        surface = np.zeros((*shape, 10), np.float32)  # one buffer: one scattered write a shape
        self._surface = surface
        self.normal, self.albedo = surface[..., :3], surface[..., 3:6]
        self.rest, self.fold = surface[..., 6:9], surface[..., 9]
        self.label = np.zeros(shape, np.uint8)

    def _block(self, centres: np.ndarray, reach: np.ndarray) -> tuple[slice, slice] | None:
        """Rows and columns that spheres around ``centres`` (camera coordinates) may touch."""
        distance = -centres[:, 2]
        if np.any(distance - reach < 0.2):
            return None
        slope = 1.08 * reach / (distance - reach)
        x, y = centres[:, 0] / distance, centres[:, 1] / distance
        left = int((np.min(x - slope) - self.slope_x[0]) / self.step[0])
        right = int((np.max(x + slope) - self.slope_x[0]) / self.step[0]) + 2
        top = int((self.slope_y[0] - np.max(y + slope)) / self.step[1])
        bottom = int((self.slope_y[0] - np.min(y - slope)) / self.step[1]) + 2
        rows = slice(max(top, 0), min(bottom, self.shape[0]))
        columns = slice(max(left, 0), min(right, self.shape[1]))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return None
        return rows, columns

    def draw(
        self, shape: Primitive, rotation: np.ndarray, offset: np.ndarray, label: int | None = None
    ) -> None:
        """Draw one primitive; ``rotation`` and ``offset`` take body to camera coordinates."""
        start = rotation @ shape.start + offset
        end = rotation @ shape.end + offset
        axes = shape.axes @ rotation.T  # rows: frame axes in camera coordinates
        scale = np.asarray(shape.scale, float)
        if shape.box:
            reach = np.full(2, np.linalg.norm(scale))
        else:
            reach = np.asarray(shape.radii) * scale.max()
        block = self._block(np.stack([start, end]), reach)
        if block is None:
            return
        rows, columns = block
        sx, sy = self.slope_x[None, columns], self.slope_y[rows, None]
        to_local = axes / scale[:, None]
        axis = to_local @ (end - start)
        if shape.box:
            t = _cast_box(to_local, start, sx, sy)
            along = np.zeros_like(t)
        else:
            t, along = _cast_cone(shape, to_local, start, axis, sx, sy)
        i, j = np.nonzero(t < self.depth[rows, columns])
        if len(i) == 0:
            return
        t, along = t[i, j], along[i, j]
        seen = np.stack([sx[0, j] * t, sy[i, 0] * t, -t], axis=1) - start.astype(np.float32)
        local = seen @ to_local.T.astype(np.float32)
        if shape.box:
            size = np.abs(local)
            face = size == size.max(axis=1, keepdims=True)
            gradient = np.where(face, np.sign(local), np.float32(0))
        else:
            gradient = local - along[:, None] * axis.astype(np.float32)
        scale = scale.astype(np.float32)
        normal = gradient / scale
        normal /= np.sqrt(np.einsum("ij,ij->i", normal, normal) + 1e-12)[:, None]
        position = local * scale + shape.rest.astype(np.float32)
        hit = Hit(np.arctan2(gradient[:, 0], gradient[:, 2]), along, position, normal)
        painted = shape.paint(hit)
        albedo, labels = painted if isinstance(painted, tuple) else (painted, shape.label)
        r, c = i + rows.start, j + columns.start
        self.depth[r, c] = t
        surface = np.empty((len(r), 10), np.float32)
        surface[:, :3] = normal @ axes.astype(np.float32)
        surface[:, 3:6], surface[:, 6:9], surface[:, 9] = albedo, position, shape.fold
        self._surface[r, c] = surface
        self.label[r, c] = labels if label is None else label


def _cast_cone(
    shape: Primitive, to_local: np.ndarray, start: np.ndarray, axis: np.ndarray,
    sx: np.ndarray, sy: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Nearest depth (rows, columns) and axial position of a round cone."""
    # On ray o + t d, with axis b and radius change g, a point q is inside if some s in [0, 1] has
    # |q - s b| <= r + s g. Squared, this is quadratic in s, with discriminant B^2 - A C, where
    # A = b.b - g^2, B = q.b + r g, C = q.q - r^2; its zero, the surface, is quadratic in t.
    r0, r1 = shape.radii
    (g00, g01, g02), (_, g11, g12), (_, _, g22) = (to_local.T @ to_local).tolist()
    near = -float(start[2])
    x, y = sx * near - float(start[0]), sy * near - float(start[1])
    # q: the ray's point in the plane; products q.q, d.q, d.d, and those with the axis b
    qq = g00 * x * x + (g11 * y * y + (2 * g01 * x) * y)
    dq = x * (g00 * sx - g02 + g01 * sy) + y * (g01 * sx + (g11 * sy - g12))
    dd = (g00 * sx * sx - 2 * g02 * sx) + (g11 * sy * sy - 2 * g12 * sy + g22)
    dd += (2 * g01 * sx) * sy
    b0, b1, b2 = (axis @ to_local).tolist()
    length2 = float(axis @ axis)
    growth = r1 - r0
    spread = length2 - growth * growth
    depth = np.full(dd.shape, FAR, np.float32)
    along = np.zeros(dd.shape, np.float32)
    db, qb = b0 * sx + (b1 * sy - b2), b0 * x + b1 * y
    if spread > 1e-6:
        shifted = qb + r0 * growth
        q2 = np.minimum(db * db - spread * dd, -1e-9)
        q1 = shifted * db - spread * dq
        under = q1 * q1 - q2 * (shifted * shifted - spread * (qq - r0 * r0))
        t = (np.sqrt(np.maximum(under, 0)) - q1) / q2
        s = (shifted + t * db) / spread
        valid = (under > 0) & (s >= 0) & (s <= 1)
        np.copyto(depth, t, where=valid)
        np.copyto(along, s, where=valid)
    ends = [(dq, qq - r0 * r0, 0.0)]
    if not shape.open_end and length2 > 1e-8:
        ends.append((dq - db, qq - 2 * qb + (length2 - r1 * r1), 1.0))
    for middle, rest, value in ends:
        under = middle * middle - dd * rest
        t = -(middle + np.sqrt(np.maximum(under, 0))) / dd
        nearer = (under > 0) & (t < depth)
        np.copyto(depth, t, where=nearer)
        along[nearer] = value
    return np.where(depth < FAR / 2, depth + near, FAR).astype(np.float32), along


def _cast_box(
    to_local: np.ndarray, start: np.ndarray, sx: np.ndarray, sy: np.ndarray
) -> np.ndarray:
    """Nearest depth of the cube [-1, 1]^3 in its scaled frame; slabs."""
    origin = -to_local @ start
    enter = np.full((sy.shape[0], sx.shape[1]), -FAR)
    leave = np.full_like(enter, FAR)
    for k in range(3):
        d = to_local[k, 0] * sx + (to_local[k, 1] * sy - to_local[k, 2])
        d = np.where(np.abs(d) < 1e-9, 1e-9, d)
        one, two = (-1 - origin[k]) / d, (1 - origin[k]) / d
        enter = np.maximum(enter, np.minimum(one, two))
        leave = np.minimum(leave, np.maximum(one, two))
    return np.where((enter < leave) & (enter > 0), enter, FAR).astype(np.float32)


def rotation(axis: str, angle: float) -> np.ndarray:
    """Rotation about the axis x, y or z: (3, 3). Takes y towards z, z towards x, or x towards y."""
    first, second = ("xyz".index(axis) + 1) % 3, ("xyz".index(axis) + 2) % 3
    turn = np.eye(3)
    turn[[first, second], [first, second]] = np.cos(angle)
    turn[second, first] = np.sin(angle)
    turn[first, second] = -turn[second, first]
    return turn


def limb_axes(start: np.ndarray, end: np.ndarray, across: np.ndarray) -> np.ndarray:
    """Frame of a limb: y from end to start, x near ``across``, z = x cross y; rows are axes."""
    y = np.asarray(start, float) - np.asarray(end, float)
    y = y / (np.linalg.norm(y) + 1e-12)
    x = across - (across @ y) * y
    x = x / (np.linalg.norm(x) + 1e-12)
    return np.stack([x, y, np.cross(x, y)])
