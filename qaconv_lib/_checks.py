"""Checked arrays for evaluation, re-ranking and the temporal modules, and memory that runs out.

These modules compute with numpy. They accept numpy arrays, torch tensors, lists and pandas columns,
and return scores as the kind, dtype and device that came in.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch

# Memory that runs out, in the words of a RuntimeError of PyTorch and of a DataLoader's worker.
_SHORTAGE = ("not enough memory", "can't allocate memory", "out of memory", "STATUS_ALLOC_FAILED")
MOST_SECONDS = 1e11  # later than any Unix time in seconds; in milliseconds, 1973
_WORKER_SHORTAGE = ("signal: Killed", "signal: Bus error", "shared memory")


def to_scores(values: Any, name: str, *, finite: bool = False) -> np.ndarray:
    """A matrix of real numbers without NaN, in float32 or wider; integers become float64."""
    scores = _to_array(values, name)
    if scores.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {scores.dtype}")
    if scores.ndim != 2:
        raise ValueError(f"{name} must have two axes, got shape {scores.shape}")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    elif scores.dtype.itemsize < 4:
        scores = scores.astype(np.float32)
    extremes = (scores.min(), scores.max()) if scores.size else ()  # NaN if there is one
    for wrong, wanted in ((np.isnan, "a number"), (np.isinf, "finite"))[: 1 + finite]:
        if wrong(extremes).any():
            row, column = np.argwhere(wrong(scores))[0]
            found = f"{scores[row, column]} at row {row}, column {column}"
            raise ValueError(f"{name} is {found}; it must be {wanted}")
    return scores


def restore_kind(result: np.ndarray, like: Any) -> np.ndarray | torch.Tensor:
    """`result` as an array or tensor like `like`, in the default float type for integers."""
    if isinstance(like, torch.Tensor):
        dtype = like.dtype if like.dtype.is_floating_point else torch.get_default_dtype()
        return torch.from_numpy(np.ascontiguousarray(result)).to(like.device, dtype)
    kind = np.asarray(like).dtype
    return result.astype(kind if kind.kind == "f" else np.float64, copy=False)


def to_labels(values: Any, name: str, length: int, fits: str) -> np.ndarray:
    """Identities, cameras or sessions as int64 (length,), to fit the object named by `fits`.

    Whole numbers stored as floats are refused: their column has, or had, missing values.
    """
    labels = _to_column(values, name, length, fits)
    if labels.size and labels.dtype.kind not in "iuO":
        raise TypeError(f"{name} must be integers, got dtype {labels.dtype}")
    # O: nullable pandas columns, or Python integers of any size
    for label in labels.tolist() if labels.dtype.kind in "uO" else ():
        if not _is_whole(label):
            raise TypeError(f"{name} must be integers, got {label!r}")
        if not -(2**63) <= label < 2**63:
            raise ValueError(f"{name} must fit into 64 bits with a sign, got {label}")
    return labels.astype(np.int64)


def to_seconds(values: Any, name: str, length: int, fits: str) -> np.ndarray:
    """Times in seconds as float64 (length,), all known and finite."""
    seconds = _to_column(values, name, length, fits)
    if seconds.size and seconds.dtype.kind not in "fiuO":
        raise TypeError(f"{name} must be numbers of seconds, got dtype {seconds.dtype}")
    if seconds.dtype.kind == "O":  # nullable pandas columns, or a list of all sorts
        import pandas as pd

        seconds = np.where(pd.isna(seconds), np.nan, seconds)
        for value in seconds:
            if not is_number(value):
                raise TypeError(f"{name} must be numbers of seconds, got {value!r}")
    step = spacing(seconds)
    seconds = seconds.astype(np.float64)
    for entry in np.flatnonzero(~np.isfinite(seconds)):
        raise ValueError(f"{name} has {seconds[entry]} at entry {entry}; every image needs a time")
    if step > 1:
        raise ValueError(f"{name} are rounded to {step:g} seconds by their dtype; give float64")
    if np.abs(seconds).max(initial=0) > MOST_SECONDS:
        raise ValueError(f"{name} must be in seconds, got {seconds.max():g}; divide milliseconds")
    return seconds


def spacing(values: np.ndarray) -> float:
    """Distance of the largest of the values from the next number of their dtype; NaN is ignored."""
    if values.dtype.kind != "f":
        return 0
    return float(np.spacing(np.nanmax(np.abs(values), initial=0)))


class TimedScores(NamedTuple):
    """Similarities (num_query, num_gallery), and cameras and seconds of both sides, checked."""

    scores: np.ndarray
    query_cameras: np.ndarray
    query_seconds: np.ndarray
    gallery_cameras: np.ndarray
    gallery_seconds: np.ndarray


def check_timed_scores(similarity: Any, *columns: Any, highest: float = np.inf) -> TimedScores:
    """The arguments that the temporal functions share; similarities from 0 to `highest`."""
    scores = to_scores(similarity, "similarity", finite=True)
    for extreme in (scores.min(), scores.max()) if scores.size else ():
        if not 0 <= extreme <= highest:
            hint = "take the sigmoid of logits, and calibrate cosines"
            raise ValueError(f"similarity must be from 0 to {highest}, got {extreme:.4g}; {hint}")
    checks: list[Callable[..., np.ndarray]] = [to_labels, to_seconds] * 2
    lengths, fits = np.repeat(scores.shape, 2).tolist(), f"similarity {scores.shape}"
    given = zip(checks, columns, TimedScores._fields[1:], lengths, strict=True)
    return TimedScores._make([scores, *(check(*column, fits) for check, *column in given)])


def check_choice(name: str, value: str, *choices: str) -> None:
    """Raise ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")


