"""What must hold for any input: equality with the plain forms, and what changes nothing.

The brute-force definitions of single functions stand in their own test files. Here are the
invariances, on scenes that hypothesis makes up: with ties, with single images, with few cameras.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from qaconv_lib import matching, temporal
from qaconv_lib import reranking as _distance_rows
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.experiments import plain
from qaconv_lib.matching import QAConv, best_matches, correlate, find_correspondences, match_gallery
from qaconv_lib.reranking import k_reciprocal_rerank, rerank_streaming, vector_distances
from qaconv_lib.temporal import tfusion, tlift, tlift_pivots

SEEDS = st.integers(0, 2**32 - 1)


# Matching -------------------------------------------------------------------------------------


class Maps(NamedTuple):
    """Maps of queries and gallery, and a matcher with a head that was drawn too."""

    queries: torch.Tensor
    gallery: torch.Tensor
    matcher: QAConv


@st.composite
def all_maps(draw, whole_numbers=False):
    """Maps of any small size; those of whole numbers tie, and are computed without rounding."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    channels, height, width = (draw(st.integers(1, most)) for most in (4, 4, 3))
    sizes = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    kernel_size, tied = draw(st.sampled_from([1, 1, 3])), draw(st.booleans())
    shapes = [(count, channels, height, width) for count in sizes]
    if whole_numbers:
        maps = [torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes]
    else:
        maps = [F.normalize(torch.randn(shape, generator=generator), dim=1) for shape in shapes]
    matcher = QAConv(height, width, kernel_size=kernel_size, tied=tied)
    with torch.no_grad():
        for tensor in (*matcher.parameters(), matcher.bn.running_mean):
            tensor.copy_(torch.randn(tensor.shape, generator=generator))
        for layer in (matcher.bn, matcher.logit_bn):
            layer.running_var.copy_(0.5 + torch.rand(1, generator=generator))
    return Maps(*maps, matcher.eval())


def all_similarities(maps):
    """Every location against every other, (q, g, h*w, h*w), from padded maps, cell by cell."""
    reach = maps.matcher.kernel_size // 2
    height, width = maps.queries.shape[2:]
    patches = []
    for side in (maps.queries, maps.gallery):
        padded = F.pad(side, (reach,) * 4)
        patches.append(
            torch.stack(
                [
                    padded[:, :, i : i + 2 * reach + 1, j : j + 2 * reach + 1].flatten(1)
                    for i in range(height)
                    for j in range(width)
                ],
                dim=1,
            )
        )
    queries, gallery = patches
    return (queries[:, None, :, None] * gallery[None, :, None, :]).sum(dim=-1)


