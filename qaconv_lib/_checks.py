"""What the evaluation, re-ranking and temporal modules share: arrays in, checked, and given back.

These modules compute with numpy. They accept numpy arrays, torch tensors, lists and pandas columns;
a score matrix goes back as the kind it came in, with its dtype and device.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch


def _plain(values: Any, name: str) -> np.ndarray:
    """Any array-like as a numpy array on the CPU, without a copy where none is needed.

    Raises:
        ValueError: rows of different lengths, or masked values.
    """
    if isinstance(values, torch.Tensor):
        values = values.detach()
        if values.dtype == torch.bfloat16:  # numpy has no bfloat16
            values = values.float()
        return values.cpu().numpy()
    if np.ma.is_masked(values):
        raise ValueError(f"{name} has masked values; fill them or leave them out")
    if isinstance(values, (list, tuple)) and any(isinstance(v, torch.Tensor) for v in values):
        values = [_plain(v, name) for v in values]
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{name} must be an array, with rows of one length: {error}") from error


def to_scores(values: Any, name: str, *, finite: bool = False) -> np.ndarray:
    """A matrix of similarities or distances as a floating point numpy array.

    Args:
        values: array-like of shape (rows, columns).
        name: the argument's name, for messages.
        finite: refuse infinite values too.

    Returns:
        The matrix in float32 or wider: half precision becomes float32, integers become float64.

    Raises:
        TypeError: if the values are no real numbers.
        ValueError: if there are not two axes, or a value is NaN (or infinite, with ``finite``).
    """
    scores = _plain(values, name)
    if scores.dtype.kind not in "fiub":
        raise TypeError(f"{name} must hold real numbers, got dtype {scores.dtype}")
    if scores.ndim != 2:
        raise ValueError(f"{name} must have two axes, got shape {scores.shape}")
    if scores.dtype.kind != "f":
        scores = scores.astype(np.float64)
    elif scores.dtype.itemsize < 4:
        scores = scores.astype(np.float32)
    if scores.size:
        low, high = scores.min(), scores.max()  # both propagate NaN, and need no extra memory
        if np.isnan(low):
            row, column = np.unravel_index(np.flatnonzero(np.isnan(scores))[0], scores.shape)
            raise ValueError(f"{name} has NaN at row {row}, column {column}")
        if finite and (np.isinf(low) or np.isinf(high)):
            row, column = np.unravel_index(np.flatnonzero(np.isinf(scores))[0], scores.shape)
            raise ValueError(
                f"{name} has an infinite value at row {row}, column {column}; "
                "it must be finite everywhere"
            )
    return scores


def restore_kind(result: np.ndarray, like: Any) -> np.ndarray | torch.Tensor:
    """``result`` as the kind of ``like``: a tensor of its dtype and device, or a numpy array.

    Where ``like`` holds integers, the result keeps floating point: torch's default for tensors,
    float64 for arrays.
    """
    if isinstance(like, torch.Tensor):
        dtype = like.dtype if like.dtype.is_floating_point else torch.get_default_dtype()
        return torch.from_numpy(np.ascontiguousarray(result)).to(like.device, dtype)
    kind = np.asarray(like).dtype
    return result.astype(kind if kind.kind == "f" else np.float64, copy=False)


def _check_length(array: np.ndarray, name: str, length: int, counted: str) -> None:
    if array.ndim != 1:
        raise ValueError(f"{name} must have one axis, got shape {array.shape}")
    if len(array) != length:
        raise ValueError(f"{name} has {len(array)} entries, {counted}")


def to_labels(values: Any, name: str, length: int, counted: str) -> np.ndarray:
    """Identities, cameras or sessions as int64.

    Args:
        values: integers of any kind: list, pandas column, numpy array or tensor.
        name: the argument's name, for messages.
        length: the number of labels wanted.
        counted: what gives that number, for messages: ``"similarity has 6 rows"``.

    Returns:
        int64 array of shape (length,).

    Raises:
        TypeError: if the labels are not integers. Whole numbers stored as floats are refused too:
            they come from a column that has, or had, missing values.
        ValueError: if the number of labels is wrong, or one does not fit into 64 bits.
    """
    labels = _plain(values, name)
    _check_length(labels, name, length, counted)
    if labels.size == 0:
        return np.zeros(0, dtype=np.int64)
    if labels.dtype.kind == "O":  # nullable pandas columns, or Python integers of any size
        wrong = [v for v in labels if isinstance(v, bool) or not isinstance(v, numbers.Integral)]
        if wrong:
            raise TypeError(f"{name} must be integers, found {wrong[0]!r}")
    elif labels.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers, got dtype {labels.dtype}")
    if labels.dtype.kind in "Ou" and max(labels) > np.iinfo(np.int64).max:
        raise ValueError(f"{name} has {max(labels)}, which does not fit into 64 bits with sign")
    return labels.astype(np.int64)


def to_seconds(values: Any, name: str, length: int, counted: str) -> np.ndarray:
    """Times in seconds as float64, all known and finite.

    Args:
        values: real numbers: list, pandas column, numpy array or tensor.
        name: the argument's name, for messages.
        length: the number of times wanted.
        counted: what gives that number, for messages: ``"similarity has 6 rows"``.

    Returns:
        float64 array of shape (length,).

    Raises:
        TypeError: if the times are no real numbers.
        ValueError: if the number of times is wrong, or one is missing (NaN) or infinite.
    """
    seconds = _plain(values, name)
    _check_length(seconds, name, length, counted)
    if seconds.dtype.kind == "O":  # nullable pandas columns, or a list of all sorts
        seconds = np.where(pd.isna(seconds), np.nan, seconds)
        wrong = [value for value in seconds if not is_number(value)]
        if wrong:
            raise TypeError(f"{name} must be numbers of seconds, found {wrong[0]!r}")
    elif seconds.size and seconds.dtype.kind not in "fiu":
        raise TypeError(f"{name} must be numbers of seconds, got dtype {seconds.dtype}")
    seconds = seconds.astype(np.float64)
    if not np.isfinite(seconds).all():
        entry = int(np.flatnonzero(~np.isfinite(seconds))[0])
        raise ValueError(
            f"{name} has {seconds[entry]} at entry {entry}; every image needs a time "
            "(a dataset without times cannot be used here)"
        )
    return seconds


class TimedScores(NamedTuple):
    """Checked similarities (num_query, num_gallery) with cameras and seconds of both sides."""

    scores: np.ndarray
    query_cameras: np.ndarray
    query_seconds: np.ndarray
    gallery_cameras: np.ndarray
    gallery_seconds: np.ndarray


def check_timed_scores(
    similarity: Any,
    query_cameras: Any,
    query_seconds: Any,
    gallery_cameras: Any,
    gallery_seconds: Any,
    highest: float = np.inf,
) -> TimedScores:
    """The five arguments that temporal functions share, as numpy arrays.

    Raises:
        TypeError: if an argument is of the wrong kind.
        ValueError: if lengths do not fit, a time is missing, or a similarity is NaN, infinite,
            negative or above ``highest``.
    """
    scores = to_scores(similarity, "similarity", finite=True)
    num_query, num_gallery = scores.shape
    if scores.size and scores.min() < 0:
        raise ValueError(
            f"similarity is negative (lowest value {scores.min():.4g}); probabilities are wanted: "
            "take the sigmoid of logits, and calibrate cosines"
        )
    if scores.size and scores.max() > highest:
        raise ValueError(f"similarity must not be above {highest}, got {scores.max():.4g}")
    rows, columns = f"similarity has {num_query} rows", f"similarity has {num_gallery} columns"
    return TimedScores(
        scores,
        to_labels(query_cameras, "query_cameras", num_query, rows),
        to_seconds(query_seconds, "query_seconds", num_query, rows),
        to_labels(gallery_cameras, "gallery_cameras", num_gallery, columns),
        to_seconds(gallery_seconds, "gallery_seconds", num_gallery, columns),
    )


def kth_highest(values: np.ndarray, k: int) -> float:
    """The k-th highest of ``values`` (n,), or minus infinity where n is not above k."""
    if len(values) <= k:
        return -np.inf
    return np.partition(values, len(values) - k)[len(values) - k]


def is_number(value: Any) -> bool:
    """Whether ``value`` is one real number: no boolean, no string, no array."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_above_zero(**values: float) -> None:
    """Raise ValueError unless all values, given by name, are numbers above 0 and finite."""
    for name, value in values.items():
        if not is_number(value) or not 0 < value < np.inf:
            raise ValueError(f"{name} must be above 0 and finite, got {value!r}")


