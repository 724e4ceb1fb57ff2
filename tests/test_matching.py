"""Chapters 3 and 4: every fast form against the definition, written out in loops.

Most maps are drawn by hypothesis: single images, single locations, and whole numbers, which tie and
are computed without rounding.
"""

import itertools
import re
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

from qaconv_lib import matching
from qaconv_lib.matching import (
    QAConv,
    best_matches,
    correlate,
    find_correspondences,
    match_gallery,
    query_kernels,
)

SIZES = [(5, 3), (4, 4), (1, 6), (2, 1)]
SEEDS = st.integers(0, 2**32 - 1)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def unit_maps(*shape):
    return F.normalize(torch.randn(*shape), dim=-3)


def all_similarities(queries, gallery, kernel_size=1):
    """Every location against every other, (q, g, h*w, h'*w'), from padded maps, cell by cell."""

    def patches(maps):
        padded = F.pad(maps, (kernel_size // 2,) * 4)
        places = itertools.product(*map(range, maps.shape[2:]))
        cut = [padded[:, :, i : i + kernel_size, j : j + kernel_size] for i, j in places]
        return torch.stack(cut, dim=1).flatten(2)

    return (patches(queries)[:, None, :, None] * patches(gallery)[None, :, None]).sum(dim=-1)


def random_matcher(tied=False, kernel_size=1, size=(4, 3), generator=None):
    """A matcher in evaluation mode whose weights and statistics are all drawn."""
    matcher = QAConv(*size, tied=tied, kernel_size=kernel_size)
    with torch.no_grad():
        for tensor in (
            *matcher.parameters(),
            matcher.bn.running_mean,
            matcher.logit_bn.running_mean,
        ):
            tensor.normal_(generator=generator)
        for layer in (matcher.bn, matcher.logit_bn):
            layer.running_var.uniform_(0.5, 2, generator=generator)
    return matcher.eval()


class Maps(NamedTuple):
    queries: torch.Tensor
    gallery: torch.Tensor
    matcher: QAConv


@st.composite
def all_maps(draw, whole_numbers=False):
    """Maps of any small size, with unit channels or of whole numbers, and a matcher for them."""
    generator = torch.Generator().manual_seed(draw(SEEDS))
    channels, *size = (draw(st.integers(1, most)) for most in (4, 4, 3))
    counts = draw(st.integers(1, 4)), draw(st.integers(1, 5))
    kernel_size, tied = draw(st.sampled_from([1, 3])), draw(st.booleans())
    shapes = [(count, channels, *size) for count in counts]
    if whole_numbers:
        maps = [torch.randint(-1, 2, shape, generator=generator).float() for shape in shapes]
    else:
        maps = [F.normalize(torch.randn(shape, generator=generator), dim=1) for shape in shapes]
    return Maps(*maps, random_matcher(tied, kernel_size, size, generator))


class TestKernels:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    def test_kernels_are_patches_with_zero_border(self, size, kernel_size):
        query_map = torch.randn(3, *size)
        kernels = query_kernels(query_map, kernel_size)
        padded = F.pad(query_map, (kernel_size // 2,) * 4)
        assert len(kernels) == size[0] * size[1]
        for kernel, (i, j) in zip(kernels, itertools.product(*map(range, size)), strict=True):
            assert torch.equal(kernel, padded[:, i : i + kernel_size, j : j + kernel_size])

    def test_kernels_are_single_locations_unless_asked_otherwise(self):
        query_map, gallery_map = torch.randn(2, 3, 4, 3)
        assert query_kernels(query_map).shape == (12, 3, 1, 1)
        found = find_correspondences(query_map, gallery_map)
        similarity = correlate(query_map, gallery_map).flatten(1)
        assert torch.equal(found.similarity_to_gallery, similarity.amax(dim=1))

    @pytest.mark.parametrize("kernel_size", [0, 2, 4, -1, 3.0, "3", None])
    def test_other_kernel_sizes_are_refused(self, kernel_size):
        for make in (query_kernels, lambda maps, side: QAConv(4, 4, kernel_size=side)):
            with pytest.raises(ValueError, match="kernel_size must be odd"):
                make(torch.randn(3, 4, 4), kernel_size)

    def test_batch_is_refused(self):
        with pytest.raises(ValueError, match=r"query_map must .* \(d, h, w\).*\(1, 3, 4, 4\)"):
            query_kernels(torch.randn(1, 3, 4, 4))


class TestCorrelate:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    def test_agrees_with_definition(self, size, kernel_size):
        query_map, gallery_map = torch.randn(4, 3, 4), torch.randn(4, *size)
        result = correlate(query_map, gallery_map, kernel_size)
        expected = all_similarities(query_map[None], gallery_map[None], kernel_size)[0, 0]
        assert result.shape == (12, *size)
        torch.testing.assert_close(result.flatten(1), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("gallery", [(5, 3, 2), (4, 3), (4, 4, 3, 2), (5, 4, 2)])
    def test_other_channels_and_axes_are_refused(self, gallery):
        message = r"gallery_map must have shape \(4, h, w\).*" + re.escape(str(gallery))
        with pytest.raises(ValueError, match=message):
            correlate(torch.randn(4, 3, 2), torch.randn(*gallery))


class TestBestMatches:
    @given(all_maps(whole_numbers=True))
    def test_agree_with_definition(self, maps):
        """Exactly, ties and all; and the places of the maxima are places of maxima."""
        kernel_size = maps.matcher.kernel_size
        scores = all_similarities(*maps[:2], kernel_size)
        best = torch.cat([scores.amax(dim=2), scores.amax(dim=3)], dim=-1)
        assert torch.equal(best_matches(*maps[:2], kernel_size), best)
        found = find_correspondences(maps.queries[-1], maps.gallery[0], kernel_size)
        one, places = scores[-1, 0], torch.arange(scores.shape[2])
        to_query, to_gallery = best[-1, 0].split(len(places))
        assert torch.equal(found.similarity_to_query, to_query)
        assert torch.equal(found.similarity_to_gallery, to_gallery)
        assert torch.equal(one[places, found.gallery_location], to_gallery)
        assert torch.equal(one[found.query_location, places], to_query)

    @pytest.mark.parametrize("block", [matching.BLOCK, 1])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_gradients_agree_with_autograd_through_the_plain_form(
        self, kernel_size, dtype, block, monkeypatch
    ):
        monkeypatch.setattr(matching, "BLOCK", block)
        queries, gallery = (
            unit_maps(count, 4, 3, 4).to(dtype).requires_grad_() for count in (2, 3)
        )
        weight = torch.randn(2, 3, 24, dtype=dtype)
        fast = best_matches(queries, gallery, kernel_size)
        scores = all_similarities(queries, gallery, kernel_size)
        plain = torch.cat([scores.amax(dim=2), scores.amax(dim=3)], dim=-1)
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
        for mine, theirs in zip(
            torch.autograd.grad((fast * weight).sum(), [queries, gallery]),
            torch.autograd.grad((plain * weight).sum(), [queries, gallery]),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)

    @given(all_maps(whole_numbers=True), st.data())
    def test_the_gradient_of_a_tie_is_that_of_one_of_its_places(self, maps, data):
        """It is the gallery's patch at a location where the maximum is taken."""
        kernel_size = maps.matcher.kernel_size
        scores = all_similarities(*maps[:2], kernel_size)[0, 0]
        place = data.draw(st.integers(0, len(scores) - 1))
        query = maps.queries[:1].clone().requires_grad_()
        best_matches(query, maps.gallery[:1], kernel_size)[0, 0, len(scores) + place].backward()
        possible = []
        for candidate in (scores[place] == scores[place].max()).nonzero()[:, 0]:
            own = maps.queries[:1].clone().requires_grad_()
            correlate(own[0], maps.gallery[0], kernel_size).flatten(1)[place, candidate].backward()
            possible.append(own.grad)
        assert any(torch.equal(query.grad, gradient) for gradient in possible)

    def test_gradients_of_half_precision_are_summed_in_single_precision(self):
        # Each of 600 gallery images passes 1: in bfloat16 a sum of ones ends at 256.
        queries = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
        gallery = torch.ones(600, 1, 1, 1, dtype=torch.bfloat16)
        best_matches(queries, gallery)[..., 0].sum().backward()
        assert queries.grad.dtype == torch.bfloat16 and queries.grad.item() == 600

    def test_maps_that_are_not_finite_have_gradients_too(self):
        """So that training goes on to name the loss that is not a number."""
        queries = torch.full((1, 2, 1, 1), torch.nan, requires_grad=True)
        best_matches(queries, torch.ones(1, 2, 1, 1)).sum().backward()

    @given(all_maps())
    def test_unit_channels_give_cosines(self, maps):
        """And the halves swap with the roles."""
        kernel_size = maps.matcher.kernel_size
        assert best_matches(*maps[:2]).abs().max() <= 1 + 1e-5
        itself = best_matches(maps.queries, maps.queries).diagonal()
        torch.testing.assert_close(itself, torch.ones_like(itself))
        forth, back = (best_matches(*m, kernel_size) for m in (maps[:2], maps[1::-1]))
        swapped = back.transpose(0, 1).roll(back.shape[2] // 2, dims=2)
        torch.testing.assert_close(forth, swapped)

    @pytest.mark.parametrize(
        "gallery, named",
        [
            ((3, 4, 3), "(3, 4, 3)"),
            ((3, 5, 3, 2), "(4, 3, 2) and (5, 3, 2)"),
            ((3, 4, 2, 3), "(4, 3, 2) and (4, 2, 3)"),
        ],
    )
    def test_maps_that_do_not_fit_are_refused(self, gallery, named):
        with pytest.raises(ValueError, match="gallery_maps must.*" + re.escape(named)):
            best_matches(torch.randn(2, 4, 3, 2), torch.randn(*gallery))

    @pytest.mark.parametrize("shape", [(2, 0, 3, 2), (2, 4, 0, 2), (2, 4, 3, 0), (4, 3, 2)])
    def test_maps_without_channels_or_locations_are_refused(self, shape):
        message = rf"query_maps must .*\(n, d, h, w\).*{re.escape(str(shape))}"
        with pytest.raises(ValueError, match=message):
            best_matches(torch.zeros(shape), torch.zeros(shape))

    def test_types_must_agree(self):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(ValueError, match="query_maps.*float32 on cpu.*gallery_maps.*float64"):
            best_matches(maps, maps.double())


class TestQAConv:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("variance", [0, 1.5])
    def test_head_and_folded_head_agree_with_definition(self, tied, variance):
        """BN-FC-BN in evaluation mode, in plain arithmetic."""
        matcher, matches = random_matcher(tied), torch.randn(2, 3, 24)
        matcher.bn.running_var.fill_(variance)

        def normalise(layer, x):
            scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
            return (x - layer.running_mean) * scale + layer.bias

        weight, bias = matcher.fc.weight[0].repeat(1 + tied), matcher.fc.bias * (1 + tied)
        logits = normalise(matcher.bn, matches) @ weight + bias
        expected = normalise(matcher.logit_bn, logits)
        torch.testing.assert_close(matcher.head(matches), expected, atol=1e-3, rtol=1e-4)
        weights, number = matcher.fold()
        torch.testing.assert_close(matches @ weights + number, expected, atol=1e-3, rtol=1e-4)

    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_scores_are_the_head_of_the_best_matches(self, kernel_size):
        matcher, maps = random_matcher(kernel_size=kernel_size), unit_maps(2, 5, 4, 3)
        expected = matcher.head(best_matches(maps, maps, kernel_size))
        torch.testing.assert_close(matcher(maps, maps), expected)

    @pytest.mark.parametrize("options, inputs", [({}, 24), ({"tied": True}, 12)])
    def test_state_dict_has_the_released_shapes(self, options, inputs):
        shapes = {k: tuple(v.shape) for k, v in QAConv(4, 3, **options).state_dict().items()}
        norm = {"weight": (1,), "bias": (1,), "running_mean": (1,), "running_var": (1,)}
        expected = {f"{bn}.{k}": v for bn in ("bn", "logit_bn") for k, v in norm.items()}
        expected |= {"bn.num_batches_tracked": (), "logit_bn.num_batches_tracked": ()}
        expected |= {"fc.weight": (1, inputs), "fc.bias": (1,)}
        assert shapes == expected

    def test_one_statistic_over_all_pairs_and_locations_in_training(self):
        matcher, maps = QAConv(4, 3), (unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3))
        mean = best_matches(*maps).mean().item()
        assert matcher(*maps).mean().item() == pytest.approx(-4, abs=1e-4)
        assert matcher.bn.running_mean.item() == pytest.approx(0.1 * mean, rel=1e-4)

    def test_tied_is_symmetric_and_untied_is_not(self):
        a, b = unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3)
        tied, untied = random_matcher(tied=True), random_matcher()
        torch.testing.assert_close(tied(a, b), tied(b, a).T, atol=1e-5, rtol=1e-5)
        assert (untied(a, b) - untied(b, a).T).abs().max() > 0.01

    def test_the_start_is_an_average_of_the_matches_and_almost_surely_negative(self):
        for matcher in (QAConv(4, 3), random_matcher()):
            matcher.reset_parameters()
            matches = torch.rand(2, 3, 24)
            found = matcher.eval().head(matches)
            torch.testing.assert_close(found, matches.mean(dim=-1) - 4, atol=1e-4, rtol=1e-4)

    def test_half_precision_maps_meet_a_single_precision_head(self):
        maps, matcher = unit_maps(2, 5, 4, 3), random_matcher()
        half = matcher(maps.bfloat16(), maps.bfloat16())
        torch.testing.assert_close(half, matcher(maps, maps), atol=0.5, rtol=0.1)

    @pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 3)])
    def test_sizes_are_checked(self, size):
        with pytest.raises(ValueError, match=f"height and width must .*{size[0]} x {size[1]}"):
            QAConv(*size)

    @pytest.mark.parametrize("size", [(3, 3), (2, 6), (12, 1)])
    def test_maps_of_another_size_are_refused(self, size):
        maps, matcher = unit_maps(2, 5, *size), random_matcher()
        for gallery, match in itertools.product((maps, maps[:0]), (QAConv.forward, match_gallery)):
            with pytest.raises(ValueError, match="maps must have 4 x 3"):
                match(matcher, maps, gallery)

    def test_matches_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match=r"24.*\(2, 5, 23\)"):
            QAConv(4, 3).head(torch.zeros(2, 5, 23))


