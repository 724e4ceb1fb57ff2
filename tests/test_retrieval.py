"""Searching a gallery on disk and in two stages, against scoring everything."""

from __future__ import annotations

import builtins

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.scale.retrieval import (
    build_index,
    check_length,
    match_shortlist,
    match_store,
    shortlist,
)
from qaconv_lib.scale.store import MapStore, check_rows, check_unit_channels, pool_maps

SHAPE = (6, 4, 2)
MODEL = "0" * 16


def unit_maps(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, *SHAPE, generator=generator), dim=1)


@pytest.fixture
def matcher():
    torch.manual_seed(3)
    matcher = QAConv(4, 2)
    torch.nn.init.normal_(matcher.fc.weight)
    matcher.bn.running_mean.fill_(0.3)
    return matcher.eval()


@pytest.fixture
def stored(tmp_path):
    maps = unit_maps(40, seed=1)
    store = MapStore.create(tmp_path / "store", MODEL, SHAPE)
    for part in maps.split(17):
        store.append(part, pd.DataFrame({"path": range(len(part))}))
    return store, maps.half().float()


def test_a_store_is_scored_as_its_maps_are(matcher, stored):
    store, maps = stored
    queries = unit_maps(3)
    found = match_store(matcher, queries, store)
    torch.testing.assert_close(found, match_gallery(matcher, queries, maps))


class TestShortlist:
    def test_the_nearest_come_first(self):
        queries, gallery = pool_maps(unit_maps(3)), pool_maps(unit_maps(40, seed=1))
        rows = shortlist(queries, gallery, 40)
        scores = (queries @ gallery.T).gather(1, rows)
        assert (scores.diff(dim=1) <= 0).all()
        assert torch.equal(rows.sort(dim=1).values, torch.arange(40).expand(3, 40))
        assert torch.equal(shortlist(queries, gallery, 7), rows[:, :7])

    def test_an_exact_index_names_the_same_images(self):
        queries, gallery = pool_maps(unit_maps(3)), pool_maps(unit_maps(40, seed=1))
        index = build_index(gallery)
        assert torch.equal(shortlist(queries, index, 7), shortlist(queries, gallery, 7))

    def test_an_index_of_cells_finds_most(self):
        gallery = pool_maps(unit_maps(400, seed=1))
        index = build_index(gallery, cells=4)
        assert index.nprobe == 2
        found = shortlist(gallery[:20], index, 1)[:, 0]
        assert torch.equal(found, torch.arange(20))  # each is its own neighbour

    def test_an_index_that_finds_too_few_says_so(self):
        gallery = pool_maps(unit_maps(400, seed=1))
        index = build_index(gallery, cells=40)
        index.nprobe = 1
        with pytest.raises(ValueError, match="fewer than 300 images for 2 of 2 queries"):
            shortlist(gallery[:2], index, 300)

    @pytest.mark.parametrize("length", [0, 41, 2.0, True])
    def test_length_must_fit_the_gallery(self, length):
        gallery = pool_maps(unit_maps(40))
        for where in (gallery, build_index(gallery)):
            with pytest.raises(ValueError, match="length must lie in 1..40"):
                shortlist(gallery[:1], where, length)

    def test_vectors_must_fit(self):
        with pytest.raises(ValueError, match=r"shape \(q, 6\), got \(2, 5\)$"):
            shortlist(torch.ones(2, 5), torch.ones(3, 6), 1)
        with pytest.raises(
            ValueError, match=r"^query_vectors must have shape \(q, d\), got \(6,\)$"
        ):
            shortlist(torch.ones(6), torch.ones(3, 6), 1)

    def test_kinds_are_checked(self, matcher, stored):
        store, maps = stored
        queries = pool_maps(unit_maps(2))
        with pytest.raises(TypeError, match="of a store: its vectors"):
            shortlist(queries, store, 3)
        with pytest.raises(ValueError, match="^query_vectors must be finite"):
            shortlist(queries * torch.nan, store.vectors, 3)
        assert shortlist(queries.double(), store.vectors, 3).shape == (2, 3)
        with pytest.raises(ValueError, match="vectors must be a finite torch.Tensor"):
            build_index(queries.numpy())
        with pytest.raises(TypeError, match="store must be a MapStore, got Tensor"):
            match_store(matcher, unit_maps(2), maps)

    @pytest.mark.parametrize("cells", [0, 41])
    def test_cells_must_fit(self, cells):
        with pytest.raises(ValueError, match="cells must lie in 1..40"):
            build_index(pool_maps(unit_maps(40)), cells)

    def test_without_faiss_there_is_an_instruction(self, monkeypatch):
        imported = builtins.__import__

        def without(name, *rest, **more):
            if name == "faiss":
                raise ModuleNotFoundError(name)
            return imported(name, *rest, **more)

        monkeypatch.setattr(builtins, "__import__", without)
        with pytest.raises(ImportError, match="pip install faiss-cpu"):
            build_index(torch.eye(3))


