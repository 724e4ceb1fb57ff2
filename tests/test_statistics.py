"""The paired bootstrap."""

import numpy as np
import pytest

from qaconv_lib.experiments.statistics import paired_bootstrap


def bootstrap_by_definition(difference, groups, repeats, seed):
    """One draw at a time: whole groups with replacement, then the mean of all their members."""
    rng = np.random.default_rng(seed)
    names = np.unique(groups)
    means = []
    for _ in range(repeats):
        drawn = names[rng.integers(len(names), size=len(names))]
        means.append(np.concatenate([difference[groups == name] for name in drawn]).mean())
    return np.quantile(means, [0.025, 0.975])


@pytest.mark.parametrize("grouped", [False, True])
def test_agrees_with_the_definition(grouped):
    rng = np.random.default_rng(1)
    difference = rng.normal(0.3, 1.0, 60)
    groups = rng.integers(0, 12, 60) if grouped else np.arange(60)
    found = paired_bootstrap(difference, groups if grouped else None, repeats=500)
    expected = bootstrap_by_definition(difference, groups, 500, 0)
    assert found.mean == pytest.approx(difference.mean())
    np.testing.assert_allclose([found.low, found.high], expected)


def test_groups_that_repeat_each_other_widen_the_interval():
    values = np.random.default_rng(0).normal(size=40)
    repeated, groups = np.repeat(values, 5), np.repeat(np.arange(40), 5)
    alone, together = paired_bootstrap(repeated), paired_bootstrap(repeated, groups)
    assert together.high - together.low > 1.8 * (alone.high - alone.low)
    honest = paired_bootstrap(values)
    assert together.high - together.low == pytest.approx(honest.high - honest.low, rel=0.01)


@pytest.mark.parametrize(
    "difference, options, message",
    [
        ([], {}, "n > 0"),
        ([[1.0]], {}, "shape"),
        ([np.nan], {}, "finite"),
        ([1.0, 2.0], {"groups": [1]}, "groups"),
        ([1.0], {"repeats": 5}, "repeats"),
    ],
)
def test_bad_input_is_named(difference, options, message):
    with pytest.raises(ValueError, match=message):
        paired_bootstrap(difference, **options)
