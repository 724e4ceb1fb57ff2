"""Loaders on small trees in the layouts of the public datasets; archives of the miniatures."""

from __future__ import annotations

import os
import shutil
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from qaconv_lib._files import cache_folder, data_folders, write_whole
from qaconv_lib.datasets import (
    DATASETS,
    all_images,
    choose_queries,
    load_dataset,
    load_image,
    load_part_map,
    validation_split,
)
from qaconv_lib.layouts import COLUMNS, DUKE_OFFSETS, archives
from qaconv_lib.layouts.archives import unpack_archive

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


def write_msmt17(root: Path, train: str = "train", test: str = "test") -> Path:
    names = {
        "list_train.txt": [
            "0000/0000_000_01_0303morning_0008_0.jpg 0",
            "0001/0001_000_15_0302noon_0010_0.jpg 1",
        ],
        "list_val.txt": ["0000/0000_001_02_0303morning_0020_0.jpg 0"],
        "list_query.txt": ["0000/0000_000_03_0113afternoon_0008_0.jpg 0"],
        "list_gallery.txt": ["0000/0000_001_04_0113afternoon_0018_0.jpg 0"],
    }
    for list_name, lines in names.items():
        folder = train if list_name in ("list_train.txt", "list_val.txt") else test
        touch(root / folder, *(line.split()[0] for line in lines))
        (root / list_name).write_text("\n".join(lines) + "\n")
    return root


def test_market_counts_and_names(market: Path) -> None:
    data = load_dataset("market1501", market)
    assert [len(data.train), len(data.query), len(data.gallery)] == [3, 2, 5]
    assert list(data.train.columns) == COLUMNS
    assert data.gallery["identity"].tolist() == [0, 1, 1, 1, 1]  # -1 dropped, 0 kept
    assert data.query["camera"].tolist() == [0, 1]
    assert data.num_cameras == 3 and data.has_time
    assert all(Path(path).is_file() for path in data.gallery["path"])
    summary = data.summary()
    assert summary.loc["gallery"].to_dict() == {
        "images": 5, "identities": 1, "cameras": 3, "distractor images": 1,
    }  # fmt: skip
    assert "query 2 images of 1 identities" in repr(data) and "with time" in repr(data)


def test_market_sessions_lie_end_to_end(market: Path) -> None:
    """Sessions of camera 1 end at frame 1000 (one by a bad detection): start at 0, 1000, ..."""
    data = load_dataset("market1501", market)
    everything = pd.concat(data.splits.values())
    first = (
        everything[everything["camera"] == 0].set_index(["session", "frame"])["seconds"].to_dict()
    )
    expected = {
        (1, 451): 451,
        (2, 1000): 2000,
        (2, 500): 1500,
        (3, 10): 2010,
        (3, 1000): 3000,
        (4, 20): 3020,
    }
    assert first == {key: frames / 25 for key, frames in expected.items()}
    other = everything[everything["camera"] == 1]
    assert np.allclose(other["seconds"], other["frame"] / 25)


def test_duke_cameras_share_one_clock(duke: Path) -> None:
    data = load_dataset("dukemtmc", duke.parent)
    assert np.allclose(data.gallery["seconds"], 60000 / 59.94)
    assert data.train["seconds"].iloc[0] == pytest.approx((46985 + 3606) / 59.94)
    assert data.num_cameras == 8


def test_duke_camera_nine_is_refused(duke: Path) -> None:
    touch(duke / "query", "0010_c9_f0050000.jpg")
    with pytest.raises(ValueError, match="c9_f0050000"):
        load_dataset("dukemtmc", duke)


@pytest.mark.parametrize(("kind", "count"), [("detected", 2), ("labeled", 4)])
def test_cuhk03_boxes(cuhk03: Path, kind: str, count: int) -> None:
    for root in (cuhk03, cuhk03.parent, cuhk03 / kind):
        data = load_dataset(f"cuhk03-np-{kind}", root)
        assert len(data.query) == count and not data.has_time and data.train["seconds"].isna().all()
        assert Path(data.query["path"][0]).parent == cuhk03 / kind / "query"


def test_cuhk03_other_boxes_are_refused(cuhk03: Path) -> None:
    with pytest.raises(ValueError, match="detected boxes"):
        load_dataset("cuhk03-np-labeled", cuhk03 / "detected")


@pytest.mark.parametrize("folders", [("train", "test"), ("mask_train_v2", "mask_test_v2")])
def test_msmt17_both_releases(tmp_path: Path, folders: tuple[str, str]) -> None:
    root = write_msmt17(tmp_path / "MSMT17_V1", *folders)
    data = load_dataset("msmt17", tmp_path)
    assert data.root == root
    assert len(data.train) == 3  # list_train and list_val
    assert data.train["camera"].tolist() == [0, 14, 1]
    # numbered from 0 in the lists; 0 would be a distractor
    assert data.query["identity"].tolist() == [1] and not data.has_time