class TestMatching:
    @given(all_maps(whole_numbers=True))
    def test_whole_numbers_match_exactly_ties_and_all(self, maps):
        expected = all_similarities(maps)
        found = best_matches(maps.queries, maps.gallery, maps.matcher.kernel_size)
        assert torch.equal(found, torch.cat([expected.amax(dim=2), expected.amax(dim=3)], dim=-1))
        one = correlate(maps.queries[0], maps.gallery[-1], maps.matcher.kernel_size)
        assert torch.equal(one.flatten(1), expected[0, -1])

    @given(all_maps(whole_numbers=True))
    def test_places_of_ties_are_places_of_maxima(self, maps):
        scores = all_similarities(maps)[0, 0]
        found = find_correspondences(maps.queries[0], maps.gallery[0], maps.matcher.kernel_size)
        locations = torch.arange(len(scores))
        assert torch.equal(scores[locations, found.gallery_location], scores.amax(dim=1))
        assert torch.equal(scores[found.query_location, locations], scores.amax(dim=0))

    @given(all_maps(whole_numbers=True), st.data())
    def test_the_gradient_of_a_tie_is_that_of_one_of_its_places(self, maps, data):
        """It is the gallery's patch at a location where the maximum is taken."""
        kernel_size = maps.matcher.kernel_size
        scores = all_similarities(maps)[0, 0]
        place = data.draw(st.integers(0, len(scores) - 1))
        query = maps.queries[:1].clone().requires_grad_()
        best_matches(query, maps.gallery[:1], kernel_size)[0, 0, len(scores) + place].backward()
        candidates = (scores[place] == scores[place].max()).nonzero()[:, 0]
        possible = []
        for candidate in candidates:
            own = maps.queries[:1].clone().requires_grad_()
            correlate(own[0], maps.gallery[0], kernel_size).flatten(1)[place, candidate].backward()
            possible.append(own.grad)
        assert any(torch.equal(query.grad, gradient) for gradient in possible)

    @given(all_maps())
    def test_match_gallery_equals_the_plain_form(self, maps):
        assume(maps.matcher.kernel_size == 1)
        torch.testing.assert_close(match_gallery(maps.matcher, *maps[:2]), plain_scores(maps))

    @given(all_maps(), st.integers(1, 40), st.integers(1, 3))
    def test_blocks_do_not_matter(self, maps, elements, columns):
        matcher = maps.matcher
        expected = matcher(maps.queries, maps.gallery).detach()
        whole = torch.cat([maps.queries, maps.gallery])
        itself = matcher(whole, whole).detach()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matching, "BLOCK", elements)
            patch.setattr(matching, "COLUMNS", columns)
            torch.testing.assert_close(match_gallery(matcher, *maps[:2]), expected)
            torch.testing.assert_close(match_gallery(matcher, whole, whole), itself)

    @given(all_maps(), st.randoms(use_true_random=False))
    def test_order_of_queries_and_gallery_does_not_matter(self, maps, random):
        q, g = (torch.tensor(shuffled(len(side), random)) for side in maps[:2])
        result = match_gallery(maps.matcher, maps.queries[q], maps.gallery[g])
        expected = match_gallery(maps.matcher, *maps[:2])[q][:, g]
        torch.testing.assert_close(result, expected)

    @given(all_maps(), SEEDS)
    def test_a_rotation_of_the_channels_changes_nothing(self, maps, seed):
        """Only angles between channel vectors count, not what a channel stands for."""
        channels, generator = maps.queries.shape[1], torch.Generator().manual_seed(seed)
        rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q
        rotated = [torch.einsum("cd,ndhw->nchw", rotation, side) for side in maps[:2]]
        torch.testing.assert_close(
            match_gallery(maps.matcher, *rotated),
            match_gallery(maps.matcher, *maps[:2]),
            atol=1e-4,
            rtol=1e-4,
        )

    @given(all_maps(), st.integers(-8, 8))
    def test_longer_channels_give_as_much_larger_matches(self, maps, power):
        once = best_matches(*maps[:2], maps.matcher.kernel_size)
        scaled = best_matches(maps.queries * 2.0**power, maps.gallery, maps.matcher.kernel_size)
        assert torch.equal(scaled, once * 2.0**power)

    @given(all_maps())
    def test_mirrored_images_match_at_mirrored_places(self, maps):
        height, width = maps.queries.shape[2:]
        flipped = [side.flip(3) for side in maps[:2]]
        kernel_size = maps.matcher.kernel_size
        once, mirrored = (best_matches(*side, kernel_size) for side in (maps[:2], flipped))
        mirrored = mirrored.unflatten(2, (2, height, width)).flip(4).flatten(2)
        torch.testing.assert_close(mirrored, once)

    @given(all_maps())
    def test_unit_channels_give_cosines(self, maps):
        matches = best_matches(*maps[:2])
        assert matches.abs().max() <= 1 + 1e-5
        torch.testing.assert_close(
            best_matches(maps.queries, maps.queries).diagonal(),
            torch.ones_like(best_matches(maps.queries, maps.queries).diagonal()),
        )

    @given(all_maps(), st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
    def test_matches_have_the_type_of_the_maps_and_scores_single_precision(self, maps, dtype):
        queries, gallery = (side.to(dtype) for side in maps[:2])
        assert best_matches(queries, gallery).dtype == dtype
        scores = match_gallery(maps.matcher, queries, gallery)
        assert scores.dtype == torch.float32
        if dtype == torch.float64:
            expected = match_gallery(maps.matcher, *maps[:2])
            torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)


def plain_scores(maps):
    return plain.match_gallery(maps.matcher, maps.queries, maps.gallery)


def shuffled(count, random):
    order = list(range(count))
    random.shuffle(order)
    return order


# Evaluation -----------------------------------------------------------------------------------


class Ranking(NamedTuple):
    """The five arguments of `evaluate_ranking`."""

    similarity: np.ndarray
    query_identities: np.ndarray
    gallery_identities: np.ndarray
    query_cameras: np.ndarray
    gallery_cameras: np.ndarray


