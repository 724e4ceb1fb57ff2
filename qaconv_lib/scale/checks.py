"""Checks that the store and the shortlist share."""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qaconv_lib.matching import check_finite, check_tensor


def check_unit_channels(maps: Tensor, tolerance: float = 1e-2) -> None:
    """Raise ValueError unless channels have length 1 everywhere, or 0 where there is nothing."""
    lengths = torch.linalg.vector_norm(maps, dim=1, dtype=torch.float32).flatten(1)
    wrong = ((lengths - 1).abs() > tolerance) & (lengths != 0)
    if wrong.any():
        row, location = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"the map of row {row} must have channels of unit length; their length is "
            f"{lengths[row, location]:.4g} at location {location}"
        )


def check_rows(rows: Tensor | np.ndarray | list, size: int) -> Tensor:
    """Row numbers of a gallery of `size` images as an int64 tensor on the CPU, any shape."""
    if not isinstance(rows, Tensor):
        try:
            rows = np.asarray(rows)
        except ValueError as error:
            raise ValueError("rows must be an array; its lists differ in length") from error
    if 0 in rows.shape:
        return torch.empty(tuple(rows.shape), dtype=torch.long)
    if isinstance(rows, Tensor):
        other = rows.dtype == torch.bool or rows.is_floating_point() or rows.is_complex()
    else:
        other = rows.dtype.kind not in "iu"
    if other:
        raise TypeError(f"rows must be whole numbers, got {rows.dtype}")
    low, high = int(rows.min()), int(rows.max())
    if not size:
        raise IndexError(f"the gallery is empty, so it has no row {low}")
    if not 0 <= low <= high < size:
        raise IndexError(f"rows must lie in 0..{size - 1}, got {low} to {high}")
    if isinstance(rows, Tensor):
        return rows.cpu().long()
    return torch.from_numpy(rows.astype(np.int64))


def check_length(length: int, size: int, name: str = "length") -> int:
    """A number from 1 to the gallery's size as an int; ValueError names it."""
    whole = isinstance(length, numbers.Integral) and not isinstance(length, bool)
    if not size:
        raise ValueError(f"the gallery is empty, so no {name} fits it")
    if not whole or not 1 <= length <= size:
        raise ValueError(f"{name} must lie in 1..{size}, the gallery's size, got {length!r}")
    return int(length)


def check_vectors(query_vectors: Any, gallery: Any) -> bool:
    """Check both arguments of `shortlist`; whether the gallery is a faiss index."""
    is_index = hasattr(gallery, "search") and hasattr(gallery, "ntotal")
    if not isinstance(query_vectors, Tensor) or not (is_index or isinstance(gallery, Tensor)):
        raise TypeError(
            "query_vectors must be a torch.Tensor, and gallery one too (of a store: its vectors) "
            f"or a faiss index, got {type(query_vectors).__name__} and {type(gallery).__name__}"
        )
    check_tensor("query_vectors", query_vectors, "q, d")
    if is_index:
        if gallery.metric_type != 0:  # faiss.METRIC_INNER_PRODUCT
            raise ValueError(
                "the index must be over the inner product, as `build_index` makes it; its "
                f"metric_type is {gallery.metric_type}"
            )
        width = gallery.d
    else:
        check_tensor("gallery", gallery, "g, d")
        check_finite("gallery", gallery)
        width = gallery.shape[1]
    if query_vectors.shape[1] != width:
        raise ValueError(
            f"query_vectors must have shape (q, {width}), got {tuple(query_vectors.shape)}"
        )
    check_finite("query_vectors", query_vectors)
    return is_index
