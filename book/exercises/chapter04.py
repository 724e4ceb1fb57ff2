"""Cases and common slips of the exercises of chapter 4."""

import torch
import torch.nn.functional as F

from qaconv_lib.exercises import Exercise
from qaconv_lib.matching import QAConv, best_matches

mutual_table = torch.tensor([[0.3, 0.5, 0.2, 0.1], [0.96, 0.4, 1, -0.28], [0.6, 0, 0.8, -0.8]])
stream_maps = torch.linspace(-1, 1, 96).cos().view(4, 3, 4, 2)
all_at_once = best_matches(stream_maps[:1], stream_maps[1:])[0]
head = QAConv(2, 2).eval()
torch.nn.init.uniform_(head.fc.weight, generator=torch.Generator().manual_seed(1))
head.requires_grad_(False)
head_matches = torch.linspace(0, 6, 96).cos().view(3, 4, 8)
both_ways = (head.head(head_matches) + head.head(head_matches.roll(4, dims=-1))) / 2

EXERCISES = {
    # best_matches_of_the_changed_pair
    "4.2": Exercise(
        [((), [1, 1, 1, 0.6, 1, 0.96, 1, 1])],
        {
            "The two halves are exchanged.": [1, 0.96, 1, 1, 1, 1, 1, 0.6],
            "One query location has lost its best match.": [1, 1, 1, 0.6, 1, 1, 1, 1],
            "That is the vector of the old pair.": [1, 1, 1, 0.6, 1, 1, 0.8, 1],
        },
    ),
    # mutual
    "4.3": Exercise(
        [((mutual_table,), [1, 1, 0]), ((mutual_table.T.contiguous(),), [0, 1, 1, 0])],
        {
            "A best match need not be perfect to be mutual.": lambda table: table.amax(1) >= 1,
            "That asks whether the best column has the row's own number.": (
                lambda table: table.argmax(1) == torch.arange(len(table))
            ),
            "That has one answer for each column.": (
                lambda table: table.argmax(1)[table.argmax(0)] == torch.arange(table.shape[1])
            ),
        },
    ),
    # stream
    "4.4": Exercise(
        [((stream_maps[0], stream_maps[1:]), all_at_once)],
        {
            "The two halves are exchanged.": all_at_once.roll(8, dims=1),
            "Take the maps as they are, not at length 1.": best_matches(
                F.normalize(stream_maps[:1], dim=1), F.normalize(stream_maps[1:], dim=1)
            )[0],
        },
    ),
    # symmetric_logits
    "4.5": Exercise(
        [((head, head_matches), both_ways)],
        {
            "That is one direction only.": lambda matcher, matches: matcher.head(matches),
            "That is the sum of both directions.": 2 * both_ways,
        },
    ),
}
