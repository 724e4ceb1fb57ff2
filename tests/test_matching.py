"""Chapters 3 and 4: every fast form against the definition, written out in loops."""

import itertools
import re

import pytest
import torch
import torch.nn.functional as F

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


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def unit_maps(*shape):
    return F.normalize(torch.randn(*shape), dim=-3)


def cell(feature_map, row, column):
    """The channels at a location; zeros outside the map."""
    channels, height, width = feature_map.shape
    if 0 <= row < height and 0 <= column < width:
        return feature_map[:, row, column]
    return torch.zeros(channels)


def correlate_by_definition(query_map, gallery_map, kernel_size):
    """Sum of dot products under a kernel cut out at each query location."""
    _, height, width = query_map.shape
    reach = kernel_size // 2
    result = torch.zeros(height * width, height, width)
    places = list(itertools.product(range(height), range(width)))
    steps = list(itertools.product(range(-reach, reach + 1), repeat=2))
    for k, (a, b) in enumerate(places):
        for i, j in places:
            for u, v in steps:
                result[k, i, j] += cell(query_map, a + u, b + v) @ cell(gallery_map, i + u, j + v)
    return result


def best_matches_by_definition(query_maps, gallery_maps, kernel_size):
    """All similarities at once, then the maximum along either axis."""
    rows = []
    for query_map in query_maps:
        row = []
        for gallery_map in gallery_maps:
            scores = correlate_by_definition(query_map, gallery_map, kernel_size).flatten(1)
            row.append(torch.cat([scores.amax(dim=0), scores.amax(dim=1)]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


class TestKernels:
    def test_kernel_of_size_one_is_the_feature_vector(self):
        query_map = torch.arange(12.0).view(2, 3, 2)
        kernels = query_kernels(query_map)
        assert kernels.shape == (6, 2, 1, 1)
        assert kernels[:, :, 0, 0].tolist() == [[0, 6], [1, 7], [2, 8], [3, 9], [4, 10], [5, 11]]

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    def test_kernels_are_patches_with_zero_border(self, size, kernel_size):
        query_map = torch.randn(3, *size)
        kernels = query_kernels(query_map, kernel_size)
        assert kernels.shape == (size[0] * size[1], 3, kernel_size, kernel_size)
        reach = kernel_size // 2
        for k, (a, b) in enumerate(itertools.product(*map(range, size))):
            for u, v in itertools.product(range(kernel_size), repeat=2):
                expected = cell(query_map, a + u - reach, b + v - reach)
                assert torch.equal(kernels[k, :, u, v], expected)

    @pytest.mark.parametrize("kernel_size", [0, 2, 4, -1])
    def test_even_kernel_size_is_refused(self, kernel_size):
        with pytest.raises(ValueError, match="kernel_size must be odd"):
            query_kernels(torch.randn(3, 4, 4), kernel_size)

    def test_batch_is_refused(self):
        with pytest.raises(
            ValueError, match=r"^query_map must .* \(d, h, w\), got \(1, 3, 4, 4\)$"
        ):
            query_kernels(torch.randn(1, 3, 4, 4))


class TestCorrelate:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kernel_size", [1, 3, 5])
    def test_agrees_with_definition(self, size, kernel_size):
        query_map, gallery_map = torch.randn(4, *size), torch.randn(4, *size)
        result = correlate(query_map, gallery_map, kernel_size)
        expected = correlate_by_definition(query_map, gallery_map, kernel_size)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)

    def test_unit_channels_give_cosines(self):
        query_map, gallery_map = torch.randn(4, 3, 2), torch.randn(4, 3, 2)
        result = correlate(F.normalize(query_map, dim=0), F.normalize(gallery_map, dim=0))
        a = query_map.flatten(1).T[:, None]
        b = gallery_map.flatten(1).T[None]
        torch.testing.assert_close(result.flatten(1), F.cosine_similarity(a, b, dim=2))

    def test_gallery_map_may_have_another_size(self):
        assert correlate(torch.randn(4, 3, 2), torch.randn(4, 5, 7), 3).shape == (6, 5, 7)

    @pytest.mark.parametrize("gallery", [(5, 3, 2), (4, 3), (4, 4, 3, 2), (5, 4, 2)])
    def test_other_channels_and_axes_are_refused(self, gallery):
        message = (
            re.escape("gallery_map must have shape (4, h, w)") + ".*" + re.escape(str(gallery))
        )
        with pytest.raises(ValueError, match=message):
            correlate(torch.randn(4, 3, 2), torch.randn(*gallery))


class TestBestMatches:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_agrees_with_definition(self, size, kernel_size):
        queries, gallery = unit_maps(2, 4, *size), unit_maps(3, 4, *size)
        result = best_matches(queries, gallery, kernel_size)
        expected = best_matches_by_definition(queries, gallery, kernel_size)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("block", [matching.BLOCK, 1])
    @pytest.mark.parametrize("size", [(3, 4), (9, 8)], ids=["dense", "sparse"])
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_gradients_agree_with_autograd_through_the_plain_form(
        self, kernel_size, size, block, monkeypatch
    ):
        monkeypatch.setattr(matching, "BLOCK", block)
        queries = unit_maps(2, 4, *size).requires_grad_()
        gallery = unit_maps(3, 4, *size).requires_grad_()
        weight = torch.randn(2, 3, 2 * size[0] * size[1])
        fast = best_matches(queries, gallery, kernel_size)
        pairs = [[correlate(a, b, kernel_size).flatten(1) for b in gallery] for a in queries]
        scores = torch.stack([torch.stack(row) for row in pairs])
        plain = torch.cat([scores.amax(dim=2), scores.amax(dim=3)], dim=-1)
        torch.testing.assert_close(fast, plain, atol=1e-5, rtol=1e-5)
        for mine, theirs in zip(
            torch.autograd.grad((fast * weight).sum(), [queries, gallery]),
            torch.autograd.grad((plain * weight).sum(), [queries, gallery]),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)

    def test_numerical_gradient(self):
        queries = torch.randn(2, 3, 3, 2, dtype=torch.double, requires_grad=True)
        gallery = torch.randn(2, 3, 3, 2, dtype=torch.double, requires_grad=True)
        assert torch.autograd.gradcheck(lambda a, b: best_matches(a, b, 3), (queries, gallery))

    def test_memory_without_gradient_gets_none(self):
        queries = unit_maps(2, 3, 3, 2).requires_grad_()
        best_matches(queries, unit_maps(2, 3, 3, 2)).sum().backward()
        assert queries.grad.abs().sum() > 0

    def test_an_image_matches_itself_everywhere(self):
        maps = unit_maps(1, 6, 4, 3)
        torch.testing.assert_close(best_matches(maps, maps), torch.ones(1, 1, 24))

    def test_the_halves_swap_with_the_roles(self):
        a, b = unit_maps(2, 4, 3, 2), unit_maps(3, 4, 3, 2)
        forth, back = best_matches(a, b), best_matches(b, a).transpose(0, 1)
        torch.testing.assert_close(forth[..., :6], back[..., 6:])
        torch.testing.assert_close(forth[..., 6:], back[..., :6])

    @pytest.mark.parametrize(
        "gallery", [(3, 4, 3), (3, 5, 3, 2), (3, 4, 2, 3)], ids=["3-d", "channels", "size"]
    )
    def test_maps_that_do_not_fit_are_refused(self, gallery):
        queries = torch.randn(2, 4, 3, 2)
        with pytest.raises(
            ValueError, match="gallery_maps must.*" + re.escape(str(gallery[-2:])[1:])
        ):
            best_matches(queries, torch.randn(*gallery))

    @pytest.mark.parametrize("shape", [(2, 0, 3, 2), (2, 4, 0, 2), (2, 4, 3, 0), (4, 3, 2)])
    def test_maps_without_channels_or_locations_are_refused(self, shape):
        with pytest.raises(ValueError) as caught:
            best_matches(torch.zeros(shape), torch.zeros(shape))
        assert str(caught.value) == f"query_maps must have shape (n, d, h, w), got {shape}"

    def test_gradients_of_half_precision_are_summed_in_single_precision(self):
        # Each of 600 gallery images passes 1: in bfloat16 a sum of ones ends at 256.
        queries = torch.ones(1, 1, 1, 1, dtype=torch.bfloat16, requires_grad=True)
        gallery = torch.ones(600, 1, 1, 1, dtype=torch.bfloat16)
        best_matches(queries, gallery)[..., 0].sum().backward()
        assert queries.grad.dtype == torch.bfloat16 and queries.grad.item() == 600


class TestCorrespondences:
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_places_and_values_agree_with_best_matches(self, kernel_size):
        query_map, gallery_map = unit_maps(4, 5, 3), unit_maps(4, 5, 3)
        found = find_correspondences(query_map, gallery_map, kernel_size)
        matches = best_matches(query_map[None], gallery_map[None], kernel_size)[0, 0]
        torch.testing.assert_close(found.similarity_to_query, matches[:15])
        torch.testing.assert_close(found.similarity_to_gallery, matches[15:])
        scores = correlate_by_definition(query_map, gallery_map, kernel_size).flatten(1)
        for k in range(15):
            assert int(found.gallery_location[k]) == int(scores[k].argmax())
            assert int(found.query_location[k]) == int(scores[:, k].argmax())

    def test_a_shifted_image_is_found_where_it_went(self):
        query_map = unit_maps(8, 4, 3)
        found = find_correspondences(query_map, query_map.roll(1, dims=1))
        rows = found.gallery_location.view(4, 3) // 3
        assert rows[:, 0].tolist() == [1, 2, 3, 0]


def head_by_definition(matcher, matches):
    """BN-FC-BN in evaluation mode, in plain arithmetic."""

    def normalise(layer, x):
        scale = layer.weight / torch.sqrt(layer.running_var + layer.eps)
        return (x - layer.running_mean) * scale + layer.bias

    x = normalise(matcher.bn, matches)
    locations = matches.shape[-1] // 2
    weight, bias = matcher.fc.weight[0], matcher.fc.bias
    if matcher.tied:
        logits = (x[..., :locations] @ weight + bias) + (x[..., locations:] @ weight + bias)
    else:
        logits = x @ weight + bias
    return normalise(matcher.logit_bn, logits)


def random_matcher(tied=False, kernel_size=1):
    matcher = QAConv(4, 3, tied=tied, kernel_size=kernel_size)
    for layer in (matcher.bn, matcher.logit_bn):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
        torch.nn.init.uniform_(layer.weight, 0.5, 2)
    torch.nn.init.normal_(matcher.fc.weight)
    torch.nn.init.normal_(matcher.fc.bias)
    return matcher


class TestQAConv:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_agrees_with_definition(self, tied, kernel_size):
        matcher = random_matcher(tied, kernel_size).eval()
        queries, gallery = unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3)
        matches = best_matches_by_definition(queries, gallery, kernel_size)
        expected = head_by_definition(matcher, matches)
        torch.testing.assert_close(matcher(queries, gallery), expected, atol=1e-4, rtol=1e-4)

    @pytest.mark.parametrize("tied, inputs", [(False, 24), (True, 12)])
    def test_state_dict_has_the_released_shapes(self, tied, inputs):
        shapes = {k: tuple(v.shape) for k, v in QAConv(4, 3, tied=tied).state_dict().items()}
        norm = {"weight": (1,), "bias": (1,), "running_mean": (1,), "running_var": (1,)}
        expected = {f"{bn}.{k}": v for bn in ("bn", "logit_bn") for k, v in norm.items()}
        expected |= {"bn.num_batches_tracked": (), "logit_bn.num_batches_tracked": ()}
        expected |= {"fc.weight": (1, inputs), "fc.bias": (1,)}
        assert shapes == expected

    def test_one_statistic_over_all_pairs_and_locations_in_training(self):
        matcher = QAConv(4, 3)
        queries, gallery = unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3)
        matches = best_matches(queries, gallery)
        logits = matcher(queries, gallery)
        assert matcher.bn.running_mean.item() == pytest.approx(
            0.1 * matches.mean().item(), rel=1e-4
        )
        assert logits.mean().item() == pytest.approx(-4, abs=1e-4)

    def test_tied_is_symmetric_and_untied_is_not(self):
        a, b = unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3)
        tied, untied = random_matcher(tied=True).eval(), random_matcher().eval()
        torch.testing.assert_close(tied(a, b), tied(b, a).T, atol=1e-5, rtol=1e-5)
        assert (untied(a, b) - untied(b, a).T).abs().max() > 0.1

    def test_maps_of_another_size_are_refused(self):
        message = r"4 x 3 locations.*\(1, 5, 3, 3\)"
        with pytest.raises(ValueError, match=message):
            QAConv(4, 3)(unit_maps(1, 5, 3, 3), unit_maps(1, 5, 3, 3))

    @pytest.mark.parametrize("size", [(0, 3), (3, 0), (-1, 3)])
    def test_sizes_are_checked(self, size):
        message = f"height and width must be at least 1, got {size[0]} x {size[1]}$"
        with pytest.raises(ValueError, match=message):
            QAConv(*size)

    def test_the_start_is_an_average_of_the_matches_and_almost_surely_negative(self):
        matcher = random_matcher()
        torch.nn.init.normal_(matcher.logit_bn.bias)
        matcher.reset_parameters()
        assert torch.equal(matcher.fc.weight, torch.full((1, 24), 1 / 24))
        assert matcher.fc.bias.item() == 0 and matcher.logit_bn.bias.item() == -4
        assert matcher.bn.weight.item() == matcher.logit_bn.weight.item() == 1
        matches = torch.rand(2, 3, 24)
        expected = matches.mean(dim=-1) - 4
        torch.testing.assert_close(matcher.eval().head(matches), expected, atol=1e-4, rtol=1e-4)

    def test_matches_of_another_length_are_refused(self):
        with pytest.raises(ValueError, match=r"24.*\(2, 5, 23\)"):
            QAConv(4, 3).head(torch.zeros(2, 5, 23))

    def test_a_variance_of_zero_folds_too(self):
        matcher = random_matcher().eval()
        matcher.bn.running_var.zero_()
        matches = torch.rand(2, 24)
        weights, number = matcher.fold()
        expected = matcher.head(matches)
        torch.testing.assert_close(matches @ weights + number, expected, atol=1e-3, rtol=1e-3)


