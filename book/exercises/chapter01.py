"""Cases and common slips of the exercises of chapter 1."""

import numpy as np

from qaconv_lib.exercises import Exercise

example_ranks = np.array([1, 2, 1, 7, 30])

EXERCISES = {
    # average_precision_by_hand
    "1.2": Exercise(
        [((), 0.6)],
        {
            "The second match counts as 2 of 4, the third as 3 of 10.": 0.45,
            "That is the precision at the last match alone.": 0.3,
            "That is the sum; take the mean over the three matches.": 1.8,
        },
    ),
    # rank_k_accuracy
    "1.3": Exercise(
        [((example_ranks, k), share) for k, share in ((1, 0.4), (5, 0.6), (30, 1.0))],
        {
            "A first match at rank k itself counts as well.": lambda r, k: (r < k).mean(),
            "That is in percent; a share lies between 0 and 1.": lambda r, k: 100 * (r <= k).mean(),
            "The first k, not the k-th alone.": lambda r, k: (r == k).mean(),
            "That is a number of queries, not a share.": lambda r, k: (r <= k).sum(),
        },
    ),
}
