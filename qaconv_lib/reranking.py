"""k-reciprocal re-ranking (Zhong et al., CVPR 2017) in sparse form. Built in chapter 9.

Two images that are neighbours of each other, and share their neighbours, are probably the same
person. Neither the matrix of all N x N distances nor dense descriptions are ever built: only
neighbour lists and sparse rows. Distances are read in blocks of rows, so they may be computed as
they are read (`scale.streaming`, appendix A).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import scipy
from tqdm.auto import tqdm

from qaconv_lib._checks import check_whole_numbers, is_number, restore_kind, to_scores

_BLOCK_ENTRIES = 2**22  # distances held at a time while neighbours are searched: 16 MiB
_CACHED_ENTRIES = 2**18  # of those, searched at a time: 1 MiB, which a core's cache holds
_SMALLEST = np.finfo(np.float32).tiny  # below it a quotient loses digits


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
    3. *Mutual neighbours.* :math:`R(i, k)`: the :math:`j \in N(i, k + 1)` with
       :math:`i \in N(j, k + 1)`.
    4. *Expansion.* To :math:`R(i, k_1)` add :math:`R(j, h)` with :math:`h = round(k_1 / 2)` (halves
       to even) for each :math:`j \in R(i, k_1)` that has
       :math:`|R(j, h) \cap R(i, k_1)| > \frac23 |R(j, h)|`.
    5. *Encoding.* :math:`V_{ij} = e^{-d_{ij}}` on the expanded set and 0 elsewhere, each row then
       divided by its sum.
    6. *Local query expansion.* Each row becomes the mean of the rows of :math:`N(i, k_2)`: exactly
       :math:`k_2` images, itself normally among them. ``k2=1`` skips this step.
    7. *Jaccard distance.* :math:`J_{ij} = 1 - m / (2 - m)` with
       :math:`m = \sum_l \min(V_{il}, V_{jl})`.
    8. *Mix.* :math:`(1 - \lambda) J_{ij} + \lambda d_{ij}` for queries i and gallery images j.

    Computed in float32. Memory beyond the input: about :math:`N (k_1 + k_2 k_1)` sparse entries and
    the result. If N is smaller than ``k1 + 1`` or ``k2``, all images are neighbours.

    Args:
        query_gallery: finite distances of shape (q, g), from 0. Scores become distances as
            1 - score; if nearly all scores are near 0 or 1, neighbours tie and rankings suffer.
        query_query: distances of shape (q, q). The diagonal is used as it is.
        gallery_gallery: distances of shape (g, g).
        k1: number of neighbours for the mutual sets, from 1.
        k2: number of images averaged in the local query expansion, from 1.
        lambda_value: weight of the original distance, 0 to 1; 1 keeps the original ranking.
        squared: square the distances first, as Zhong et al. do and QAConv's authors do not.

    Returns:
        Distances of shape (q, g), from 0 to 1, an array or tensor like ``query_gallery``.
    """
    checked = to_scores(query_gallery, "query_gallery", finite=True)
    num_query, num_gallery = checked.shape
    if not checked.size:
        raise ValueError(f"query_gallery is empty: it has shape {checked.shape}")
    mixed = check_distances(checked, "query_gallery", squared)
    squares = {"query_query": query_query, "gallery_gallery": gallery_gallery}
    for (name, part), size in zip(squares.items(), checked.shape, strict=True):
        part = to_scores(part, name, finite=True)
        if part.shape != (size, size):
            fits = f"to fit query_gallery {checked.shape}"
            raise ValueError(f"{name} must have shape {(size, size)} {fits}, got {part.shape}")
        squares[name] = check_distances(part, name, squared)
    parts = (squares["query_query"], mixed), (mixed.T, squares["gallery_gallery"])  # D

    def transposed(start: int, stop: int) -> np.ndarray:
        """Rows of D transposed; a block is all queries or all gallery."""
        side = int(start >= num_query)
        part = slice(start - side * num_query, stop - side * num_query)
        found = np.empty((stop - start, num_query + num_gallery), dtype=np.float32)
        np.concatenate([half[side][:, part].T for half in parts], 1, out=found)
        return np.square(found, out=found) if squared else found

    def entries(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Entries of D transposed, without reading whole rows again."""
        found = np.empty(len(rows), dtype=np.float32)
        for above, side in ((0, 0), (0, 1), (1, 0), (1, 1)):
            chosen = ((columns >= num_query) == above) & ((rows >= num_query) == side)
            i, j = columns[chosen] - above * num_query, rows[chosen] - side * num_query
            found[chosen] = parts[above][side][i, j]
        return np.square(found, out=found) if squared else found

    rows = ScaledRows(transposed, num_query, num_gallery, entries=entries)
    return restore_kind(rerank_rows(rows, k1, k2, lambda_value), query_gallery)


def check_distances(part: np.ndarray, name: str, squared: bool) -> np.ndarray:
    """Distances in float32, none of them negative or too large; rounding below 0 becomes 0."""
    low, high = part.min(), part.max()
    if low < -1e-5 * max(high, -low):
        row, column = np.unravel_index(part.argmin(), part.shape)
        raise ValueError(
            f"{name} is negative ({low:.4g}) at row {row}, column {column}; it must "
            "hold distances (for similarities from 0 to 1: 1 - similarity)"
        )
    limit = float(np.finfo(np.float32).max) ** (0.5 if squared else 1.0)
    if high >= limit:
        raise ValueError(f"{name} must stay below {limit:.3g} (single precision), got {high:.4g}")
    return (part.clip(0) if low < 0 else part).astype(np.float32, copy=False)


def rerank_rows(rows: ScaledRows, k1: int, k2: int, lambda_value: float) -> np.ndarray:
    """Steps 2 to 8: distances of shape (q, g)."""
    check_whole_numbers(k1=k1, k2=k2)
    if not is_number(lambda_value) or not 0 <= lambda_value <= 1:
        raise ValueError(f"lambda_value must be from 0 to 1, got {lambda_value!r}")
    k1, k2 = int(k1), int(k2)  # narrow integers would overflow
    neighbours = rows.neighbours(max(k1 + 1, k2))
    encoding = _encode(neighbours, rows, k1, round(k1 / 2))
    if k2 > 1:
        nearest = _membership(neighbours[:, :k2])
        encoding = (nearest @ encoding) / np.float32(min(k2, neighbours.shape[1]))
    mixed = _jaccard_distance(encoding, rows.num_query)
    mixed *= np.float32(1 - lambda_value)
    for part, scaled in rows.queries():
        mixed[part] += np.float32(lambda_value) * scaled
    return mixed


def _membership(lists: np.ndarray) -> scipy.sparse.csr_array:
    """Lists of images (N, k) as a sparse matrix (N, N) of ones."""
    num_images, length = lists.shape
    starts = np.arange(0, lists.size + 1, length)
    ones = np.ones(lists.size, dtype=np.float32)
    return scipy.sparse.csr_array((ones, lists.ravel(), starts), shape=(num_images, num_images))


def _mutual(lists: np.ndarray) -> scipy.sparse.csr_array:
    """R of step 3 from the lists N (N, k + 1): symmetric, of ones."""
    members = _membership(lists)
    return members.multiply(members.T).tocsr()


def _encode(
    neighbours: np.ndarray, distances: ScaledRows, k1: int, half: int
) -> scipy.sparse.csr_array:
    """V of steps 3 to 5, (N, N): the weights of each image's expanded mutual neighbours."""
    mutual = _mutual(neighbours[:, : k1 + 1])
    smaller = _mutual(neighbours[:, : half + 1])
    # |R(j, h) & R(i, k1)| for all j in R(i, k1): R(j, h) is symmetric, so a product counts it.
    overlap = mutual.multiply(mutual @ smaller).tocoo()
    rows, columns = overlap.row, overlap.col
    sizes = smaller.sum(axis=1)
    trusted = 3 * overlap.data > 2 * sizes[columns]  # whole numbers: exact
    ones = np.ones(np.count_nonzero(trusted), dtype=np.float32)
    added = scipy.sparse.csr_array((ones, (rows[trusted], columns[trusted])), shape=mutual.shape)
    expanded = (mutual + added @ smaller).tocsr()
    expanded.data = np.exp(-distances.at(expanded))
    expanded.data /= np.repeat(expanded.sum(axis=1), np.diff(expanded.indptr))
    return expanded


def _jaccard_distance(encoding: scipy.sparse.csr_array, num_query: int) -> np.ndarray:
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


class ScaledRows:
    """The scaled distances d (N, N) of step 1; `neighbours` finds the maxima, so it comes first."""

    def __init__(
        self,
        raw: Callable[[int, int], np.ndarray],
        num_query: int,
        num_gallery: int,
        progress: bool = False,
        entries: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ):
        self.raw, self.progress = raw, progress  # raw(start, stop): rows of D transposed
        self.entries = entries  # of D transposed, where single ones cost less than rows
        self.num_query, self.num_images = num_query, num_query + num_gallery
        self.largest = np.ones(self.num_images, dtype=np.float32)

    def neighbours(self, count: int) -> np.ndarray:
        """The first ``count`` images of every ranking, (N, min(count, N))."""
        count = min(count, self.num_images)
        nearest = np.empty((self.num_images, count), dtype=np.int32)
        for start, stop in self._blocks():
            block = self.raw(start, stop)
            step = max(1, _CACHED_ENTRIES // self.num_images)
            for first in range(0, stop - start, step):
                rows = block[first : first + step]
                images = slice(start + first, start + first + len(rows))
                largest = rows.max(axis=1)
                self.largest[images] = np.where(largest > 0, largest, 1)
                nearest[images] = _nearest(rows, self.largest[images], count)
        return nearest

    def at(self, pattern: scipy.sparse.csr_array) -> np.ndarray:
        """The entries of d where ``pattern`` (N, N) has entries, in their order."""
        lengths = np.diff(pattern.indptr)
        if self.entries is not None:
            rows = np.repeat(np.arange(self.num_images), lengths)
            return self.entries(rows, pattern.indices) / self.largest[rows]
        values = np.empty(pattern.nnz, dtype=np.float32)
        for start, stop in self._blocks():
            part = slice(pattern.indptr[start], pattern.indptr[stop])
            local = np.repeat(np.arange(stop - start), lengths[start:stop])
            values[part] = self.raw(start, stop)[local, pattern.indices[part]]
        return values / np.repeat(self.largest, lengths)

    def queries(self) -> Iterator[tuple[slice, np.ndarray]]:
        """Blocks of queries, and their rows of d (block, g) without the columns of queries."""
        for start, stop in self._blocks(self.num_query):
            rows = self.raw(start, stop)[:, self.num_query :]
            yield slice(start, stop), rows / self.largest[start:stop, None]

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
