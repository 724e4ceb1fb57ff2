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
    # duke_seconds
    "1.3": Exercise(
        [(("0005_c2_f0046985.jpg",), 844.0273607), (("0044_c5_f0059940.jpg",), 1000.0)],
        {
            "The offset is missing.": 46985 / 59.94,
            "Cameras count from 1 in the name, the list counts from 0.": 74228 / 59.94,
        },
        tolerance=1e-6,
    ),
    # session_starts
    "1.4": Exercise(
        [((np.array([500, 700, 600, 900]),), [0, 500, 1200, 1800]), ((np.array([80]),), [0])],
        {
            "That is where each session ends.": np.cumsum,
            "All sessions before it count.": lambda last: np.r_[0, last[:-1]],
        },
    ),
    # rank_k_accuracy
    "1.5": Exercise(
        [((example_ranks, k), share) for k, share in ((1, 0.4), (5, 0.6), (30, 1.0))],
        {
            "A first match at rank k itself counts as well.": lambda r, k: (r < k).mean(),
            "That is in percent; a share lies between 0 and 1.": lambda r, k: 100 * (r <= k).mean(),
            "The first k, not the k-th alone.": lambda r, k: (r == k).mean(),
            "That is a number of queries, not a share.": lambda r, k: (r <= k).sum(),
        },
    ),
}
