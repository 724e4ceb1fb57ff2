"""Searching large galleries: on disk, in two stages, on several processes (appendix A)."""

from __future__ import annotations

import math
import numbers

import pandas as pd
import torch
from torch import Tensor

from qaconv_lib._processes import gather, process_count, share
from qaconv_lib.matching import QAConv, check_finite, check_tensor, match_gallery
from qaconv_lib.models import ReidModel
from qaconv_lib.scale.store import MapStore, check_rows

# Numbers of a shortlist's maps gathered at once: 8 MB, so that no large memory comes and goes.
_GATHERED_ELEMENTS = 1 << 21


def match_store(matcher: QAConv, query_maps: Tensor, store: MapStore) -> Tensor:
    """Score a whole gallery on disk, block by block; `match_gallery` in all else.

    The maps of a store are half-precision numbers, so logits (q, len(store)) differ from those of
    the original maps in the third or fourth digit.
    """
    if not isinstance(store, MapStore):
        raise TypeError(f"store must be a MapStore, got {type(store).__name__}; see match_gallery")
    scores = _no_scores(matcher, query_maps, store.shape).new_empty(len(query_maps), len(store))
    for place, maps in store.blocks():
        scores[:, place] = match_gallery(matcher, query_maps, maps)
    return scores


def shortlist(query_vectors: Tensor, gallery: Tensor, length: int) -> Tensor:
    """The first stage: the gallery images whose pooled vectors are nearest to each query's.

    `query_vectors` (q, d) and `gallery` (g, d) are from `pool_maps`. Returns rows of the gallery,
    int64 (q, length), nearest first.
    """
    check_tensor("query_vectors", query_vectors, "q, d")
    check_tensor("gallery", gallery, "g, d")
    size, width = gallery.shape
    if query_vectors.shape[1] != width:
        found = tuple(query_vectors.shape)
        raise ValueError(f"query_vectors must have shape (q, {width}), got {found}")
    check_finite("query_vectors", query_vectors)
    check_finite("gallery", gallery)
    whole = isinstance(length, numbers.Integral) and not isinstance(length, bool)
    if not whole or not 1 <= length <= size:
        raise ValueError(f"length must lie in 1..{size}, the gallery's size, got {length!r}")
    columns = gallery.to(query_vectors).T
    return torch.cat([(b @ columns).topk(int(length)).indices for b in query_vectors.split(256)])


def match_shortlist(
    matcher: QAConv, query_maps: Tensor, gallery: Tensor | MapStore, rows: Tensor
) -> Tensor:
    """The second stage: exact scores of each query with its own gallery images, like `rows`.

    `gallery` is maps (g, d, h, w) or a store of them; `rows` (q, n) are from `shortlist`. Returns
    logits (q, n).
    """
    if isinstance(gallery, Tensor):
        check_tensor("gallery", gallery, "g, d, h, w")
        shape: tuple[int, ...] = gallery.shape[1:]
    elif isinstance(gallery, MapStore):
        shape = gallery.shape
    else:
        wrong = type(gallery).__name__
        raise TypeError(f"gallery must be a torch.Tensor or a MapStore, got {wrong}")
    scores = _no_scores(matcher, query_maps, shape)
    rows = check_rows(rows, len(gallery))
    if rows.dim() != 2 or len(rows) != len(query_maps):
        found = tuple(rows.shape)
        raise ValueError(f"rows must have shape ({len(query_maps)}, n), got {found}")
    scores = scores.new_empty(rows.shape)
    size = max(1, _GATHERED_ELEMENTS // math.prod(shape))
    for query, own in enumerate(rows):
        for part, into in zip(own.split(size), scores[query].split(size), strict=True):
            maps = gallery.maps(part) if isinstance(gallery, MapStore) else gallery[part]
            into[:] = match_gallery(matcher, query_maps[query : query + 1], maps)[0]
    return scores


def _no_scores(matcher: QAConv, query_maps: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Scores with no maps of a gallery: refuses what does not fit, also where there are none."""
    return match_gallery(matcher, query_maps, torch.empty(0, *shape))


def extract_in_shares(model: ReidModel, table: pd.DataFrame) -> Tensor:
    """`model.extract`, every process taking its share and getting all maps, on the CPU.

    Model and table are the same on every process.
    """
    if not len(table):
        raise ValueError("the table has no images to extract features from")
    own = share(len(table))
    if own.start == own.stop:  # fewer images than processes
        size = model.backbone.map_size(model.config.height, model.config.width)
        return gather(torch.empty(0, model.backbone.channels, *size))[0]
    return gather(model.extract(table.iloc[own]))[0]


def similarity_in_shares(model: ReidModel, query_maps: Tensor, gallery_maps: Tensor) -> Tensor:
    """`model.similarity`, every process taking its share of the gallery and getting all scores.

    The arguments are the same on every process. Of a set against itself one process computes half
    of the pairs, several all of them.
    """
    if process_count() == 1:
        return model.similarity(query_maps, gallery_maps)
    scores = model.similarity(query_maps, gallery_maps[share(len(gallery_maps))])
    return gather(scores.T.contiguous())[0].T
