"""Time and memory of one call, and of several forms of the same step side by side (appendix A)."""

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
    """Seconds, memory beyond what was held before (MB; None if unknown), and the result."""

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
    extra = None if before is None else max(0.0, (_memory("VmHWM") - before) / 1e6)
    return Measured(seconds, extra, result)


def in_turns(turns: int, **acts: Callable[[], Any]) -> dict[str, Measured]:
    """Run functions one after the other, `turns` times; of each keep the fastest run.

    Memory is that of the first run: later ones may find memory that an earlier one left.
    """
    found = {name: measure(act) for name, act in acts.items()}
    for _ in range(turns - 1):
        for name, act in acts.items():
            seconds = min(found[name].seconds, measure(act).seconds)
            found[name] = found[name]._replace(seconds=seconds)
    return found


def _start_memory() -> int | None:
    """Give free memory back, forget the peak so far, and tell what is held, in bytes (Linux)."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _memory("VmRSS")
    except (OSError, AttributeError):  # another C library, or a system that forbids it
        return None


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))


def compare(
    step: str,
    size: str,
    found: dict[str, Measured],
    tolerance: float = 1e-6,
    relative: bool = False,
) -> dict:
    """A row of a record about the form "library" of a step, beside the form "plain" if it was run.

    Args:
        step: what is done.
        size: on how much.
        found: the forms, from `in_turns`.
        tolerance: how far apart the two results may be; ArithmeticError if they are farther.
        relative: judge the norm of the difference over the norm of the plain form, not the largest
            difference. For gradients through maxima: two similarities that are equal but for
            rounding may change places, and a single entry of the gradient with them.
    """
    mine, theirs = found["library"], found.get("plain")
    row = {"seconds": mine.seconds, "megabytes": mine.megabytes}
    if theirs is not None:
        row |= {"plain_seconds": theirs.seconds, "plain_megabytes": theirs.megabytes}
        row |= {"ratio": theirs.seconds / mine.seconds}
        row["largest_difference"] = judged = largest_gap(mine.result, theirs.result)
        if relative:
            first, second = (np.asarray(form.result, np.float64) for form in (mine, theirs))
            judged = float(np.linalg.norm(first - second) / np.linalg.norm(second))
            row["relative_error"] = judged
        if not judged <= tolerance:
            raise ArithmeticError(f"{step} at {size}: the two forms differ by {judged:.3g}")
    return {"step": step, "size": size} | {name: rounded(value) for name, value in row.items()}


def largest_gap(mine: Any, theirs: Any) -> float:
    """Largest absolute difference of two arrays or tensors; infinite between unequal shapes."""
    first, second = (np.asarray(value, dtype=np.float64) for value in (mine, theirs))
    return float(np.abs(first - second).max()) if first.shape == second.shape else float("inf")


def rounded(value: float | None) -> float | None:
    """Three digits; None stays None."""
    return None if value is None else float(f"{value:.3g}")
