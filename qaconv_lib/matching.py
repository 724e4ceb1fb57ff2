"""Query-adaptive convolution: from two feature maps to one score (built in chapters 3 and 4).

A feature map has `d` channels of unit length at each of `h * w` locations, numbered row by row.
`q` is the number of queries, `g` of gallery images, `s` the side of a kernel (1 in the paper).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm.auto import tqdm

from qaconv_lib._checks import naming_shortage

BLOCK = 1 << 20  # similarities held at once: 4 MB stay in a core's cache
COLUMNS = 256  # images whose best matches are held before the head is applied


def query_kernels(query_map: Tensor, kernel_size: int = 1) -> Tensor:
    """Cut a kernel out of a map (d, h, w) at every location, with zeros outside (section 3.1).

    Returns shape (h*w, d, s, s), as `torch.nn.functional.conv2d` takes kernels.
    """
    check_tensor("query_map", query_map, "d, h, w")
    patches = _patches(query_map[None], kernel_size)[0]  # (d*s*s, h*w)
    return patches.T.reshape(-1, len(query_map), kernel_size, kernel_size)


def correlate(query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1) -> Tensor:
    """Convolve the gallery's map with the query's kernels (section 3.1).

    For maps (d, h, w) and (d, h', w') returns shape (h*w, h', w'). Entry [k, i, j] compares query
    location `k` with gallery location (i, j): a cosine, or the sum of the cosines under the kernel.
    """
    kernels = query_kernels(query_map, kernel_size)
    if gallery_map.dim() != 3 or len(gallery_map) != len(query_map):
        wanted = f"({len(query_map)}, h, w), like the query's"
        raise ValueError(f"gallery_map must have shape {wanted}, got {tuple(gallery_map.shape)}")
    return F.conv2d(gallery_map[None], kernels, padding=kernel_size // 2)[0]


class Correspondences(NamedTuple):
    """The best local matches of a pair of images, in both directions."""

    similarity_to_gallery: Tensor  # (h*w,) best similarity of each query location
    gallery_location: Tensor  # (h*w,) where in the gallery image that is
    similarity_to_query: Tensor  # (h*w,) best similarity of each gallery location
    query_location: Tensor  # (h*w,) where in the query image that is


def find_correspondences(
    query_map: Tensor, gallery_map: Tensor, kernel_size: int = 1
) -> Correspondences:
    """Where global max pooling of maps (d, h, w) takes its maxima (section 3.1, Fig. 2).

    Location `k` lies in row `k // w` and column `k % w`.
    """
    scores = correlate(query_map, gallery_map, kernel_size).flatten(1)  # (query h*w, gallery h*w)
    return Correspondences(*scores.max(dim=1), *scores.max(dim=0))


def best_matches(query_maps: Tensor, gallery_maps: Tensor, kernel_size: int = 1) -> Tensor:
    """Pool the local similarities of every pair over both axes (section 3.1, built in chapter 4).

    Equals `correlate` followed by both maxima, but holds few of the q*g*(h*w)**2 similarities at a
    time, forward and backward. Gradients flow to one location of each maximum.

    For maps (q, d, h, w) and (g, d, h, w) returns shape (q, g, 2*h*w). [..., :h*w] is the best
    query kernel at each gallery location, [..., h*w:] the best gallery location of each kernel.
    """
    check_maps(query_maps, gallery_maps)
    query, gallery = (f"{maps.dtype} on {maps.device}" for maps in (query_maps, gallery_maps))
    if query != gallery:
        raise ValueError(f"query_maps are {query}, but gallery_maps {gallery}; they must agree")
    patches = (_patches(maps, kernel_size) for maps in (query_maps, gallery_maps))
    return _BestMatches.apply(*patches).permute(2, 0, 1, 3).flatten(2)


class QAConv(nn.Module):
    """Score of two feature maps of `height` x `width`: best matches, then BN-FC-BN (section 3.2).

    The submodules have the names, shapes and order of the authors' releases, so their weights
    load. `tied=False` is the head of v1.0: each direction has weights of its own, and s(a, b)
    differs from s(b, a). `tied=True` is the head of v2.1: one weight for each location, used in
    both directions, so the score is symmetric and the bias counts twice.
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
        """Start as an average of the matches, biased towards "different", like most pairs."""
        self.bn.reset_parameters()
        nn.init.constant_(self.fc.weight, 1 / self.fc.in_features)
        nn.init.zeros_(self.fc.bias)
        self.logit_bn.reset_parameters()
        nn.init.constant_(self.logit_bn.bias, -4.0)

    def head(self, matches: Tensor) -> Tensor:
        """Best matches (..., 2*h*w) to logits (...). BN takes one mean over pairs and locations."""
        count = 2 * self.height * self.width
        if matches.shape[-1] != count:
            raise ValueError(f"matches must have shape (..., {count}), got {tuple(matches.shape)}")
        normalised = self.bn(matches.to(self.fc.weight.dtype).reshape(-1, 1, 1))
        logits = self.fc(normalised.view(-1, self.fc.in_features))
        if self.tied:
            logits = logits.view(-1, 2).sum(dim=1, keepdim=True)
        return self.logit_bn(logits).view(matches.shape[:-1])

    def forward(self, query_maps: Tensor, gallery_maps: Tensor) -> Tensor:
        """Logits (q, g) of maps (q, d, h, w) and (g, d, h, w); their sigmoid is a probability."""
        self.check_size(query_maps)
        return self.head(best_matches(query_maps, gallery_maps, self.kernel_size))

    @torch.no_grad()
    def fold(self) -> tuple[Tensor, Tensor]:
        """The head in evaluation mode, where BN is affine: `matches @ weights + number`."""
        (scale, shift), (logit_scale, logit_shift) = map(_affine, (self.bn, self.logit_bn))
        copies = 2 if self.tied else 1
        weights = self.fc.weight[0].double().repeat(copies)
        bias = copies * self.fc.bias[0].double()
        number = logit_scale * (shift * weights.sum() + bias) + logit_shift
        return (logit_scale * scale * weights).float(), number.float()

    def check_size(self, maps: Tensor) -> None:
        """Raise ValueError unless maps have this matcher's height and width."""
        if tuple(maps.shape[-2:]) != (self.height, self.width):
            size = f"{self.height} x {self.width}"
            raise ValueError(f"maps must have {size} locations, got shape {tuple(maps.shape)}")


