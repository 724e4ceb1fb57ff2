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
_CACHED_ENTRIES = 2**18  # of those, searched at a time: 512 KiB, which a core's cache holds
_SMALLEST = np.finfo(np.float32).tiny  # below it a quotient loses digits


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


class MatrixRows:
    """Rows, and single entries, of D transposed, read from the three parts of D."""

    def __init__(
        self, query_gallery: np.ndarray, query_query: np.ndarray, gallery_gallery: np.ndarray
    ):
        self.parts = query_gallery, query_query, gallery_gallery
        self.num_query = len(query_gallery)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Distances (stop - start, N); a block is all queries or all gallery."""
        query_gallery, query_query, gallery_gallery = self.parts
        if stop <= self.num_query:
            to_queries, to_gallery = query_query[:, start:stop].T, query_gallery[start:stop]
        else:
            part = slice(start - self.num_query, stop - self.num_query)
            to_queries, to_gallery = query_gallery[:, part].T, gallery_gallery[:, part].T
        found = np.empty((stop - start, self.num_query + len(gallery_gallery)), dtype=np.float32)
        found[:, : self.num_query] = to_queries
        found[:, self.num_query :] = to_gallery
        return found

    def entries(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Distances at (rows[i], columns[i])."""
        query_gallery, query_query, gallery_gallery = self.parts
        q, found = self.num_query, np.empty(len(rows), dtype=np.float32)
        from_query, to_query = columns < q, rows < q
        for chosen, part, i, j in (
            (from_query & to_query, query_query, columns, rows),
            (from_query & ~to_query, query_gallery, columns, rows - q),
            (~from_query & to_query, query_gallery, rows, columns - q),
            (~from_query & ~to_query, gallery_gallery, columns - q, rows - q),
        ):
            found[chosen] = part[i[chosen], j[chosen]]
        return found


class ScaledRows:
    """The scaled distances d (N, N) of step 1, a block of rows at a time.

    `neighbours` comes first: it finds the maxima that the others divide by.
    """

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
        self.largest = np.ones(self.num_images, dtype=np.float32)

    def neighbours(self, count: int) -> np.ndarray:
        """The first ``count`` images of every ranking, (N, min(count, N))."""
        count = min(count, self.num_images)
        nearest = np.empty((self.num_images, count), dtype=np.int32)
        for start, stop in self._blocks():
            block = self._read(start, stop)
            step = max(1, _CACHED_ENTRIES // self.num_images)
            for first in range(0, stop - start, step):
                rows = block[first : first + step]
                images = slice(start + first, start + first + len(rows))
                largest = rows.max(axis=1)
                self.largest[images] = np.where(largest > 0, largest, 1)
                nearest[images] = _nearest(rows, self.largest[images], count)
        return nearest

    def at(self, pattern: sparse.csr_array) -> np.ndarray:
        """The entries of d where ``pattern`` (N, N) has entries, in their order."""
        lengths = np.diff(pattern.indptr)
        if isinstance(self.raw, MatrixRows):
            values = self.raw.entries(np.repeat(np.arange(len(lengths)), lengths), pattern.indices)
            values = values * values if self.squared else values
        else:
            values = np.empty(pattern.nnz, dtype=np.float32)
            for start, stop in self._blocks():
                part = slice(pattern.indptr[start], pattern.indptr[stop])
                local = np.repeat(np.arange(stop - start), lengths[start:stop])
                values[part] = self._read(start, stop)[local, pattern.indices[part]]
        return values / np.repeat(self.largest, lengths)

    def queries(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of queries, and their rows of d (block, g) without the columns of queries."""
        for start, stop in self._blocks(self.num_query):
            rows = self._read(start, stop)[:, self.num_query :]
            yield slice(start, stop), rows / self.largest[start:stop, None]

    def _read(self, start: int, stop: int) -> np.ndarray:
        rows = self.raw(start, stop)
        return rows * rows if self.squared else rows

    def _blocks(self, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Bounds of the blocks that cover the first `end` rows; none has queries and gallery."""
        end = self.num_images if end is None else end
        size = max(1, _BLOCK_ENTRIES // self.num_images)
        with tqdm(total=end, disable=not self.progress) as bar:
            for first, last in ((0, self.num_query), (self.num_query, end)):
                for start in range(first, last, size):
                    stop = min(start + size, last)
                    yield start, stop
                    bar.update(stop - start)


def _nearest(rows: np.ndarray, scale: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` columns of each row by ascending row / scale, ties in their order."""
    limits = np.partition(rows, count - 1, axis=1)[:, count - 1]
    # Division may make distances equal that were not: what could be, is a candidate.
    limits = np.maximum(limits * np.float32(1 + 2**-20), scale * _SMALLEST)
    row, column = np.divmod(np.flatnonzero(rows <= limits[:, None]), rows.shape[1])
    order = np.lexsort((rows[row, column] / scale[row], row))  # stable: ties keep their order
    first = np.searchsorted(row, np.arange(len(rows)))
    return column[order[first[:, None] + np.arange(count)]]
