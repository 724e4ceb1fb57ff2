"""Out of memory, said in one sentence that names what to lower (chapter 7)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

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
