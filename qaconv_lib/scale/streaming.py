"""Re-ranking of distances that are computed when they are needed (appendix A)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qaconv_lib._checks import check_whole_numbers, to_scores
from qaconv_lib.reranking import ScaledRows, check_distances, rerank_rows


def rerank_streaming(
    distance_rows: Callable[[int, int], Any],
    num_query: int,
    num_gallery: int,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    squared: bool = False,
    progress: bool = False,
) -> np.ndarray:
    """`k_reciprocal_rerank` of distances that are computed when they are needed.

    `distance_rows` is called with `start` and `stop` and returns the distances (stop - start, N) of
    all images *to* images start, ..., stop - 1, numbered from 0 with the queries first: rows of D
    transposed. `vector_distances` makes one for vectors. Beside the result (q, g), float32, memory
    grows with N * k1 * k2. All rows are asked for twice, and those of the queries a third time.
    """
    check_whole_numbers(num_query=num_query, num_gallery=num_gallery)
    if not callable(distance_rows):
        wrong = type(distance_rows).__name__
        raise TypeError(f"distance_rows must be a function of start and stop, got {wrong}")
    num_query, num_gallery = int(num_query), int(num_gallery)

    def checked(start: int, stop: int) -> np.ndarray:
        name, shape = f"the block of rows {start} to {stop - 1}", (stop - start, rows.num_images)
        block = to_scores(distance_rows(start, stop), name, finite=True)
        if block.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {block.shape}")
        block = check_distances(block, name, squared)
        return block * block if squared else block

    rows = ScaledRows(checked, num_query, num_gallery, progress)
    return rerank_rows(rows, k1, k2, lambda_value)


def vector_distances(vectors: Any) -> Callable[[int, int], np.ndarray]:
    """Distances (1 - cosine) / 2 between vectors (N, d), row by row, for `rerank_streaming`.

    Returns a function of `start` and `stop` that gives those of vectors start, ..., stop - 1 from
    all, (stop - start, N), float32, from 0 to 1.
    """
    points = to_scores(vectors, "vectors", finite=True).astype(np.float64)
    lengths = np.linalg.norm(points, axis=1, keepdims=True)
    if not lengths.all():
        raise ValueError(f"vector {lengths.argmin()} has length 0, so there is no cosine")
    points = (points / lengths).astype(np.float32)

    def rows(start: int, stop: int) -> np.ndarray:
        if not 0 <= start <= stop <= len(points):
            raise IndexError(f"there are {len(points)} rows, got a block of {start} to {stop - 1}")
        return np.maximum(0.5 - 0.5 * (points[start:stop] @ points.T), 0)

    return rows
