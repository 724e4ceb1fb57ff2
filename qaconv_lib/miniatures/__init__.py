"""Procedural drawings of pedestrians for the four miniature datasets.

Persons are articulated, shaded three-dimensional primitives in clothes whose colours, patterns,
prints and bags make up the identity; cameras have their own place, scene, light and sensor.

Example:
    >>> import numpy as np
    >>> from qaconv_lib.miniatures import DOMAINS, sample_camera, sample_family, sample_person
    >>> from qaconv_lib.miniatures import render_person
    >>> rng = np.random.default_rng(0)
    >>> domain = DOMAINS["market"]
    >>> person = sample_person(domain, sample_family(domain, rng), rng)
    >>> render_person(person, sample_camera(domain, rng), domain, rng).image.shape
    (128, 64, 3)
"""

from __future__ import annotations

from .domains import DOMAINS, PART_NAMES, Domain, get_domain
from .frames import render_frame
from .people import Family, Person, sample_family, sample_person
from .render import Drawing, render_background, render_person
from .scenes import Camera, sample_camera

__all__ = [
    "DOMAINS",
    "PART_NAMES",
    "Camera",
    "Domain",
    "Drawing",
    "Family",
    "Person",
    "get_domain",
    "render_background",
    "render_frame",
    "render_person",
    "sample_camera",
    "sample_family",
    "sample_person",
]
