"""Query-adaptive convolution: from two feature maps to one similarity (built in chapters 3 and 4).

A feature map has `d` channels on a grid of `h * w` locations, and its channels have unit length at
every location (`backbones` sees to that). The shapes below use `q` for the number of queries, `g`
for the number of gallery images and `s` for the kernel size. Locations are numbered row by row.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from qaconv_lib._checks import is_number, naming_shortage


def query_kernels(query_map: Tensor, kernel_size: int = 1) -> Tensor:
    """Cut one convolution kernel out of the query's map at every location (section 3.1).

    Args:
        query_map: shape (d, h, w).
        kernel_size: odd side `s` of the patch; outside the map the patch is filled with zeros.

    Returns:
        Kernels of shape (h*w, d, s, s), as `torch.nn.functional.conv2d` takes them.

    Raises:
        ValueError: the map is not three-dimensional, or the kernel size is even or below 1.
    """
    check_kernel_size(kernel_size)
    if query_map.dim() != 3:
        raise ValueError(f"query_map must have shape (d, h, w), got {tuple(query_map.shape)}")
    channels = query_map.shape[0]
    patches = F.unfold(query_map[None], kernel_size, padding=kernel_size // 2)  # (1, d*s*s, h*w)
    return patches[0].T.reshape(-1, channels, kernel_size, kernel_size)


def correlate(query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1) -> Tensor:
    """Convolve the gallery's map with the query's kernels (section 3.1).

    With unit channels and `kernel_size=1` every entry is a cosine, in [-1, 1]. With larger kernels
    it is the sum of the cosines under the kernel, in [-s*s, s*s]. Maps that were not normalised
    are convolved as they are.

    Args:
        query_map: shape (d, h, w).
        gallery_map: shape (d, h', w').
        kernel_size: odd side of the kernels.

    Returns:
        Similarities of shape (h*w, h', w'): entry [k, i, j] compares query location `k` with
        gallery location (i, j).

    Raises:
        ValueError: a map is not three-dimensional, the channels differ, or `kernel_size` is even.
    """
    kernels = query_kernels(query_map, kernel_size)
    if gallery_map.dim() != 3 or gallery_map.shape[0] != query_map.shape[0]:
        raise ValueError(
            f"gallery_map must have shape (d, h, w) with the query's d={query_map.shape[0]}, "
            f"got {tuple(gallery_map.shape)}"
        )
    return F.conv2d(gallery_map[None], kernels, padding=kernel_size // 2)[0]


class Correspondences(NamedTuple):
    """Best local matches of one pair of images, from either side; see `find_correspondences`."""

    similarity_to_gallery: Tensor  # (h*w,) best similarity of each query location
    gallery_location: Tensor  # (h*w,) where in the gallery image that is
    similarity_to_query: Tensor  # (h*w,) best similarity of each gallery location
    query_location: Tensor  # (h*w,) where in the query image that is


def find_correspondences(
    query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1
) -> Correspondences:
    """Find where global max pooling took its maxima (section 3.1, Fig. 2).

    Args:
        query_map: shape (d, h, w).
        gallery_map: shape (d, h, w).
        kernel_size: odd side of the kernels.

    Returns:
        `Correspondences`; locations are numbered row by row, so location `k` lies in row `k // w`
        and column `k % w`. Where two locations tie, one of them is named.

    Raises:
        ValueError: as for `correlate`.
    """
    scores = correlate(query_map, gallery_map, kernel_size).flatten(1)  # (query h*w, gallery h*w)
    return Correspondences(*scores.max(dim=1), *scores.max(dim=0))


def best_matches(query_maps: Tensor, gallery_maps: Tensor, kernel_size: int = 1) -> Tensor:
    """Pool the similarities of every pair over both axes (section 3.1, built in chapter 4).

    The result equals `correlate` followed by a maximum over its first axis and over its last two,
    but only one block of similarities exists at a time, forward and backward: memory grows with
    q*g*h*w, not with q*g*(h*w)**2. Gradients reach both arguments. They flow to one location of
    each maximum, and are not differentiable a second time.

    Args:
        query_maps: shape (q, d, h, w).
        gallery_maps: shape (g, d, h, w).
        kernel_size: odd side of the kernels.

    Returns:
        Shape (q, g, 2*h*w). [..., :h*w] is the best query kernel at each gallery location,
        [..., h*w:] the best gallery location of each query kernel.

    Raises:
        TypeError: maps that are no tensors.
        ValueError: the maps are not four-dimensional, differ in (d, h, w), or an even kernel size.
    """
    check_kernel_size(kernel_size)
    check_maps(query_maps, gallery_maps)
    return BestMatches.apply(query_maps, gallery_maps, kernel_size)


class QAConv(nn.Module):
    """Similarity of two feature maps: best local matches, then BN-FC-BN (section 3.2).

    The submodules have the names, shapes and order of the authors' releases, so their weights
    load. `tied=False` is the head of v1.0: the two directions have weights of their own, and
    s(a, b) differs from s(b, a). `tied=True` is the head of v2.1: one weight for each location,
    used in both directions, so the similarity is symmetric. (The tied layer's bias therefore
    counts twice.)

    The weights start as an average of the local matches, and the last BN starts at -4, the logit
    of a pair that is almost surely negative, as most pairs are. From PyTorch's default start a
    model whose features are random stays at "always no".

    Args:
        height: rows `h` of the maps.
        width: columns `w` of the maps.
        kernel_size: odd side of the kernels; the paper uses 1.
        tied: share the FC layer between the two directions.

    Raises:
        ValueError: a size below 1 or an even kernel size.
    """

    def __init__(self, height: int, width: int, *, kernel_size: int = 1, tied: bool = False):
        super().__init__()
        check_kernel_size(kernel_size)
        if height < 1 or width < 1:
            raise ValueError(f"height and width must be at least 1, got {height} x {width}")
        self.height, self.width = height, width
        self.kernel_size, self.tied = kernel_size, tied
        self.bn = nn.BatchNorm1d(1)
        self.fc = nn.Linear(height * width * (1 if tied else 2), 1)
        self.logit_bn = nn.BatchNorm1d(1)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the start described above."""
        self.bn.reset_parameters()
        nn.init.constant_(self.fc.weight, 1 / self.fc.in_features)
        nn.init.zeros_(self.fc.bias)
        self.logit_bn.reset_parameters()
        nn.init.constant_(self.logit_bn.bias, -4.0)

    def head(self, matches: Tensor) -> Tensor:
        """Turn best matches of shape (..., 2*h*w) into logits of shape (...): BN, FC, BN.

        Both BN layers have one channel: a single mean and variance over all pairs and locations.
        """
        if matches.shape[-1] != 2 * self.height * self.width:
            raise ValueError(
                f"this QAConv compares maps of {self.height} x {self.width}, i.e. "
                f"{2 * self.height * self.width} matches a pair, got {matches.shape[-1]}"
            )
        pairs = matches.shape[:-1]
        normalised = self.bn(matches.to(self.fc.weight.dtype).reshape(-1, 1, 1))
        logits = self.fc(normalised.view(-1, self.fc.in_features))
        if self.tied:
            logits = logits.view(-1, 2).sum(dim=1, keepdim=True)
        return self.logit_bn(logits).view(pairs)

    def forward(self, query_maps: Tensor, gallery_maps: Tensor) -> Tensor:
        """Compare every query with every gallery image.

        Args:
            query_maps: shape (q, d, h, w), unit channels.
            gallery_maps: shape (g, d, h, w), unit channels.

        Returns:
            Logits of shape (q, g); their sigmoid is the probability of "same person".

        Raises:
            ValueError: maps of another size than this QAConv's, or of different channels.
        """
        self.check_size(query_maps)
        return self.head(best_matches(query_maps, gallery_maps, self.kernel_size))

    def fold(self) -> tuple[Tensor, Tensor]:
        """The head in evaluation mode as one dot product: weights (2*h*w,) and a number to add.

        There BN is a fixed scale and shift, so BN, FC and BN together are affine: the logit of a
        pair is `matches @ weights + number`.
        """
        with torch.no_grad():
            scale, shift = _scale_and_shift(self.bn)
            logit_scale, logit_shift = _scale_and_shift(self.logit_bn)
            weights = self.fc.weight[0].double().repeat(2 if self.tied else 1)
            bias = self.fc.bias[0].double() * (2 if self.tied else 1)
            number = logit_scale * (shift * weights.sum() + bias) + logit_shift
            return (logit_scale * scale * weights).float(), number.float()

    def check_size(self, maps: Tensor) -> None:
        """Raise ValueError unless the maps have this QAConv's height and width."""
        if tuple(maps.shape[-2:]) != (self.height, self.width):
            raise ValueError(
                f"this QAConv compares maps of {self.height} x {self.width} locations, "
                f"got maps of shape {tuple(maps.shape)}"
            )


