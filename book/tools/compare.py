"""Compare a cell's stored output with a new one, as far as processors agree on it.

Words and integers must be equal. Numbers with decimals may differ by one and a half units of their
last printed digit. A cell may state a wider tolerance in its metadata:

{"tolerance": {"absolute": 3.0, "reason": "these numbers come out of training"}}
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import zip_longest
from typing import Any

UNITS = Decimal("1.5")  # of the last printed digit
# A sign after a word or a number is a hyphen: rank-1, 0.5-0.7. Versions such as 2.1.0 are words.
NUMBER = re.compile(
    r"(?<![\w.])[-+−]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:e[-+−]?\d+(?!\w))?(?!\.?\d)", re.I
)
NOT_COMPARED = ("image/", "application/vnd.jupyter.widget")  # figures differ between processors


@dataclass(frozen=True)
class Tolerance:
    """What a cell may state: how far numbers may differ beyond rounding, and why."""

    reason: str = ""
    absolute: float = 0.0
    relative: float = 0.0  # to the stored number
    integers: bool = False  # applies to integers too

    def __post_init__(self) -> None:
        if min(self.absolute, self.relative) < 0:
            raise ValueError("it must not be negative")


ROUNDING = Tolerance()  # nothing beyond it


def tolerance_of(metadata: Mapping[str, Any]) -> Tolerance:
    """The tolerance that a cell's metadata state. ValueError if it is not of that form."""
    if "tolerance" not in metadata:
        return ROUNDING
    stated = metadata["tolerance"]
    try:
        tolerance = Tolerance(**stated)
    except (TypeError, ValueError) as error:
        raise ValueError(f"tolerance {dict(stated)}: {error}") from None
    if not tolerance.reason or not (tolerance.absolute or tolerance.relative):
        raise ValueError(f"tolerance {dict(stated)} must state a reason, and absolute or relative")
    return tolerance


def differences(
    stored: Sequence[Mapping[str, Any]],
    new: Sequence[Mapping[str, Any]],
    tolerance: Tolerance = ROUNDING,
) -> list[str]:
    """What differs between two lists of outputs of a cell; empty if they agree."""
    before, after = _texts(stored), _texts(new)
    if before.keys() != after.keys():
        return [f"stored output: {', '.join(before)}; new output: {', '.join(after)}"]
    return [
        f"{kind}: {difference}"
        for kind in before
        for difference in text_differences(before[kind], after[kind], tolerance)
    ]


def text_differences(stored: str, new: str, tolerance: Tolerance = ROUNDING) -> list[str]:
    """Numbers that differ too much, up to the first word that differs."""
    found: dict[tuple[str, str], list[str]] = {}  # changes of a line, by the old and the new one
    for before, after in zip_longest(_tokens(stored), _tokens(new), fillvalue=("", "the end")):
        if agree(before[0], after[0], tolerance):
            continue
        change = f"{before[0]!r} became {after[0]!r}"
        found.setdefault((before[1], after[1]), []).append(change)
        if not NUMBER.fullmatch(before[0]) or not NUMBER.fullmatch(after[0]):
            break  # what follows is shifted
    return [f"{', '.join(changes)}\n- {old}\n+ {new}" for (old, new), changes in found.items()]


def agree(stored: str, new: str, tolerance: Tolerance = ROUNDING) -> bool:
    """Whether two words, or two numbers, are the same within the tolerance."""
    if stored == new:
        return True
    if not NUMBER.fullmatch(stored) or not NUMBER.fullmatch(new):
        return False
    decimals = [bool(re.search("[.e]", text, re.I)) for text in (stored, new)]
    if decimals[0] != decimals[1] or not (decimals[0] or tolerance.integers):
        return False
    before, after = map(_value, (stored, new))
    if (before or after) and _sign(stored) != _sign(new):
        return False
    unit = Decimal(1).scaleb(min(int(n.as_tuple().exponent) for n in (before, after)))
    allowed = max(
        UNITS * unit if decimals[0] else Decimal(0),
        Decimal(str(tolerance.absolute)),
        Decimal(str(tolerance.relative)) * abs(before),
    )
    return abs(after - before) <= allowed


def _sign(number: str) -> str:
    return number[0] if number[0] in "-+−" else ""


def _value(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("−", "-"))


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Words and numbers, each with its line."""
    for line in text.splitlines():
        end = 0
        for number in NUMBER.finditer(line):
            yield from ((word, line) for word in line[end : number.start()].split())
            yield number[0], line
            end = number.end()
        yield from ((word, line) for word in line[end:].split())


def _texts(outputs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The compared text of all outputs, by stream or MIME type.

    A table's plain text says the same as its HTML, but breaks its lines by the columns' widths.
    """
    found: dict[str, str] = {}
    for output in outputs:
        if "name" in output:
            parts = {output["name"]: output["text"]}
        elif "ename" in output:
            parts = {"error": f"{output['ename']}: {output['evalue']}"}
        else:
            parts = {kind: f"{data}\n" for kind, data in output["data"].items()}
        for kind, text in parts.items():
            twice = kind == "text/plain" and "text/html" in parts
            if kind != "stderr" and not twice and not kind.startswith(NOT_COMPARED):
                found[kind] = found.get(kind, "") + text
    return found
