"""One palette for the figures, the pages and the drawings."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qaconv_lib.visualize import COLOURS

STATIC = Path(__file__).resolve().parent.parent / "book" / "_static"
PALETTE = {name: colour.lower() for name, colour in COLOURS.items()}
GROUND = {"#a9b4bd", "#14324a"}  # empty cells of the logo, and what the favicon stands on


def colours_in(text: str) -> set[str]:
    return set(re.findall(r"#[0-9a-f]{6}\b", text.lower()))


def test_pages_have_the_colours_of_the_figures() -> None:
    style = (STATIC / "custom.css").read_text(encoding="utf-8")
    assert dict(re.findall(r"--book-(\w+): (#\w+);", style)) == PALETTE


@pytest.mark.parametrize("name", ["logo.svg", "favicon.svg"])
def test_drawings_have_the_colours_of_the_figures(name: str) -> None:
    found = colours_in((STATIC / name).read_text(encoding="utf-8"))
    assert found <= {*PALETTE.values(), *GROUND} and len(found & set(PALETTE.values())) >= 2


def test_the_idea_joins_places_by_the_colours_of_the_figures() -> None:
    text = (STATIC / "idea.svg").read_text(encoding="utf-8")
    frames = set(re.findall(r'<rect [^>]*stroke="(#\w+)" stroke-width="3.5"', text))
    assert len(frames) == 4 and frames <= set(PALETTE.values())
