"""Changing one thing of a person, to see what a model makes of it (chapter 11)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from .colours import Colour
from .people import Person

_RED, _BLUE = (0.72, 0.16, 0.12), (0.10, 0.30, 0.62)


def _unlike(colour: Colour) -> Colour:
    """Red or blue, whichever is farther."""
    far = [sum((a - b) ** 2 for a, b in zip(colour, c, strict=True)) for c in (_RED, _BLUE)]
    return _RED if far[0] > far[1] else _BLUE


def change_top(person: Person) -> Person:
    """The same person in a top of another colour."""
    colour = _unlike(person.top.colour)
    return replace(person, top=replace(person.top, colour=colour, sleeve_colour=colour))


def change_bottom(person: Person) -> Person:
    """The same person with trousers or a skirt of another colour."""
    colour = _unlike(person.bottom.colour)
    return replace(person, bottom=replace(person.bottom, colour=colour))


def change_hair(person: Person) -> Person:
    """The same person with hair of another colour: fair if it was dark, else dark."""
    dark = sum(person.hair.colour) < 1.0
    colour = (0.78, 0.66, 0.42) if dark else (0.10, 0.085, 0.08)
    return replace(person, hair=replace(person.hair, colour=colour))


#: By what is changed: makes another person of one, alike in everything else.
CHANGES: dict[str, Callable[[Person], Person]] = {
    "top": change_top,
    "trousers": change_bottom,
    "hair": change_hair,
}
