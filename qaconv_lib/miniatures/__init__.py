"""Procedural drawings of pedestrians for the miniature datasets.

`drawing` draws the four datasets; the names below draw other people and cameras (appendix B).
"""

from __future__ import annotations

from .cameras import sample_camera
from .domains import DOMAINS
from .people import sample_family, sample_person
from .render import render_person

__all__ = ["DOMAINS", "render_person", "sample_camera", "sample_family", "sample_person"]
