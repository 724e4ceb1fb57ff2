"""TFusion, and transition times with labels, against their definitions, spelled out in loops."""

import numpy as np
import pytest

from qaconv_lib.beyond.tfusion import TransitionTimes, labelled_transitions, tfusion

GOOD = dict(
    similarity=[[0.1, 0.2, 0.3], [0.3, 0.2, 0.1]],
    query_cameras=[0, 0],
    query_seconds=[0.0, 1.0],
    gallery_cameras=[1, 1, 1],
    gallery_seconds=[0, 1, 2],
)


def random_scene(seed, num_query=14, num_gallery=40, levels=50, length=900):
    rng = np.random.default_rng(seed)
    return (
        rng.integers(0, levels, (num_query, num_gallery)) / (levels - 1),
        rng.integers(0, 3, num_query),
        rng.integers(0, length, num_query).astype(float),
        rng.integers(0, 3, num_gallery),
        rng.integers(0, length, num_gallery).astype(float),
    )


def fuse(scene, sessions, examples, ep, en, window, floor):
    """The score of every pair from examples (first camera, second camera, seconds) of each kind."""
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene

    def probability(kind, first, second, seconds):
        starts = [e for e in examples[kind] if e[0] == first]
        near = [e for e in starts if e[1] == second and abs(e[2] - seconds) <= window]
        return len(near) / len(starts) if starts else 0

    fused = similarity - 1
    for q, g in np.ndindex(similarity.shape):
        key = query_cams[q], gallery_cams[g], gallery_secs[g] - query_secs[q]
        value = (1 - ep) * probability("same", *key) - en * probability("different", *key)
        value *= similarity[q, g] + ep / (1 - ep - en)
        if value > 0 and sessions[0][q] == sessions[1][g]:
            fused[q, g] = value / max(probability("random", *key), floor)
    return fused


def tfusion_by_definition(scene, sessions, ep, en, num_matches, num_random, window, floor, seed):
    similarity, query_cams, query_secs, gallery_cams, gallery_secs = scene
    num_query, num_gallery = similarity.shape
    drawn = np.random.default_rng(seed).integers(num_gallery, size=(num_query, num_random))
    examples = {"same": [], "random": [], "different": []}
    for q in range(num_query):
        top = sorted(range(num_gallery), key=lambda g, q=q: (-similarity[q, g], g))[:num_matches]
        others = [g for g in drawn[q] if g not in top]
        for kind, images in (("same", top), ("random", drawn[q]), ("different", others)):
            examples[kind] += [
                (query_cams[q], gallery_cams[g], gallery_secs[g] - query_secs[q])
                for g in images
                if sessions[0][q] == sessions[1][g]
            ]
    return fuse(scene, sessions, examples, ep, en, window, floor)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("sessions", [False, True])
@pytest.mark.parametrize(("ep", "en"), [(0.25, 0.25), (0.0, 0.5), (0.5, 0.0), (0, 0)])
def test_tfusion_equals_the_definition(seed, sessions, ep, en):
    scene = random_scene(seed)
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


@pytest.mark.parametrize(("ep", "en"), [(0.2, 0.1), (0.1, 0.4), (0.4, 0.0), (0.0, 0.4)])
def test_the_score_is_the_probability_of_one_person(ep, en):
    """Bayes' rule without its algebra: 100 images are taken for matches, 100 are not."""
    usual = {True: 0.8, False: 0.3}  # P(10 s | one person) and P(10 s | two people); else 900 s
    seconds = []
    for of_one_person in (1 - ep, en):  # among those taken for matches, and among the others
        for same, share in ((True, of_one_person), (False, 1 - of_one_person)):
            seconds += [10.0] * round(100 * share * usual[same])
            seconds += [900.0] * round(100 * share * (1 - usual[same]))
    seconds, similarity = np.array(seconds), np.linspace(1, 0, 200)
    found = tfusion(
        similarity[None], [0], [0.0], np.ones(200, int), seconds,
        error_positive=en, error_negative=ep, num_matches=100, num_random=50_000, window=1.0,
    )  # fmt: skip
    one_person = (1 - ep) * similarity + en * (1 - similarity)  # by appearance alone
    soon = seconds == 10
    in_that_time = np.where(soon, usual[True], 1 - usual[True])
    expected = one_person * in_that_time / np.where(soon, soon.mean(), 1 - soon.mean())
    np.testing.assert_allclose(found[0, expected > 0], expected[expected > 0], atol=0.03)


def labelled_by_definition(scene, sessions, labelled, window, floor):
    pairs = [
        (a[1], b[1], b[2] - a[2], a[0] == b[0])
        for i, a in enumerate(labelled)
        for j, b in enumerate(labelled)
        if i != j and a[3] == b[3]
    ]
    examples = {"same": [e for e in pairs if e[3]], "random": pairs, "different": pairs}
    return fuse(scene, sessions, examples, 0, 0, window, floor)