class TestMatchShortlist:
    @pytest.mark.parametrize("from_disk", [False, True])
    def test_scores_are_those_of_the_whole_gallery(self, matcher, stored, from_disk):
        store, maps = stored
        queries = unit_maps(3)
        rows = torch.stack([torch.randperm(40)[:9] for _ in range(3)])
        found = match_shortlist(matcher, queries, store if from_disk else maps, rows)
        everything = match_gallery(matcher, queries, maps)
        torch.testing.assert_close(found, everything.gather(1, rows))

    @pytest.mark.parametrize("from_disk", [False, True])
    def test_rows_that_are_none_are_refused(self, matcher, stored, from_disk):
        gallery, queries = stored[0] if from_disk else stored[1], unit_maps(2)
        with pytest.raises(IndexError, match="rows must lie in 0..39, got -1 to -1"):
            match_shortlist(matcher, queries, gallery, torch.full((2, 3), -1))
        with pytest.raises(TypeError, match="rows must be whole numbers"):
            match_shortlist(matcher, queries, gallery, torch.rand(2, 3))

    def test_rows_must_fit(self, matcher):
        with pytest.raises(ValueError, match=r"shape \(2, n\)"):
            match_shortlist(matcher, unit_maps(2), unit_maps(4), torch.zeros(3, 1).long())
        with pytest.raises(IndexError):
            match_shortlist(matcher, unit_maps(1), unit_maps(4), torch.tensor([[4]]))

    @pytest.mark.parametrize("from_disk", [False, True])
    def test_no_queries_give_an_empty_result(self, matcher, stored, from_disk):
        gallery = stored[0] if from_disk else stored[1]
        found = match_shortlist(matcher, unit_maps(0), gallery, torch.empty(0, 5).long())
        assert found.shape == (0, 5)

    @pytest.mark.parametrize(
        ("rows", "error"),
        [([[0, 1], [2]], ValueError), ([["a"], ["b"]], TypeError), (None, TypeError)],
    )
    def test_rows_of_other_kinds_are_named(self, matcher, rows, error):
        with pytest.raises(error, match="rows must be"):
            match_shortlist(matcher, unit_maps(2), unit_maps(4), rows)

    def test_galleries_and_queries_are_named(self, matcher, stored):
        rows = torch.zeros(2, 1).long()
        for gallery in ("a folder", None, stored[1].numpy()):
            with pytest.raises(TypeError, match="gallery must be a torch.Tensor or a MapStore"):
                match_shortlist(matcher, unit_maps(2), gallery, rows)
        for queries in (unit_maps(2).numpy(), None):
            with pytest.raises(TypeError, match="query_maps must be a torch.Tensor"):
                match_shortlist(matcher, queries, stored[1], rows)
            with pytest.raises(TypeError, match="query_maps must be a torch.Tensor"):
                match_store(matcher, queries, stored[0])

    def test_maps_must_be_finite(self, matcher, stored):
        queries, rows = unit_maps(2) * torch.nan, torch.zeros(2, 1).long()
        with pytest.raises(ValueError, match="^query_maps must be finite"):
            match_store(matcher, queries, stored[0])
        with pytest.raises(ValueError, match="^query_maps must be finite"):
            match_shortlist(matcher, queries, stored[0], rows)
        with pytest.raises(ValueError, match="^gallery_maps must be finite"):
            match_shortlist(matcher, unit_maps(2), stored[1] * torch.inf, rows)


