"""Both-sided maximum pooling in blocks: the fast form behind `matching.best_matches`.

For every pair of images the plain form holds (h*w)**2 similarities. Here they exist for one gallery
image at a time, in the forward pass and in the backward pass, and only the maxima and their places
are kept. The plain form stands in chapter 4 and in `plain`; the tests hold the two together.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

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
