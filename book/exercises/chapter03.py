"""Cases and common slips of the exercises of chapter 3."""

import torch
import torch.nn.functional as F
from torch import Tensor

from qaconv_lib.exercises import Exercise
from qaconv_lib.matching import correlate


def scaled_first(query_map: Tensor, gallery_map: Tensor) -> Tensor:
    unit_query = F.normalize(query_map, dim=0)
    unit_gallery = F.normalize(gallery_map, dim=0)
    return correlate(unit_query, unit_gallery).flatten(1)


first, second = torch.linspace(-1, 1, 24).view(2, 2, 3, 2)
pair_q = torch.tensor([[[1.0, 0.6], [0.0, 0.8]], [[0.0, 0.8], [1.0, 0.6]]])
pair_g = torch.tensor([[[0.8, 1.0], [0.6, 0.6]], [[0.6, 0.0], [0.8, -0.8]]])


map_q, map_g = torch.linspace(-1, 1, 48).sin().view(2, 2, 4, 3)
single = correlate(map_q, map_g).view(4, 3, 4, 3)


def round_the_border(single: Tensor, size: int) -> Tensor:
    steps = range(-(size // 2), size // 2 + 1)
    rolled = [single.roll((u, v, u, v), (0, 1, 2, 3)) for u in steps for v in steps]
    return torch.stack(rolled).sum(dim=0)


EXERCISES = {
    # similarity_with_neighbours
    "3.2": Exercise(
        [((), 1.92)],
        {
            "That is s = 1, without the neighbours.": 0.96,
            "The middle of the kernel lies on gallery location 2, not on 3.": 2.2,
            "Query location 3 and gallery location 2, not the other way round.": 0.2,
        },
    ),
    # correlate_by_matrices
    "3.3": Exercise(
        [
            ((first, second), correlate(first, second).flatten(1)),
            ((second, first), correlate(second, first).flatten(1)),
        ],
        {
            "Query locations go down.": lambda q, g: correlate(g, q).flatten(1),
            "The maps were scaled to length 1.": scaled_first,
        },
    ),
    # share_found_again
    "3.4": Exercise(
        [
            ((pair_q, pair_g, 0.9), 0.75),
            ((pair_q, pair_g, 0.7), 1.0),
            ((torch.ones(1, 1, 2), torch.ones(1, 1, 2), 1.0), 0.0),
        ],
        {
            "That is a share of all pairs of locations.": lambda q, g, threshold: (
                (correlate(q, g) > threshold).float().mean()
            ),
            "That is a share of the gallery's locations.": lambda q, g, threshold: (
                (correlate(q, g).amax(dim=0) > threshold).float().mean()
            ),
            "More similar than the threshold, not as similar.": lambda q, g, threshold: (
                (correlate(q, g).amax(dim=1) >= threshold).float().mean()
            ),
        },
    ),
    # larger_kernels
    "3.5": Exercise(
        [((single, size), correlate(map_q, map_g, size).view(4, 3, 4, 3)) for size in (1, 3, 5)],
        {
            "What lies outside counts as zero; nothing comes round.": round_the_border,
            "Both locations move by the same step.": lambda single, size: (
                F.avg_pool2d(single, size, 1, size // 2) * size**2
            ),
        },
    ),
}