class TestVectors:
    @pytest.mark.parametrize(
        ("gallery", "message"),
        [
            (torch.full((3, 6), torch.nan), "^gallery must be finite"),
            (torch.ones(6), r"^gallery must have shape \(g, d\), got"),
            (torch.ones(3, 6).bool(), "^gallery must hold floating-point numbers"),
            (torch.ones(0, 6), "the gallery is empty"),
        ],
    )
    def test_galleries_are_checked(self, gallery, message):
        with pytest.raises(ValueError, match=message):
            shortlist(torch.ones(2, 6), gallery, 1)

    def test_another_metric_is_refused(self):
        faiss = pytest.importorskip("faiss")
        index = faiss.IndexFlatL2(6)
        index.add(np.eye(6, dtype=np.float32))
        with pytest.raises(ValueError, match="must be over the inner product"):
            shortlist(torch.ones(2, 6), index, 1)
        with pytest.raises(TypeError, match="or a faiss index, got Tensor and list"):
            shortlist(torch.ones(2, 6), [[1.0] * 6], 1)


class TestSharedChecks:
    """What stores and shortlists check too."""

    def test_channels_of_another_length_are_placed(self):
        maps = F.normalize(torch.randn(3, 4, 2, 3), dim=1)
        maps[0, :, 1, 2] = 0  # nothing there
        maps[1] *= 1.005
        check_unit_channels(maps)
        maps[1, :, 1, 1] *= 1.5 / 1.005
        maps[2] *= 3
        with pytest.raises(ValueError) as caught:
            check_unit_channels(maps)
        assert str(caught.value) == (
            "the map of row 1 must have channels of unit length; their length is 1.5 at location 4"
        )

    @pytest.mark.parametrize(
        "rows",
        [[[0], [2]], np.array([[0], [2]], np.uint8), torch.tensor([[0], [2]], dtype=torch.int32)],
        ids=["list", "array", "tensor"],
    )
    def test_rows_of_any_kind_become_one_kind(self, rows):
        found = check_rows(rows, 3)
        assert found.dtype == torch.long and found.tolist() == [[0], [2]]

    def test_no_rows_keep_their_shape(self):
        for none in (np.zeros((0, 5)), torch.zeros(0, 5)):
            found = check_rows(none, 3)
            assert found.shape == (0, 5) and found.dtype == torch.long

    @pytest.mark.parametrize(
        ("rows", "size", "error", "message"),
        [
            ([[0, 1], [2]], 3, ValueError, "rows must be an array; its lists differ in length"),
            (np.array([True]), 3, TypeError, "rows must be whole numbers, got bool"),
            (torch.tensor([True]), 3, TypeError, "rows must be whole numbers, got bool"),
            (torch.ones(1), 3, TypeError, "rows must be whole numbers, got float32"),
            (
                torch.ones(1, dtype=torch.complex64),
                3,
                TypeError,
                "rows must be whole numbers, got complex64",
            ),
            ([3], 3, IndexError, "rows must lie in 0..2, got 3 to 3"),
            ([1, -1, 2], 3, IndexError, "rows must lie in 0..2, got -1 to 2"),
            ([4, 5], 0, IndexError, "the gallery is empty"),
        ],
    )
    def test_rows_that_are_none_are_named(self, rows, size, error, message):
        with pytest.raises(error) as caught:
            check_rows(rows, size)
        assert str(caught.value) == message

    def test_lengths_from_one_to_the_size_fit(self):
        for length in (1, np.int8(2), 3):
            found = check_length(length, 3)
            assert found == length and type(found) is int

    @pytest.mark.parametrize("length", [0, 4, 2.0, True, "2"])
    def test_other_lengths_are_named(self, length):
        with pytest.raises(ValueError) as caught:
            check_length(length, 3)
        assert str(caught.value) == f"length must lie in 1..3, the gallery's size, got {length!r}"
        with pytest.raises(ValueError, match="^cells must lie in 1..3"):
            check_length(length, 3, "cells")

    def test_an_empty_gallery_has_no_length(self):
        with pytest.raises(ValueError) as caught:
            check_length(1, 0)
        assert str(caught.value) == "the gallery is empty, so no length fits it"