@st.composite
def rankings(draw, ties=True):
    """Rankings of few people under few cameras; the first query has a match."""
    rng = np.random.default_rng(draw(SEEDS))
    q, g = draw(st.integers(1, 6)), draw(st.integers(1, 16))
    people, cameras = draw(st.integers(1, 6)), draw(st.integers(2, 4))
    similarity = rng.permutation(q * g).reshape(q, g) / 8.0  # exact also in single precision
    if ties and draw(st.booleans()):
        similarity = similarity // draw(st.integers(1, 8))
    found = Ranking(
        similarity,
        rng.integers(1, people + 1, q),
        rng.integers(-1, people + 1, g),
        rng.integers(0, cameras, q),
        rng.integers(0, cameras, g),
    )
    found.gallery_identities[0] = found.query_identities[0]
    found.gallery_cameras[0] = (found.query_cameras[0] + 1) % cameras
    return found


MEANS = ("mean_ap", "mean_ap_trapezoid", "mean_inp")


def assert_same_scores(one, two):
    for name in MEANS:
        assert getattr(one, name) == pytest.approx(getattr(two, name), rel=1e-12)
    longest = max(len(one.cmc), len(two.cmc))
    for k in range(1, longest + 1):
        assert one.rank(k) == two.rank(k)


class TestEvaluation:
    @given(rankings(ties=False))
    def test_equals_the_plain_form(self, ranking):
        found, expected = evaluate_ranking(*ranking), plain.evaluate_ranking(*ranking)
        np.testing.assert_allclose(found.cmc, expected["cmc"])
        assert found.mean_ap == pytest.approx(expected["mean_ap"])
        assert found.mean_inp == pytest.approx(expected["mean_inp"])

    @given(rankings())
    def test_scores_keep_their_order(self, ranking):
        scores = evaluate_ranking(*ranking)
        assert len(scores.cmc) == ranking.similarity.shape[1] and scores.cmc[-1] == 1
        assert (np.diff(scores.cmc) >= 0).all() and 0 <= scores.cmc[0]
        own = scores.per_query[scores.per_query["valid"]]
        assert (own["average_precision_trapezoid"] <= own["average_precision"]).all()
        assert (own["average_precision"] <= 1).all() and (own["inp"] <= 1).all()
        assert (own["average_precision_trapezoid"] >= own["average_precision"] / 2).all()
        assert (own["first_match_rank"] <= own["num_matches"] / own["inp"] + 1e-9).all()
        kept = ranking.similarity.shape[1] - own["num_ignored"]
        assert (own["num_matches"] / own["inp"] <= kept + 1e-9).all()

    @given(rankings(ties=False), st.randoms(use_true_random=False))
    def test_order_of_queries_and_gallery_does_not_matter(self, ranking, random):
        q, g = (np.array(shuffled(n, random)) for n in ranking.similarity.shape)
        permuted = evaluate_ranking(
            ranking.similarity[q][:, g],
            ranking.query_identities[q],
            ranking.gallery_identities[g],
            ranking.query_cameras[q],
            ranking.gallery_cameras[g],
        )
        once = evaluate_ranking(*ranking)
        assert_same_scores(permuted, once)
        columns = ["identity", "camera", "first_match_rank", "num_matches", "num_ignored", "valid"]
        pd.testing.assert_frame_equal(
            permuted.per_query[columns], once.per_query[columns].iloc[q].reset_index(drop=True)
        )

    @given(rankings(), SEEDS)
    def test_numbers_of_people_and_cameras_are_only_names(self, ranking, seed):
        rng = np.random.default_rng(seed)
        cameras = rng.permutation(9) * 1000 - 4000
        people = np.append(rng.permutation(np.arange(1, 50)) * 10**6, -1)  # the last is -1
        people = np.insert(people, 0, 0)
        renamed = evaluate_ranking(
            ranking.similarity,
            people[ranking.query_identities],
            people[ranking.gallery_identities],
            cameras[ranking.query_cameras],
            cameras[ranking.gallery_cameras],
        )
        assert_same_scores(renamed, evaluate_ranking(*ranking))

    @given(rankings())
    def test_only_the_order_of_the_similarities_counts(self, ranking):
        increasing = ranking._replace(similarity=np.exp(ranking.similarity / 50) - 3)
        assert_same_scores(evaluate_ranking(*increasing), evaluate_ranking(*ranking))

    @given(rankings(), st.sampled_from(["above", "below"]))
    def test_bad_detections_and_junk_change_nothing(self, ranking, place):
        """Whether they come first or last, in the ranking or in the gallery."""
        at = 1e6 if place == "above" else -1e6
        query = ranking.query_identities[0], ranking.query_cameras[0]
        wider = Ranking(
            np.insert(ranking.similarity[:1], 0, [[at], [at]], axis=1),
            ranking.query_identities[:1],
            np.insert(ranking.gallery_identities, 0, [-1, query[0]]),
            ranking.query_cameras[:1],
            np.insert(ranking.gallery_cameras, 0, [7, query[1]]),
        )
        first = ranking._replace(
            similarity=ranking.similarity[:1],
            query_identities=ranking.query_identities[:1],
            query_cameras=ranking.query_cameras[:1],
        )
        scores = evaluate_ranking(*wider)
        assert_same_scores(scores, evaluate_ranking(*first))
        ignored = evaluate_ranking(*first).per_query["num_ignored"][0]
        assert scores.per_query["num_ignored"][0] == ignored + 2

    @given(rankings(), st.integers(1, 5))
    def test_distractors_push_matches_down(self, ranking, count):
        """Below all others they change nothing; above them each costs a rank."""
        once = evaluate_ranking(*ranking)
        for at, step in ((-1e6, 0), (1e6, count)):
            similarity = np.insert(ranking.similarity, 0, [[at]] * count, axis=1)
            more = evaluate_ranking(
                similarity,
                ranking.query_identities,
                np.insert(ranking.gallery_identities, 0, [0] * count),
                ranking.query_cameras,
                np.insert(ranking.gallery_cameras, 0, [0] * count),
            )
            np.testing.assert_array_equal(
                more.per_query["first_match_rank"], once.per_query["first_match_rank"] + step
            )

    @given(
        rankings(), st.sampled_from(["float32", "list", "tensor", "frame", "fortran", "swapped"])
    )
    def test_any_kind_gives_the_same(self, ranking, kind):
        assert_same_scores(
            evaluate_ranking(as_kind(ranking.similarity, kind), *ranking[1:]),
            evaluate_ranking(*ranking),
        )


