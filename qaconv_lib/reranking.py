"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) in sparse form. Built in chapter 9.

Two images that are neighbours of each other, and share their neighbours, are probably the same
person. Every image is described by its mutual neighbours, and the descriptions are compared.

The square matrix of all distances and the dense descriptions, each of N x N entries for N images in
query and gallery together, are never built: only neighbour lists and sparse rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from qaconv_lib.arrays import check_whole_numbers, restore_kind, to_scores

_BLOCK_ENTRIES = 2**22  # distances held at a time while neighbours are searched: 16 MiB


def k_reciprocal_rerank(
    query_gallery: Any,
    query_query: Any,
    gallery_gallery: Any,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
    *,
    squared: bool = False,
) -> Any:
    r"""Re-rank by k-reciprocal encoding: mix the distances with those of the neighbourhoods.

    Put the N = q + g images in one list, queries first, with distances D (N, N). Then, with the
    conventions of the public codes of Zhong et al. and of QAConv:

    1. *Scale.* With ``squared`` D is squared. Each column is divided by its maximum (a column of
       zeros stays), and the matrix transposed: :math:`d_{ij} = D_{ji} / \max_k D_{ki}`.
    2. *Neighbours.* :math:`N(i, k)` are the first k images by ascending :math:`d_{ij}`, equal
       distances in the order of the list. The image itself is a candidate and normally the first,
       so "k nearest neighbours" means :math:`N(i, k + 1)`.
    3. *Mutual neighbours.* :math:`R(i, k)` holds the :math:`j \in N(i, k + 1)` that have
       :math:`i \in N(j, k + 1)`.
    4. *Expansion.* To :math:`R(i, k_1)` add :math:`R(j, h)` with :math:`h = round(k_1 / 2)` (halves
       to even) for each :math:`j \in R(i, k_1)` that has
       :math:`|R(j, h) \cap R(i, k_1)| > \frac23 |R(j, h)|`. Only the unexpanded set is asked.
    5. *Encoding.* :math:`V_{ij} = e^{-d_{ij}}` on the expanded set and 0 elsewhere, each row then
       divided by its sum.
    6. *Local query expansion.* Each row becomes the mean of the rows of :math:`N(i, k_2)`: exactly
       :math:`k_2` images, itself normally among them. ``k2=1`` skips this step.
    7. *Jaccard distance.* :math:`J_{ij} = 1 - m / (2 - m)` with
       :math:`m = \sum_l \min(V_{il}, V_{jl})`.
    8. *Mix.* :math:`(1 - \lambda) J_{ij} + \lambda d_{ij}` for queries i and gallery images j.

    ``squared=False`` is how QAConv's authors call it, ``squared=True`` how Zhong et al. do. Step 1
    matters where D is not symmetric, as from a matcher whose two directions have weights of their
    own. Scores become distances as 1 - score; with similarities of a wide range in which everything
    is near 0 or 1, neighbours tie and re-ranking can make a ranking worse.

    Computed in float32. Memory beyond the input: about :math:`N (k_1 + k_2 k_1)` sparse entries and
    the result. Neighbour lists are as long as there are images: where N is smaller than ``k1 + 1``
    or ``k2``, all images are neighbours, and nothing is raised.

    Args:
        query_gallery: distances of shape (q, g), from 0, smaller is more alike.
        query_query: distances of shape (q, q). The diagonal is used as it is.
        gallery_gallery: distances of shape (g, g).
        k1: number of neighbours for the mutual sets, from 1.
        k2: number of images averaged in the local query expansion, from 1.
        lambda_value: weight of the original distance, 0 to 1; 1 keeps the original ranking.
        squared: square the distances first.

    Returns:
        Distances of shape (q, g), from 0 to 1, as an array or tensor like ``query_gallery`` with
        its dtype and device.

    Raises:
        TypeError: if the distances are no real numbers.
        ValueError: if shapes do not fit together, there are no queries or no gallery images, a
            distance is negative (beyond rounding: -1e-5 of the largest, which counts as 0), NaN,
            infinite or too large for float32, or a parameter is out of its range.
    """
    check_whole_numbers(k1=k1, k2=k2)
    if not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be from 0 to 1, got {lambda_value!r}")
    distances = _Distances(query_gallery, query_query, gallery_gallery, squared)
    half = round(k1 / 2)
    neighbours = distances.neighbours(max(k1 + 1, k2))

    encoding = _encode(neighbours, distances, k1, half)
    if k2 > 1:
        nearest = _membership(neighbours[:, :k2])
        encoding = (nearest @ encoding) / np.float32(min(k2, neighbours.shape[1]))
    jaccard = _jaccard_distance(encoding, distances.num_query)
    mixed = (1 - lambda_value) * jaccard + lambda_value * distances.scaled_query_gallery()
    return restore_kind(mixed.astype(np.float32, copy=False), query_gallery)


