"""TLift and TFusion against their definitions, spelled out in loops."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qaconv_lib import temporal
from qaconv_lib.beyond.tfusion import labelled_transitions
from qaconv_lib.temporal import TransitionTimes, tfusion, tlift, tlift_pivots


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


def test_lone_query_relies_on_its_own_matches():
    scene = (np.array([[0.9, 0.1]]), [0], [0], [1, 1], [0.0, 300.0])
    np.testing.assert_allclose(
        tlift(*scene, k=1), [[0.9 * 1.2, 0.1 * (math.exp(-(300**2) / 200**2) + 0.2)]]
    )
    assert tlift_pivots(*scene, 0, 1, k=1).nearby.tolist() == [0]


def test_multiset_counts_an_image_for_each_person_and_set_once():
    similarity = np.array([[0.9, 0.8], [0.9, 0.0]])
    scene = (similarity, [0, 0], [0, 1], [1, 1], [0.0, 200.0])
    far = math.exp(-1)
    multiset, once = tlift(*scene, k=3), tlift(*scene, k=3, pivots="set")
    assert multiset[0, 0] == pytest.approx(0.9 * ((2 + far) / 3 + 0.2))
    assert once[0, 0] == pytest.approx(0.9 * ((1 + far) / 2 + 0.2))


def test_suppress_gives_the_own_camera_nothing_and_leaves_the_rest():
    scene = random_scene(3)
    own = scene[1][:, None] == scene[3][None]
    kept, suppressed = tlift(*scene), tlift(*scene, same_camera="suppress")
    assert own.any() and (suppressed[own] == 0).all()
    np.testing.assert_array_equal(suppressed[~own], kept[~own])


def test_clocks_of_the_cameras_may_disagree():
    scene = random_scene(4)
    offset = np.array([0, 7200, -86400])
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
    shifted = (
        similarity,
        query_cams,
        query_secs + offset[query_cams],
        gallery_cams,
        gallery_secs + offset[::-1][gallery_cams],
    )
    np.testing.assert_allclose(tlift(*shifted), tlift(*scene))


def test_order_of_gallery_and_queries_and_camera_numbers_do_not_matter():
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene = random_scene(5)
    rng = np.random.default_rng(0)
    q, g = rng.permutation(len(query_cams)), rng.permutation(len(gallery_cams))
    names = np.array([17, -4, 1000])
    permuted = tlift(
        similarity[q][:, g],
        names[query_cams[q]],
        query_secs[q],
        names[gallery_cams[g]],
        gallery_secs[g],
    )
    np.testing.assert_allclose(permuted, tlift(*scene)[q][:, g])


def test_blocks_of_the_kernel_do_not_matter(monkeypatch):
    scene = random_scene(6)
    whole = tlift(*scene)
    monkeypatch.setattr(temporal, "_KERNEL_ENTRIES", 1)
    np.testing.assert_allclose(tlift(*scene), whole, rtol=1e-12)


def test_hundreds_of_queries_keep_their_places():
    scene = random_scene(10, num_query=300, num_gallery=7, length=20_000)
    np.testing.assert_allclose(tlift(*scene), tlift_by_definition(scene))


def test_defaults_are_those_of_the_released_code():
    scene = random_scene(11, levels=9)
    released = dict(tau=100, sigma=200, k=10, alpha=0.2, pivots="multiset", same_camera="keep")
    np.testing.assert_array_equal(tlift(*scene), tlift(*scene, **released))
    # The second person is 100 s away, the third 99 s; of the 11 pairs left the weakest drops out.
    similarity = [np.linspace(1, 0.1, 11), np.ones(11), np.zeros(11)]
    walkers = (similarity, [0, 0, 0], [0, 100, 99], [1] * 11, range(11))
    found = tlift_pivots(*walkers, 0, 1)
    assert found.nearby.tolist() == [0, 2]
    assert found.gallery.tolist() == list(range(10)) and set(found.pickers) == {0}


def test_dropping_queries_before_tlift_changes_the_result():
    """A query asked alone has no nearby people; it keeps its result only if it never had any."""
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene = random_scene(8)
    together, gallery = tlift(*scene, k=5), (gallery_cams, gallery_secs)
    num_nearby = [len(tlift_pivots(*scene, query, 0).nearby) for query in range(14)]
    assert 1 in num_nearby and max(num_nearby) > 1
    for query, number in enumerate(num_nearby):
        one = slice(query, query + 1)
        alone = tlift(similarity[one], query_cams[one], query_secs[one], *gallery, k=5)
        assert np.allclose(alone[0], together[query]) == (number == 1)


@pytest.mark.parametrize("same_camera", ["keep", "suppress"])
def test_empty_gallery_or_queries_give_an_empty_result(same_camera):
    options = dict(same_camera=same_camera)
    assert tlift(np.zeros((2, 0)), [0, 1], [0, 1], [], [], **options).shape == (2, 0)
    assert tlift(np.zeros((0, 2)), [], [], [0, 1], [0, 1], **options).shape == (0, 2)
    assert tfusion(np.zeros((2, 0)), [0, 1], [0, 1], [], []).shape == (2, 0)
    assert tlift(np.ones((1, 2)), [0], [0], [0, 0], [0, 1], **options).shape == (1, 2)


@pytest.mark.parametrize("function", [tlift, tfusion])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_tensor_in_tensor_out(function, dtype):
    scene = random_scene(7)
    similarity = torch.from_numpy(scene[0]).to(dtype)
    result = function(similarity, *[torch.from_numpy(a) for a in scene[1:]])
    assert isinstance(result, torch.Tensor) and result.dtype == dtype
    expected = function(similarity.numpy(), *[pd.Series(a) for a in scene[1:]])
    assert isinstance(expected, np.ndarray) and expected.dtype == similarity.numpy().dtype
    np.testing.assert_array_equal(result.numpy(), expected)


@pytest.mark.parametrize("function", [tlift, tfusion])
def test_does_not_change_its_input(function):
    scene = random_scene(9)
    copies = [a.copy() for a in scene]
    function(*scene)
    for argument, copy in zip(scene, copies, strict=True):
        np.testing.assert_array_equal(argument, copy)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("levels", [None, 3])
def test_pivots_equal_the_definition_and_explain_tlift(seed, levels):
    scene = random_scene(seed, levels=levels)
    fused = tlift(*scene, k=4)
    for query in range(len(scene[1])):
        for camera in range(3):
            nearby, pairs = pivots_by_definition(scene, query, camera, 100, 4)
            found = tlift_pivots(*scene, query, camera, k=4)
            assert found.nearby.tolist() == nearby
            assert sorted(zip(found.pickers, found.gallery, strict=True)) == sorted(pairs)
            np.testing.assert_array_equal(found.scores, scene[0][found.pickers, found.gallery])
            assert (np.diff(found.scores) <= 0).all()
            once = tlift_pivots(*scene, query, camera, k=4, pivots="set")
            assert sorted(once.gallery) == sorted({x for _, x in pairs})
            for image, score in zip(once.gallery, once.scores, strict=True):
                assert score == max(scene[0][b, x] for b, x in pairs if x == image)
            columns = np.flatnonzero(scene[3] == camera)
            seconds = scene[4]
            kernel = np.exp(-(((seconds[found.gallery][:, None] - seconds[columns]) / 200) ** 2))
            expected = (kernel.mean(axis=0) + 0.2) * scene[0][query, columns]
            np.testing.assert_allclose(fused[query, columns], expected)


def test_pivots_in_a_camera_without_images():
    found = tlift_pivots(*random_scene(0), 0, 99)
    assert len(found.nearby) and len(found.pickers) == len(found.gallery) == 0
    for query in (-1, 14):
        with pytest.raises(IndexError, match=f"^query must be from 0 to 13, got {query}$"):
            tlift_pivots(*random_scene(0), query, 0)


def tfusion_by_definition(scene, sessions, ep, en, num_matches, num_random, window, floor, seed):
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
    query_sess, gallery_sess = sessions
    num_query, num_gallery = similarity.shape
    drawn = np.random.default_rng(seed).integers(num_gallery, size=(num_query, num_random))
    examples = {"same": [], "random": [], "different": []}
    for q in range(num_query):
        top = sorted(range(num_gallery), key=lambda g, q=q: (-similarity[q, g], g))[:num_matches]
        chosen = {
            "same": top,
            "random": drawn[q],
            "different": [g for g in drawn[q] if g not in top],
        }
        for kind, images in chosen.items():
            for g in images:
                if query_sess[q] == gallery_sess[g]:
                    seconds = gallery_secs[g] - query_secs[q]
                    examples[kind].append((query_cams[q], gallery_cams[g], seconds))

    def probability(kind, first, second, seconds):
        total = sum(a == first for a, _, _ in examples[kind])
        count = sum(
            a == first and b == second and seconds - window <= t <= seconds + window
            for a, b, t in examples[kind]
        )
        return count / total if total else 0

    fused = np.zeros(similarity.shape)
    for q in range(num_query):
        for g in range(num_gallery):
            key = query_cams[q], gallery_cams[g], gallery_secs[g] - query_secs[q]
            value = (1 - ep) * probability("same", *key) - en * probability("different", *key)
            value *= (similarity[q, g] + ep / (1 - ep - en)) / max(
                probability("random", *key), floor
            )
            possible = value > 0 and query_sess[q] == gallery_sess[g]
            fused[q, g] = value if possible else similarity[q, g] - 1
    return fused


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sessions", [False, True])
@pytest.mark.parametrize(("ep", "en"), [(0.25, 0.25), (0.0, 0.5), (0.5, 0.0), (0, 0)])
def test_tfusion_equals_the_definition(seed, sessions, ep, en):
    scene = random_scene(seed, levels=50)
    rng = np.random.default_rng(seed)
    given_sessions = {}
    labels = np.zeros(14, int), np.zeros(40, int)
    if sessions:
        labels = rng.integers(0, 2, 14), rng.integers(0, 2, 40)
        given_sessions = dict(query_sessions=labels[0], gallery_sessions=labels[1])
    options = dict(num_matches=5, num_random=8, window=60.0, floor=0.01, seed=seed)
    result = tfusion(*scene, **given_sessions, error_positive=ep, error_negative=en, **options)
    expected = tfusion_by_definition(scene, labels, ep, en, **options)
    assert (expected > 0).any() and (expected < 0).any()
    np.testing.assert_allclose(result, expected, atol=1e-12)


def labelled_by_definition(scene, sessions, labelled, window, floor):
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
    pairs = [
        (a[1], b[1], b[2] - a[2], a[0] == b[0])
        for i, a in enumerate(labelled)
        for j, b in enumerate(labelled)
        if i != j and a[3] == b[3]
    ]

    def probability(first, second, seconds, examples):
        starts = [e for e in examples if e[0] == first]
        near = [e for e in starts if e[1] == second and abs(e[2] - seconds) <= window]
        return len(near) / len(starts) if starts else 0

    fused = similarity - 1
    for q, g in np.ndindex(similarity.shape):
        key = query_cams[q], gallery_cams[g], gallery_secs[g] - query_secs[q]
        matched = probability(*key, [e for e in pairs if e[3]])
        value = similarity[q, g] * matched / max(probability(*key, pairs), floor)
        if value > 0 and sessions[0][q] == sessions[1][g]:
            fused[q, g] = value
    return fused


@pytest.mark.parametrize("with_sessions", [False, True])
def test_labelled_transitions_equal_the_definition(with_sessions):
    scene, rng = random_scene(4, levels=50), np.random.default_rng(4)
    cameras = np.unique(np.concatenate([scene[1], scene[3]]))
    people, seconds = rng.integers(1, 6, 30), rng.uniform(0, 1000, 30)
    labelled_cameras = rng.choice(cameras, 30)
    sessions = [rng.integers(0, 2 if with_sessions else 1, n) for n in (14, 40, 30)]
    given = dict(zip(("query_sessions", "gallery_sessions", "sessions"), sessions, strict=True))
    found = labelled_transitions(
        *scene,
        identities=people,
        cameras=labelled_cameras,
        seconds=seconds,
        window=90.0,
        floor=0.05,
        **(given if with_sessions else {}),
    )
    labelled = list(zip(people, labelled_cameras, seconds, sessions[2], strict=True))
    expected = labelled_by_definition(scene, sessions, labelled, 90.0, 0.05)
    assert (expected > 0).any() and (expected < 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_tfusion_can_leave_out_the_querys_own_camera():
    scene = random_scene(5, levels=50)
    kept = tfusion(*scene, floor=0.01)
    left_out = tfusion(*scene, floor=0.01, same_camera="suppress")
    own = scene[1][:, None] == scene[3]
    np.testing.assert_array_equal(left_out[~own], kept[~own])
    np.testing.assert_array_equal(left_out[own], scene[0][own] - 1)
    with pytest.raises(ValueError, match="same_camera"):
        tfusion(*scene, same_camera="drop")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"identities": [1, 2]}, "no person has two"),
        ({"seconds": [1.0]}, "seconds must be 2 finite"),
        ({"seconds": [1.0, np.nan]}, "seconds must be 2 finite"),
        ({"window": 0.0}, "window"),
        ({"sessions": [0, 0]}, "for query, gallery and labelled"),
        (
            {"query_sessions": [0, 0], "gallery_sessions": [0, 0, 0], "sessions": [0]},
            "^sessions has 1 entries, there are 2 identities",
        ),
        ({"cameras": [0]}, "^cameras has 1 entries, there are 2 identities"),
        ({"identities": [[1], [1]]}, "^identities must have one axis"),
        ({"floor": 0.0}, "^floor must be above 0"),
        ({"same_camera": "skip"}, "^same_camera must be 'keep' or 'suppress', got 'skip'"),
    ],
)
def test_labelled_transitions_refuse_bad_labels(more, message):
    labels = {"identities": [1, 1], "cameras": [0, 1], "seconds": [0.0, 5.0], **more}
    with pytest.raises(ValueError, match=message):
        labelled_transitions(**GOOD, **labels)


def test_tfusion_learns_a_constant_walking_time():
    """Everybody needs 60 s from camera 0 to 1, and the similarity confuses pairs of people."""
    rng = np.random.default_rng(0)
    num = 60
    start = np.sort(rng.uniform(0, 50_000, num))
    similarity = 0.1 * rng.random((num, num))
    similarity[np.arange(num), np.arange(num)] = 0.7
    twin = (np.arange(num) + num // 2) % num
    similarity[np.arange(num), twin] = 0.8
    options = dict(num_matches=2, window=10.0, floor=0.01)
    fused = tfusion(similarity, [0] * num, start, [1] * num, start + 60, **options)
    assert (similarity.argmax(axis=1) == twin).all()
    assert (fused.argmax(axis=1) == np.arange(num)).mean() > 0.9


def test_tfusion_keeps_visual_order_among_the_impossible():
    scene = random_scene(2, levels=20)
    fused = tfusion(*scene, num_matches=1, window=1.0)
    impossible = fused <= 0
    assert impossible.any() and not impossible.all()
    np.testing.assert_allclose(fused[impossible], scene[0][impossible] - 1)


GOOD = dict(
    similarity=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]],
    query_cameras=[0, 0],
    query_seconds=[0.0, 1.0],
    gallery_cameras=[1, 1, 1],
    gallery_seconds=[0, 1, 2],
)
BAD = [
    (dict(similarity=[[0, 0, 0], [0, 0, -0.5]]), ValueError, "similarity is negative"),
    (dict(similarity=np.full((2, 3), np.nan)), ValueError, "similarity has NaN at row 0, column 0"),
    (dict(similarity=np.full((2, 3), np.inf)), ValueError, "similarity has an infinite value"),
    (dict(similarity=[0.1, 0.2]), ValueError, "similarity must have two axes"),
    (dict(query_seconds=[0, np.nan]), ValueError, "query_seconds has nan at entry 1; every image"),
    (dict(gallery_seconds=[0, np.inf, 1]), ValueError, "gallery_seconds has inf at entry 1"),
    (dict(gallery_seconds=["a", "b", "c"]), TypeError, "gallery_seconds must be numbers"),
    (dict(gallery_seconds=[0, 1]), ValueError, "gallery_seconds has 2 entries, similarity has 3"),
    (dict(query_cameras=[0]), ValueError, "query_cameras has 1 entries, similarity has 2 rows"),
    (dict(gallery_cameras=[0.5, 1, 1]), TypeError, "gallery_cameras must be integers"),
]


@pytest.mark.parametrize("function", [tlift, tfusion])
@pytest.mark.parametrize(("changes", "error", "message"), BAD)
def test_bad_input_is_named(function, changes, error, message):
    function(**GOOD)
    with pytest.raises(error, match=message):
        function(**{**GOOD, **changes})


@pytest.mark.parametrize(
    ("name", "counted"),
    [
        ("query_cameras", "2 rows"),
        ("query_seconds", "2 rows"),
        ("gallery_cameras", "3 columns"),
        ("gallery_seconds", "3 columns"),
    ],
)
@pytest.mark.parametrize("function", [tlift, tfusion])
def test_lists_of_another_length_are_named(function, name, counted):
    with pytest.raises(ValueError, match=f"^{name} has 7 entries, similarity has {counted}$"):
        function(**{**GOOD, name: [1] * 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(tau=0), "tau must be above 0"),
        (dict(tau=float("nan")), "tau must be above 0"),
        (dict(sigma=-1), "sigma must be above 0"),
        (dict(k=0), "k must be a whole number"),
        (dict(k=1.5), "k must be a whole number"),
        (dict(alpha=-0.1), "alpha must be from 0, got -0.1"),
        (dict(alpha=np.inf), "alpha must be from 0, got inf"),
        (dict(alpha="0"), "alpha must be from 0, got '0'"),
        (dict(pivots="list"), "pivots must be 'multiset' or 'set'"),
        (dict(same_camera="skip"), "same_camera must be 'keep' or 'suppress'"),
    ],
)
def test_tlift_refuses_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        tlift(**GOOD, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(error_positive=0.5, error_negative=0.5), "sum to less than 1"),
        (dict(error_positive=-0.1), "must be from 0"),
        (dict(num_matches=0), "num_matches must be"),
        (dict(num_random=0), "num_random must be"),
        (dict(window=0), "window must be above 0"),
        (dict(floor=0), "floor must be above 0"),
        (dict(query_sessions=[0, 0]), "give both query_sessions and gallery_sessions"),
    ],
)
def test_tfusion_refuses_parameters_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        tfusion(**GOOD, **options)


def test_more_than_a_probability_is_refused():
    too_much = {**GOOD, "similarity": np.full((2, 3), 1.5)}
    labels = {"identities": [1, 1], "cameras": [0, 1], "seconds": [0.0, 5.0]}
    with pytest.raises(ValueError, match="^similarity must not be above 1, got 1.5"):
        tfusion(**too_much)
    with pytest.raises(ValueError, match="^similarity must not be above 1, got 1.5"):
        labelled_transitions(**too_much, **labels)


def test_sessions_of_another_length_are_named():
    for name, counted in (("query_sessions", "2 rows"), ("gallery_sessions", "3 columns")):
        sessions = {"query_sessions": [0, 0], "gallery_sessions": [0, 0, 0], name: [0]}
        with pytest.raises(ValueError, match=f"^{name} has 1 entries, similarity has {counted}$"):
            tfusion(**GOOD, **sessions)


def test_defaults_of_tfusion_are_those_of_the_authors():
    scene = random_scene(12, num_query=20, num_gallery=60)
    released = dict(error_positive=0.25, error_negative=0.25, num_matches=11, num_random=100)
    ours = dict(window=30.0, floor=2e-5, same_camera="keep", seed=0)
    np.testing.assert_array_equal(tfusion(*scene), tfusion(*scene, **released, **ours))


def test_defaults_of_labelled_transitions():
    rng = np.random.default_rng(13)
    scene = random_scene(13, length=80)
    people, cameras = rng.integers(1, 9, 80), rng.integers(0, 3, 80)
    labels = dict(identities=people, cameras=cameras, seconds=rng.integers(0, 80, 80))
    expected = labelled_transitions(*scene, **labels, window=30.0, floor=2e-3, same_camera="keep")
    np.testing.assert_array_equal(labelled_transitions(*scene, **labels), expected)


def test_a_window_includes_its_ends():
    cameras, seconds = np.zeros(4, int), np.array([10.0, 20.0, 30.0, 50.0])
    times = TransitionTimes(cameras, cameras, seconds, window=10.0)
    asked = np.array([20.0, 40.0, 60.1, 0.0])
    np.testing.assert_array_equal(times.probability(0, 0, asked), [3 / 4, 2 / 4, 0, 1 / 4])
    np.testing.assert_array_equal(times.probability(0, 1, asked), np.zeros(4))
    np.testing.assert_array_equal(times.probability(1, 0, asked), np.zeros(4))


def test_without_alpha_far_images_keep_their_order():
    scene = [np.array([[1.0, 0.9, 0.1]]), [1], [0.0], [1, 1, 1], [0.0, 180.0, 170.0]]
    lifted = tlift(*scene, alpha=0.0, sigma=20.0, k=1)
    expected = scene[0][0] * np.exp(-((np.array(scene[4]) / 20) ** 2))
    np.testing.assert_allclose(lifted[0], expected, rtol=1e-9)


@pytest.mark.parametrize("kind", [">f4", np.longdouble])
def test_any_floating_type_and_narrow_integers(kind):
    scene = random_scene(3)
    narrow = tlift(np.asarray(scene[0], dtype=kind), *scene[1:], k=np.int8(127))
    np.testing.assert_allclose(narrow.astype(float), tlift(*scene, k=127), rtol=1e-5)