KINDS = ("array", "float32", "float16", "list", "tensor", "half", "frame", "fortran", "swapped")


def as_kind(values, kind):
    """A float64 array as another kind of array with the same values, give or take rounding."""
    return {
        "array": lambda: values,
        "float32": lambda: values.astype(np.float32),
        "float16": lambda: values.astype(np.float16),
        "list": lambda: values.tolist(),
        "tensor": lambda: torch.from_numpy(values).requires_grad_(),
        "half": lambda: torch.from_numpy(values).bfloat16(),
        "frame": lambda: pd.DataFrame(values),
        "fortran": lambda: np.asfortranarray(np.repeat(values, 2, axis=1))[:, ::2],
        "swapped": lambda: values.astype(values.dtype.newbyteorder()),
    }[kind]()


def assert_like(result, given, shape):
    """A result is of the kind of what was given: a tensor of its type, else an array."""
    assert tuple(result.shape) == shape
    if isinstance(given, torch.Tensor):
        assert isinstance(result, torch.Tensor) and result.dtype == given.dtype
        assert not result.requires_grad
    else:
        assert isinstance(result, np.ndarray) and result.dtype == np.asarray(given).dtype


# Re-ranking -----------------------------------------------------------------------------------


class Distances(NamedTuple):
    """Square distances (N, N), the number of queries, and parameters."""

    all: np.ndarray
    num_query: int
    k1: int
    k2: int

    @property
    def parts(self):
        """The three matrices that `k_reciprocal_rerank` takes."""
        q, d = self.num_query, self.all
        return d[:q, q:], d[:q, :q], d[q:, q:]

    def rerank(self, **more):
        """Re-rank with the scene's parameters."""
        return k_reciprocal_rerank(*self.parts, self.k1, self.k2, **more)


@st.composite
def distances(draw, ties=False):
    """Distances of points; without ties no two of them are equal, also after scaling."""
    rng = np.random.default_rng(draw(SEEDS))
    q, g = draw(st.integers(1, 6)), draw(st.integers(1, 16))
    points = rng.normal(size=(q + g, 3)) + 3 * rng.integers(0, 3, (q + g, 1))
    found = np.linalg.norm(points[:, None] - points, axis=2)
    if ties:
        found = np.rint(2 * found)
    else:
        found += np.where(np.eye(q + g, dtype=bool), 0, 0.01)  # nobody has a twin
    found = found.astype(np.float32)
    return Distances(found, q, draw(st.integers(1, 8)), draw(st.integers(1, 8)))


