"""Distances read a block of rows at a time: what `reranking` works on.

A source of rows is a function of `start` and `stop` that returns the distances of all N images *to*
images start, ..., stop - 1, shape (stop - start, N); images are numbered from 0, queries first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from scipy import sparse
from tqdm.auto import tqdm

from qaconv_lib.arrays import to_scores

_BLOCK_ENTRIES = 2**22  # distances held at a time while neighbours are searched: 16 MiB


def check_matrices(
    query_gallery: Any, query_query: Any, gallery_gallery: Any, squared: bool
) -> list[np.ndarray]:
    """The three matrices in float32, checked; copied only where something had to be changed."""
    named = {
        "query_gallery": query_gallery,
        "query_query": query_query,
        "gallery_gallery": gallery_gallery,
    }
    parts = {name: to_scores(part, name, finite=True) for name, part in named.items()}
    num_query, num_gallery = parts["query_gallery"].shape
    if not num_query or not num_gallery:
        raise ValueError(
            f"query_gallery is empty: {num_query} queries and {num_gallery} gallery images"
        )
    for name, size in (("query_query", num_query), ("gallery_gallery", num_gallery)):
        if parts[name].shape != (size, size):
            raise ValueError(
                f"{name} must have shape {(size, size)} to fit query_gallery "
                f"{parts['query_gallery'].shape}, got {parts[name].shape}"
            )
    return [check_distances(part, name, squared) for name, part in parts.items()]


def check_distances(part: np.ndarray, name: str, squared: bool) -> np.ndarray:
    """Distances in float32, none of them negative or too large."""
    low, high = part.min(), part.max()
    if low < -1e-5 * max(high, -low):
        row, column = np.unravel_index(part.argmin(), part.shape)
        raise ValueError(
            f"{name} is negative ({low:.4g}) at row {row}, column {column}; it must "
            "hold distances (for similarities from 0 to 1: 1 - similarity)"
        )
    limit = float(np.finfo(np.float32).max) ** (0.5 if squared else 1.0)
    if high >= limit:
        row, column = np.unravel_index(part.argmax(), part.shape)
        raise ValueError(
            f"{name} is {high:.4g} at row {row}, column {column}; in single "
            f"precision distances must stay below {limit:.3g}"
        )
    return (part.clip(0) if low < 0 else part).astype(np.float32, copy=False)


def rows_of(
    query_gallery: np.ndarray, query_query: np.ndarray, gallery_gallery: np.ndarray
) -> Callable[[int, int], np.ndarray]:
    """Rows of D transposed, read from its parts; a block is all queries or all gallery."""
    num_query = len(query_gallery)

    def rows(start: int, stop: int) -> np.ndarray:
        if stop <= num_query:
            to_queries, to_gallery = query_query[:, start:stop].T, query_gallery[start:stop]
        else:
            part = slice(start - num_query, stop - num_query)
            to_queries, to_gallery = query_gallery[:, part].T, gallery_gallery[:, part].T
        return np.concatenate([to_queries, to_gallery], axis=1)

    return rows


class ScaledRows:
    """The scaled distances d (N, N) of step 1, a block of rows at a time."""

    def __init__(
        self,
        raw: Callable[[int, int], np.ndarray],
        num_query: int,
        num_gallery: int,
        squared: bool,
        progress: bool = False,
    ):
        self.raw, self.squared, self.progress = raw, squared, progress
        self.num_query, self.num_images = num_query, num_query + num_gallery

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of d, (stop - start, N): columns of D by their maximum."""
        rows = self.raw(start, stop)
        if self.squared:
            rows = rows * rows
        largest = rows.max(axis=1, keepdims=True)
        return rows / np.where(largest > 0, largest, 1)

    def blocks(self, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Bounds of the blocks that cover the first `end` rows; none has queries and gallery."""
        end = self.num_images if end is None else end
        size = max(1, _BLOCK_ENTRIES // self.num_images)
        with tqdm(total=end, disable=not self.progress) as bar:
            for first, last in ((0, self.num_query), (self.num_query, end)):
                for start in range(first, last, size):
                    stop = min(start + size, last)
                    yield start, stop
                    bar.update(stop - start)

    def neighbours(self, count: int) -> np.ndarray:
        """The first ``count`` images of every ranking, (N, min(count, N))."""
        count = min(count, self.num_images)
        nearest = np.empty((self.num_images, count), dtype=np.int32)
        for start, stop in self.blocks():
            rows = self.read(start, stop)
            limits = np.partition(rows, count - 1, axis=1)[:, count - 1]
            for image, row, limit in zip(range(start, stop), rows, limits, strict=True):
                candidates = np.flatnonzero(row <= limit)  # more than count where distances tie
                order = np.argsort(row[candidates], kind="stable")[:count]
                nearest[image] = candidates[order]
        return nearest

    def at(self, pattern: sparse.csr_array) -> np.ndarray:
        """The entries of d where ``pattern`` (N, N) has entries, in their order."""
        values = np.empty(pattern.nnz, dtype=np.float32)
        for start, stop in self.blocks():
            part = slice(pattern.indptr[start], pattern.indptr[stop])
            lengths = np.diff(pattern.indptr[start : stop + 1])
            local = np.repeat(np.arange(stop - start), lengths)
            values[part] = self.read(start, stop)[local, pattern.indices[part]]
        return values