class _Distances:
    """The scaled distances d (N, N) of step 1, read in parts from the three matrices given."""

    def __init__(self, query_gallery: Any, query_query: Any, gallery_gallery: Any, squared: bool):
        named = {
            "query_gallery": query_gallery,
            "query_query": query_query,
            "gallery_gallery": gallery_gallery,
        }
        parts = {name: to_scores(part, name, finite=True) for name, part in named.items()}
        self.num_query, self.num_gallery = parts["query_gallery"].shape
        if not self.num_query or not self.num_gallery:
            raise ValueError(
                f"query_gallery is empty: {self.num_query} queries and "
                f"{self.num_gallery} gallery images"
            )
        for name, size in (("query_query", self.num_query), ("gallery_gallery", self.num_gallery)):
            if parts[name].shape != (size, size):
                raise ValueError(
                    f"{name} must have shape {(size, size)} to fit query_gallery "
                    f"{parts['query_gallery'].shape}, got {parts[name].shape}"
                )
        for name, part in parts.items():
            if part.min() < -1e-5 * max(part.max(), -part.min()):
                row, column = np.unravel_index(part.argmin(), part.shape)
                raise ValueError(
                    f"{name} is negative ({part.min():.4g}) at row {row}, column {column}; it must "
                    "hold distances (for similarities from 0 to 1: 1 - similarity)"
                )
        limit = float(np.finfo(np.float32).max) ** (0.5 if squared else 1.0)
        for name, part in parts.items():
            if part.max() >= limit:
                row, column = np.unravel_index(part.argmax(), part.shape)
                raise ValueError(
                    f"{name} is {part.max():.4g} at row {row}, column {column}; in single "
                    f"precision distances must stay below {limit:.3g}"
                )
        self.squared = squared
        parts = {name: part.clip(0).astype(np.float32, copy=False) for name, part in parts.items()}
        self.query_gallery = parts["query_gallery"]
        self.query_query = parts["query_query"]
        self.gallery_gallery = parts["gallery_gallery"]
        self.num_images = self.num_query + self.num_gallery
        self.largest = np.concatenate(  # of each column of D, (N,)
            [
                np.maximum(self.query_query.max(axis=0), self.query_gallery.max(axis=1)),
                np.maximum(self.query_gallery.max(axis=0), self.gallery_gallery.max(axis=0)),
            ]
        )
        self.largest = self._squared(self.largest)
        self.largest[self.largest <= 0] = 1

    def _squared(self, distances: np.ndarray) -> np.ndarray:
        return distances * distances if self.squared else distances

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Rows start to stop of d, (stop - start, N): columns of D; all queries or all gallery."""
        if stop <= self.num_query:
            to_queries = self.query_query[:, start:stop].T
            to_gallery = self.query_gallery[start:stop]
        else:
            part = slice(start - self.num_query, stop - self.num_query)
            to_queries = self.query_gallery[:, part].T
            to_gallery = self.gallery_gallery[:, part].T
        rows = self._squared(np.concatenate([to_queries, to_gallery], axis=1))
        return rows / self.largest[start:stop, None]

    def scaled_query_gallery(self) -> np.ndarray:
        """The rows of the queries and columns of the gallery of d, (q, g)."""
        return self._squared(self.query_gallery) / self.largest[: self.num_query, None]

    def _blocks(self):
        size = max(1, _BLOCK_ENTRIES // self.num_images)
        for first, last in ((0, self.num_query), (self.num_query, self.num_images)):
            for start in range(first, last, size):
                yield start, min(start + size, last)

    def neighbours(self, count: int) -> np.ndarray:
        """The first ``count`` images of every ranking, (N, min(count, N))."""
        count = min(count, self.num_images)
        nearest = np.empty((self.num_images, count), dtype=np.int64)
        for start, stop in self._blocks():
            rows = self.rows(start, stop)
            limits = np.partition(rows, count - 1, axis=1)[:, count - 1]
            for image, row, limit in zip(range(start, stop), rows, limits, strict=True):
                candidates = np.flatnonzero(row <= limit)  # more than count where distances tie
                order = np.argsort(row[candidates], kind="stable")[:count]
                nearest[image] = candidates[order]
        return nearest

    def at(self, pattern: sparse.csr_array) -> np.ndarray:
        """The entries of d where ``pattern`` (N, N) has entries, in their order."""
        values = np.empty(pattern.nnz, dtype=np.float32)
        for start, stop in self._blocks():
            part = slice(pattern.indptr[start], pattern.indptr[stop])
            lengths = np.diff(pattern.indptr[start : stop + 1])
            local = np.repeat(np.arange(stop - start), lengths)
            values[part] = self.rows(start, stop)[local, pattern.indices[part]]
        return values


def _membership(lists: np.ndarray) -> sparse.csr_array:
    """Lists of images (N, k) as a sparse matrix (N, N) of ones."""
    num_images, length = lists.shape
    starts = np.arange(0, lists.size + 1, length)
    ones = np.ones(lists.size, dtype=np.float32)
    return sparse.csr_array((ones, lists.ravel(), starts), shape=(num_images, num_images))


def _mutual(lists: np.ndarray) -> sparse.csr_array:
    """R of step 3 from the lists N (N, k + 1): symmetric, of ones."""
    members = _membership(lists)
    return members.multiply(members.T).tocsr()


def _encode(neighbours: np.ndarray, distances: _Distances, k1: int, half: int) -> sparse.csr_array:
    """V of steps 3 to 5, (N, N): the weights of each image's expanded mutual neighbours."""
    mutual = _mutual(neighbours[:, : k1 + 1])
    smaller = _mutual(neighbours[:, : half + 1])
    # |R(j, h) & R(i, k1)| for all j in R(i, k1): R(j, h) is symmetric, so a product counts it.
    overlap = mutual.multiply(mutual @ smaller).tocoo()
    rows, columns = overlap.row, overlap.col
    sizes = smaller.sum(axis=1)
    trusted = 3 * overlap.data > 2 * sizes[columns]  # whole numbers: exact
    ones = np.ones(np.count_nonzero(trusted), dtype=np.float32)
    added = sparse.csr_array((ones, (rows[trusted], columns[trusted])), shape=mutual.shape)
    expanded = (mutual + added @ smaller).tocsr()

    expanded.data = np.exp(-distances.at(expanded))
    sums = expanded.sum(axis=1)
    expanded.data /= np.repeat(sums, np.diff(expanded.indptr))
    return expanded


def _jaccard_distance(encoding: sparse.csr_array, num_query: int) -> np.ndarray:
    """J of step 7 between the queries and the gallery, (q, g)."""
    queries = encoding[:num_query]
    gallery = encoding[num_query:].tocsc()  # for each image: in whose encodings it appears
    num_gallery = gallery.shape[0]
    jaccard = np.empty((num_query, num_gallery), dtype=np.float32)
    for query in range(num_query):
        part = slice(queries.indptr[query], queries.indptr[query + 1])
        shared = gallery[:, queries.indices[part]]
        own = np.repeat(queries.data[part], np.diff(shared.indptr))
        smaller = np.minimum(own, shared.data)
        overlap = np.bincount(shared.indices, weights=smaller, minlength=num_gallery)
        overlap = np.minimum(overlap, 1)  # rows of V sum to 1, give or take rounding
        jaccard[query] = 1 - overlap / (2 - overlap)
    return jaccard