@torch.no_grad()
@naming_shortage(
    "matching images",
    "match fewer queries at a time, keep the gallery on disk (`match_store`) or use smaller images",
)
def match_gallery(
    matcher: QAConv,
    query_maps: Tensor,
    gallery_maps: Tensor,
    *,
    dtype: torch.dtype | None = None,
    progress: bool = False,
) -> Tensor:
    """Score a whole gallery with a trained matcher, exactly, block by block (built in chapter 4).

    Extra memory does not grow with q or g. To compare a set with itself, pass the same tensor
    twice: each pair is then correlated once.

    Args:
        matcher: always used as in evaluation mode.
        query_maps: shape (q, d, h, w).
        gallery_maps: shape (g, d, h, w), on the matcher's device or another.
        dtype: of the correlation, e.g. `torch.bfloat16`; None is that of the query maps.
        progress: show a progress bar over the pairs.

    Returns:
        Logits of shape (q, g), float32. TLift takes `sigmoid(logits)`; re-ranking, as released,
        `1 - sigmoid(logits / 10)`.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise ValueError(f"dtype must be a floating-point torch.dtype or None, got {dtype!r}")
    if not isinstance(matcher, QAConv):
        raise TypeError(f"matcher must be a QAConv, got {type(matcher).__name__}")
    check_maps(query_maps, gallery_maps, finite=True)
    matcher.check_size(query_maps)
    weights, number = matcher.fold()
    mirrored = weights.roll(len(weights) // 2)  # from the other side the directions change places
    rows, columns, same = query_maps, gallery_maps, query_maps is gallery_maps
    logits = found = torch.empty(len(rows), len(columns), device=weights.device)
    if len(rows) < len(columns):  # the longer side gives the rows, so that blocks are full
        rows, columns, found, weights, mirrored = columns, rows, logits.T, mirrored, weights
    size = max(1, BLOCK // (matcher.height * matcher.width) ** 2)

    def patches(maps: Tensor) -> Tensor:
        return _patches(maps.to(weights.device, dtype or query_maps.dtype), matcher.kernel_size)

    with tqdm(total=logits.numel(), disable=not progress) as bar:
        for i in range(0, len(rows), size):
            block = patches(rows[i : i + size])
            for j in range(i if same else 0, len(columns), COLUMNS):
                matches = _pool(block, patches(columns[j : j + COLUMNS]))[0].float()
                found[i : i + size, j : j + COLUMNS] = _weigh(matches, weights).T
                if same:
                    found[j : j + COLUMNS, i : i + size] = _weigh(matches, mirrored)
            bar.update(len(block) * len(columns))
    return logits.add_(number)


# Behind best_matches and match_gallery ------------------------------------------------------------


def _patches(maps: Tensor, kernel_size: int) -> Tensor:
    """What a kernel sees at each location, (n, d*s*s, h*w)."""
    check_kernel_size(kernel_size)
    if kernel_size == 1:
        return maps.flatten(2)
    return F.unfold(maps, kernel_size, padding=kernel_size // 2)


def _product(queries: Tensor) -> Callable[[Tensor], Tensor]:
    """Function from n gallery maps to their similarities with all queries, (q*h*w, n*h*w)."""
    locations = queries.shape[2]
    if queries.device.type != "cpu" or queries.dtype not in (torch.float32, torch.bfloat16):
        rows = queries.transpose(1, 2).flatten(0, 1)
        return lambda gallery: rows @ gallery.transpose(0, 1).flatten(1)
    # On a CPU a 1 x 1 convolution of channels-last maps was a little faster than the matrix product
    # (appendix A). The layout is recognised only if both axes are longer than 1.
    side = next((n for n in range(2, locations) if locations % n == 0), 1)
    maps = queries.unflatten(2, (locations // side, side))
    maps = maps.contiguous(memory_format=torch.channels_last)

    def convolve(gallery: Tensor) -> Tensor:
        kernels = gallery.transpose(1, 2).flatten(0, 1)[..., None, None]  # (n*h*w, d, 1, 1)
        return F.conv2d(maps, kernels).permute(0, 2, 3, 1).flatten(0, 2)

    return convolve


def _pool(queries: Tensor, gallery: Tensor, places: bool = False) -> tuple[Tensor, Tensor | None]:
    """Both maxima of every pair, (g, 2, q, h*w), and optionally their locations."""
    count, _, locations = queries.shape
    matches = queries.new_empty(len(gallery), 2, count, locations)
    found = torch.empty_like(matches, dtype=torch.long) if places else None
    step = max(1, BLOCK // (max(1, count) * locations**2))
    product = _product(queries)
    for start in range(0, len(gallery), step):
        some = slice(start, start + step)
        near = gallery[some]
        block = product(near).view(count, locations, len(near), locations)
        # Along either axis of locations; `images` is then the axis of the gallery images.
        for side, axis, images in ((0, 1, 1), (1, 3, 2)):
            best = block.amax(axis)
            matches[some, side] = best.movedim(images, 0)
            if found is not None:
                found[some, side] = _where(block, best, axis).movedim(images, 0)
        del block  # before the next is made, or the allocator keeps asking for memory
    return matches, found


def _where(block: Tensor, best: Tensor, axis: int) -> Tensor:
    """First place of the maxima along an axis."""
    if block.device.type != "cpu":
        return block.argmax(axis)
    # Faster than argmax (appendix A): minus the place at a maximum, far below that elsewhere.
    places = torch.arange(block.shape[axis], dtype=torch.float32)
    places = places.view(-1, *[1] * (block.dim() - 1 - axis))
    far = (block - best.unsqueeze(axis)).float().mul_(1e38).sub_(places)
    return far.amax(axis).neg_().nan_to_num_(0).long()


class _BestMatches(torch.autograd.Function):
    """`_pool`, whose backward pass touches only the 2*h*w similarities that were maxima."""

    @staticmethod
    def forward(ctx: Any, queries: Tensor, gallery: Tensor) -> Tensor:
        matches, places = _pool(queries, gallery, places=any(ctx.needs_input_grad))
        ctx.save_for_backward(queries, gallery, places)
        return matches

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        queries, gallery, places = ctx.saved_tensors
        wide = torch.promote_types(queries.dtype, torch.float32)  # of the sums
        rows, columns = (maps.transpose(1, 2).to(wide) for maps in (queries, gallery))
        rows = rows.flatten(0, 1)  # (q*h*w, d)
        to_rows, to_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        step = max(1, BLOCK // max(1, len(rows) * 4))
        for start in range(0, len(gallery), step):
            some = slice(start, start + step)
            sparse = _gradient_of_similarities(places[some], gradient[some].to(wide))
            to_rows += sparse @ columns[some].flatten(0, 1)
            if ctx.needs_input_grad[1]:
                to_columns[some] = (sparse.T @ rows).view_as(columns[some])
        to_queries = to_rows.to(queries.dtype).view_as(queries.transpose(1, 2)).transpose(1, 2)
        to_gallery = to_columns.to(gallery.dtype).transpose(1, 2)
        return to_queries, to_gallery if ctx.needs_input_grad[1] else None


def _gradient_of_similarities(places: Tensor, gradient: Tensor) -> Tensor:
    """Sparse (q*h*w, n*h*w), from the places of the maxima and their gradients (n, 2, q, h*w)."""
    images, _, queries, locations = places.shape
    own = torch.arange(locations, device=places.device).expand(images, queries, locations)
    first_row = torch.arange(queries, device=places.device)[:, None] * locations
    first_column = torch.arange(images, device=places.device)[:, None, None] * locations
    at_row = torch.stack([places[:, 0], own]) + first_row  # (2, n, q, h*w)
    at_column = torch.stack([own, places[:, 1]]) + first_column
    return torch.sparse_coo_tensor(
        torch.stack([at_row, at_column]).flatten(1),
        gradient.transpose(0, 1).flatten(),
        (queries * locations, images * locations),
        check_invariants=False,
    )


def _weigh(matches: Tensor, weights: Tensor) -> Tensor:
    """Dot products (columns, rows) of matches (columns, 2, rows, h*w) and weights (2*h*w,)."""
    first, second = weights.view(2, -1)
    return matches[:, 0] @ first + matches[:, 1] @ second


def _affine(bn: nn.BatchNorm1d) -> tuple[Tensor, Tensor]:
    """Scale and shift of a BN layer in evaluation mode."""
    assert bn.running_mean is not None and bn.running_var is not None  # as it keeps statistics
    scale = bn.weight.double()[0] / (bn.running_var.double()[0] + bn.eps).sqrt()
    return scale, bn.bias.double()[0] - bn.running_mean.double()[0] * scale


# Checks of arguments ------------------------------------------------------------------------------


def check_kernel_size(kernel_size: int) -> None:
    """Raise ValueError unless a kernel has an odd side."""
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and at least 1, got {kernel_size!r}")


def check_tensor(name: str, values: Any, axes: str) -> None:
    """Raise unless the values are floating-point numbers with axes such as "n, d, h, w"."""
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


def check_maps(query_maps: Tensor, gallery_maps: Tensor, finite: bool = False) -> None:
    """Raise TypeError or ValueError unless two sets of maps (n, d, h, w) can be compared."""
    for name, maps in (("query_maps", query_maps), ("gallery_maps", gallery_maps)):
        check_tensor(name, maps, "n, d, h, w")
        if finite:
            check_finite(name, maps)
    if query_maps.shape[1:] != gallery_maps.shape[1:]:
        sizes = " and ".join(str(tuple(maps.shape[1:])) for maps in (query_maps, gallery_maps))
        raise ValueError(f"query_maps and gallery_maps must agree in (d, h, w), got {sizes}")
