"""Cases and common slips of the exercises of appendix A."""

import numpy as np

from qaconv_lib.exercises import Exercise

EXERCISES = {
    # gflop
    "A.2": Exercise(
        [((), 58.98)],
        {
            "A product and a sum are two operations.": 29.49,
            "Every location of one map meets every location of the other.": 1.2288,
            "10⁹ operations are one GFLOP.": 58.98e9,
        },
        tolerance=1e-3,
    ),
    # fold_head
    "A.3": Exercise(
        [
            ((np.array([1.0, 2.0, -1.0]), 0.5, (2.0, -1.0), (3.0, 0.25)), [6.0, 12.0, -6.0, -4.25]),
            ((np.array([0.5, 0.5]), 0.0, (1.0, 0.0), (2.0, -4.0)), [1.0, 1.0, -4.0]),
            ((np.array([2.0, -1.0, 0.5]), -1.0, (4.0, 0.5), (0.5, 1.0)), [4.0, -2.0, 1.0, 0.875]),
        ],
        {
            "The shift of the first BN meets every weight.": lambda w, b, f, s: np.append(
                s[0] * f[0] * w, s[0] * (f[1] + b) + s[1]
            ),
            "The last BN scales the bias, too.": lambda w, b, f, s: np.append(
                s[0] * f[0] * w, s[0] * f[1] * w.sum() + b + s[1]
            ),
            "Both scales go into the weights.": lambda w, b, f, s: np.append(
                f[0] * w, s[0] * (f[1] * w.sum() + b) + s[1]
            ),
            "Shifts count as well: put zeros in and see what comes out.": lambda w, b, f, s: (
                np.append(s[0] * f[0] * w, s[0] * b + s[1])
            ),
        },
    ),
    # pairs_computed
    "A.4": Exercise(
        [((6, 2), 24), ((5, 5), 25), ((7, 3), 34), ((600, 28), 188304)],
        {
            "A block on the diagonal is computed whole.": lambda n, b: n * (n + 1) // 2,
            "The last block may have fewer rows.": (
                lambda n, b: sum(b * (n - i) for i in range(0, n, b))
            ),
            "Block i leaves out what lies before its own first row.": lambda n, b: n * n,
        },
        tolerance=1e-9,
    ),
    # merge_two
    "A.5": Exercise(
        [
            (([(0.9, 1), (0.2, 5)], [(0.5, 8), (0.4, 9)], 3), [(0.9, 1), (0.5, 8), (0.4, 9)]),
            (([], [(0.5, 8)], 2), [(0.5, 8)]),
            (([(0.3, 2)], [(0.6, 7), (0.5, 4)], 2), [(0.6, 7), (0.5, 4)]),
            (([(0.9, 1), (0.2, 5)], [(0.5, 8)], 3), [(0.9, 1), (0.5, 8), (0.2, 5)]),
        ],
        {
            "The second list has good ones too.": lambda first, second, k: (first + second)[:k],
            "Best first: the highest score comes first.": lambda first, second, k: sorted(
                first + second
            )[:k],
        },
    ),
}
