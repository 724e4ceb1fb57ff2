"""Datasets with images that cannot be read: counted, named, and left out if asked."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace

import pandas as pd
from tqdm.auto import tqdm

from qaconv_lib.datasets import ReidDataset, UnreadableImageError, load_dataset, load_image


def load_test(name: str, skip_unreadable: bool = False) -> ReidDataset:
    """Load a dataset to test on, if asked without the images that cannot be read."""
    dataset = load_dataset(name)
    if not dataset.has_test:
        raise ValueError(f"{name} has no query and gallery images, so test on another dataset")
    if not skip_unreadable:
        return dataset
    tables = {s: readable_rows(dataset.splits[s], f"{name}, {s}") for s in ("query", "gallery")}
    return replace(dataset, **tables)


def unreadable_images(paths: Iterable[str], progress: bool = False) -> list[str]:
    """Those of the images that cannot be read, or are not there; every image is opened."""

    def is_bad(path: str) -> bool:
        with suppress(UnreadableImageError, FileNotFoundError):
            load_image(path)
            return False
        return True

    paths = list(map(str, paths))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:  # decoding releases Python's lock
        bar = tqdm(paths, "opening", unit="image", disable=not progress)
        return [path for path, bad in zip(bar, pool.map(is_bad, paths), strict=True) if bad]


def name_some(paths: list[str], count: int = 3) -> str:
    """The first few of the paths, for a message."""
    return ", ".join(paths[:count]) + " ..." * (len(paths) > count)


def readable_rows(table: pd.DataFrame, what: str, progress: bool = False) -> pd.DataFrame:
    """The rows of a table (`what`) whose images can be read; a warning names the others."""
    bad = unreadable_images(table["path"], progress)
    if not bad:
        return table
    message = _count(bad, table, what)
    if len(bad) == len(table):
        raise UnreadableImageError(message)
    warnings.warn(f"{message}; their rows are left out", stacklevel=2)
    return table[~table["path"].isin(bad)].reset_index(drop=True)


@contextmanager
def counting_unreadable(table: pd.DataFrame, what: str) -> Iterator[None]:
    """If an unreadable image of a table stops the block, make the error say how many there are."""
    try:
        yield
    except UnreadableImageError as error:
        bad = unreadable_images(table["path"])
        if not bad:  # it can be read now, or belongs to another table
            raise
        hint = "--skip-unreadable (in Python, skip_unreadable=True) goes on without them"
        raise UnreadableImageError(f"{_count(bad, table, what)}; {hint}") from error


def _count(bad: list[str], table: pd.DataFrame, what: str) -> str:
    return f"{what}: {len(bad):,} of {len(table):,} images cannot be read: {name_some(bad)}"