def match_gallery(
    matcher: QAConv,
    query_maps: Tensor,
    gallery_maps: Tensor,
    *,
    temperature: float = 1.0,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Tensor:
    """Score a whole gallery with a trained matcher, block by block (built in chapter 4).

    Exact: no shortlist, no approximation. Beside the maps and the result, memory stays at a few
    blocks of similarities whatever `q` and `g` are. The matcher works as in evaluation mode,
    whatever mode it is in. Where a set is compared with itself, pass the same tensor twice: what
    correlates a with b correlates b with a, so half the work is enough.

    Args:
        matcher: a `QAConv`.
        query_maps: shape (q, d, h, w), unit channels.
        gallery_maps: shape (g, d, h, w), unit channels, on the matcher's device or another.
        temperature: divides the logits. It changes no ranking, but re-ranking and TLift see other
            numbers: the released code uses 10 for re-ranking; TLift wants 1.
        dtype: type for the correlation, e.g. `torch.bfloat16`; that of the maps if None.
        progress: show a progress bar over the gallery.

    Returns:
        Similarities sigmoid(logit / temperature) in [0, 1], shape (q, g), float32.

    Raises:
        TypeError: a matcher that is no QAConv, or maps that are no tensors.
        ValueError: temperature not positive, maps that do not fit each other or the matcher, or
            values in them that are not finite.
    """
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise ValueError(f"temperature must be positive and finite, got {temperature!r}")
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    if not isinstance(matcher, QAConv):
        raise TypeError(f"matcher must be a QAConv, got {type(matcher).__name__}")
    check_maps(query_maps, gallery_maps, same_place=False)
    check_finite("query_maps", query_maps)
    if gallery_maps is not query_maps:
        check_finite("gallery_maps", gallery_maps)
    matcher.check_size(query_maps)
    weights, number = matcher.fold()
    dtype = dtype or query_maps.dtype
    shape = len(query_maps), len(gallery_maps)
    shortage = naming_shortage(
        f"matching {shape[0]:,} x {shape[1]:,} images, whose result alone takes "
        f"{4 * shape[0] * shape[1] / 1e6:,.0f} MB",
        "match fewer queries at a time, keep the gallery on disk (`match_store`), lower the "
        "height or width of the images, or match on the CPU",
    )
    with torch.no_grad(), shortage:
        logits = torch.empty(shape, device=weights.device)
        weigh_matches(
            logits, query_maps, gallery_maps, weights, matcher.kernel_size, dtype, progress=progress
        )
        return logits.add_(number).div_(temperature).sigmoid_()


def _scale_and_shift(bn: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    assert bn.running_mean is not None and bn.running_var is not None  # as it keeps statistics
    scale = bn.weight.double()[0] / (bn.running_var.double()[0] + bn.eps).sqrt()
    return scale, bn.bias.double()[0] - bn.running_mean.double()[0] * scale


# _streaming ------------------------------------------------------------

# Similarities held at once while streaming; 1M float32 values (4 MB) stay in a core's cache.
_BLOCK_ELEMENTS = 1 << 20
_COLUMNS = 256  # images whose best matches are held before the head takes them


def weigh_matches(
    logits: Tensor,
    query_maps: Tensor,
    gallery_maps: Tensor,
    weights: Tensor,
    kernel_size: int,
    dtype: torch.dtype,
    progress: bool = False,
) -> None:
    """Write the dot products of best matches and weights to `logits`, block by block.

    Where both maps are one tensor, each pair is correlated once.

    Args:
        logits: shape (q, g), on the device that does the work.
        query_maps: shape (q, d, h, w).
        gallery_maps: shape (g, d, h, w).
        weights: shape (2*h*w,).
        kernel_size: odd side of the kernels.
        dtype: type for the correlation.
        progress: show a progress bar.
    """
    mirrored = weights.roll(len(weights) // 2)  # from the other side the directions change places
    same = query_maps is gallery_maps
    row_maps, column_maps = query_maps, gallery_maps
    if len(query_maps) < len(gallery_maps):  # the longer side gives the rows: their blocks are full
        row_maps, column_maps, logits = gallery_maps, query_maps, logits.T
        weights, mirrored = mirrored, weights
    size = max(1, _BLOCK_ELEMENTS // (query_maps.shape[-2] * query_maps.shape[-1]) ** 2)
    with tqdm(total=logits.numel(), disable=not progress) as bar:
        for row in range(0, len(row_maps), size):
            rows = slice(row, min(row + size, len(row_maps)))
            block = row_maps[rows].to(logits.device, dtype)
            for column in range(row if same else 0, len(column_maps), _COLUMNS):
                columns = slice(column, min(column + _COLUMNS, len(column_maps)))
                others = column_maps[columns].to(logits.device, dtype)
                matches = _pool(block, others, kernel_size).float()
                logits[rows, columns] = _weigh(matches, weights).T
                if same:
                    logits[columns, rows] = _weigh(matches, mirrored)
            bar.update((rows.stop - row) * len(column_maps))


def _weigh(matches: Tensor, weights: Tensor) -> Tensor:
    """Dot products (columns, rows) of matches (columns, 2, rows, h*w) and weights (2*h*w,)."""
    first, second = weights.view(2, -1)
    return matches[:, 0] @ first + matches[:, 1] @ second


def pool_blocks(query_maps: Tensor, gallery_maps: Tensor, kernel_size: int) -> Tensor:
    """Best matches without a backward pass.

    Args:
        query_maps: shape (q, d, h, w).
        gallery_maps: shape (g, d, h, w).
        kernel_size: odd side of the kernels.

    Returns:
        Shape (q, g, 2*h*w), in the order of `matching.best_matches`.
    """
    matches = _pool(query_maps, gallery_maps, kernel_size)
    return matches.permute(2, 0, 1, 3).flatten(2)


def _pool(query_maps: Tensor, gallery_maps: Tensor, kernel_size: int) -> Tensor:
    """Best matches (g, 2, q, h*w): values only, each maximum written to memory in one piece."""
    locations = query_maps.shape[-2] * query_maps.shape[-1]
    matches = query_maps.new_empty(len(gallery_maps), 2, len(query_maps), locations)
    for index, block in _score_blocks(query_maps, gallery_maps, kernel_size):
        torch.amax(block, dim=1, out=matches[index, 0])
        torch.amax(block, dim=2, out=matches[index, 1])
    return matches


def _score_blocks(
    query_maps: Tensor, gallery_maps: Tensor, kernel_size: int
) -> Iterator[tuple[int, Tensor]]:
    """Yield (index, similarities of all queries with that gallery image), (q, h*w, h*w) each."""
    queries, channels, height, width = query_maps.shape
    locations = height * width
    rows = query_maps.flatten(2).transpose(1, 2).reshape(queries * locations, channels)
    columns = gallery_maps.flatten(2)  # (g, d, h*w)
    for index in range(len(columns)):
        block = (rows @ columns[index]).view(queries, locations, locations)
        yield index, _sum_under_kernel(block, height, width, kernel_size)


def _sum_under_kernel(block: Tensor, height: int, width: int, kernel_size: int) -> Tensor:
    """Add up what a kernel of side s sees, given the similarities of single locations.

    Moving both images by the same step (u, v) pairs the next cell of the kernel with the cell it
    lies on, so the correlation with s x s kernels is the sum of s*s shifted copies of the
    correlation with single cells. Its adjoint is itself, since the steps come in pairs +-(u, v).
    """
    if kernel_size == 1:
        return block
    pairs = block.view(-1, height, width, height, width)
    total = torch.zeros_like(pairs)
    reach = kernel_size // 2
    for u in range(-reach, reach + 1):
        for v in range(-reach, reach + 1):
            here, there = _overlap(u, height), _overlap(-u, height)
            left, right = _overlap(v, width), _overlap(-v, width)
            total[:, here, left, here, left] += pairs[:, there, right, there, right]
    return total.view_as(block)


def _overlap(step: int, length: int) -> slice:
    """Cells i of an axis for which i + step lies on the axis too."""
    return slice(max(0, -step), max(0, length - max(0, step)))


class BestMatches(torch.autograd.Function):
    """Both-sided maximum that keeps the places of the maxima, never the similarities."""

    @staticmethod
    def forward(ctx: Any, query_maps: Tensor, gallery_maps: Tensor, kernel_size: int) -> Tensor:
        if not any(ctx.needs_input_grad):
            return pool_blocks(query_maps, gallery_maps, kernel_size)
        locations = query_maps.shape[-2] * query_maps.shape[-1]
        matches = query_maps.new_empty(len(gallery_maps), 2, len(query_maps), locations)
        places = torch.empty(matches.shape, dtype=torch.long, device=query_maps.device)
        for index, block in _score_blocks(query_maps, gallery_maps, kernel_size):
            for side in (0, 1):
                torch.max(block, side + 1, out=(matches[index, side], places[index, side]))
        ctx.save_for_backward(query_maps, gallery_maps, places)
        ctx.kernel_size = kernel_size
        return matches.permute(2, 0, 1, 3).flatten(2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        query_maps, gallery_maps, places = ctx.saved_tensors
        wanted = ctx.needs_input_grad[1]
        found = _gradients(gradient, query_maps, gallery_maps, places, ctx.kernel_size, wanted)
        return *found, None


def _gradients(
    gradient: Tensor,
    query_maps: Tensor,
    gallery_maps: Tensor,
    places: Tensor,
    kernel_size: int,
    gallery_wanted: bool,
) -> tuple[Tensor, Tensor | None]:
    """Gradients of both sets of maps from that of the matches (q, g, 2*h*w)."""
    queries, channels, height, width = query_maps.shape
    locations = height * width
    gradient = gradient.unflatten(2, (2, locations)).permute(1, 2, 0, 3).contiguous()
    rows = query_maps.flatten(2).transpose(1, 2).reshape(-1, channels)  # (q*h*w, d)
    columns = gallery_maps.flatten(2)  # (g, d, h*w)
    # Sums over the gallery are not taken in half precision.
    wide = torch.promote_types(rows.dtype, torch.float32)
    query_gradient = torch.zeros_like(rows, dtype=wide)
    gallery_gradient = torch.zeros_like(columns) if gallery_wanted else None
    block = gradient.new_empty(queries, locations, locations)
    for index in range(len(columns)):
        # Each maximum passes its gradient to the one similarity it was taken from.
        block.zero_()
        (at_gallery, at_query), (to_gallery, to_query) = places[index], gradient[index]
        block.scatter_(1, at_gallery[:, None, :], to_gallery[:, None, :])
        block.scatter_add_(2, at_query[:, :, None], to_query[:, :, None])
        flat = _sum_under_kernel(block, height, width, kernel_size).view(-1, locations)
        if wide == rows.dtype:
            query_gradient.addmm_(flat, columns[index].T)
        else:
            query_gradient += flat @ columns[index].T
        if gallery_gradient is not None:
            gallery_gradient[index] = rows.T @ flat
    query_gradient = query_gradient.to(rows.dtype)
    query_gradient = query_gradient.view(queries, locations, channels).transpose(1, 2)
    return (
        query_gradient.reshape(query_maps.shape),
        None if gallery_gradient is None else gallery_gradient.view(gallery_maps.shape),
    )


# _map_checks ------------------------------------------------------------


def check_kernel_size(kernel_size: int) -> None:
    """Raise ValueError unless a kernel has an odd side."""
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size!r}")


def check_tensor(name: str, values: Any, axes: str) -> None:
    """Raise unless the values are floating-point numbers with axes such as "n, d, h, w".

    Raises:
        TypeError: no tensor.
        ValueError: other axes, an axis of length 0 beside the first, or no floating-point numbers.
    """
    if not isinstance(values, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(values).__name__}")
    if values.dim() != len(axes.split(", ")) or 0 in values.shape[1:]:
        raise ValueError(f"{name} must have shape ({axes}), got {tuple(values.shape)}")
    if not values.is_floating_point():
        raise ValueError(f"{name} must hold floating-point numbers, got {values.dtype}")


def check_finite(name: str, values: Tensor) -> None:
    """Raise ValueError unless all numbers are finite."""
    if values.numel():
        low, high = torch.aminmax(values.detach())  # both propagate NaN, and need no extra memory
        if not (low.isfinite() and high.isfinite()):
            raise ValueError(f"{name} must be finite, but has NaN or infinite values")


def check_maps(query_maps: Tensor, gallery_maps: Tensor, same_place: bool = True) -> None:
    """Raise unless two sets of maps can be compared; TypeError where one is no tensor."""
    for name, maps in (("query_maps", query_maps), ("gallery_maps", gallery_maps)):
        check_tensor(name, maps, "n, d, h, w")
    if query_maps.shape[1:] != gallery_maps.shape[1:]:
        raise ValueError(
            "query_maps and gallery_maps must agree in channels, height and width: "
            f"{tuple(query_maps.shape[1:])} against {tuple(gallery_maps.shape[1:])}"
        )
    query, gallery = ((maps.dtype, maps.device) for maps in (query_maps, gallery_maps))
    if same_place and query != gallery:
        raise ValueError(
            "query_maps and gallery_maps must agree in type and device: "
            f"{query[0]} on {query[1]} against {gallery[0]} on {gallery[1]}"
        )


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
    """Row numbers of a gallery of `size` images as an int64 tensor on the CPU, any shape.

    Raises:
        TypeError: rows that are not whole numbers.
        ValueError: lists of different lengths.
        IndexError: a row that the gallery does not have, such as -1.
    """
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
    """Check both arguments of `shortlist`; whether the gallery is a faiss index.

    Raises:
        TypeError: query vectors that are no tensor, or a gallery that is neither that nor an index.
        ValueError: vectors that do not fit or are not finite, or an index over another metric.
    """
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
