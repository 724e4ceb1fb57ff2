"""Ranking scores against their definitions, spelled out in plain Python."""

from __future__ import annotations

import itertools
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc, average_precision_score, precision_recall_curve

from qaconv_lib.evaluation import evaluate_ranking


def scores_by_definition(similarity, query_ids, gallery_ids, query_cams, gallery_cams):
    """Walk down every list one score at a time; one dict per query, None without a match."""
    results = []
    for q, row in enumerate(similarity):
        kept = [
            g
            for g in range(len(row))
            if gallery_ids[g] != -1
            and (gallery_ids[g], gallery_cams[g]) != (query_ids[q], query_cams[q])
        ]
        num_matches = sum(gallery_ids[g] == query_ids[q] for g in kept)
        if num_matches == 0:
            results.append(None)
            continue
        seen = found = 0
        step = area = old_recall = 0.0
        old_precision, first = 1.0, []
        for value in sorted({row[g] for g in kept}, reverse=True):
            tied = [gallery_ids[g] == query_ids[q] for g in kept if row[g] == value]
            if sum(tied) and not found:  # ranks of the first match, over the places of the matches
                places = itertools.combinations(range(1, len(tied) + 1), sum(tied))
                first = [seen + taken[0] for taken in places]
            if sum(tied):
                places = itertools.combinations(range(1, len(tied) + 1), sum(tied))
                last = np.mean([seen + taken[-1] for taken in places])
            seen, found = seen + len(tied), found + sum(tied)
            recall, precision = found / num_matches, found / seen
            step += (recall - old_recall) * precision
            area += (recall - old_recall) * (old_precision + precision) / 2
            old_recall, old_precision = recall, precision
        results.append({"ap": step, "area": area, "inp": num_matches / last, "first": first})
    return results


def random_ranking(seed, num_query=25, num_gallery=40, levels=None, lowest_identity=-1):
    rng = np.random.default_rng(seed)
    similarity = rng.normal(size=(num_query, num_gallery)).astype(np.float32)
    if levels:
        similarity = rng.integers(0, levels, size=similarity.shape).astype(np.float32)
    return (
        similarity,
        rng.integers(0, 9, num_query),
        rng.integers(lowest_identity, 9, num_gallery),
        rng.integers(0, 3, num_query),
        rng.integers(0, 3, num_gallery),
    )


def assert_equals_definition(arguments):
    expected = scores_by_definition(*[np.asarray(a).tolist() for a in arguments])
    valid = [e for e in expected if e]
    scores = evaluate_ranking(*arguments)
    assert scores.num_valid == len(valid) and len(scores.per_query) == len(expected)
    assert scores.mean_ap == pytest.approx(np.mean([e["ap"] for e in valid]))
    assert scores.mean_ap_trapezoid == pytest.approx(np.mean([e["area"] for e in valid]))
    assert scores.mean_inp == pytest.approx(np.mean([e["inp"] for e in valid]))
    for k in (1, 2, 5, 20):
        assert scores.rank(k) == pytest.approx(
            np.mean([np.mean(np.array(e["first"]) <= k) for e in valid])
        )
    for row, e in zip(scores.per_query.itertuples(), expected, strict=True):
        assert row.valid == (e is not None)
        if e:
            assert row.average_precision == pytest.approx(e["ap"])
            assert row.average_precision_trapezoid == pytest.approx(e["area"])
            assert row.inp == pytest.approx(e["inp"])
            assert row.first_match_rank == pytest.approx(np.mean(e["first"]))
        else:
            assert math.isnan(row.average_precision) and math.isnan(row.first_match_rank)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("levels", [None, 2, 6])  # with 2 or 6 values nearly everything ties
def test_equals_the_definition(seed, levels):
    assert_equals_definition(random_ranking(seed, levels=levels))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    num_query=st.integers(1, 6),
    num_gallery=st.integers(1, 20),
    levels=st.sampled_from([None, 1, 3]),
)
def test_equals_the_definition_on_small_galleries(seed, num_query, num_gallery, levels):
    arguments = random_ranking(seed, num_query, num_gallery, levels)
    if any(scores_by_definition(*[a.tolist() for a in arguments])):
        assert_equals_definition(arguments)
    else:
        with pytest.raises(ValueError, match="none of the"):
            evaluate_ranking(*arguments)


@pytest.mark.parametrize("levels", [None, 4])
def test_both_kinds_of_average_precision_equal_scikit_learn(levels):
    similarity, query_ids, gallery_ids, query_cams, gallery_cams = random_ranking(
        3, 20, 300, levels
    )
    scores = evaluate_ranking(similarity, query_ids, gallery_ids, query_cams, gallery_cams)
    for q, row in enumerate(scores.per_query.itertuples()):
        match = gallery_ids == query_ids[q]
        kept = ~(match & (gallery_cams == query_cams[q])) & (gallery_ids != -1)
        ranking = match[kept], similarity[q, kept]
        assert row.average_precision == pytest.approx(average_precision_score(*ranking))
        precision, recall, _ = precision_recall_curve(*ranking)  # as in release v1.0
        assert row.average_precision_trapezoid == pytest.approx(auc(recall, precision))