class TestMatchGallery:
    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_blocks_do_not_change_the_scores(self, tied, kernel_size, monkeypatch):
        matcher = random_matcher(tied, kernel_size)
        queries, gallery = unit_maps(7, 5, 4, 3), unit_maps(30, 5, 4, 3)
        monkeypatch.setattr(matching, "BLOCK", 2 * 144)
        monkeypatch.setattr(matching, "COLUMNS", 3)
        result = match_gallery(matcher, queries, gallery)
        expected = matcher.eval()(queries, gallery)
        torch.testing.assert_close(result, expected)
        torch.testing.assert_close(
            match_gallery(matcher, gallery, queries), matcher(gallery, queries)
        )

    @pytest.mark.parametrize("tied", [False, True])
    @pytest.mark.parametrize("kernel_size", [1, 3])
    def test_a_set_against_itself_is_correlated_once(self, tied, kernel_size, monkeypatch):
        matcher, maps = random_matcher(tied, kernel_size), unit_maps(23, 5, 4, 3)
        monkeypatch.setattr(matching, "BLOCK", 5 * 144)
        monkeypatch.setattr(matching, "COLUMNS", 4)
        pairs, pool = [], matching._pool

        def counting(rows, columns):
            pairs.append(len(rows) * len(columns))
            return pool(rows, columns)

        monkeypatch.setattr(matching, "_pool", counting)
        once = match_gallery(matcher, maps, maps)
        assert sum(pairs) == 5 * 23 + 5 * 18 + 5 * 13 + 5 * 8 + 3 * 3
        pairs.clear()
        torch.testing.assert_close(once, match_gallery(matcher, maps, maps.clone()))
        assert sum(pairs) == 23 * 23

    @pytest.mark.parametrize("tied", [False, True])
    def test_the_folded_head_is_the_head(self, tied):
        matcher = random_matcher(tied).eval()
        matches = torch.randn(3, 4, 24)
        weights, number = matcher.fold()
        torch.testing.assert_close(matches @ weights + number, matcher.head(matches))

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
        matcher = random_matcher().train()
        before = matcher.bn.running_mean.clone()
        match_gallery(matcher, unit_maps(2, 5, 4, 3), unit_maps(3, 5, 4, 3))
        assert matcher.training and torch.equal(matcher.bn.running_mean, before)

    @pytest.mark.parametrize("sizes", [(2, 3), (3, 2)])
    def test_dtype_is_that_of_the_correlation(self, sizes):
        matcher = random_matcher()
        queries, gallery = (unit_maps(size, 5, 4, 3) for size in sizes)
        half = match_gallery(matcher, queries, gallery, dtype=torch.bfloat16)
        assert torch.equal(half, match_gallery(matcher, queries.bfloat16(), gallery.bfloat16()))
        assert not torch.equal(half, match_gallery(matcher, queries, gallery))
        # Maps of different types are compared in that of the queries.
        mixed = match_gallery(matcher, queries.bfloat16(), gallery)
        assert torch.equal(half, mixed)

    def test_the_bar_counts_pairs_and_is_silent_unless_asked_for(self, monkeypatch, capsys):
        monkeypatch.setattr(matching, "BLOCK", 2 * 144)
        queries, gallery = unit_maps(3, 5, 4, 3), unit_maps(7, 5, 4, 3)
        match_gallery(random_matcher(), queries, gallery)
        assert capsys.readouterr().err == ""
        match_gallery(random_matcher(), queries, gallery, progress=True)
        assert "| 21/21 [" in capsys.readouterr().err

    def test_empty_gallery_gives_an_empty_result(self):
        shape = match_gallery(random_matcher(), unit_maps(2, 5, 4, 3), unit_maps(0, 5, 4, 3)).shape
        assert shape == (2, 0)

    def test_maps_of_another_size_are_refused(self):
        with pytest.raises(ValueError, match="4 x 3"):
            match_gallery(random_matcher(), unit_maps(1, 5, 3, 3), unit_maps(1, 5, 3, 3))


