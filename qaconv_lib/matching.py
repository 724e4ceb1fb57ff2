"""Query-adaptive convolution: from two feature maps to one similarity (built in chapters 3 and 4).

A feature map has `d` channels on a grid of `h * w` locations, and its channels have unit length at
every location (`backbones` sees to that). The shapes below use `q` for the number of queries, `g`
for the number of gallery images and `s` for the kernel size. Locations are numbered row by row.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from qaconv_lib._map_checks import check_finite, check_kernel_size, check_maps
from qaconv_lib._streaming import BestMatches, weigh_matches
from qaconv_lib.arrays import is_number
from qaconv_lib.shortage import naming_shortage


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
