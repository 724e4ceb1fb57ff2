"""Checks for the exercises of the book: they say what is wrong, and never stop a notebook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch


def check(
    function: Callable[..., Any], cases: Sequence[tuple[tuple, Any]], tolerance: float = 1e-4
) -> None:
    """Try an exercise's function on examples and print what came out.

    Args:
        function: the reader's function; one that returns None counts as not written yet.
        cases: pairs of arguments and the expected result (a number, or anything that becomes an
            array).
        tolerance: largest difference that still counts as equal.
    """
    name = function.__name__
    for arguments, expected in cases:
        try:
            result = function(*arguments)
        except Exception as error:  # whatever the reader's code raises is shown to the reader
            print(f"{name}: stops with {type(error).__name__}: {error}")
            return
        if result is None:
            print(f"{name}: not written yet")
            return
        complaint = _difference(result, expected, tolerance)
        if complaint:
            print(f"{name}: {complaint}")
            return
    print(f"{name}: right")


def _difference(result: Any, expected: Any, tolerance: float) -> str | None:
    got, wanted = _as_array(result), _as_array(expected)
    if wanted is None:
        raise TypeError(f"what is expected must be numbers, got {type(expected).__name__}")
    if got is None:
        return f"expected numbers, got {type(result).__name__}"
    if got.shape != wanted.shape:
        return f"the shape should be {wanted.shape}, it is {got.shape}"
    wrong = ~np.isclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return None
    if wanted.ndim == 0:
        return f"expected {wanted.item():.6g}, got {got.item():.6g}"
    place = tuple(int(i) for i in np.argwhere(wrong)[0])
    where = ", ".join(map(str, place))
    return (
        f"{int(wrong.sum())} of {wrong.size} numbers differ; at [{where}] "
        f"expected {wanted[place]:.6g}, got {got[place]:.6g}"
    )


def _as_array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return None
