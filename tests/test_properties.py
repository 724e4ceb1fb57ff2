"""What must hold for any input: equality with the plain forms, and what changes nothing.

The brute-force definitions of single functions stand in their own test files. Here are the
invariances, on scenes that hypothesis makes up: with ties, with single images, with few cameras.
"""

import itertools
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given
from hypothesis import strategies as st

from qaconv_lib import matching
from qaconv_lib.experiments import plain
from qaconv_lib.matching import QAConv, best_matches, correlate, find_correspondences, match_gallery

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
    size = 2 * reach + 1
    places = list(itertools.product(*map(range, maps.queries.shape[2:])))
    patches = []
    for side in (maps.queries, maps.gallery):
        padded = F.pad(side, (reach,) * 4)
        cells = [padded[:, :, i : i + size, j : j + size].flatten(1) for i, j in places]
        patches.append(torch.stack(cells, dim=1))
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
        expected = plain.match_gallery(maps.matcher, *maps[:2])
        torch.testing.assert_close(match_gallery(maps.matcher, *maps[:2]), expected)

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
        q, g = (torch.tensor(random.sample(range(len(side)), len(side))) for side in maps[:2])
        result = match_gallery(maps.matcher, maps.queries[q], maps.gallery[g])
        expected = match_gallery(maps.matcher, *maps[:2])[q][:, g]
        torch.testing.assert_close(result, expected)

    @given(all_maps(), SEEDS)
    def test_a_rotation_of_the_channels_changes_nothing(self, maps, seed):
        """Only angles between channel vectors count, not what a channel stands for."""
        channels, generator = maps.queries.shape[1], torch.Generator().manual_seed(seed)
        rotation = torch.linalg.qr(torch.randn(channels, channels, generator=generator)).Q
        rotated = [torch.einsum("cd,ndhw->nchw", rotation, side) for side in maps[:2]]
        found, expected = (match_gallery(maps.matcher, *side) for side in (rotated, maps[:2]))
        torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)

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
        assert best_matches(*maps[:2]).abs().max() <= 1 + 1e-5
        itself = best_matches(maps.queries, maps.queries).diagonal()
        torch.testing.assert_close(itself, torch.ones_like(itself))

    @given(all_maps(), st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
    def test_matches_have_the_type_of_the_maps_and_scores_single_precision(self, maps, dtype):
        queries, gallery = (side.to(dtype) for side in maps[:2])
        assert best_matches(queries, gallery).dtype == dtype
        scores = match_gallery(maps.matcher, queries, gallery)
        assert scores.dtype == torch.float32
        if dtype == torch.float64:
            expected = match_gallery(maps.matcher, *maps[:2])
            torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)
