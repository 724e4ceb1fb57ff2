"""Datasets on small trees of empty files, splits, image files, and the shipped miniatures."""

import os
import re
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib.datasets import (
    DATASETS,
    UnreadableImageError,
    all_images,
    choose_queries,
    image_size,
    load_dataset,
    load_image,
    load_part_map,
    validation_split,
)
from qaconv_lib.experiments.runs import (
    counting_unreadable,
    load_test,
    readable_rows,
    unreadable_images,
)
from qaconv_lib.layouts import COLUMNS, DUKE_OFFSETS

BOXES = ("bounding_box_train", "query", "bounding_box_test")


def touch(folder: Path, *names: str) -> None:
    """Empty files; loaders read names, not pixels."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def market(tmp_path: Path) -> Path:
    root = tmp_path / "Market-1501-v15.09.15"
    touch(
        root / "bounding_box_train",
        "0002_c1s1_000451_03.jpg", "0002_c2s1_000776_01.JPG", "0007_c1s2_001000_01.jpg",
        "Thumbs.db", "._0002_c1s1_000451_03.jpg",
    )  # fmt: skip
    touch(root / "query", "0001_c1s3_000010_00.jpg", "0001_c2s1_000100_00.jpg.jpg")
    touch(
        root / "bounding_box_test",
        "-1_c1s1_001000_01.jpg", "0000_c1s2_000500_01.jpg", "0001_c1s4_000020_01.jpg.jpg",
        "0001_c2s1_000200_01.jpg", "0001_c1s3_001000_02.jpg", "0001_c6s1_000300_02.jpg",
    )  # fmt: skip
    return root


@pytest.fixture
def duke(tmp_path: Path) -> Path:
    root = tmp_path / "DukeMTMC-reID"
    touch(root / "bounding_box_train", "0005_c2_f0046985.jpg", "0005_c5_f0050000.jpg")
    touch(root / "query", "0010_c1_f0050000.jpg")
    touch(
        root / "bounding_box_test",
        *(f"0010_c{c}_f{60000 - DUKE_OFFSETS[c - 1]:07d}.jpg" for c in range(1, 9)),
    )
    return root


@pytest.fixture
def cuhk03(tmp_path: Path) -> Path:
    root = tmp_path / "cuhk03-np"
    for kind, extra in (("detected", 1), ("labeled", 2)):
        for folder in BOXES:
            touch(
                root / kind / folder,
                *(f"0001_c{c}_{n}.png" for c in (1, 2) for n in range(1, extra + 1)),
            )
    return root


def test_market_counts_and_names(market: Path) -> None:
    data = load_dataset("market1501", market)
    assert [len(data.train), len(data.query), len(data.gallery)] == [3, 2, 5]
    assert list(data.train.columns) == COLUMNS
    assert data.gallery["identity"].tolist() == [0, 1, 1, 1, 1]  # -1 dropped, 0 kept
    assert data.query["camera"].tolist() == [0, 1]
    assert data.num_cameras == 3 and data.has_time
    assert all(Path(path).is_file() for path in data.gallery["path"])
    assert data.summary().loc["gallery"].tolist() == [5, 1, 3, 1]
    assert "query 2 images" in repr(data)
    for name in ("market", "market-all"):
        with pytest.raises(ValueError, match="'market'.* market1501, dukemtmc"):
            load_dataset(name)


def test_market_sessions_lie_end_to_end(market: Path) -> None:
    """Sessions of camera 1 end at frame 1000 (one by a bad detection): start at 0, 1000, ..."""
    everything = pd.concat(load_dataset("market1501", market).splits.values())
    first, other = (everything[everything["camera"] == camera] for camera in (0, 1))
    starts = first["seconds"] * 25 - first["frame"]
    assert dict(zip(first["session"], starts, strict=True)) == {1: 0, 2: 1000, 3: 2000, 4: 3000}
    assert len(first) == 6 and np.allclose(other["seconds"], other["frame"] / 25)


def test_duke_cameras_share_one_clock(duke: Path) -> None:
    data = load_dataset("dukemtmc", duke.parent)
    assert np.allclose(data.gallery["seconds"], 60000 / 59.94)
    assert data.train["seconds"].iloc[0] == pytest.approx((46985 + 3606) / 59.94)
    assert data.num_cameras == 8
    touch(duke / "query", "0010_c9_f0050000.jpg")
    with pytest.raises(ValueError, match="c9_f0050000"):
        load_dataset("dukemtmc", duke)


@pytest.mark.parametrize(("kind", "count"), [("detected", 2), ("labeled", 4)])
def test_cuhk03_boxes(cuhk03: Path, kind: str, count: int) -> None:
    for root in (cuhk03, cuhk03.parent, cuhk03 / kind):
        data = load_dataset(f"cuhk03-np-{kind}", root)
        assert len(data.query) == count and not data.has_time and data.train["seconds"].isna().all()
        assert Path(data.query["path"][0]).parent == cuhk03 / kind / "query"
    with pytest.raises(ValueError, match="detected boxes"):
        load_dataset("cuhk03-np-labeled", cuhk03 / "detected")


def test_empty_split_and_names_that_cannot_be_read(market: Path) -> None:
    for name in ("cat.jpg", "0001_c0s1_000451_03.jpg", "-2_c1s1_000451_03.jpg"):
        touch(market / "query", name)
        with pytest.raises(ValueError, match=f"{name}.*query"):
            load_dataset("market1501", market)
        (market / "query" / name).unlink()
    for path in (market / "query").iterdir():
        path.unlink()
    touch(market / "query", "Thumbs.db", "._0001_c1s3_000010_00.jpg")
    with pytest.raises(ValueError, match="no images in .*query"):
        load_dataset("market1501", market)


def test_a_mistyped_data_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    for folder in ("nowhere", "~/nowhere"):
        monkeypatch.setenv("QACONV_DATA", folder)
        with pytest.raises(FileNotFoundError, match=os.path.expanduser(folder)):
            load_dataset("market1501")
    with pytest.raises(FileNotFoundError, match="no folder"):
        load_dataset("market1501", "~/elsewhere")


def test_all_merges_the_splits_for_training(market: Path) -> None:
    whole = load_dataset("market1501-all", market)
    table = all_images(load_dataset("market1501", market))  # distractors are left out
    assert table["identity"].tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2]
    assert whole.train.equals(table) and not whole.has_test
    assert list(whole.query.columns) == COLUMNS
    with pytest.raises(FileNotFoundError, match="dukemtmc"):
        load_dataset("dukemtmc-all", market / "query")


def test_search_path_and_what_can_be_tested(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QACONV_DATA", str(market.parent))
    assert load_dataset("market1501").root == market and len(load_test("market1501").query) == 2
    with pytest.raises(ValueError, match="market1501-all has no query and gallery images"):
        load_test("market1501-all")


@pytest.fixture
def sightings() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(i, c, n) for i in range(40) for c in range(4) for n in range(rng.integers(0, 4))]
    return pd.DataFrame(rows, columns=["identity", "camera", "frame"])


def assert_every_query_has_a_match(query: pd.DataFrame, gallery: pd.DataFrame) -> None:
    assert not query.duplicated(["identity", "camera"]).any()
    for row in query.itertuples():
        assert ((gallery["identity"] == row.identity) & (gallery["camera"] != row.camera)).any()


def test_choose_queries(sightings: pd.DataFrame) -> None:
    chosen = choose_queries(sightings, np.random.default_rng(0))
    query, gallery = sightings[chosen], sightings[~chosen]
    assert_every_query_has_a_match(query, gallery)
    pairs = sightings.groupby(["identity", "camera"]).size()
    cameras = pairs.groupby("identity").size()
    possible = [pair for pair, count in pairs.items() if count >= 2 and cameras[pair[0]] >= 2]
    assert sorted(zip(query["identity"], query["camera"], strict=True)) == sorted(possible)


def test_validation_split(sightings: pd.DataFrame) -> None:
    train, query, gallery = validation_split(sightings, 0.25, seed=1)
    assert len(train) + len(query) + len(gallery) == len(sightings)
    held_out = set(query["identity"])
    assert len(held_out) == round(0.25 * sightings["identity"].nunique())
    assert held_out == set(gallery["identity"]) and not held_out & set(train["identity"])
    assert_every_query_has_a_match(query, gallery)
    again = validation_split(sightings, 0.25, seed=1)
    assert again[1].equals(query) and not validation_split(sightings, 0.25, seed=2)[1].equals(query)
    for wrong in (0, 1.0, 41):
        with pytest.raises(ValueError, match="cannot hold out"):
            validation_split(sightings, wrong)


@pytest.mark.parametrize("name", [name for name in DATASETS if name.startswith("mini")])
def test_shipped_miniatures(name: str) -> None:
    """Splits are sound and every file is there; test_miniatures holds the counts."""
    data = load_dataset(name)
    assert set(data.query["identity"]) <= set(data.gallery["identity"])
    assert_every_query_has_a_match(data.query, data.gallery)
    if "msmt17" not in name:
        assert not set(data.train["identity"]) & set(data.gallery["identity"])
    assert data.has_time == (name in ("mini-market", "mini-duke"))
    for table in data.splits.values():
        assert table["path"].is_unique and all(Path(path).is_file() for path in table["path"])
    row = data.gallery.iloc[len(data.gallery) // 2]
    image, parts = load_image(row["path"]), load_part_map(row["path"])
    assert parts.shape == image.size[::-1] and parts.dtype == np.uint8
    with pytest.raises(FileNotFoundError, match="no part map"):
        load_part_map(data.train["path"][0])


# Image files

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 6, 3), dtype=np.uint8)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def test_a_noted_rotation_is_carried_out(tmp_path):
    # 6: the camera lay on its side, and the image is turned clockwise to be upright
    for orientation, turned in ((1, 0), (3, 2), (6, 1), (8, -1)):
        note = Image.Exif()
        note[274] = orientation
        stored = Image.fromarray(np.ascontiguousarray(np.rot90(PIXELS, turned)))
        path = saved(tmp_path / "a.png", stored, exif=note)
        assert np.array_equal(np.asarray(load_image(path)), PIXELS)
        assert image_size(path) == (6, 12)
    # A note that cannot be read is ignored.
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS), exif=b"Exif\x00\x00nonsense")
    assert np.array_equal(np.asarray(load_image(path)), PIXELS)


def test_other_pixels_become_rgb(tmp_path):
    for mode, name in (("L", "a.png"), ("CMYK", "a.tif"), ("1", "a.png")):
        image = Image.fromarray(PIXELS).convert(mode)
        found = load_image(saved(tmp_path / name, image))
        assert np.array_equal(np.asarray(found), np.asarray(image.convert("RGB")))
    alpha = np.where(np.arange(12)[:, None] < 6, 255, 0).repeat(6, axis=1).astype(np.uint8)
    image = Image.fromarray(np.dstack([PIXELS, alpha]), "RGBA")
    found = np.asarray(load_image(saved(tmp_path / "a.png", image)))
    assert np.array_equal(found[:6], PIXELS[:6]) and (found[6:] == 255).all()  # white
    deep = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257)  # 16 bits
    found = np.asarray(load_image(saved(tmp_path / "a.png", deep)))
    assert (found == PIXELS[..., :1]).all()


def test_too_many_pixels(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.fromarray(PIXELS))
    for limit in (71, 30):  # Pillow warns above the limit, refuses above twice
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for read in (load_image, image_size):
            with pytest.raises(ValueError, match=f"a.png has more than {limit} pixels"):
                read(path)


@pytest.mark.parametrize("content", [b"", b"not an image", None], ids=["empty", "text", "cut"])
def test_what_is_not_an_image_is_named(tmp_path, content):
    path = saved(tmp_path / "人物 %20{b}#c.png", Image.fromarray(PIXELS))
    assert load_image(path).size == (6, 12)
    path.write_bytes(path.read_bytes()[:150] if content is None else content)
    for wrong in (path, tmp_path):
        with pytest.raises(UnreadableImageError, match=re.escape(str(wrong))):
            load_image(wrong)
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        load_image(tmp_path / "absent.jpg")


# Unreadable images


@pytest.fixture
def table(tmp_path):
    """Images 0 to 4; 1 is damaged and 3 is not there."""
    for number in range(5):
        Image.new("RGB", (4, 8), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "1.png").write_bytes(b"damaged")
    (tmp_path / "3.png").unlink()
    paths = [str(tmp_path / f"{number}.png") for number in range(5)]
    return pd.DataFrame({"path": paths, "identity": range(5)})


def test_rows_of_unreadable_images_are_left_out_with_a_warning(table):
    assert unreadable_images(table["path"]) == [table["path"][1], table["path"][3]]
    with pytest.warns(UserWarning, match=r"set: 2 of 5 images .*1.png, .*3.png"):
        kept = readable_rows(table, "set")
    assert kept["identity"].tolist() == [0, 2, 4] and kept.index.tolist() == [0, 1, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert readable_rows(kept, "set") is kept
    with pytest.raises(UnreadableImageError, match="set: 2 of 2 images cannot be read"):
        readable_rows(table.iloc[[1, 3]], "set")


def test_the_first_unreadable_image_makes_all_be_counted(table):
    with pytest.raises(UnreadableImageError, match="set: 2 of 5 images .*--skip-unreadable"):
        with counting_unreadable(table, "set"):
            load_image(table["path"][1])
    with pytest.raises(ValueError, match="^something else$"), counting_unreadable(table, "set"):
        raise ValueError("something else")
    with pytest.raises(UnreadableImageError, match="^of another table$"):
        with counting_unreadable(table.iloc[[0]], "set"):
            raise UnreadableImageError("of another table")
