"""Whole frames with several people, and where in them each one is (chapter 14)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .domains import Domain
from .people import Person
from .render import _check, _expose, _generators, _place, _tight_window
from .scenes import FRAME, Camera

Rectangle = tuple[int, int, int, int]


def render_frame(
    people: Sequence[Person],
    camera: Camera,
    domain: Domain,
    rng: np.random.Generator,
    *,
    size: tuple[int, int] = (280, 500),
) -> tuple[np.ndarray, list[Rectangle]]:
    """Draw people side by side as one camera sees them.

    Args:
        people: whom to draw, from left to right.
        camera: the camera.
        domain: decides how many of them stand.
        rng: source of randomness; equal states give equal drawings.
        size: rows and columns of the picture; the frame is 560 x 1000.

    Returns:
        The picture, (H, W, 3) uint8, and for each person x, y, width and height of a tight box in
        its pixels.

    Raises:
        TypeError, ValueError: something else than people, a camera and a domain, or a size below
            16 x 16.
    """
    _check(camera, domain, size, people)
    place_rng, pose_rng, light_rng = _generators(rng, 3)
    placed = []
    for number, person in enumerate(people):
        distance = place_rng.uniform(*camera.distance)
        half = 0.5 * FRAME[1] / camera.focal * distance
        aside = 1.5 * (number + 0.5) / len(people) - 0.75  # of the frame's half width
        spot = np.array([aside * half, 0.0, -distance])
        heading = place_rng.uniform(-np.pi, np.pi)
        placed.append(_place(person, domain, spot, heading, None, pose_rng))
    half_h, half_w = FRAME[0] / 2, FRAME[1] / 2
    whole = (-half_w, -half_h, half_w, half_h)
    rows, columns = size[0] / FRAME[0], size[1] / FRAME[1]
    boxes = []
    for figure in placed:
        left, top, right, lower = _tight_window(figure, camera)
        left, right = ((x + half_w) * columns for x in (left, right))
        top, lower = ((y + half_h) * rows for y in (top, lower))
        boxes.append((round(left), round(top), round(right - left), round(lower - top)))
    return _expose(camera, whole, placed, size, light_rng).image, boxes