def apart(scene):
    """Whether all scaled distances of a row differ by more than rounding can change."""
    scaled = np.sort(scene.all / scene.all.max(axis=1, keepdims=True), axis=1)
    return np.diff(scaled, axis=1).min(initial=1) > 1e-5


class TestReranking:
    @given(distances())
    def test_equals_the_plain_form(self, scene):
        expected = plain.k_reciprocal_rerank(*scene.parts, scene.k1, scene.k2)
        np.testing.assert_allclose(scene.rerank(), expected, atol=2e-6)

    @given(distances(), st.randoms(use_true_random=False))
    def test_order_of_queries_and_gallery_does_not_matter(self, scene, random):
        assume(apart(scene))
        q = scene.num_query
        queries, gallery = shuffled(q, random), shuffled(len(scene.all) - q, random)
        order = np.array(queries + [q + image for image in gallery])
        permuted = scene._replace(all=scene.all[order][:, order]).rerank()
        np.testing.assert_allclose(permuted, scene.rerank()[queries][:, gallery], atol=2e-6)

    @given(distances(ties=True), st.integers(-20, 20), st.booleans())
    def test_the_unit_of_the_distances_does_not_matter(self, scene, power, squared):
        """Exactly for powers of two, ties and all."""
        scaled = scene._replace(all=scene.all * np.float32(2.0**power))
        np.testing.assert_array_equal(scaled.rerank(squared=squared), scene.rerank(squared=squared))

    @given(distances(), st.floats(1e-3, 1e3))
    def test_any_unit_gives_the_same_but_for_rounding(self, scene, factor):
        assume(apart(scene))
        scaled = scene._replace(all=scene.all * np.float32(factor))
        np.testing.assert_allclose(scaled.rerank(), scene.rerank(), atol=2e-6)

    @given(distances(ties=True), st.floats(0, 1), st.booleans())
    def test_results_are_a_mix_of_two_distances_from_0_to_1(self, scene, share, squared):
        jaccard, scaled, mixed = (
            scene.rerank(lambda_value=value, squared=squared) for value in (0, 1, share)
        )
        for part in (jaccard, scaled):
            assert part.min() >= 0 and part.max() <= 1
        np.testing.assert_allclose(mixed, (1 - share) * jaccard + share * scaled, atol=1e-6)
        rows = scene.all[: scene.num_query]
        if squared:
            rows = rows * rows
        largest = rows.max(axis=1, keepdims=True)
        expected = rows[:, scene.num_query :] / np.where(largest > 0, largest, 1)
        np.testing.assert_allclose(scaled, expected, rtol=1e-6)

    @given(distances(ties=True), st.booleans(), st.integers(1, 60))
    def test_streaming_equals_the_matrices(self, scene, squared, entries):
        count = len(scene.all)
        options = dict(k1=scene.k1, k2=scene.k2, squared=squared)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_distance_rows, "_BLOCK_ENTRIES", entries)
            patch.setattr(_distance_rows, "_CACHED_ENTRIES", max(1, entries // 3))
            streamed = rerank_streaming(
                lambda start, stop: scene.all[:, start:stop].T,
                scene.num_query,
                count - scene.num_query,
                **options,
            )
        np.testing.assert_array_equal(streamed, scene.rerank(squared=squared))

    @given(distances(), st.sampled_from(KINDS))
    def test_what_comes_back_is_of_the_kind_given(self, scene, kind):
        query_gallery, *others = (np.round(part.astype(np.float64), 1) for part in scene.parts)
        given = as_kind(query_gallery, kind)
        result = k_reciprocal_rerank(given, *others, scene.k1, scene.k2)
        assert_like(result, given, query_gallery.shape)

    @given(SEEDS, st.sampled_from(["cosine", "euclidean"]), st.integers(2, 20))
    def test_vector_distances_are_distances(self, seed, kind, count):
        vectors = np.random.default_rng(seed).normal(size=(count, 4))
        rows = vector_distances(vectors, kind)(0, count)
        np.testing.assert_allclose(rows, rows.T, atol=1e-5)
        np.testing.assert_allclose(rows.diagonal(), 0, atol=1e-6)
        assert (rows >= 0).all() and rows.dtype == np.float32
        around = rows if kind == "euclidean" else np.sqrt(rows)  # half a chord of the unit sphere
        assert (around[:, None] <= around[:, :, None] + around[None] + 1e-3).all()


# Temporal -------------------------------------------------------------------------------------


class Scene(NamedTuple):
    """The five arguments of `tlift`, and its parameters."""

    similarity: np.ndarray
    query_cameras: np.ndarray
    query_seconds: np.ndarray
    gallery_cameras: np.ndarray
    gallery_seconds: np.ndarray


class Options(NamedTuple):
    """Parameters of `tlift`."""

    tau: float
    sigma: float
    k: int
    alpha: float
    pivots: str
    same_camera: str


@st.composite
def scenes(draw, ties=True):
    """Scenes in which times and similarities tie; whole seconds, so that sums are exact."""
    rng = np.random.default_rng(draw(SEEDS))
    q, g, cameras = draw(st.integers(1, 8)), draw(st.integers(1, 14)), draw(st.integers(1, 3))
    similarity = rng.permutation(q * g).reshape(q, g) / (q * g)
    if ties and draw(st.booleans()):
        similarity = np.rint(similarity * 3) / 4
    length = draw(st.sampled_from([3, 60]))
    return Scene(
        similarity,
        rng.integers(0, cameras, q),
        rng.integers(0, length, q).astype(float),
        rng.integers(0, cameras, g),
        rng.integers(0, length, g).astype(float),
    )


OPTIONS = st.builds(
    Options,
    tau=st.sampled_from([1, 2.5, 20, 1000]),
    sigma=st.sampled_from([0.5, 8, 200]),
    k=st.integers(1, 20),
    alpha=st.sampled_from([0, 0.2, 1]),
    pivots=st.sampled_from(["multiset", "set"]),
    same_camera=st.sampled_from(["keep", "suppress"]),
)


class TestTLift:
    @given(scenes(), OPTIONS)
    def test_equals_the_plain_form(self, scene, options):
        options = options._replace(pivots="multiset", same_camera="keep")._asdict()
        own = {key: options[key] for key in ("tau", "sigma", "k", "alpha")}
        np.testing.assert_allclose(tlift(*scene, **options), plain.tlift(*scene, **own), atol=1e-12)

    @given(scenes(), OPTIONS, st.randoms(use_true_random=False))
    def test_order_and_names_do_not_matter(self, scene, options, random):
        """Ties make more pivots, never other ones: so this holds with ties as well."""
        q, g = (np.array(shuffled(n, random)) for n in scene.similarity.shape)
        names = np.array(shuffled(3, random)) * 100 - 77
        permuted = tlift(
            scene.similarity[q][:, g],
            names[scene.query_cameras[q]],
            scene.query_seconds[q],
            names[scene.gallery_cameras[g]],
            scene.gallery_seconds[g],
            **options._asdict(),
        )
        expected = tlift(*scene, **options._asdict())[q][:, g]
        np.testing.assert_allclose(permuted, expected, rtol=1e-12, atol=1e-15)

    @given(scenes(), OPTIONS, st.lists(st.integers(-(10**6), 10**6), min_size=6, max_size=6))
    def test_each_clock_may_be_off(self, scene, options, offsets):
        """A clock per camera, and those of the query set and of the gallery need not agree."""
        offsets = np.array(offsets, dtype=float)
        shifted = scene._replace(
            query_seconds=scene.query_seconds + offsets[scene.query_cameras],
            gallery_seconds=scene.gallery_seconds + offsets[3 + scene.gallery_cameras],
        )
        np.testing.assert_array_equal(
            tlift(*shifted, **options._asdict()), tlift(*scene, **options._asdict())
        )

    @given(scenes(), OPTIONS, st.sampled_from([-1.0, 4.0, 0.125]))
    def test_the_unit_and_the_direction_of_time_do_not_matter(self, scene, options, factor):
        slower = scene._replace(
            query_seconds=scene.query_seconds * factor,
            gallery_seconds=scene.gallery_seconds * factor,
        )
        scaled = options._replace(tau=options.tau * abs(factor), sigma=options.sigma * abs(factor))
        np.testing.assert_array_equal(
            tlift(*slower, **scaled._asdict()), tlift(*scene, **options._asdict())
        )

    @given(scenes(), OPTIONS, st.integers(-8, 8))
    def test_larger_similarities_give_as_much_larger_results(self, scene, options, power):
        larger = scene._replace(similarity=scene.similarity * 2.0**power)
        np.testing.assert_array_equal(
            tlift(*larger, **options._asdict()), tlift(*scene, **options._asdict()) * 2.0**power
        )

    @given(scenes(), OPTIONS)
    def test_cameras_of_the_gallery_do_not_touch_each_other(self, scene, options):
        together = tlift(*scene, **options._asdict())
        for camera in np.unique(scene.gallery_cameras):
            own = scene.gallery_cameras == camera
            alone = tlift(
                scene.similarity[:, own],
                scene.query_cameras,
                scene.query_seconds,
                scene.gallery_cameras[own],
                scene.gallery_seconds[own],
                **options._asdict(),
            )
            np.testing.assert_allclose(alone, together[:, own], rtol=1e-12, atol=1e-15)

    @given(scenes(), OPTIONS)
    def test_results_lie_between_alpha_and_one_more(self, scene, options):
        options = options._replace(same_camera="keep")
        lifted = tlift(*scene, **options._asdict())
        assert (lifted >= options.alpha * scene.similarity * (1 - 1e-12)).all()
        assert (lifted <= (1 + options.alpha) * scene.similarity * (1 + 1e-12)).all()

    @given(scenes(), OPTIONS)
    def test_one_moment_lifts_all_alike(self, scene, options):
        """Where all gallery images of a camera are of one second, time says nothing."""
        options = options._replace(same_camera="keep")
        scene = scene._replace(gallery_seconds=np.full(len(scene.gallery_seconds), 5.0))
        expected = (1 + options.alpha) * scene.similarity
        np.testing.assert_allclose(tlift(*scene, **options._asdict()), expected, rtol=1e-12)

    @given(scenes(), OPTIONS, st.integers(1, 30), st.integers(1, 30))
    def test_blocks_do_not_matter(self, scene, options, kernel_entries, group_entries):
        whole = tlift(*scene, **options._asdict())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(temporal, "_KERNEL_ENTRIES", kernel_entries)
            patch.setattr(temporal, "_GROUP_ENTRIES", group_entries)
            pieces = tlift(*scene, **options._asdict())
        np.testing.assert_allclose(pieces, whole, rtol=1e-12, atol=1e-15)

    @given(scenes(), OPTIONS)
    def test_pivots_explain_the_result(self, scene, options):
        options = options._replace(same_camera="keep")
        lifted = tlift(*scene, **options._asdict())
        for query in range(len(scene.query_cameras)):
            for camera in np.unique(scene.gallery_cameras):
                found = tlift_pivots(
                    *scene, query, camera, tau=options.tau, k=options.k, pivots=options.pivots
                )
                columns = np.flatnonzero(scene.gallery_cameras == camera)
                gaps = (
                    scene.gallery_seconds[found.gallery][:, None] - scene.gallery_seconds[columns]
                )
                kernel = np.exp(-((gaps / options.sigma) ** 2)).mean(axis=0)
                expected = (kernel + options.alpha) * scene.similarity[query, columns]
                np.testing.assert_allclose(lifted[query, columns], expected, atol=1e-12)

    @pytest.mark.parametrize("function", [tlift, tfusion])
    @given(scenes(), st.sampled_from(KINDS))
    def test_what_comes_back_is_of_the_kind_given(self, function, scene, kind):
        given = as_kind(scene.similarity, kind)
        assert_like(function(given, *scene[1:]), given, scene.similarity.shape)

    @given(scenes(), st.integers(-(10**6), 10**6), st.sampled_from(["keep", "suppress"]))
    def test_tfusion_takes_any_clock_and_any_name(self, scene, offset, same_camera):
        """A camera's clock may be off, if it is for queries and gallery alike."""
        offsets = np.array([0, offset, -3 * offset], dtype=float)
        names = np.array([5, -2, 99])
        moved = Scene(
            scene.similarity,
            names[scene.query_cameras],
            scene.query_seconds + offsets[scene.query_cameras],
            names[scene.gallery_cameras],
            scene.gallery_seconds + offsets[scene.gallery_cameras],
        )
        options = dict(same_camera=same_camera, num_matches=2, num_random=5, floor=0.01)
        np.testing.assert_allclose(
            tfusion(*moved, **options), tfusion(*scene, **options), rtol=1e-12, atol=1e-12
        )