def test_example_by_hand():
    # Ranking of the only query: junk, distractor, match, other, match -> matches at ranks 2 and 4.
    scores = evaluate_ranking(
        [[0.9, 0.8, 0.7, 0.6, 0.5, 0.99]], [7], [7, 0, 7, 3, 7, -1], [1], [1, 1, 2, 1, 3, 2]
    )
    assert scores.cmc.tolist() == [0, 1, 1, 1, 1, 1]
    assert scores.rank(1) == 0 and scores.rank(2) == 1 and scores.rank(100) == 1
    assert scores.mean_ap == pytest.approx((1 / 2 + 2 / 4) / 2)
    assert scores.mean_ap_trapezoid == pytest.approx(((0 + 1 / 2) / 2 + (1 / 3 + 2 / 4) / 2) / 2)
    assert scores.mean_inp == pytest.approx(2 / 4)
    (row,) = scores.per_query.itertuples()
    assert (row.query, row.identity, row.camera) == (0, 7, 1)
    assert (row.num_matches, row.num_ignored, row.first_match_rank) == (2, 2, 2)


def test_query_without_match_is_left_out_and_counted():
    similarity = [[0.9, 0.1], [0.9, 0.1], [0.9, 0.1]]
    # Query 1: identity not in the gallery. Query 2: only junk.
    scores = evaluate_ranking(similarity, [1, 5, 2], [1, 2], [0, 0, 0], [1, 0])
    assert scores.per_query["valid"].tolist() == [True, False, False]
    assert scores.per_query["num_matches"].tolist() == [1, 0, 0]
    assert (scores.num_valid, len(scores.per_query)) == (1, 3)
    measured = "average_precision average_precision_trapezoid inp first_match_rank".split()
    assert scores.per_query[measured].isna().sum().tolist() == [2] * 4
    others = {"query", "identity", "camera", "num_matches", "num_ignored", "valid"}
    assert set(scores.per_query) == {*measured, *others}
    assert scores.mean_ap == scores.rank(1) == 1


def test_equal_scores_are_one_threshold():
    # 2 matches among 100 images: rank-1 of chance, precision 2 / 100 after the first point
    scores = evaluate_ranking(np.zeros((1, 100)), [1], [1, 1] + [2] * 98, [0], [1] * 100)
    assert scores.rank(1) == pytest.approx(2 / 100)
    assert scores.rank(2) == pytest.approx(1 - 98 / 100 * 97 / 99)
    assert scores.rank(99) == scores.rank(100) == 1
    assert scores.mean_ap == pytest.approx(0.02)
    assert scores.mean_ap_trapezoid == pytest.approx((1 + 0.02) / 2)
    assert scores.mean_inp == pytest.approx(2 / (2 * 101 / 3))
    assert scores.per_query["first_match_rank"][0] == pytest.approx(101 / 3)


def test_identity_0_is_a_person_and_a_bad_detection_is_not():
    similarity = [[0.9, 0.8, 0.7]] * 2
    scores = evaluate_ranking(similarity, [0, 1], [0, 0, 1], [0, 0], [0, 1, 1])
    assert scores.per_query["num_matches"].tolist() == [1, 1]
    assert scores.per_query["num_ignored"].tolist() == [1, 0]  # the query's own camera
    assert scores.per_query["first_match_rank"].tolist() == [1, 3]
    with pytest.warns(UserWarning, match="^1 queries have identity -1"):
        scores = evaluate_ranking(similarity * 2, [-1, 0, 1, 1], [-1, 0, 1], [0] * 4, [1] * 3)
    assert scores.per_query["valid"].tolist() == [False, True, True, True]


def test_infinite_similarities_are_ranked():
    scores = evaluate_ranking([[-np.inf, np.inf, 0.0]], [1], [1, 2, 1], [0], [1, 1, 1])
    assert scores.mean_ap == pytest.approx((1 / 2 + 2 / 3) / 2)