def check_whole_numbers(**values: int) -> None:
    """Raise ValueError unless all values, given by name, are integers from 1."""
    for name, value in values.items():
        if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
            raise ValueError(f"{name} must be a whole number from 1, got {value!r}")


# shortage ------------------------------------------------------------

# What PyTorch says in a plain RuntimeError: its CPU allocator, cuBLAS, cuDNN.
_SIGNS = (
    "not enough memory",
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
)
# Workers of a DataLoader that the system stopped, and shared memory that is full.
_WORKER_SIGNS = ("killed by signal: Killed", "killed by signal: Bus error", "shared memory")


class ShortOfMemoryError(MemoryError):
    """Memory ran out; the message says where, and which setting to lower."""


@contextmanager
def naming_shortage(doing: str, advice: str) -> Iterator[None]:
    """Turn an error for want of memory, whoever raises it, into a `ShortOfMemoryError`.

    Args:
        doing: what was being done, e.g. "matching 3 x 9 images".
        advice: which setting to lower.

    Raises:
        ShortOfMemoryError: memory ran out inside. One from further inside passes, as do all other
            errors.
    """
    try:
        yield
    except ShortOfMemoryError:
        raise
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        if isinstance(error, RuntimeError) and _says(text, "DataLoader worker", _WORKER_SIGNS):
            advice = "lower workers, the processes that load images"
        elif not is_shortage(error):
            raise
        raise ShortOfMemoryError(f"out of memory while {doing}: {advice}") from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the GPU or of the machine."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def _says(text: str, first: str, others: tuple[str, ...]) -> bool:
    return first in text and any(sign in text for sign in others)
