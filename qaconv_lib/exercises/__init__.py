"""Checks for the exercises: they report mistakes and never stop a notebook."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from qaconv_lib._files import data_folders


@dataclass(frozen=True)
class Exercise:
    """Cases that a reader's function must solve; ValueError if a slip solves them all.

    Args:
        cases: pairs of arguments and the expected result, a number or array-like.
        slips: common mistakes: what to say, and the result of the mistake or a function that
            makes it.
        tolerance: largest relative or absolute difference that still counts as equal.
    """

    cases: Sequence[tuple[tuple, Any]]
    slips: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        for words, slip in self.slips.items():
            if all(self.equal(_answer(slip, given), expected) for given, expected in self.cases):
                raise ValueError(f"the slip {words!r} is correct in all these cases")

    def equal(self, result: Any, expected: Any) -> bool:
        """Whether a result has the expected shape and, within the tolerance, the values."""
        return _difference(result, expected, self.tolerance) is None


def check(exercise: str | Exercise, function: Callable[..., Any]) -> None:
    """Try an exercise's function on its cases and print what came out.

    A wrong answer is named with its case. The right answer is withheld if the function takes no
    arguments, since there it is the whole exercise.

    Args:
        exercise: its number in the book, such as "1.2" or "A.2"; ValueError for an unknown one.
        function: the reader's function; one that returns None counts as not written yet.
    """
    exercise = find(exercise) if isinstance(exercise, str) else exercise
    name = function.__name__
    for arguments, expected in deepcopy(exercise.cases):  # the function may change them
        try:
            result = function(*arguments)
        except Exception as error:  # whatever the reader's code raises is shown to the reader
            print(f"{name}: {_case(arguments)}stops with {type(error).__name__}: {error}")
            return
        if result is None:
            print(f"{name}: not written yet, it returns None")
            return
        complaint = _difference(result, expected, exercise.tolerance, secret=not arguments)
        if complaint:
            print(f"{name}: {_case(arguments)}{complaint}")
            for words, slip in exercise.slips.items():
                if exercise.equal(result, _answer(slip, arguments)):
                    print(f"  {words}")
            return
    print(f"{name}: right")


def find(number: str) -> Exercise:
    """The exercise with a number of the book, from the tables in `book/exercises`.

    FileNotFoundError without a checkout of the book, ValueError for a number that has no check.
    """
    chapter = number.partition(".")[0]
    name = f"chapter{chapter:0>2}.py" if chapter.isdigit() else f"appendix_{chapter.lower()}.py"
    folders = [folder.parent / "book" / "exercises" for folder in data_folders()]
    if not any(map(Path.is_dir, folders)):
        raise FileNotFoundError(
            "the checks are in book/exercises of the book's repository, which was not found; run "
            "the notebook in a checkout, or set QACONV_DATA to its data folder"
        )
    for path in filter(Path.is_file, [folder / name for folder in folders]):
        if exercise := _table(path).get(number):
            return exercise
    raise ValueError(f"exercise must be one that has a check, such as '1.2', got {number!r}")


@cache
def _table(path: Path) -> dict[str, Exercise]:
    return runpy.run_path(str(path))["EXERCISES"]


def _answer(slip: Any, arguments: tuple) -> Any:
    return slip(*arguments) if callable(slip) else slip


def _case(arguments: tuple) -> str:
    """The arguments as the reader would write them; of long ones their shape."""
    if not arguments:
        return ""
    shown = ", ".join(map(_written, arguments))
    if len(shown) > 100 or "\n" in shown:
        shown = ", ".join(_written(argument, longest=30) for argument in arguments)
    return f"for {shown}: " if len(shown) <= 100 and "\n" not in shown else ""


def _written(argument: Any, longest: int = 100) -> str:
    array, whole = _as_array(argument), repr(argument)
    if array is None or not array.ndim:
        return whole
    if isinstance(argument, (np.ndarray, torch.Tensor)):
        values = argument.numpy(force=True) if isinstance(argument, torch.Tensor) else argument
        whole = np.array2string(values, separator=", ", precision=4, max_line_width=10_000)
        whole = " ".join(whole.split())
    return whole if len(whole) <= longest else f"an array of shape {array.shape}"


def _difference(result: Any, expected: Any, tolerance: float, secret: bool = False) -> str | None:
    """What is wrong with a result, or None; secret values are not shown."""
    got, wanted = _as_array(result), _as_array(expected)
    assert wanted is not None, "an expected result must be numbers"
    if got is None:
        return (
            f"the result should be a number or one array of shape {wanted.shape}, it is of type "
            f"{type(result).__name__}"
        )
    if got.shape != wanted.shape:
        return f"the shape should be {wanted.shape}, it is {got.shape}"
    wrong = ~np.isclose(got, wanted, rtol=tolerance, atol=tolerance, equal_nan=True)
    if not wrong.any():
        return None
    place = tuple(int(i) for i in np.argwhere(wrong)[0]) if wanted.ndim else ()
    truth = np.asarray(expected).dtype == bool
    right, found = (
        str(bool(value[place])) if truth and value[place] in (0, 1) else f"{value[place]:.6g}"
        for value in (wanted, got)
    )
    if wanted.ndim == 0:
        return f"{found} is not right" if secret else f"expected {right}, got {found}"
    where, many = ", ".join(map(str, place)), int(wrong.sum())
    if secret:
        are = "is not right:" if many == 1 else "are not right; the first of them is"
        return f"{many} of {wrong.size} numbers {are} {found}, at [{where}]"
    differ = "differs" if many == 1 else "differ"
    return f"{many} of {wrong.size} numbers {differ}; at [{where}] expected {right}, got {found}"


def _as_array(value: Any) -> np.ndarray | None:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        return None