class TestMoreBadInput:
    @pytest.mark.parametrize("size", [(2, 4), (8, 1)])
    def test_as_many_locations_in_another_shape_are_refused(self, size):
        maps = unit_maps(2, 5, *size)
        matcher = QAConv(4, 2)
        for gallery in (maps, maps[:0]):
            with pytest.raises(ValueError, match="4 x 2"):
                matcher(maps, gallery)
            with pytest.raises(ValueError, match="4 x 2"):
                match_gallery(matcher, maps, gallery)

    def test_no_queries_give_an_empty_result(self):
        maps, none = unit_maps(3, 5, 4, 3), unit_maps(0, 5, 4, 3)
        assert best_matches(none, maps).shape == (0, 3, 24)
        assert best_matches(none.requires_grad_(), maps).shape == (0, 3, 24)
        assert match_gallery(random_matcher(), none.detach(), maps).shape == (0, 3)

    def test_types_must_agree(self):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(ValueError, match="query_maps.*float32 on cpu.*gallery_maps.*float64"):
            best_matches(maps, maps.double())

    def test_half_precision_maps_meet_a_single_precision_head(self):
        maps = unit_maps(2, 5, 4, 3)
        matcher = random_matcher().eval()
        half = matcher(maps.bfloat16(), maps.bfloat16())
        torch.testing.assert_close(half, matcher(maps, maps), atol=0.5, rtol=0.1)

    @pytest.mark.parametrize("dtype", [torch.long, "bfloat16"])
    def test_dtype_must_be_floating(self, dtype):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(ValueError, match="dtype must be a floating-point"):
            match_gallery(random_matcher(), maps, maps, dtype=dtype)

    @pytest.mark.parametrize("kernel_size", [3.0, "3", None])
    def test_kernel_size_must_be_a_whole_number(self, kernel_size):
        with pytest.raises(ValueError, match="kernel_size must be odd"):
            correlate(torch.randn(3, 4, 4), torch.randn(3, 4, 4), kernel_size)

    def test_maps_must_be_floating(self):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(ValueError, match="query_maps must hold floating-point numbers"):
            match_gallery(random_matcher(), maps.round().int(), maps)

    def test_arguments_of_other_kinds_are_named(self):
        maps = unit_maps(2, 5, 4, 3)
        with pytest.raises(TypeError, match="matcher must be a QAConv, got Linear"):
            match_gallery(torch.nn.Linear(2, 2), maps, maps)
        with pytest.raises(TypeError, match="^query_maps must be a torch.Tensor, got ndarray"):
            match_gallery(random_matcher(), maps.numpy(), maps)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_maps_must_be_finite(self, value, dtype):
        maps, wrong = unit_maps(2, 5, 4, 3).to(dtype), unit_maps(2, 5, 4, 3).to(dtype)
        wrong[1, 2, 3, 0] = value
        with pytest.raises(ValueError, match="^query_maps must be finite"):
            match_gallery(random_matcher(), wrong, maps)
        with pytest.raises(ValueError, match="^gallery_maps must be finite"):
            match_gallery(random_matcher(), maps, wrong)