def test_all_images_tells_training_from_test_identities(tmp_path: Path, market: Path) -> None:
    msmt17 = load_dataset("msmt17", write_msmt17(tmp_path / "MSMT17_V1"))
    table = all_images(msmt17)
    assert table["identity"].tolist() == [0, 1, 0, 2, 2]
    table = all_images(load_dataset("market1501", market))
    assert table["identity"].tolist() == [0, 0, 1, 2, 2, 2, 2, 2, 2]  # distractors are left out


def test_msmt17_list_names_a_missing_image(tmp_path: Path) -> None:
    root = write_msmt17(tmp_path / "MSMT17_V1")
    (root / "test" / "0000" / "0000_001_04_0113afternoon_0018_0.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"list_gallery.txt, line 1, .*0000_001_04"):
        load_dataset("msmt17", root)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, FileNotFoundError, "list_val.txt"),
        ("", ValueError, "list_val.txt is empty"),
        ("0000/0000_001_02_0303morning_0020_0.jpg\n", ValueError, "line 1"),
    ],
)
def test_msmt17_bad_lists(tmp_path: Path, content: str | None, error: type, message: str) -> None:
    root = write_msmt17(tmp_path / "MSMT17_V1")
    path = root / "list_val.txt"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(error, match=message):
        load_dataset("msmt17", root)


def test_unknown_name() -> None:
    with pytest.raises(ValueError, match="market1501, dukemtmc"):
        load_dataset("market")


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        load_dataset("market1501", tmp_path / "nowhere")


def test_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="bounding_box_train, query, bounding_box_test"):
        load_dataset("market1501", tmp_path)


@pytest.mark.parametrize("split", BOXES)
def test_empty_split(market: Path, split: str) -> None:
    for path in (market / split).iterdir():
        path.unlink()
    touch(market / split, "Thumbs.db", "._0001_c1s3_000010_00.jpg")
    with pytest.raises(ValueError, match=f"no images in .*{split}"):
        load_dataset("market1501", market)


@pytest.mark.parametrize(
    "name",
    [
        "0001_c1_f0000001.jpg",
        "cat.jpg",
        "0001_c1s1_000451.jpg",
        "0001_c1s1_0004x1_03.jpg",
        "-2_c1s1_000451_03.jpg",
    ],
)
def test_name_that_cannot_be_read(market: Path, name: str) -> None:
    touch(market / "query", name)
    with pytest.raises(ValueError, match=f"{name}.*query.*0002_c1s1_000451_03.jpg"):
        load_dataset("market1501", market)


def test_camera_zero_is_refused(market: Path) -> None:
    touch(market / "query", "0001_c0s1_000451_03.jpg")
    with pytest.raises(ValueError, match="camera 0"):
        load_dataset("market1501", market)


