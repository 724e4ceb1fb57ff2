"""The explorer: its data are the library's answers, and its twin in a notebook draws them."""

import json
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from matplotlib.patches import ConnectionPatch

from qaconv_lib.datasets import load_dataset, load_part_map
from qaconv_lib.experiments.runs import NAMED, checkpoint_path
from qaconv_lib.experiments.suite import Trial, find_record
from qaconv_lib.matches import explorer_page
from qaconv_lib.matches.correspondence import cell_parts
from qaconv_lib.matches.explorer import show_explorer
from qaconv_lib.matches.explorer_page import (
    EACH,
    QUERIES,
    UNIT,
    choose_gallery,
    pair_matches,
    spread,
    write_explorer,
)
from qaconv_lib.matching import correlate, find_correspondences
from qaconv_lib.models import load_model

BOOK = Path(__file__).resolve().parent.parent / "book"
FOLDER = BOOK / "_static" / "explorer"
TRIAL = Trial(NAMED["general-small"], "mini-market")
TOLERANCE = 1e-3  # processors differ in the last bits of a cosine


def read_explorer(folder):
    """The page's data as `write_explorer` wrote it."""
    text = (folder / "data.js").read_text(encoding="utf-8")
    return json.loads(text.removeprefix("window.qaconvExplorer = ").removesuffix(";\n"))


@pytest.fixture(scope="module")
def page():
    return read_explorer(FOLDER)


@pytest.fixture(scope="module")
def model():
    return load_model(TRIAL.run.checkpoint())


@pytest.fixture(scope="module")
def maps(page, model):
    """The maps of all images of the page, by name."""
    names = sorted(path.name for path in (FOLDER / "images").iterdir())
    return dict(zip(names, model.extract(table_of(*names)), strict=True))


def table_of(*names: str) -> pd.DataFrame:
    return pd.DataFrame({"path": [str(FOLDER / "images" / n) for n in names], "identity": 0})


def pairs_of(page):
    return [(query, one) for query in page["queries"] for one in query["gallery"]]


# the stored data


