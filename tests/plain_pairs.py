"""Plain forms of the pair losses: one pair, image or class after the other."""

import math


def nearest_classes(similarity, count):
    """`graph_sampling.nearest_classes`, one class after the other."""
    found = []
    for number, row in enumerate(similarity.tolist()):
        others = [other for other in range(len(row)) if other != number]
        found.append(sorted(others, key=lambda other: -row[other])[:count])
    return found


def pairwise_loss(logits, labels):
    """`pairs.pairwise_loss`, one pair after the other."""
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        for logit, other in zip(row, labels.tolist(), strict=True):
            p = 1 / (1 + math.exp(-logit))
            total -= math.log(p if other == label else 1 - p)
    return total / len(logits)


def hard_triplet_loss(logits, labels, margin):
    """`pairs.hard_triplet_loss`, one image after the other."""
    total, whose = 0.0, labels.tolist()
    for i, row in enumerate(logits.tolist()):
        matches = [s for j, s in enumerate(row) if whose[j] == whose[i] and j != i]
        strangers = [s for j, s in enumerate(row) if whose[j] != whose[i]]
        if matches and strangers:
            total += max(0.0, margin - min(matches) + max(strangers))
    return total / len(logits)