GOOD = dict(
    similarity=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]],
    query_identities=[1, 2],
    gallery_identities=[1, 2, 3],
    query_cameras=[0, 0],
    gallery_cameras=[1, 1, 1],
)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (dict(similarity=[[0, 1, 2], [0, np.nan, 1]]), ValueError, "similarity is nan at row 1"),
        (dict(similarity=np.zeros((2, 0))), ValueError, "empty: 2 queries, 0 gallery"),
        (dict(similarity=np.zeros(3)), ValueError, r"similarity must have two axes, got .*\(3,\)"),
        (dict(gallery_cameras=[[1, 1, 1]]), ValueError, "gallery_cameras must have shape"),
        (dict(query_identities=[1.0, 2.0]), TypeError, "query_identities must be integers"),
        (dict(query_identities=[True, False]), TypeError, "query_identities must be integers"),
        (dict(query_identities=np.array([1, 2**63], np.uint64)), ValueError, "64 bits"),
        (dict(query_identities=[1, -(2**70)]), ValueError, "identities must fit into 64"),
        (dict(query_identities=[8, 9]), ValueError, "none of the 2 queries has a match"),
        (dict(gallery_cameras=[0, 0, 0]), ValueError, "none of the 2 queries has a match"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    evaluate_ranking(**GOOD)
    with pytest.raises(error, match=message):
        evaluate_ranking(**{**GOOD, **changes})


@pytest.mark.parametrize("name", list(GOOD)[1:])
def test_labels_of_another_length_or_kind_are_named(name):
    length = len(GOOD[name])
    fit = rf"^{name} must have shape \({length},\) .*\(2, 3\), got \(7,\)"
    with pytest.raises(ValueError, match=fit):
        evaluate_ranking(**{**GOOD, name: [1] * 7})
    with pytest.raises(TypeError, match=f"^{name} must be integers"):
        evaluate_ranking(**{**GOOD, name: ["a"] * length})


def test_summary_is_one_line_in_percent():
    people = [1, 2, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0]  # found at ranks 1, 2, 6 and 11
    scores = evaluate_ranking([-np.arange(12)] * 4, [1, 2, 3, 4], people, [0] * 4, [1] * 12)
    assert "\n" not in scores.summary() and scores.summary() in repr(scores)
    found = [float(number) for number in re.findall(r"\d+\.\d", scores.summary())]
    metrics = [*map(scores.rank, (1, 5, 10)), scores.mean_ap, scores.mean_ap_trapezoid]
    assert found == pytest.approx([100 * x for x in (*metrics, scores.mean_inp)], abs=0.05)
    assert "4 of 4 queries" in scores.summary()


@pytest.mark.parametrize("k", [0, -1, 1.5])
def test_rank_needs_a_whole_number_from_one(k):
    with pytest.raises(ValueError, match="k must be"):
        evaluate_ranking(**GOOD).rank(k)


@settings(deadline=None)
@given(seed=st.integers(0, 2**20), levels=st.sampled_from([None, 1, 3]))
def test_what_changes_no_score_and_what_does(seed, levels):
    ranking = random_ranking(seed, 6, 16, levels)
    similarity, query_ids, gallery_ids, query_cams, gallery_cams = ranking
    gallery_ids[0], gallery_cams[0] = query_ids[0], query_cams[0] + 1  # a match
    once = evaluate_ranking(*ranking)
    own = once.per_query[once.per_query["valid"]]
    if levels is None:  # the first point, precision 1, weighs more where scores tie
        assert (own["average_precision_trapezoid"] <= own["average_precision"]).all()
    assert (np.diff(once.cmc) >= 0).all() and once.cmc[-1] == pytest.approx(1)

    rng = np.random.default_rng(seed)
    order = rng.permutation(16)  # of the gallery
    shuffled = similarity[:, order], query_ids, gallery_ids[order], query_cams, gallery_cams[order]
    again = evaluate_ranking(*shuffled)
    pd.testing.assert_frame_equal(again.per_query, once.per_query, check_exact=True)
    np.testing.assert_array_equal(again.cmc, once.cmc)

    # Only the order of the scores counts, and numbers are only names.
    names, cameras = rng.permutation(np.arange(1, 50)) * 10**6, rng.permutation(9) * 1000 - 4000
    names = np.concatenate([names[:9], [-1]])  # the last is -1
    renamed = names[query_ids], names[gallery_ids], cameras[query_cams], cameras[gallery_cams]
    same = evaluate_ranking(np.exp(similarity.astype(float) / 9) - 3, *renamed)
    columns = list(own)[3:]
    pd.testing.assert_frame_equal(same.per_query[columns], once.per_query[columns])

    for at, step in ((-1e6, 0), (1e6, 3)):  # distractors: each above a match costs a rank
        wider = [np.insert(similarity, 0, [[at]] * 3, axis=1), query_ids]
        wider += [np.insert(gallery_ids, 0, [99] * 3), query_cams]
        wider += [np.insert(gallery_cams, 0, [0] * 3)]
        ranks = evaluate_ranking(*wider).per_query["first_match_rank"]
        np.testing.assert_allclose(ranks, once.per_query["first_match_rank"] + step)
