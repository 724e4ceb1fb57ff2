"""The plain formulations, as the paper and its release have them (appendix A).

Tests hold the library's forms to them, and `python -m qaconv_lib bench` shows what those save.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib.evaluation import BAD_DETECTION
from qaconv_lib.matching import QAConv


def best_matches(query_maps: Tensor, gallery_maps: Tensor) -> Tensor:
    """`matching.best_matches` through the tensor of all similarities, (q, g, h*w, h*w)."""
    similarities = torch.einsum("qdk,gdl->qgkl", query_maps.flatten(2), gallery_maps.flatten(2))
    return torch.cat([similarities.amax(dim=2), similarities.amax(dim=3)], dim=-1)


@torch.no_grad()
def match_gallery(matcher: QAConv, query_maps: Tensor, gallery_maps: Tensor) -> Tensor:
    """`matching.match_gallery`, all pairs at once. The matcher is in evaluation mode."""
    return matcher.head(best_matches(query_maps, gallery_maps))


def qaconv_loss(matcher: QAConv, maps: Tensor, memory: Tensor, labels: Tensor) -> Tensor:
    """The loss of one training step against a full class memory, differentiated by autograd."""
    logits = matcher.head(best_matches(maps, memory))
    targets = F.one_hot(labels, len(memory)).to(logits.dtype)
    p = torch.sigmoid(logits)
    p_true = torch.where(targets.bool(), p, 1 - p)
    cost = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return ((1 - p_true) ** 2 * cost).sum() / len(maps)


def k_reciprocal_rerank(
    query_gallery: np.ndarray,
    query_query: np.ndarray,
    gallery_gallery: np.ndarray,
    k1: int = 20,
    k2: int = 6,
    lambda_value: float = 0.3,
) -> np.ndarray:
    """`reranking.k_reciprocal_rerank` with square matrices and a loop over all images."""
    num_query = len(query_gallery)
    together = np.block([[query_query, query_gallery], [query_gallery.T, gallery_gallery]])
    distance = (together / together.max(axis=0)).T.astype(np.float32)
    num_images = len(distance)
    ranking = np.argsort(distance, axis=1, kind="stable")

    def mutual(image: int, k: int) -> np.ndarray:
        nearest = ranking[image, : k + 1]
        return nearest[(ranking[nearest, : k + 1] == image).any(axis=1)]

    encoding = np.zeros((num_images, num_images), dtype=np.float32)
    for image in range(num_images):
        own = mutual(image, k1)
        expanded = own
        for neighbour in own:
            others = mutual(neighbour, round(k1 / 2))
            if 3 * len(np.intersect1d(others, own)) > 2 * len(others):
                expanded = np.append(expanded, others)
        expanded = np.unique(expanded)
        weights = np.exp(-distance[image, expanded])
        encoding[image, expanded] = weights / weights.sum()
    if k2 > 1:
        mean = np.zeros_like(encoding)
        for image in range(num_images):
            mean[image] = encoding[ranking[image, :k2]].mean(axis=0)
        encoding = mean
    where = [np.flatnonzero(column) for column in encoding.T]
    jaccard = np.empty((num_query, num_images), dtype=np.float32)
    for image in range(num_query):
        shared = np.zeros(num_images, dtype=np.float32)
        for feature in np.flatnonzero(encoding[image]):
            rows = where[feature]
            shared[rows] += np.minimum(encoding[image, feature], encoding[rows, feature])
        jaccard[image] = 1 - shared / (2 - shared)
    mixed = (1 - lambda_value) * jaccard + lambda_value * distance[:num_query]
    return mixed[:, num_query:]


def tlift(
    similarity: np.ndarray,
    query_cameras: np.ndarray,
    query_seconds: np.ndarray,
    gallery_cameras: np.ndarray,
    gallery_seconds: np.ndarray,
) -> np.ndarray:
    """`temporal.tlift`, one pair of cameras and one query after the other."""
    tau, sigma, k, alpha = 100.0, 200.0, 10, 0.2
    lifted = np.zeros_like(similarity)
    for query_camera in np.unique(query_cameras):
        queries = np.flatnonzero(query_cameras == query_camera)
        seconds = query_seconds[queries]
        for gallery_camera in np.unique(gallery_cameras):
            columns = np.flatnonzero(gallery_cameras == gallery_camera)
            for query in queries:
                nearby = queries[np.abs(seconds - query_seconds[query]) < tau]
                scores = similarity[np.ix_(nearby, columns)]
                limit = np.sort(scores, axis=None)[-min(k, scores.size)]
                _, picked = np.nonzero(scores >= limit)
                gap = gallery_seconds[columns][picked][:, None] - gallery_seconds[columns]
                probability = np.exp(-((gap / sigma) ** 2)).mean(axis=0)
                lifted[query, columns] = (probability + alpha) * similarity[query, columns]
    return lifted


def evaluate_ranking(
    similarity: np.ndarray,
    query_identities: np.ndarray,
    gallery_identities: np.ndarray,
    query_cameras: np.ndarray,
    gallery_cameras: np.ndarray,
) -> tuple[np.ndarray, float, float]:
    """CMC, mAP and mINP as `evaluation` has them, query by query; for scores without ties."""
    from sklearn.metrics import average_precision_score

    precision, penalty, hits = [], [], np.zeros(similarity.shape[1])
    for query, scores in enumerate(similarity):
        same = gallery_identities == query_identities[query]
        junk = same & (gallery_cameras == query_cameras[query])
        kept = ~junk & (gallery_identities != BAD_DETECTION)
        matches, scores = same[kept], scores[kept]
        if matches.any():
            precision.append(average_precision_score(matches, scores))
            places = np.flatnonzero(matches[np.argsort(-scores, kind="stable")])
            penalty.append(len(places) / (places[-1] + 1))
            hits[places[0] :] += 1
    return hits / len(precision), float(np.mean(precision)), float(np.mean(penalty))
