"""TLift against its definition, spelled out in loops."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qaconv_lib import temporal
from qaconv_lib.temporal import tlift


def pivots_by_definition(scene, query, camera, tau, k):
    """All (person, gallery image) pairs of steps 1 and 2."""
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
    nearby = [
        b
        for b in range(len(query_cams))
        if query_cams[b] == query_cams[query] and abs(query_secs[b] - query_secs[query]) < tau
    ]
    pairs = [(b, x) for b in nearby for x in range(len(gallery_cams)) if gallery_cams[x] == camera]
    if len(pairs) > k:
        limit = sorted((similarity[b, x] for b, x in pairs), reverse=True)[k - 1]
        pairs = [(b, x) for b, x in pairs if similarity[b, x] >= limit]
    return nearby, pairs


def tlift_by_definition(
    scene, tau=100, sigma=200, k=10, alpha=0.2, pivots="multiset", same_camera="keep"
):
    similarity, query_cams, _, gallery_cams, gallery_secs = scene
    fused = np.zeros(similarity.shape)
    for a in range(len(query_cams)):
        for x in range(len(gallery_cams)):
            if same_camera == "suppress" and query_cams[a] == gallery_cams[x]:
                continue
            _, pairs = pivots_by_definition(scene, a, gallery_cams[x], tau, k)
            images = [image for _, image in pairs]
            if pivots == "set":
                images = sorted(set(images))
            closeness = [
                math.exp(-(((gallery_secs[c] - gallery_secs[x]) / sigma) ** 2)) for c in images
            ]
            fused[a, x] = (sum(closeness) / len(closeness) + alpha) * similarity[a, x]
    return fused


def random_scene(seed, num_query=14, num_gallery=40, levels=None, num_cameras=3, length=900):
    rng = np.random.default_rng(seed)
    similarity = rng.random((num_query, num_gallery))
    if levels:
        similarity = rng.integers(0, levels, similarity.shape) / max(levels - 1, 1)
    return (
        similarity,
        rng.integers(0, num_cameras, num_query),
        rng.integers(0, length, num_query).astype(float),  # whole seconds: differences equal to tau
        rng.integers(0, num_cameras, num_gallery),
        rng.integers(0, length, num_gallery).astype(float),
    )


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("pivots", ["multiset", "set"])
@pytest.mark.parametrize("same_camera", ["keep", "suppress"])
def test_tlift_equals_the_definition(seed, levels, pivots, same_camera):
    scene = random_scene(seed, levels=levels)
    options = dict(pivots=pivots, same_camera=same_camera)
    np.testing.assert_allclose(tlift(*scene, **options), tlift_by_definition(scene, **options))


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**20),
    num_query=st.integers(1, 7),
    num_gallery=st.integers(1, 12),
    levels=st.sampled_from([None, 1, 2, 4]),
    tau=st.sampled_from([1, 3, 50]),
    k=st.integers(1, 15),
    pivots=st.sampled_from(["multiset", "set"]),
    same_camera=st.sampled_from(["keep", "suppress"]),
)
def test_tlift_equals_the_definition_on_small_scenes(
    seed, num_query, num_gallery, levels, tau, k, pivots, same_camera
):
    """Many ties, times that differ by exactly tau, empty cameras, fewer pairs than k."""
    scene = random_scene(seed, num_query, num_gallery, levels, num_cameras=4, length=10)
    options = dict(tau=tau, sigma=4.0, k=k, alpha=0.1, pivots=pivots, same_camera=same_camera)
    np.testing.assert_allclose(tlift(*scene, **options), tlift_by_definition(scene, **options))


def test_example_by_hand():
    # Queries A (t=0) and B (t=50) walk together; B's match at t=1000 lifts A's match at t=1010,
    # and the look-alike at t=5000, which scores higher for A at first, falls behind.
    similarity = np.array([[0.10, 0.50, 0.60], [0.90, 0.20, 0.10]])
    fused = tlift(similarity, [0, 0], [0, 50], [1, 1, 1], [1000, 1010, 5000], k=1)
    near = math.exp(-(10**2) / 200**2)
    expected = similarity * [1 + 0.2, near + 0.2, 0 + 0.2]
    np.testing.assert_allclose(fused, expected)
    assert similarity[0].argmax() == 2 and fused[0].argmax() == 1


def test_hundreds_of_queries_keep_their_places():
    scene = random_scene(10, num_query=300, num_gallery=7, length=20_000)
    np.testing.assert_allclose(tlift(*scene), tlift_by_definition(scene))


def test_memory_beside_the_result_is_that_of_blocks(monkeypatch):
    """No copy of the similarities in another order or type, nor the candidates of all queries."""
    monkeypatch.setattr(temporal, "_GROUP_ENTRIES", 2**15)
    similarity = np.random.default_rng(0).random((300, 2000), dtype=np.float32)
    walkers = [part for size in similarity.shape for part in (np.arange(size) % 2, range(size))]
    tlift(similarity, *walkers, k=30)  # what the first call imports is not counted
    tracemalloc.start()
    fused = tlift(similarity, *walkers, k=30)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert fused.dtype == np.float32 and peak < 1.8 * fused.nbytes


def test_defaults_are_those_of_the_released_code():
    scene = random_scene(11, levels=9)
    released = dict(tau=100, sigma=200, k=10, alpha=0.2, pivots="multiset", same_camera="keep")
    np.testing.assert_array_equal(tlift(*scene), tlift(*scene, **released))
    # The second person is 100 s away, the third 99 s; of the 11 pairs left the weakest drops out.
    similarity = np.array([np.linspace(1, 0.1, 11), np.ones(11), np.zeros(11)])
    walkers = (similarity, [0, 0, 0], [0, 100, 99], [1] * 11, range(0, 1100, 100))
    np.testing.assert_allclose(tlift(*walkers), tlift_by_definition(walkers))
    nearby, pairs = pivots_by_definition(walkers, 0, 1, 100, 10)
    assert nearby == [0, 2] and pairs == [(0, image) for image in range(10)]


@pytest.mark.parametrize("same_camera", ["keep", "suppress"])
def test_empty_gallery_or_queries_give_an_empty_result(same_camera):
    options = dict(same_camera=same_camera)
    assert tlift(np.zeros((2, 0)), [0, 1], [0, 1], [], [], **options).shape == (2, 0)
    assert tlift(np.zeros((0, 2)), [], [], [0, 1], [0, 1], **options).shape == (0, 2)
    assert tlift(np.ones((1, 2)), [0], [0], [0, 0], [0, 1], **options).shape == (1, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tau=0), "tau must be above 0"),
        (dict(tau=float("nan")), "tau must be above 0"),
        (dict(sigma=-1), "sigma must be above 0"),
        (dict(k=0), "k must be a whole number"),
        (dict(k=1.5), "k must be a whole number"),
        (dict(alpha=-0.1), "alpha must be from 0 and finite, got -0.1"),
        (dict(alpha=np.inf), "alpha must be from 0 and finite, got inf"),
        (dict(alpha="0"), "alpha must be from 0 and finite, got '0'"),
        (dict(pivots="list"), "pivots must be one of multiset, set, got 'list'"),
        (dict(same_camera="skip"), "same_camera must be one of keep, suppress"),
    ],
)
def test_tlift_refuses_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        tlift(*random_scene(0), **options)


def test_without_alpha_far_images_keep_their_order():
    scene = [np.array([[1.0, 0.9, 0.1]]), [1], [0.0], [1, 1, 1], [0.0, 180.0, 170.0]]
    lifted = tlift(*scene, alpha=0.0, sigma=20.0, k=1)
    expected = scene[0][0] * np.exp(-((np.array(scene[4]) / 20) ** 2))
    np.testing.assert_allclose(lifted[0], expected, rtol=1e-9)


def test_narrow_integers_are_whole_numbers():
    scene = random_scene(3)
    np.testing.assert_array_equal(tlift(*scene, k=np.int8(127)), tlift(*scene, k=127))


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**20),
    levels=st.sampled_from([None, 4]),
    k=st.integers(1, 15),
    pivots=st.sampled_from(["multiset", "set"]),
    same_camera=st.sampled_from(["keep", "suppress"]),
)
def test_clocks_units_and_blocks_do_not_matter(seed, levels, k, pivots, same_camera):
    options = dict(k=k, pivots=pivots, same_camera=same_camera)
    scene = random_scene(seed, levels=levels, length=60)
    whole = tlift(*scene, tau=8, sigma=20, **options)
    rng = np.random.default_rng(seed)
    offsets = rng.integers(-(10**6), 10**6, (2, 3)).astype(float)  # one clock per camera
    for factor, power in ((-1, 0), (4, 3), (0.125, -8)):
        similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
        moved = tlift(
            similarity * 2.0**power,
            query_cams,
            factor * (query_secs + offsets[0][query_cams]),
            gallery_cams,
            factor * (gallery_secs + offsets[1][gallery_cams]),
            tau=8 * abs(factor),
            sigma=20 * abs(factor),
            **options,
        )
        np.testing.assert_array_equal(moved, whole * 2.0**power)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporal, "_KERNEL_ENTRIES", int(rng.integers(1, 30)))
        patch.setattr(temporal, "_GROUP_ENTRIES", int(rng.integers(1, 30)))
        pieces = tlift(*scene, tau=8, sigma=20, **options)
    np.testing.assert_allclose(pieces, whole, rtol=1e-12, atol=1e-15)
