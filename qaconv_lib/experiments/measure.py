"""Time and memory of one call, and of two forms of the same thing side by side (chapter 13)."""

from __future__ import annotations

import ctypes
import gc
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np


class Measured(NamedTuple):
    """One call: seconds, the most memory beyond what was held before (MB; None where the system
    does not tell), and what it returned."""

    seconds: float
    megabytes: float | None
    result: Any


def measure(act: Callable[[], Any]) -> Measured:
    """Run a function once."""
    gc.collect()
    before = _start_memory()
    start = time.perf_counter()
    result = act()
    seconds = time.perf_counter() - start
    peak = _memory("VmHWM")
    extra = None if before is None or peak is None else max(0.0, (peak - before) / 1e6)
    return Measured(seconds, extra, result)


def _start_memory() -> int | None:
    """Give free memory back, forget the peak so far, and tell what is held, in bytes."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):  # another C library, or a system that forbids it
        return None
    return _memory("VmRSS")


def _memory(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(name)), None)


def in_turns(turns: int, **acts: Callable[[], Any]) -> dict[str, Measured]:
    """Run functions one after the other, `turns` times; of each keep the fastest run.

    Memory is that of the first run: later ones may find memory that an earlier one left.
    """
    best: dict[str, Measured] = {}
    for _ in range(turns):
        for name, act in acts.items():
            found = measure(act)
            if name not in best:
                best[name] = found
            elif found.seconds < best[name].seconds:
                best[name] = best[name]._replace(seconds=found.seconds)
    return best


def compare_forms(
    step: str,
    size: str,
    found: dict[str, Measured],
    tolerance: float,
    relative: bool = False,
) -> dict:
    """A row of a record from the forms "plain" and "library", whose results must agree.

    Args:
        step: what is done.
        size: on how much.
        found: both forms, measured.
        tolerance: how far apart the results may be.
        relative: take `relative_error` for that, not `largest_gap`.

    Raises:
        ArithmeticError: the results are farther apart.
    """
    mine, theirs = found["library"], found["plain"]
    gap = {"largest_difference": largest_gap(mine.result, theirs.result)}
    if relative:
        gap["relative_error"] = relative_error(mine.result, theirs.result)
    judged = list(gap.values())[-1]
    if not judged <= tolerance:
        raise ArithmeticError(f"{step} at {size}: the two forms differ by {judged:.3g}")
    return {
        "step": step,
        "size": size,
        "plain_seconds": rounded(theirs.seconds),
        "seconds": rounded(mine.seconds),
        "ratio": rounded(theirs.seconds / mine.seconds),
        "plain_megabytes": rounded(theirs.megabytes),
        "megabytes": rounded(mine.megabytes),
        **{name: rounded(value) for name, value in gap.items()},
    }


def largest_gap(mine: Any, theirs: Any) -> float:
    """Largest absolute difference of two arrays or tensors; infinite between unequal shapes."""
    first, second = (np.asarray(value, dtype=np.float64) for value in (mine, theirs))
    if first.shape != second.shape:
        return float("inf")
    return float(np.abs(first - second).max(initial=0))


def relative_error(mine: Any, theirs: Any) -> float:
    """Norm of the difference over the norm of the second; infinite between unequal shapes.

    For gradients through maxima: two similarities that are equal but for rounding may change
    places, and a single entry of the gradient with them.
    """
    first, second = (np.asarray(value, dtype=np.float64) for value in (mine, theirs))
    if first.shape != second.shape:
        return float("inf")
    return float(np.linalg.norm(first - second) / np.linalg.norm(second))


def describe(step: str, size: str, found: Measured) -> dict:
    """A row of a record for the library's form alone."""
    return {
        "step": step,
        "size": size,
        "seconds": rounded(found.seconds),
        "megabytes": rounded(found.megabytes),
    }


def rounded(value: float | None) -> float | None:
    """Three digits; None stays None."""
    return None if value is None else float(f"{value:.3g}")
