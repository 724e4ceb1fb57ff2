"""Searching a gallery on disk and in two stages, against scoring everything."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.matching import QAConv, match_gallery
from qaconv_lib.scale.retrieval import match_shortlist, match_store, shortlist
from qaconv_lib.scale.store import MapStore, pool_maps

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

    @pytest.mark.parametrize("length", [0, 41, 2.0, True, "2"])
    def test_lengths_must_fit_the_gallery(self, length):
        gallery = pool_maps(unit_maps(40))
        with pytest.raises(ValueError, match="length must lie in 1..40"):
            shortlist(gallery[:1], gallery, length)
        assert shortlist(gallery[:1], gallery, np.int8(40)).shape == (1, 40)

    @pytest.mark.parametrize(
        ("queries", "gallery", "message"),
        [
            (torch.ones(2, 5), torch.ones(3, 6), r"query_vectors must have shape \(q, 6\)"),
            (torch.full((2, 6), torch.nan), torch.ones(3, 6), "query_vectors must be finite"),
            (torch.ones(2, 6), torch.ones(6), r"gallery must have shape \(g, d\)"),
            (torch.ones(2, 6), torch.ones(3, 6).bool(), "gallery must hold floating-point"),
            (torch.ones(2, 6), torch.ones(0, 6), "the gallery's size"),
        ],
    )
    def test_vectors_are_checked(self, queries, gallery, message):
        with pytest.raises(ValueError, match=message):
            shortlist(queries, gallery, 1)


class TestMatchShortlist:
    def test_scores_are_those_of_the_whole_gallery(self, matcher, stored):
        queries = unit_maps(3)
        rows = torch.stack([torch.randperm(40)[:9] for _ in range(3)])
        everything = match_gallery(matcher, queries, stored[1])
        for gallery in stored:
            found = match_shortlist(matcher, queries, gallery, rows)
            torch.testing.assert_close(found, everything.gather(1, rows))

    @pytest.mark.parametrize(
        ("rows", "error"),
        [
            (torch.full((2, 3), -1), IndexError),
            (torch.tensor([[40], [0]]), IndexError),
            (torch.rand(2, 3), TypeError),
            (torch.zeros(3, 1).long(), ValueError),
        ],
    )
    def test_rows_are_checked(self, matcher, stored, rows, error):
        for gallery in stored:
            with pytest.raises(error, match="rows must"):
                match_shortlist(matcher, unit_maps(2), gallery, rows)


def test_maps_of_another_kind_are_named(matcher, stored):
    (store, maps), queries, rows = stored, unit_maps(2), torch.zeros(2, 1).long()
    for gallery in ("a folder", None, maps.numpy()):
        with pytest.raises(TypeError, match="gallery must be a torch.Tensor or a MapStore"):
            match_shortlist(matcher, queries, gallery, rows)
    with pytest.raises(TypeError, match="store must be a MapStore, got Tensor"):
        match_store(matcher, queries, maps)
    with pytest.raises(ValueError, match="gallery_maps must be finite"):
        match_shortlist(matcher, queries, maps * torch.inf, rows)
    for wrong, error in ((queries.numpy(), TypeError), (queries * torch.nan, ValueError)):
        for match in (match_store, lambda *maps: match_shortlist(*maps, rows)):
            with pytest.raises(error, match="query_maps must be"):
                match(matcher, wrong, store)
