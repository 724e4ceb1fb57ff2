"""Images of a table that cannot be read, or are there twice."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from qaconv_lib.images import UnreadableImageError, load_image

_NAMED = 3  # bad files that a message names


def unreadable_images(paths: Iterable[str], progress: bool = False) -> list[str]:
    """Those of the images that cannot be read, or are not there; every image is opened."""

    def is_bad(path: str) -> bool:
        try:
            load_image(path)
        except (UnreadableImageError, FileNotFoundError):
            return True
        return False

    paths = list(map(str, paths))
    bad = _in_threads(is_bad, paths, progress, "opening")
    return [path for path, is_so in zip(paths, bad, strict=True) if is_so]


def content_digests(paths: Iterable[str], progress: bool = False) -> list[str]:
    """One digest a file, equal where the contents are; empty for a file that is not there."""

    def digest(path: str) -> str:
        try:
            return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
        except OSError:
            return ""

    return _in_threads(digest, list(map(str, paths)), progress, "comparing")


def _in_threads(work: Callable[[str], Any], paths: list[str], progress: bool, what: str) -> list:
    """Results in the order of the paths; reading and decoding leave Python's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(work, paths)
        bar = tqdm(results, what, len(paths), unit="image", disable=not progress)
        return list(bar)


def name_some(paths: list[str]) -> str:
    """The first few of the paths, for a message."""
    return ", ".join(paths[:_NAMED]) + " ..." * (len(paths) > _NAMED)


def readable_rows(table: pd.DataFrame, what: str, progress: bool = False) -> pd.DataFrame:
    """The rows of a table whose images can be read; a warning says how many cannot, and which.

    Args:
        table: images as `load_dataset` gives them.
        what: what messages call the table.
        progress: show a progress bar.

    Raises:
        UnreadableImageError: none can be read.
    """
    bad = unreadable_images(table["path"], progress)
    if not bad:
        return table
    message = f"{what}: {_count(bad, len(table))}"
    if len(bad) == len(table):
        raise UnreadableImageError(message)
    warnings.warn(f"{message}; their rows are left out", stacklevel=2)
    return table[~table["path"].isin(bad)].reset_index(drop=True)


@contextmanager
def counting_unreadable(table: pd.DataFrame, what: str) -> Iterator[None]:
    """Where the first unreadable image of a table stops the work, say how many there are.

    Raises:
        UnreadableImageError: names what cannot be read and how to go on.
    """
    try:
        yield
    except UnreadableImageError as error:
        bad = unreadable_images(table["path"])
        if not bad:  # it can be read now, or is not of this table
            raise
        raise UnreadableImageError(
            f"{what}: {_count(bad, len(table))}; --skip-unreadable (in Python, "
            "skip_unreadable=True) goes on without them"
        ) from error


def _count(bad: list[str], total: int) -> str:
    verb = "image cannot" if total == 1 else "images cannot"
    return f"{len(bad):,} of {total:,} {verb} be read: {name_some(bad)}"