@pytest.mark.parametrize("with_sessions", [False, True])
def test_labelled_transitions_equal_the_definition(with_sessions):
    scene, rng = random_scene(4), np.random.default_rng(4)
    cameras = np.unique(np.concatenate([scene[1], scene[3]]))
    people, seconds = rng.integers(1, 6, 30), rng.uniform(0, 1000, 30)
    labelled_cameras = rng.choice(cameras, 30)
    sessions = [rng.integers(0, 2 if with_sessions else 1, n) for n in (14, 40, 30)]
    given = dict(zip(("query_sessions", "gallery_sessions", "sessions"), sessions, strict=True))
    labels = dict(identities=people, cameras=labelled_cameras, seconds=seconds)
    labels |= given if with_sessions else {}
    found = labelled_transitions(*scene, **labels, window=90.0, floor=0.05)
    labelled = list(zip(people, labelled_cameras, seconds, sessions[2], strict=True))
    expected = labelled_by_definition(scene, sessions, labelled, 90.0, 0.05)
    assert (expected > 0).any() and (expected < 0).any()
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_tfusion_can_leave_out_the_querys_own_camera():
    scene = random_scene(5)
    kept = tfusion(*scene, floor=0.01)
    left_out = tfusion(*scene, floor=0.01, same_camera="suppress")
    own = scene[1][:, None] == scene[3]
    np.testing.assert_array_equal(left_out[~own], kept[~own])
    np.testing.assert_array_equal(left_out[own], scene[0][own] - 1)


def test_defaults_of_tfusion_are_those_of_the_authors():
    scene = random_scene(12, num_query=20, num_gallery=60)
    released = dict(error_positive=0.25, error_negative=0.25, num_matches=11, num_random=100)
    ours = dict(window=30.0, floor=2e-5, same_camera="keep", seed=0)
    np.testing.assert_array_equal(tfusion(*scene), tfusion(*scene, **released, **ours))


LABELLED = {"identities": [1, 1], "cameras": [0, 1], "seconds": [0.0, 5.0]}
SESSIONS = {"query_sessions": [0, 0], "gallery_sessions": [0, 0, 0]}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"window": 0.0}, "window must be above 0"),
        ({"floor": 0.0}, "floor must be above 0"),
        ({"same_camera": "skip"}, "same_camera must be .* got 'skip'"),
        ({"similarity": np.full((2, 3), 1.5)}, "similarity must be from 0 to 1, got 1.5"),
        (SESSIONS | {"query_sessions": [0]}, r"query_sessions must have shape \(2,\)"),
        (SESSIONS | {"gallery_sessions": [0]}, r"gallery_sessions must have shape \(3,\)"),
    ],
)
@pytest.mark.parametrize("function", [tfusion, labelled_transitions])
def test_what_does_not_fit_is_named(function, wrong, message):
    more = {} if function is tfusion else dict(LABELLED)
    if more and "query_sessions" in wrong:
        more["sessions"] = [0, 0]
    with pytest.raises(ValueError, match=message):
        function(**{**GOOD, **more, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"error_positive": 0.5, "error_negative": 0.5}, "sum to less than 1"),
        ({"error_positive": -0.1}, "must be from 0"),
        ({"num_matches": 0}, "num_matches must be"),
        ({"num_random": 0}, "num_random must be"),
        ({"query_sessions": [0, 0]}, "give both query_sessions and gallery_sessions"),
    ],
)
def test_parameters_out_of_range_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        tfusion(**{**GOOD, **wrong})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"identities": [1, 2]}, "no person has two"),
        ({"identities": [[1], [1]]}, "identities must have shape"),
        ({"cameras": [0]}, r"cameras must have shape \(2,\)"),
        ({"seconds": [1.0]}, "seconds must have shape"),
        ({"seconds": [1.0, np.nan]}, "seconds has nan at entry 1"),
        ({"sessions": [0, 0]}, "for query, gallery and labelled"),
        (SESSIONS | {"sessions": [0]}, r"sessions must have shape \(2,\)"),
    ],
)
def test_bad_labels_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        labelled_transitions(**GOOD, **(LABELLED | wrong))


def test_a_window_includes_its_ends():
    cameras, seconds = np.zeros(4, int), np.array([10.0, 20.0, 30.0, 50.0])
    times = TransitionTimes(cameras, cameras, seconds, window=10.0)
    asked = np.array([20.0, 40.0, 60.1, 0.0])
    np.testing.assert_array_equal(times.probability(0, 0, asked), [3 / 4, 2 / 4, 0, 1 / 4])
    np.testing.assert_array_equal(times.probability(0, 1, asked), np.zeros(4))
    np.testing.assert_array_equal(times.probability(1, 0, asked), np.zeros(4))


def test_an_empty_gallery_gives_an_empty_result():
    assert tfusion(np.zeros((2, 0)), [0, 1], [0, 1], [], []).shape == (2, 0)


@pytest.mark.parametrize("same_camera", ["keep", "suppress"])
def test_clocks_and_numbers_of_cameras_do_not_matter(same_camera):
    """A camera's clock may be off, if it is for queries and gallery alike."""
    scene = random_scene(3)
    offsets, names = np.array([0, 700.0, -2100]), np.array([5, -2, 99])
    moved = [scene[0]]
    for cameras, seconds in (scene[1:3], scene[3:]):
        moved += [names[cameras], seconds + offsets[cameras]]
    options = dict(same_camera=same_camera, num_matches=2, num_random=5, floor=0.01)
    np.testing.assert_allclose(tfusion(*moved, **options), tfusion(*scene, **options), rtol=1e-12)
