"""`check-data` on generated trees in the layout of Market-1501, with counts of their own."""

from __future__ import annotations

import pytest
from PIL import Image

from qaconv_lib.experiments import checking
from qaconv_lib.experiments.checking import PUBLISHED, Counts, check_dataset

FILES = {
    "bounding_box_train": ["0002_c1s1_000451_03", "0002_c2s1_000776_01", "0007_c1s2_001000_01"],
    "query": ["0001_c1s3_000010_00", "0009_c2s1_000100_00"],
    "bounding_box_test": [
        "-1_c1s1_001000_01",
        "0000_c1s2_000500_01",
        "0001_c2s1_000200_01",
        "0009_c1s3_001000_02",
        "0009_c1s3_001050_02",
    ],
}
COUNTS = {"train": Counts(3, 2, 2), "query": Counts(2, 2, 2), "gallery": Counts(4, 2, 2)}


@pytest.fixture
def market(tmp_path, monkeypatch):
    """A tree of ten images that is complete by the counts of this test."""
    monkeypatch.setitem(checking.PUBLISHED, "market1501", COUNTS)
    monkeypatch.setitem(checking.DISTRACTORS, "market1501", 1)
    for folder, names in FILES.items():
        (tmp_path / folder).mkdir()
        for name in names:
            Image.new("RGB", (4, 8)).save(tmp_path / folder / f"{name}.jpg")
    return tmp_path


def remarks(root, **more):
    return check_dataset("market1501", root, **more)[1]


def test_a_complete_dataset_has_no_remarks(market):
    (market / "query" / "._0001_c1s3_000010_00.jpg").write_bytes(b"a Mac's shadow")
    table, found = check_dataset("market1501", market, read_images=True)
    assert found == []
    assert table.loc["gallery"].tolist() == ["4", "2", "2"]


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ("bounding_box_train/0007*", ["train: 1 images and 1 identities are missing"]),
        ("bounding_box_train/0002_c1*", ["train: 1 images are missing", "no identity"]),
        ("bounding_box_test/0009_c1s3_001050*", ["gallery: 1 images are missing", "no identity"]),
        ("bounding_box_test/0000*", ["gallery: 0 distractors", "instead of 1"]),
    ],
)
def test_what_is_missing_is_named(market, lost, words):
    for path in market.glob(lost):
        path.unlink()
    assert any(all(word in found for word in words) for found in remarks(market))


def test_another_dataset_is_named_as_before(market):
    for folder in FILES:
        for number, path in enumerate(sorted((market / folder).iterdir())):
            path.rename(path.with_name(f"0005_c2_f00{number}.jpg"))
    with pytest.raises(ValueError, match="this is how DukeMTMC-reID names its files"):
        check_dataset("market1501", market)


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        ("0011_c1s1_000001_01.jpg", ["1 images and 1 identities too many"]),
        ("0007_c2s2_001111_01.jpg", ["1 images too many"]),
    ],
)
def test_what_is_extra_is_named(market, added, expected):
    Image.new("RGB", (4, 8)).save(market / "bounding_box_train" / added)
    for remark, start in zip(remarks(market), expected, strict=True):
        assert remark.startswith(f"train: {start}")


def test_exchanged_files_and_missing_cameras_are_noticed(market, monkeypatch):
    folder = market / "bounding_box_train"
    (folder / "0007_c1s2_001000_01.jpg").rename(folder / "0002_c1s2_001000_01.jpg")
    monkeypatch.setitem(COUNTS, "query", Counts(2, 2, 3))
    train, query = remarks(market)
    assert train.startswith("train: -1 identities and +0 cameras")
    assert query.startswith("query: 1 cameras are missing")


def test_bad_detections_are_noted(market):
    (note,) = check_dataset("market1501", market)[0].attrs["notes"]
    assert note.startswith("gallery: 1 bad detections") and "3,819" in note


def test_unreadable_images_are_left_out(market):
    next((market / "query").glob("0001*")).write_bytes(b"no image")
    assert remarks(market) == []
    table, found = check_dataset("market1501", market, skip_unreadable=True)
    assert table.loc["query"].tolist() == ["1 (2 published)", "1 (2 published)", "1 (2 published)"]
    assert found[0].endswith("0001_c1s3_000010_00.jpg; their rows were left out")
    assert found[1].startswith("query: 1 images and 1 identities are missing")


@pytest.fixture
def rendered(tmp_path, monkeypatch):
    """RandPerson with three images, and ClonedPerson with as many in all."""
    monkeypatch.setitem(checking.PUBLISHED, "randperson", {"train": Counts(3, None, None)})
    monkeypatch.setitem(checking.PUBLISHED, "clonedperson", {"all": Counts(3, 2, 2)})
    folders = {"train": (0, 0), "test/query": (0, 1), "test/gallery": (5, 1)}
    for folder, (person, camera) in folders.items():
        name = f"{person:06d}_s00_c0{camera}_f000001.jpg"
        for place in ("randperson_subset", f"clonedperson/{folder}"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            (tmp_path / place / name).write_bytes(b"")
    return tmp_path


def test_randperson_is_held_against_its_subset(rendered):
    table, found = check_dataset("randperson", rendered)
    assert found == [] and table.to_dict("index") == {
        "train": {"images": "3", "identities": "2", "cameras": "2"}
    }
    assert "only the number of images" in table.attrs["notes"][0]
    next((rendered / "randperson_subset").iterdir()).unlink()
    assert check_dataset("randperson", rendered)[1][0].startswith("train: 1 images are missing")


def test_clonedperson_is_held_against_its_totals(rendered):
    table, found = check_dataset("clonedperson", rendered)
    assert found == [] and table.loc["all"].tolist() == ["3", "2", "2"]
    assert table.index.tolist() == ["train", "query", "gallery", "all"]
    (rendered / "clonedperson" / "train" / "000008_s00_c01_f000001.jpg").write_bytes(b"")
    (remark,) = check_dataset("clonedperson", rendered)[1]
    assert remark.startswith("all: 1 images and 1 identities too many")


def test_published_counts_add_up():
    """Sums that the datasets' authors give: identities of MSMT17 and CUHK03, boxes of Duke."""
    msmt, duke, cuhk = (PUBLISHED[n] for n in ("msmt17", "dukemtmc", "cuhk03-np-detected"))
    assert msmt["train"].identities + msmt["gallery"].identities == 4_101
    assert sum(split.images for split in msmt.values()) == 126_441
    assert sum(split.images for split in duke.values()) == 36_411
    assert cuhk["train"].identities + cuhk["gallery"].identities == 1_467
    assert sum(split.images for split in cuhk.values()) == 14_097