class Computed(TorchFunctionMode):
    """Counts the numbers in all results of PyTorch's functions, and in the largest of them."""

    numbers = largest = 0

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        size = result.numel() if isinstance(result, torch.Tensor) else 0
        self.numbers, self.largest = self.numbers + size, max(self.largest, size)
        return result


class TestMatchGallery:
    @given(all_maps(), st.integers(1, 40), st.integers(1, 3))
    def test_equals_the_matcher_in_blocks_of_any_size(self, maps, elements, columns):
        matcher = maps.matcher
        whole = torch.cat([maps.queries, maps.gallery])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(matching, "BLOCK", elements)
            patch.setattr(matching, "COLUMNS", columns)
            for pair in (maps[:2], (whole, whole)):
                torch.testing.assert_close(match_gallery(matcher, *pair), matcher(*pair).detach())

    def test_a_set_against_itself_is_correlated_once(self, monkeypatch):
        monkeypatch.setattr(matching, "BLOCK", 5 * 144)
        monkeypatch.setattr(matching, "COLUMNS", 4)
        matcher, maps = random_matcher(), unit_maps(23, 5, 4, 3)
        with Computed() as once:
            scores = match_gallery(matcher, maps, maps)
        with Computed() as twice:
            torch.testing.assert_close(match_gallery(matcher, maps, maps.clone()), scores)
        assert once.numbers < 0.7 * twice.numbers

    @pytest.mark.parametrize(("block", "columns"), [(20_000, 4), (150 * 8 * 144, 20)])
    def test_memory_is_that_of_a_block_and_nothing_is_computed_twice(
        self, block, columns, monkeypatch
    ):
        """The blocks hold 138 queries and one gallery image, or all queries and 8 images."""
        monkeypatch.setattr(matching, "BLOCK", block)
        monkeypatch.setattr(matching, "COLUMNS", columns)
        queries, gallery = unit_maps(150, 5, 4, 3), unit_maps(30, 5, 4, 3)
        with Computed() as computed:
            match_gallery(random_matcher(), queries, gallery)
        assert computed.largest <= block
        assert computed.numbers < 8 * 150 * 30 * 144

    @given(all_maps(), st.sampled_from([torch.float16, torch.bfloat16, torch.float64]))
    def test_matches_have_the_type_of_the_maps_and_scores_single_precision(self, maps, dtype):
        queries, gallery = (side.to(dtype) for side in maps[:2])
        assert best_matches(queries, gallery).dtype == dtype
        scores = match_gallery(maps.matcher, queries, gallery)
        assert scores.dtype == torch.float32
        if dtype == torch.float64:
            expected = match_gallery(maps.matcher, *maps[:2])
            torch.testing.assert_close(scores, expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
    def test_dtype_is_that_of_the_correlation(self, sizes):
        matcher = random_matcher()
        queries, gallery = (unit_maps(size, 5, 4, 3) for size in sizes)
        half = match_gallery(matcher, queries, gallery, dtype=torch.bfloat16)
        assert torch.equal(half, match_gallery(matcher, queries.bfloat16(), gallery.bfloat16()))
        assert not torch.equal(half, match_gallery(matcher, queries, gallery))
        # Maps of different types are compared in that of the queries.
        assert torch.equal(half, match_gallery(matcher, queries.bfloat16(), gallery))

    def test_confident_pairs_keep_their_order(self):
        """Their sigmoids are all exactly 1 in single precision."""
        matcher, maps = random_matcher(tied=True), unit_maps(6, 5, 4, 3)
        before = match_gallery(matcher, maps, maps)
        with torch.no_grad():
            matcher.logit_bn.bias += 60
        after = match_gallery(matcher, maps, maps)
        assert (torch.sigmoid(after) == 1).all()
        torch.testing.assert_close(after, before + 60)
        assert torch.equal(after.argsort(stable=True), before.argsort(stable=True))

    def test_mode_is_restored_and_statistics_stay(self):
        matcher, maps = random_matcher().train(), unit_maps(2, 5, 4, 3)
        before = matcher.bn.running_mean.clone()
        match_gallery(matcher, maps, maps)
        assert matcher.training and torch.equal(matcher.bn.running_mean, before)

    def test_the_bar_counts_pairs_and_is_silent_unless_asked_for(self, monkeypatch, capsys):
        monkeypatch.setattr(matching, "BLOCK", 2 * 144)
        queries, gallery = unit_maps(3, 5, 4, 3), unit_maps(7, 5, 4, 3)
        match_gallery(random_matcher(), queries, gallery)
        assert capsys.readouterr().err == ""
        match_gallery(random_matcher(), queries, gallery, progress=True)
        assert "| 21/21 [" in capsys.readouterr().err

    def test_empty_sides_give_an_empty_result(self):
        maps, none = unit_maps(3, 5, 4, 3), unit_maps(0, 5, 4, 3)
        assert match_gallery(random_matcher(), maps, none).shape == (3, 0)
        assert match_gallery(random_matcher(), none, maps).shape == (0, 3)
        for kernel_size in (1, 3):
            assert best_matches(none, maps, kernel_size).shape == (0, 3, 24)
        assert best_matches(none.requires_grad_(), maps).shape == (0, 3, 24)

    @pytest.mark.parametrize("dtype", [torch.long, "bfloat16"])
    def test_dtype_must_be_floating(self, dtype):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(ValueError, match="dtype must be a floating-point"):
            match_gallery(random_matcher(), maps, maps, dtype=dtype)

    def test_arguments_of_other_kinds_are_named(self):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(TypeError, match="matcher must be a QAConv, got Linear"):
            match_gallery(torch.nn.Linear(2, 2), maps, maps)
        with pytest.raises(TypeError, match="query_maps must be a torch.Tensor, got ndarray"):
            match_gallery(random_matcher(), maps.numpy(), maps)
        with pytest.raises(ValueError, match="query_maps must hold floating-point numbers"):
            match_gallery(random_matcher(), maps.round().int(), maps)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_maps_must_be_finite(self, value, dtype):
        maps = unit_maps(2, 5, 4, 3).to(dtype)
        wrong = maps.clone()
        wrong[1, 2, 3, 0] = value
        for name, pair in (("query_maps", (wrong, maps)), ("gallery_maps", (maps, wrong))):
            with pytest.raises(ValueError, match=f"^{name} must be finite"):
                match_gallery(random_matcher(), *pair)