def test_stored_numbers_are_the_librarys(page, model, maps):
    cells = np.arange(page["height"] * page["width"])
    query_weights, gallery_weights, constant = page["scores"]["trained"]
    for query, one in pairs_of(page):
        pair = maps[query["image"]], maps[one["image"]]
        stored = one["matches"]["trained"]
        table = np.reshape(stored["similarities"], (len(cells), len(cells))) / UNIT
        np.testing.assert_allclose(table, correlate(*pair).flatten(1), atol=TOLERANCE, rtol=0)
        found = find_correspondences(*pair)
        ours, theirs = table[cells, stored["to_gallery"]], table[stored["to_query"], cells]
        np.testing.assert_allclose(ours, found.similarity_to_gallery, atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(theirs, found.similarity_to_query, atol=TOLERANCE, rtol=0)
        logit = query_weights @ ours + gallery_weights @ theirs + constant
        expected = float(model.similarity(*(own[None] for own in pair)))
        assert logit == pytest.approx(expected, abs=0.01)


def test_the_pairs_are_those_of_the_record(page):
    record, dataset = find_record(TRIAL), load_dataset(TRIAL.target)
    scores = record["stages"]["alone"]
    chosen = spread(scores["average_precision"], QUERIES)
    files = {Path(path).name: Path(path) for path in (*dataset.query.path, *dataset.gallery.path)}
    used = set()
    assert len(page["queries"]) == len(chosen)
    for query, number in zip(page["queries"], chosen, strict=True):
        assert query["image"] == Path(dataset.query["path"].iloc[number]).name
        assert query["precision"] == scores["average_precision"][number]
        assert query["gallery"][0]["rank"] == scores["first_match_rank"][number]
        assert [one["same"] for one in query["gallery"]] == [True] * EACH + [False] * EACH
        used |= {query["image"], *(one["image"] for one in query["gallery"])}
    stored = {path.name: path.read_bytes() for path in (FOLDER / "images").iterdir()}
    assert stored == {name: files[name].read_bytes() for name in used}
    for name, parts in page["parts"].items():
        assert parts == cell_parts(load_part_map(files[name]), 8, 4).tolist()
    assert {path.name for path in (FOLDER / "large").iterdir()} == used


# making the data


def test_spread_goes_from_the_largest_to_the_smallest():
    assert spread([0.1, 0.9, 0.5, 0.7, 0.3], 3) == [1, 2, 0]
    assert spread([1.0, 1.0], 2) == [0, 1]


def test_gallery_images_are_chosen_by_rank_without_junk():
    similarity = [0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    same = np.isin(np.arange(9), [0, 2, 4, 5, 7])
    found = choose_gallery(similarity, same, np.arange(9) == 0)
    assert found["position"].tolist() == [2, 5, 7, 1, 6]  # 4 matches: the second or third
    assert found["rank"].tolist() == [2, 5, 7, 1, 6]  # others: the first and that in the middle
    assert found["same"].tolist() == [True] * 3 + [False] * 2
    assert choose_gallery([0.1, 0.2], np.array([True, False]), np.zeros(2, bool)).shape == (2, 3)


@pytest.mark.parametrize("kernel_size", [1, 3])
def test_rounding_keeps_what_is_above_a_threshold(kernel_size):
    torch.manual_seed(0)
    pair = F.normalize(torch.randn(2, 5, 8, 4), dim=1)
    about = pair_matches(*pair, kernel_size)
    exact = correlate(*pair, kernel_size).double().flatten().numpy() / kernel_size**2
    whole = np.array(about["similarities"])
    assert (np.abs(whole / UNIT - exact) <= 1 / UNIT).all()
    for level in range(-100, 100):
        assert ((whole > level * UNIT / 100) == (exact > level / 100)).all()


@pytest.fixture(scope="module")
def small():
    """A few images of the explorer's dataset, and the precision of its five queries."""
    whole = load_dataset("mini-duke")
    query = whole.query.drop_duplicates("identity").head(5)
    gallery = whole.gallery[whole.gallery["identity"].isin(query["identity"])]
    return replace(whole, query=query, gallery=gallery), [0.2, 0.9, 0.4, 0.1, 0.7]


@pytest.mark.slow
def test_files_are_written_and_hold_what_the_model_says(tmp_path, model, small, monkeypatch):
    monkeypatch.setattr(explorer_page, "QUERIES", 2)
    monkeypatch.setattr(explorer_page, "EACH", 2)
    dataset, precision = small
    query, gallery = dataset.query, dataset.gallery
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "old.jpg").write_bytes(b"old")
    write_explorer(tmp_path, model, dataset, precision, "mini-market")
    page = read_explorer(tmp_path)
    images = {one["image"] for asked in page["queries"] for one in (asked, *asked["gallery"])}
    for kind in ("images", "large"):
        assert {path.name for path in (tmp_path / kind).iterdir()} == images
    assert (tmp_path / "still.jpg").read_bytes().startswith(b"\xff\xd8")
    assert [one["precision"] for one in page["queries"]] == [0.9, 0.1]
    maps = model.extract(query), model.extract(gallery)
    scores = model.similarity(*maps).numpy(force=True)
    places = {Path(path).name: place for place, path in enumerate(gallery["path"])}
    for row, found in zip((1, 3), page["queries"], strict=True):
        asked = query.iloc[row]
        assert found["image"] == Path(asked["path"]).name and found["camera"] == asked["camera"]
        same = (gallery["identity"] == asked["identity"]).to_numpy()
        ranked = ~(same & (gallery["camera"] == asked["camera"]).to_numpy())
        assert found["ranked"] == ranked.sum()
        assert {one["same"] for one in found["gallery"]} == {True, False}
        for one in found["gallery"]:
            place = places[one["image"]]
            assert one["rank"] == 1 + (scores[row, ranked] > scores[row, place]).sum()
            assert one["same"] == same[place] and ranked[place]
            assert one["matches"]["trained"] == pair_matches(maps[0][row], maps[1][place])


# in a notebook


def tables(page):
    queries = [query["image"] for query in page["queries"][:2]]
    return table_of(*queries), table_of(*(o["image"] for o in page["queries"][0]["gallery"][:2]))


def expected_lines(pair, direction, threshold):
    found = find_correspondences(*pair)
    if direction == "gallery":
        return int((found.similarity_to_query > threshold).sum())
    above = found.similarity_to_gallery > threshold
    if direction == "mutual":
        above &= found.query_location[found.gallery_location] == torch.arange(len(above))
    return int(above.sum())


@pytest.mark.parametrize("direction", ["gallery", "mutual"])
def test_the_static_twin_draws_the_first_pair(page, model, maps, direction):
    queries, gallery = tables(page)
    figure = show_explorer(model, queries, gallery, direction=direction, threshold=0.85)
    pair = [maps[Path(table["path"][0]).name] for table in (queries, gallery)]
    drawn = len(figure.findobj(ConnectionPatch))
    assert drawn == expected_lines(pair, direction, 0.85)
    assert "above 0.85" in figure.get_label()
    assert plt.fignum_exists(figure.number), "pyplot shows it"


def test_what_cannot_be_shown_is_refused(page, model):
    queries, gallery = tables(page)
    for wrong in ({"direction": "both"}, {"threshold": 1}):
        with pytest.raises(ValueError, match=f"{next(iter(wrong))} must"):
            show_explorer(model, queries, gallery, **wrong)
    with pytest.raises(ValueError, match="no images"):
        show_explorer(model, queries.head(0), gallery)
    pooled = load_model(checkpoint_path("softmax", "mini-duke"))
    with pytest.raises(ValueError, match="trained with softmax has no local matches"):
        show_explorer(pooled, queries, gallery)