def is_number(value: Any) -> bool:
    """Whether `value` is a single real number, and neither a boolean nor a string."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_above_zero(**values: float) -> None:
    """Raise ValueError unless all values, given by name, are finite numbers above 0."""
    for name, value in values.items():
        if not is_number(value) or not 0 < value < np.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def check_whole_numbers(**values: int) -> None:
    """Raise ValueError unless all values, given by name, are integers from 1."""
    for name, value in values.items():
        if not _is_whole(value) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


class ShortOfMemoryError(MemoryError):
    """Memory ran out; the message says where, and which setting to lower."""


@contextmanager
def naming_shortage(doing: str, advice: str) -> Iterator[None]:
    """Turn any error that says that memory ran out into a `ShortOfMemoryError`.

    Its message says what was done (`doing`, e.g. "matching 3 x 9 images") and gives the `advice`.
    """
    try:
        yield
    except ShortOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if "DataLoader worker" in text and any(sign in text for sign in _WORKER_SHORTAGE):
            advice = "lower workers, the processes that load images"
        elif not isinstance(error, MemoryError) and not any(sign in text for sign in _SHORTAGE):
            raise
        raise ShortOfMemoryError(f"out of memory while {doing}: {advice}") from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _to_array(values: Any, name: str) -> np.ndarray:
    """Any array-like as a numpy array on the CPU, copied only if necessary."""
    if isinstance(values, torch.Tensor):
        values = values.detach()
        if values.dtype == torch.bfloat16:  # numpy has no bfloat16
            values = values.float()
        return values.cpu().numpy()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values; fill them or leave them out")
    if isinstance(values, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in values):
        values = [_to_array(v, name) for v in values]
    try:
        return np.asarray(values)
    except ValueError as error:  # rows of different lengths
        raise ValueError(f"{name} must be an array: {error}") from error


def _to_column(values: Any, name: str, length: int, fits: str) -> np.ndarray:
    column = _to_array(values, name)
    if column.shape != (length,):
        raise ValueError(f"{name} must have shape ({length},) to fit {fits}, got {column.shape}")
    return column
