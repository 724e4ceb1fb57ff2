"""The bootstrap over people, and over people and seeds."""

import numpy as np
import pytest

from qaconv_lib.experiments.statistics import paired_bootstrap, two_way_bootstrap


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


def models(rng, seeds, seed_spread=1.6, people=100):
    """Scores of models of one kind, one row per seed; the people's own means come with `rng`."""
    return rng.normal(0, seed_spread, (seeds, 1)) + rng.normal(0, 7, (seeds, people))


@pytest.mark.parametrize("ours, theirs", [(2, 2), (3, 3), (5, 5), (3, 5)])
def test_about_one_interval_in_twenty_is_wrong_about_models_that_do_not_differ(ours, theirs):
    rng, wrong, people_alone, trials = np.random.default_rng(0), 0, 0, 300
    for _ in range(trials):
        person = rng.normal(0, 6, 100)
        one, other = models(rng, ours) + person, models(rng, theirs)
        found = two_way_bootstrap(one, other, repeats=300)
        alone = paired_bootstrap(one.mean(axis=0) - other.mean(axis=0), repeats=300)
        wrong += not found.low <= 0 <= found.high
        people_alone += not alone.low <= 0 <= alone.high
    assert 0.015 < wrong / trials < 0.1
    assert people_alone / trials > 0.15


def test_without_spread_between_seeds_only_people_count():
    difference = np.random.default_rng(0).normal(size=50)
    groups = np.arange(50) // 5
    expected = paired_bootstrap(difference, groups)
    for found in (
        two_way_bootstrap(np.tile(difference, (4, 1)), groups=groups),
        two_way_bootstrap(np.tile(difference, (4, 1)), np.zeros((2, 50)), groups),
    ):
        np.testing.assert_allclose(found[:3], expected[:3])
    assert found.seeds == 2  # of the method with fewer


def test_one_seed_shows_no_spread_between_seeds():
    difference = np.random.default_rng(0).normal(size=50)
    assert two_way_bootstrap(difference[None]) == paired_bootstrap(difference)


def test_paired_seeds_cancel_what_moves_both_scores():
    rng = np.random.default_rng(0)
    before = models(rng, 5, seed_spread=5.0)
    after = before + rng.normal(2, 0.5, before.shape)
    paired, unpaired = two_way_bootstrap(after - before), two_way_bootstrap(after, before)
    assert paired.mean == pytest.approx(unpaired.mean)
    assert 0 < paired.low and unpaired.low < 0


def test_a_seed_far_below_the_others_draws_the_interval_to_its_side():
    people = np.random.default_rng(0).normal(0, 0.1, 50)
    skewed, even = people + [[10.0], [10.0], [10.0], [2.0]], people + [[8.0], [8.1], [7.9], [8.0]]
    for ours, theirs, sign in ((skewed, even, 1), (even, skewed, -1)):
        found = two_way_bootstrap(ours, theirs)
        below, above = found.mean - found.low, found.high - found.mean
        assert sign * (below - above) > 0


def test_methods_must_answer_the_same_queries():
    with pytest.raises(ValueError, match=r"\(2, 3\), \(2, 4\)"):
        two_way_bootstrap(np.zeros((2, 3)), np.zeros((2, 4)))
