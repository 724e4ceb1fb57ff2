"""The record of chapter 11, made anew of a few pairs and held against loops over their matches."""

import dataclasses

import numpy as np
import pytest

from qaconv_lib.cli import main
from qaconv_lib.datasets import load_dataset, load_part_map
from qaconv_lib.experiments import correspondence_records
from qaconv_lib.experiments.correspondence_records import (
    correspondence_record,
    hits_over_chance,
    run_correspondence,
    share_differences,
)
from qaconv_lib.experiments.records import read_records, results_folder
from qaconv_lib.experiments.runs import Run
from qaconv_lib.matches.correspondence import BODY_PARTS, SHOWN, cell_parts
from qaconv_lib.matching import find_correspondences
from qaconv_lib.miniatures.people import CHANGES
from qaconv_lib.models import load_model

BACKGROUND, BODY = SHOWN.index("background"), [SHOWN.index(part) for part in BODY_PARTS]
FEATURES = ("QAConv", "ImageNet", "softmax, same layer", "softmax, last layer", "colour")


@pytest.fixture(scope="module")
def few():
    """Six queries of mini-duke, all images of their people and of twelve others."""
    dataset = load_dataset("mini-duke")
    query = dataset.query.drop_duplicates("identity").head(6)
    people = [*query["identity"], *dataset.gallery["identity"].drop_duplicates().tail(12)]
    gallery = dataset.gallery[dataset.gallery["identity"].isin(people)]
    return dataclasses.replace(dataset, query=query, gallery=gallery)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A data folder without records, with the models that come with the book."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "checkpoints").symlink_to(results_folder().parent / "checkpoints")
    (folder / "results").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QACONV_DATA", str(folder))
        yield folder


@pytest.fixture(scope="module")
def record(few, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correspondence_records, "load_dataset", lambda name: few)
        return correspondence_record(Run("qaconv", "mini-market"), "mini-duke", device="cpu")


@pytest.fixture(scope="module")
def maps(few, folder):
    """The model, and its maps of the queries and of the gallery."""
    model = load_model(Run("qaconv", "mini-market").checkpoint(), "cpu")
    return model, model.extract(few.query), model.extract(few.gallery)


@pytest.fixture(scope="module")
def matches(few, maps, record):
    """Every match by kind of pairs: its part, those found and at the same place, all that show."""
    _, query, gallery = maps
    found = {}
    for kind, partners in record["partners"].items():
        found[kind] = []
        for number, partner in enumerate(partners):
            own, other = (
                cell_parts(load_part_map(table["path"].iloc[row]), *query.shape[2:])
                for table, row in ((few.query, number), (few.gallery, partner))
            )
            best = find_correspondences(query[number], gallery[partner])
            for start, end in enumerate(best.gallery_location.tolist()):
                found[kind].append((own[start], other[end], other[start], other))
    return found


def row_of(rows, **wanted):
    (row,) = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    return row


def test_the_record_is_written_and_has_every_kind_of_features(record):
    assert read_records("correspondence") == [record]
    assert record["protocol"]["queries"] == record["protocol"]["people"] == 6
    assert {row["features"] for row in record["rows"]} == {*FEATURES, "same place", "chance"}


def test_shares_are_those_counted_match_by_match(record, matches):
    for kind, links in matches.items():
        visible = [link for link in links if link[0] in BODY and link[0] in link[3]]
        right = np.mean([part == end for part, end, _, _ in visible])
        same = np.mean([part == there for part, _, there, _ in visible])
        chance = np.mean([np.mean(s[np.isin(s, BODY)] == part) for part, _, _, s in visible])
        for features, share in (("QAConv", right), ("same place", same), ("chance", chance)):
            row = row_of(record["rows"], features=features, pairs=kind, by="all")
            assert row["share"] == pytest.approx(share, abs=1e-4), (kind, features)
            assert row["matches"] == len(visible)
        for over, share in (("same place", same), ("chance", chance)):
            row = row_of(record["differences"], pairs=kind, over=over)
            assert row["share"] == pytest.approx(right - share, abs=1e-4)
        ends = row_of(record["ends"], features="QAConv", pairs=kind, start="background")
        starts = [end for part, end, _, _ in links if part == BACKGROUND]
        assert ends["matches"] == len(starts)
        assert ends["background"] == pytest.approx(np.mean(np.equal(starts, BACKGROUND)), abs=1e-4)


def test_reliability_counts_every_match_from_the_person(record, matches):
    for kind, links in matches.items():
        count = sum(part in BODY for part, _, _, _ in links)
        for features in FEATURES:
            about = (features, kind)
            rows = [r for r in record["reliability"] if (r["features"], r["pairs"]) == about]
            assert sum(row["matches"] for row in rows) == count
            for row in rows:
                assert row["from"] - 1e-4 <= row["similarity"] <= row["from"] + 0.1 + 1e-4


def test_what_the_mean_similarity_tells(maps, record):
    _, query, gallery = maps

    def means(kind):
        pairs = enumerate(record["partners"][kind])
        found = [find_correspondences(query[i], gallery[k]).similarity_to_gallery for i, k in pairs]
        return np.array([similarity.mean().item() for similarity in found])

    true = means("true pairs")
    for kind in ("hard negatives", "other people"):
        row = row_of(record["tells"], features="QAConv", over=kind)
        assert row["share"] == pytest.approx(np.mean(true > means(kind)), abs=1e-4)
        assert row["mean"] == pytest.approx(true.mean(), abs=1e-3)
        assert row["mean_over"] == pytest.approx(means(kind).mean(), abs=1e-3)


def test_changes_are_seen_where_they_are(record):
    assert {row["change"] for row in record["changes"]} == set(CHANGES)
    assert {row["features"] for row in record["changes"]} == set(FEATURES)
    ours = [row for row in record["changes"] if row["features"] == "QAConv" and row["matches"]]
    assert ours and all(0 < row["chance"] < 1 and row["matches"] <= 6 for row in ours)
    # What was painted over falls more, on average, than what nobody touched.
    assert all(row["fall"] > row["elsewhere"] for row in ours)


def test_the_claims_read_it(record):
    known, unknown = share_differences("true pairs", "chance")("laptop")
    row = row_of(record["differences"], pairs="true pairs", over="chance")
    assert known[0] == "market → duke, over chance" and unknown[1] is None
    assert known[1].mean == pytest.approx(100 * row["share"])
    lines = hits_over_chance("laptop")
    assert [line for line, _ in lines[:-1]] == [f"{change}, market → duke" for change in CHANGES]
    assert lines[-1] == ("any change, duke → market", None)


def test_the_command_makes_what_is_missing(record, monkeypatch, capsys):
    made = []

    def instead(run, target, device=None):
        made.append((run.name, target))
        return {"seconds": 1.5}

    monkeypatch.setattr(correspondence_records, "correspondence_record", instead)
    assert run_correspondence(device="cpu") == [record, {"seconds": 1.5}]
    assert main(["run", "correspondence"]) == 0
    assert made == 2 * [(Run("qaconv", "mini-duke").name, "mini-market")]
    output = capsys.readouterr()
    assert "2 records" in output.out and "mini-duke on mini-market: 1.5 s" in output.err


def test_other_losses_are_refused():
    with pytest.raises(ValueError, match="'softmax'"):
        correspondence_record(Run("softmax", "mini-market"), "mini-duke")