def test_search_path(market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QACONV_DATA", str(market.parent))
    assert data_folders()[0] == market.parent
    assert load_dataset("market1501").root == market


def test_working_directory_and_its_parents_are_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    assert (tmp_path / "data").resolve() in [folder.resolve() for folder in data_folders()]


def test_load_image(tmp_path: Path) -> None:
    Image.fromarray(np.full((8, 4), 7, np.uint8)).save(tmp_path / "grey.png")
    image = load_image(tmp_path / "grey.png")
    assert image.mode == "RGB" and image.size == (4, 8)
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut.jpg", "text.jpg", "empty.jpg"):
        with pytest.raises(ValueError, match=name):
            load_image(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="absent.jpg"):
        load_image(tmp_path / "absent.jpg")


def test_part_map_of_an_image_without_one(market: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no part map"):
        load_part_map(market / "query" / "0001_c1s3_000010_00.jpg")


@pytest.fixture
def sightings() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    rows = [(i, c, n) for i in range(40) for c in range(4) for n in range(rng.integers(0, 4))]
    table = pd.DataFrame(rows, columns=["identity", "camera", "frame"])
    return table.assign(path=[f"{n}.jpg" for n in range(len(table))], session=0, seconds=np.nan)[
        COLUMNS
    ]


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


def zipped(path: Path, names: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in names.items():
            bundle.writestr(name, content)
    return path


@pytest.fixture
def mini(market: Path, tmp_path: Path) -> Path:
    names = {
        str(p.relative_to(market).as_posix()): b"x" * 99 for p in market.rglob("*.*") if p.is_file()
    }
    return zipped(tmp_path / "mini-market.zip", names)


def test_archive_is_unpacked_once(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QACONV_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    for root in (mini, mini.parent):
        data = load_dataset("mini-market", root)
        assert data.root.parent == tmp_path / "cache" and len(data.gallery) == 5
    assert len(list((tmp_path / "cache").iterdir())) == 1
    Path(data.gallery["path"][0]).unlink()  # a cache is a place where files may vanish
    assert len(load_dataset("mini-market", mini).gallery) == 5
    image = Path(data.gallery["path"][0])
    whole = image.read_bytes()
    image.write_bytes(whole[:-1])  # or lose their end when the power is cut
    load_dataset("mini-market", mini)
    assert image.read_bytes() == whole
    assert load_dataset("mini-market", data.root).root == data.root
    zipped(mini, {"other": b""})
    assert unpack_archive(mini) != data.root


def test_real_data_is_not_taken_for_a_miniature(
    market: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qaconv_lib.datasets.data_folders", lambda: [market.parent])
    with pytest.raises(FileNotFoundError, match="synthesize mini-market"):
        load_dataset("mini-market")


@pytest.mark.parametrize("damage", ["cut", "flip", "text"])
def test_damaged_archive(mini: Path, tmp_path: Path, damage: str) -> None:
    content = bytearray(mini.read_bytes())
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flip":
        start = content.index(b"x" * 99)
        content[start + 5] ^= 0xFF
    else:
        content = bytearray(b"version https://example.org/pointer")
    mini.write_bytes(content)
    with pytest.raises(ValueError, match="damaged.*synthesize mini-market"):
        unpack_archive(mini, tmp_path / "cache")
    cache = tmp_path / "cache"
    assert not cache.exists() or not list(cache.iterdir())


@pytest.mark.parametrize(
    ("system", "variable", "inside"),
    [
        ("linux", "XDG_CACHE_HOME", "qaconv_lib"),
        ("linux", None, ".cache/qaconv_lib"),
        ("darwin", None, "Library/Caches/qaconv_lib"),
        ("win32", "LOCALAPPDATA", "qaconv_lib"),
        ("win32", None, "AppData/Local/qaconv_lib"),
    ],
)
def test_the_cache_lies_where_the_system_has_its_caches(
    system: str, variable: str | None, inside: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("QACONV_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    if variable:
        monkeypatch.setenv(variable, str(tmp_path))
    assert cache_folder() == tmp_path / inside


def test_an_archive_that_is_not_there_and_a_cache_that_cannot_be(
    mini: Path, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no archive at"):
        unpack_archive(tmp_path / "none.zip")
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    with pytest.raises(OSError, match="cannot write the cache folder .* set QACONV_CACHE"):
        unpack_archive(mini, tmp_path / "file" / "cache")


@pytest.mark.parametrize("there", [True, False])
def test_another_process_may_be_first_to_unpack(
    there: bool, mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.replace

    def late(source: Path, target: Path) -> None:
        if Path(source).is_dir():
            if there:
                shutil.copytree(source, target)
            raise OSError("the folder is there")
        rename(source, target)

    monkeypatch.setattr("qaconv_lib.layouts.archives.os.replace", late)
    if there:
        assert (
            len(load_dataset("mini-market", unpack_archive(mini, tmp_path / "cache")).gallery) == 5
        )
    else:
        with pytest.raises(OSError, match="the folder is there"):
            unpack_archive(mini, tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == there


def test_interrupted_unpacking_leaves_nothing(
    mini: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy, calls = archives.shutil.copyfileobj, []

    def fail_in_the_middle(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        copy(*arguments)

    monkeypatch.setattr(archives.shutil, "copyfileobj", fail_in_the_middle)
    with pytest.raises(KeyboardInterrupt):
        unpack_archive(mini, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    assert len(list(unpack_archive(mini, tmp_path / "cache").rglob("*.*"))) == 13


def test_two_at_once(mini: Path, tmp_path: Path) -> None:
    gate, results = threading.Barrier(4), []

    def work() -> None:
        gate.wait()
        results.append(unpack_archive(mini, tmp_path / "cache"))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and len(set(results)) == 1
    assert list((tmp_path / "cache").iterdir()) == [results[0]]


@pytest.mark.parametrize(
    "name", ["../evil.jpg", "/evil.jpg", "a/../../evil.jpg", "C:/evil.jpg", "..\\evil.jpg"]
)
def test_entries_that_leave_the_folder(tmp_path: Path, name: str) -> None:
    entry = zipfile.ZipInfo("harmless.jpg")
    entry.filename = name  # the constructor would turn separators of this platform into /
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        bundle.writestr(entry, b"")
    with pytest.raises(ValueError, match="leaves its folder"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "cache" / "deep")
    assert not list(tmp_path.rglob("evil*"))


def test_links_are_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link.jpg")
    entry.create_system, entry.external_attr = 3, 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "bad.zip", "w") as bundle:
        bundle.writestr(entry, b"/etc/passwd")
    with pytest.raises(ValueError, match="link.jpg"):
        unpack_archive(tmp_path / "bad.zip", tmp_path / "cache")


def test_write_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "page.md", b"one")
    write_whole(tmp_path / "page.md", b"two")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"two"]
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "nowhere" / "page.md", tmp_path / "folder"):
        with pytest.raises(OSError) as refused:
            write_whole(place, b"three")
        assert refused.value.filename == str(place)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "page.md"]


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


def test_names_that_differ_only_in_case_are_not_unpacked(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as bundle:
        bundle.writestr("A/x.txt", "one")
        bundle.writestr("a/X.txt", "two")
    with pytest.raises(ValueError, match="'A' and 'a' differ only in case"):
        unpack_archive(tmp_path / "a.zip", tmp_path / "cache")
