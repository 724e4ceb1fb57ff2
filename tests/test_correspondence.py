"""Matches held against part maps: the measurement, the pairs, and the records that ship."""

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from qaconv_lib.datasets import ReidDataset
from qaconv_lib.matches.correspondence import (
    BODY_PARTS,
    SHOWN,
    cell_parts,
    changed_cells,
    hidden_share,
    match_table,
)
from qaconv_lib.matches.pairs import choose_pairs
from qaconv_lib.matching import find_correspondences
from qaconv_lib.miniatures.domains import PART, PART_NAMES


def test_the_share_of_a_person_that_is_hidden():
    part_map = np.zeros((4, 4), np.uint8)
    part_map[:2, 2:] = PART["occluder"]
    part_map[2:, 2:] = [[PART["left foot"], PART["occluder"]]] * 2
    assert hidden_share(part_map) == 6 / 16


@pytest.mark.parametrize("height, width", [(8, 4), (3, 5), (1, 1), (16, 16)])
@pytest.mark.parametrize("least", [0.5, 0.9])
def test_what_a_location_shows_in_loops(height, width, least):
    rng = np.random.default_rng(0)
    part_map = rng.integers(len(PART_NAMES), size=(16, 16))
    shown = [name.removeprefix("left ").removeprefix("right ") for name in PART_NAMES]
    expected = []
    for cell in range(height * width):
        pixels = [(y, x) for y in range(16) for x in range(16)]
        inside = [(y, x) for y, x in pixels if y * height // 16 * width + x * width // 16 == cell]
        seen = [SHOWN.index(shown[part_map[place]]) for place in inside]
        body = [part for part in seen if SHOWN[part] in BODY_PARTS]
        pool = body if len(body) >= least * len(seen) else [p for p in seen if p not in body]
        expected.append(max(sorted(set(pool)), key=pool.count))
    assert cell_parts(part_map, height, width, least).tolist() == expected


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.zeros(4, int), 1, 1), "shape"),
        ((np.zeros((4, 4), int), 5, 1), "no map of 5 x 1"),
        ((np.zeros((4, 4), int), 0, 1), "no map of 0 x 1"),
        ((np.zeros((4, 4), int), 1, 1, 0.0), "least"),
    ],
)
def test_part_maps_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        cell_parts(*arguments)


def test_changed_cells():
    first = np.full((4, 4, 3), 100, np.uint8)
    second = first.copy()
    second[0, 0, 1] = 90  # one pixel of four
    second[2:, 2:] = 105  # noise
    assert changed_cells(first, second, 2, 2).tolist() == [True, False, False, False]


@pytest.fixture
def pairs():
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    maps = F.normalize(torch.randn(2, 5, 3, 4, 2), dim=2)
    parts = rng.integers(len(SHOWN), size=(2, 5, 8))
    return *maps, *parts


def test_matches_in_loops(pairs):
    table = match_table(*pairs).set_index(["pair", "location"])
    assert len(table) == 5 * 8
    for pair, (query, gallery, ours, theirs) in enumerate(zip(*pairs, strict=True)):
        found = find_correspondences(query, gallery)
        body = [i for i in range(8) if SHOWN[theirs[i]] in BODY_PARTS]
        for location in range(8):
            row, part = table.loc[(pair, location)], SHOWN[ours[location]]
            place, on_body = int(found.gallery_location[location]), part in BODY_PARTS
            alike = [i for i in range(8) if theirs[i] == ours[location]]
            assert (row["part"], row["place"], row["found"]) == (part, place, SHOWN[theirs[place]])
            similarity = float(found.similarity_to_gallery[location])
            assert row["similarity"] == pytest.approx(similarity, abs=1e-6)
            assert row["mutual"] == (int(found.query_location[place]) == location)
            assert row["on_body"] == on_body
            assert row["visible"] == (on_body and bool(alike))
            assert row["right"] == (on_body and place in alike)
            assert row["same_place"] == (on_body and location in alike)
            assert row["chance"] == pytest.approx(on_body * len(alike) / max(len(body), 1))


def test_pairs_are_what_they_are_called():
    rng = np.random.default_rng(0)
    query = pd.DataFrame({"identity": [1, 2, 3], "camera": [0, 0, 1]})
    gallery = pd.DataFrame(
        {"identity": np.repeat([0, 1, 2, 3], 4), "camera": np.tile([0, 1, 2, 3], 4)}
    )
    dataset = ReidDataset("own", None, query.iloc[:0], query, gallery, 0)
    scores = rng.random((3, 16))
    partners = choose_pairs(scores, dataset).partners
    for row, (identity, camera) in enumerate(query.itertuples(index=False)):
        chosen = {kind: gallery.iloc[partner[row]] for kind, partner in partners.items()}
        assert all(image["camera"] != camera for image in chosen.values())
        assert [image["identity"] == identity for image in chosen.values()] == [True, False, False]
        strangers = (gallery["identity"] != identity) & (gallery["camera"] != camera)
        assert scores[row, partners["hard negatives"][row]] == scores[row, strangers].max()
