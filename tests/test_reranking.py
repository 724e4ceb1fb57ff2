"""Sparse re-ranking against the dense definition, spelled out in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaconv_lib import reranking
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.scale.streaming import rerank_streaming, vector_distances


def rerank_by_definition(qg, qq, gg, k1=20, k2=6, lambda_value=0.3, squared=False):
    """The eight steps of the docstring, one image at a time, with dense matrices."""
    num_query = len(qg)
    all_distances = np.block([[qq, qg], [qg.T, gg]]).astype(np.float32)
    if squared:
        all_distances = all_distances**2
    largest = all_distances.max(axis=0)
    d = (all_distances / np.where(largest > 0, largest, 1)).T
    num = len(d)
    ranking = [sorted(range(num), key=lambda j, i=i: (d[i, j], j)) for i in range(num)]

    def mutual(i, k):
        return {j for j in ranking[i][: k + 1] if i in ranking[j][: k + 1]}

    V = np.zeros((num, num))
    half = int(np.around(k1 / 2))
    for i in range(num):
        own = mutual(i, k1)
        expanded = set(own)
        for j in own:
            others = mutual(j, half)
            if len(others & own) > 2 / 3 * len(others):
                expanded |= others
        for j in expanded:
            V[i, j] = np.exp(-d[i, j])
        if expanded:
            V[i] /= V[i].sum()
    if k2 > 1:
        V = np.stack([np.mean([V[j] for j in ranking[i][:k2]], axis=0) for i in range(num)])
    result = np.zeros(qg.shape)
    for i in range(num_query):
        for j in range(qg.shape[1]):
            shared = np.minimum(V[i], V[num_query + j]).sum()
            jaccard = 1 - shared / (2 - shared)
            result[i, j] = (1 - lambda_value) * jaccard + lambda_value * d[i, num_query + j]
    return result


def clustered_distances(seed, num_query=12, num_gallery=45, num_people=6, spread=0.6):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(num_people, 5))
    people = np.concatenate(
        [rng.integers(0, num_people, num_query), rng.integers(0, num_people, num_gallery)]
    )
    points = centres[people] + spread * rng.normal(size=(len(people), 5))
    d = np.linalg.norm(points[:, None] - points[None], axis=2).astype(np.float32)
    q = num_query
    return d[:q, q:], d[:q, :q], d[q:, q:]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("squared", [False, True])
@pytest.mark.parametrize(("k1", "k2"), [(20, 6), (5, 1), (7, 3), (6, 12), (1, 2), (2, 1)])
def test_equals_the_definition(seed, squared, k1, k2):
    qg, qq, gg = clustered_distances(seed)
    result = k_reciprocal_rerank(qg, qq, gg, k1, k2, squared=squared)
    expected = rerank_by_definition(qg, qq, gg, k1, k2, squared=squared)
    np.testing.assert_allclose(result, expected, atol=1e-5)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    num_query=st.integers(1, 5),
    num_gallery=st.integers(1, 14),
    k1=st.integers(1, 9),
    k2=st.integers(1, 9),
    levels=st.sampled_from([1, 2, 4, 1000]),
    weight=st.sampled_from([0, 0.25, 1]),
)
def test_equals_the_definition_with_ties_and_without_symmetry(
    seed, num_query, num_gallery, k1, k2, levels, weight
):
    """Whole-number distances tie; they are unequal in both directions; the diagonal is not 0."""
    rng = np.random.default_rng(seed)
    d = rng.integers(0, levels, (num_query + num_gallery,) * 2).astype(np.float32)
    qg, qq, gg = d[:num_query, num_query:], d[:num_query, :num_query], d[num_query:, num_query:]
    result = k_reciprocal_rerank(qg, qq, gg, k1, k2, weight)
    expected = rerank_by_definition(qg, qq, gg, k1, k2, weight)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_distances_that_scaling_makes_equal_keep_the_order_of_the_list():
    scale = np.float32(1.4)
    smaller = np.linspace(0.75, 0.99, 1000, dtype=np.float32)
    larger = np.nextafter(smaller, np.float32(1))
    equal = smaller / scale == larger / scale
    assert 100 < np.count_nonzero(equal) < 900
    rows = np.stack([larger, smaller, np.full_like(smaller, scale)], axis=1)
    nearest = reranking._nearest(rows, np.full(len(rows), scale), 1)
    np.testing.assert_array_equal(nearest[:, 0], np.where(equal, 0, 1))


def test_rounding_below_zero_counts_as_zero():
    qg, qq, gg = clustered_distances(7)
    expected = k_reciprocal_rerank(qg, qq, gg)
    for below in (1e-7, 9e-6 * gg.max()):
        slightly = gg - below * np.eye(len(gg), dtype=np.float32)
        np.testing.assert_array_equal(k_reciprocal_rerank(qg, qq, slightly), expected)
    with pytest.raises(ValueError, match="^gallery_gallery is negative"):
        k_reciprocal_rerank(qg, qq, gg - 2e-5 * gg.max() * np.eye(len(gg)))


@pytest.mark.parametrize("copies", [3, 5, 7])
def test_copies_of_an_image_are_at_distance_zero_and_others_at_one(copies):
    """Exactly from 0 to 1, also where rounded weights sum to more than 1."""
    person = np.arange(4 * copies) % 4
    d = (person[:, None] != person).astype(np.float32)
    jaccard = k_reciprocal_rerank(d[:4, 4:], d[:4, :4], d[4:, 4:], copies - 1, 1, 0)
    assert jaccard.min() >= 0 and jaccard.max() <= 1
    np.testing.assert_allclose(jaccard, d[:4, 4:], atol=1e-6)


def test_defaults_are_those_of_the_public_codes(capsys):
    qg, qq, gg = clustered_distances(8)
    d = np.block([[qq, qg], [qg.T, gg]])
    expected = k_reciprocal_rerank(qg, qq, gg, k1=20, k2=6, lambda_value=0.3, squared=False)
    np.testing.assert_array_equal(k_reciprocal_rerank(qg, qq, gg), expected)
    assert capsys.readouterr().err == ""
    streamed = rerank_streaming(lambda start, stop: d[start:stop], 12, 45)
    assert streamed.dtype == np.float32
    np.testing.assert_array_equal(streamed, expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(query_query=np.zeros((2, 3))), r"query_query must have shape \(2, 2\)"),
        (dict(gallery_gallery=np.zeros((2, 2))), r"must have shape \(3, 3\) .* \(2, 3\)"),
        (dict(gallery_gallery=np.zeros((3, 4))), r"gallery_gallery must have shape \(3, 3\)"),
        (dict(query_gallery=np.zeros(3)), "query_gallery must have two axes"),
        (dict(query_gallery=np.zeros((2, 0))), r"^query_gallery is empty: .*\(2, 0\)"),
        (dict(query_gallery=np.zeros((0, 3))), r"^query_gallery is empty: .*\(0, 3\)"),
        (dict(query_gallery=np.full((2, 3), np.nan)), "^query_gallery is nan at row 0, column 0"),
        (dict(query_gallery=np.full((2, 3), np.inf)), "^query_gallery is inf at .*finite"),
        (dict(query_gallery=-np.eye(2, 3)), "^query_gallery is negative"),
        (dict(query_gallery=np.full((2, 3), 1e20), squared=True), "^query_gallery must stay below"),
        (dict(query_query=np.full((2, 2), np.inf)), "^query_query is inf at .*finite"),
        (dict(gallery_gallery=np.full((3, 3), np.nan)), "^gallery_gallery is nan"),
        (dict(gallery_gallery=-np.eye(3)), r"^gallery_gallery is negative \(-1\) at row 0, col"),
        (dict(query_query=np.diag([0, 1e39])), r"^query_query .* below 3.4e\+38.*got 1e\+39$"),
        (
            dict(query_query=np.diag([0, 1e20]), squared=True),
            r"^query_query .* below 1.84e\+19.*got 1e\+20$",
        ),
        (dict(k1=0), "k1 must be"),
        (dict(k1=2.5), "k1 must be"),
        (dict(k2=0), "k2 must be"),
        (dict(query_query=np.full((2, 2), np.finfo(np.float32).max)), "must stay below 3.4e"),
        (dict(lambda_value=1.5), "^lambda_value must be from 0 to 1, got 1.5"),
        (dict(lambda_value="0.3"), "lambda_value must be from 0 to 1, got '0.3'"),
        (dict(lambda_value=float("nan")), "lambda_value must be"),
    ],
)
def test_bad_input_is_named(changes, message):
    good = dict(
        query_gallery=np.ones((2, 3)),
        query_query=np.zeros((2, 2)),
        gallery_gallery=np.zeros((3, 3)),
    )
    k_reciprocal_rerank(**good)
    with pytest.raises(ValueError, match=message):
        k_reciprocal_rerank(**{**good, **changes})


class TestStreaming:
    """Distances computed as they are asked for."""

    def test_distances_of_vectors(self):
        vectors = np.random.default_rng(0).normal(size=(30, 6))
        rows = vector_distances(torch.from_numpy(vectors))(4, 9)
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        np.testing.assert_allclose(rows, (1 - unit[4:9] @ unit.T) / 2, atol=1e-6)
        assert rows.dtype == np.float32 and rows.min() >= 0

    @pytest.mark.parametrize(
        ("block", "message"),
        [
            (np.zeros((3, 4)), r"must have shape \(3, 5\), got \(3, 4\)"),
            (np.full((3, 5), np.nan), "is nan"),
            (np.full((3, 5), np.inf), "is inf"),
            (np.full((3, 5), -1.0), "is negative"),
        ],
    )
    def test_bad_blocks_are_named(self, block, message):
        with pytest.raises(ValueError, match=f"rows 0 to 2 {message}"):
            rerank_streaming(lambda start, stop: block, 3, 2)
        with pytest.raises(ValueError, match=f"rows 2 to 4 {message}"):
            rerank_streaming(lambda start, stop: block if start else np.ones((2, 5)), 2, 3)

    def test_squares_must_fit_single_precision(self):
        def rows(start, stop):
            return np.full((stop - start, 5), 1e20)

        assert rerank_streaming(rows, 2, 3).shape == (2, 3)
        with pytest.raises(ValueError, match="^the block of rows 0 to 1 must stay below"):
            rerank_streaming(rows, 2, 3, squared=True)

    def test_the_bar_counts_rows_and_is_silent_unless_asked_for(self, monkeypatch, capsys):
        monkeypatch.setattr(reranking, "_BLOCK_ENTRIES", 100)
        rows = vector_distances(np.random.default_rng(0).normal(size=(30, 6)))
        rerank_streaming(rows, 7, 23)
        assert capsys.readouterr().err == ""
        rerank_streaming(rows, 7, 23, progress=True)
        bars = capsys.readouterr().err
        assert "| 30/30 [" in bars and "| 7/7 [" in bars

    @pytest.mark.parametrize("sizes", [(0, 3), (2, 0), (2.0, 3), (True, 3)])
    def test_sizes_are_checked(self, sizes):
        with pytest.raises(ValueError, match="whole number from 1"):
            rerank_streaming(lambda start, stop: np.zeros((stop - start, 5)), *sizes)

    @pytest.mark.parametrize("scale", [1e-25, 1e20])
    def test_scale_does_not_matter_to_cosines(self, scale):
        vectors = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
        rows = vector_distances(vectors * np.float32(scale))(0, 9)
        np.testing.assert_allclose(rows, vector_distances(vectors)(0, 9), atol=1e-6)

    def test_numpy_integers_are_whole_numbers(self):
        rows = vector_distances(np.random.default_rng(0).normal(size=(300, 5)))
        narrow = rerank_streaming(rows, np.int64(4), np.int64(296), k1=np.int8(127))
        np.testing.assert_array_equal(narrow, rerank_streaming(rows, 4, 296, k1=127))

    def test_a_matrix_is_no_function(self):
        with pytest.raises(TypeError, match="^distance_rows must be a function.*, got ndarray$"):
            rerank_streaming(np.zeros((5, 5)), 2, 3)

    def test_vectors_are_checked(self):
        with pytest.raises(ValueError, match="^vectors is inf at row 1, column 0"):
            vector_distances(np.array([[1.0, 0], [np.inf, 0]]))
        with pytest.raises(ValueError, match="vector 1 has length 0"):
            vector_distances(np.array([[1.0, 0], [0, 0]]))

    @pytest.mark.parametrize("bounds", [(0, 1000), (-1, 3), (4, 2)])
    def test_rows_that_are_not_there_are_named(self, bounds):
        rows = vector_distances(np.eye(9))
        assert rows(3, 3).shape == (0, 9)
        with pytest.raises(IndexError, match=f"9 rows, .* of {bounds[0]} to {bounds[1] - 1}"):
            rows(*bounds)


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**20),
    power=st.integers(-20, 20),
    squared=st.booleans(),
    entries=st.integers(1, 60),
)
def test_neither_the_unit_nor_the_blocks_matter(seed, power, squared, entries):
    """Exactly for powers of two, ties and all."""
    rng = np.random.default_rng(seed)
    q, g, k1, k2 = rng.integers(1, [6, 16, 9, 9])
    d = rng.integers(0, 6, (q + g, q + g)).astype(np.float32)
    d[q:, :q] = d[:q, q:].T

    def rerank(d):
        return k_reciprocal_rerank(d[:q, q:], d[:q, :q], d[q:, q:], k1, k2, squared=squared)

    whole = rerank(d)
    np.testing.assert_array_equal(rerank(d * np.float32(2.0**power)), whole)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reranking, "_BLOCK_ENTRIES", entries)
        patch.setattr(reranking, "_CACHED_ENTRIES", max(1, entries // 3))

        def rows(start, stop):
            assert (stop - start) * len(d) <= max(entries, len(d))
            return d[:, start:stop].T

        streamed = rerank_streaming(rows, q, g, k1, k2, squared=squared)
        np.testing.assert_array_equal(rerank(d), whole)
    np.testing.assert_array_equal(streamed, whole)
