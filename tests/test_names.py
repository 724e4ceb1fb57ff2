"""File names of every layout: each is read, counted or named, whatever it holds."""

import os
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qaconv_lib.datasets import load_dataset
from qaconv_lib.layouts import LAYOUTS
from qaconv_lib.layouts.names import FORMATS


def boxes(*names: str, inside: str = "") -> tuple[list[str], str]:
    folders = ("bounding_box_train", "bounding_box_test", "query")
    return [f"{inside}{folder}/{name}" for folder in folders for name in names], f"{inside}query"


# Few empty images of every layout, and the folder that a hostile name is put into.
TREES = {
    "market1501": boxes("0002_c1s1_000451_03.jpg", "0002_c2s1_000451_01.jpg"),
    "dukemtmc": boxes("0005_c2_f0046985.jpg", "0005_c1_f0000001.jpg"),
    "cuhk03-np-detected": boxes("0001_c1_1.png", "0001_c2_1.png", inside="detected/"),
    "cuhk03-np-labeled": boxes("0001_c1_1.png", "0001_c2_1.png", inside="labeled/"),
    "msmt17": (
        [f"{part}/0000_000_01_0303morning_0008_0.jpg" for part in ("train", "test")],
        "test",
    ),
    "randperson": (["000000_s00_c00_f000264.jpg", "000007_s00_c01_f01.jpg"], ""),
    "clonedperson": (
        [f"{part}/700000_s02_c00_f023389.jpg" for part in ("train", "test/query", "test/gallery")],
        "test/query",
    ),
}


def plant(layout: str, root: Path) -> Path:
    """Write the tree of a layout; returns the folder for a hostile name."""
    files, folder = TREES[layout]
    for name in files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    if layout == "msmt17":
        for name in ("train", "val", "query", "gallery"):
            (root / f"list_{name}.txt").write_text("0000_000_01_0303morning_0008_0.jpg 0\n")
    return root / folder


PIECES = st.one_of(
    st.from_regex(r"[0-9]{1,14}", fullmatch=True),
    st.sampled_from(["0", "-1", "", "+1", "1_1", " 1", "1e3", "0x1", "9" * 99]),
    st.sampled_from(["\u0663", "\u0967\u0968", "\uff11", "\u00b2", "1\u0660"]),  # other digits
)


@st.composite
def near_misses(draw: st.DrawFn) -> str:
    """The name of an image of some dataset, with other numbers and perhaps other letters."""
    name = Path(draw(st.sampled_from([form.example for form in FORMATS.values()]))).stem
    name = re.sub("[0-9]+", lambda number: draw(st.just(number[0]) | PIECES), name)
    return draw(st.sampled_from([name, name.upper(), name.replace("s", "\u017f"), name + "\n"]))


NAMES = st.one_of(
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), max_size=40),
    near_misses(),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES, suffix=st.sampled_from([".jpg", ".JPG.jpg", ".png", ".bmp", ".jpeg"]))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_file_name_is_read_counted_or_named(tmp_path, layout, name, suffix) -> None:
    """Also where `check-data` goes on past names that it cannot read."""
    folder = plant(layout, tmp_path)
    path = folder / (name + suffix)
    try:
        new = not path.exists()
        path.write_bytes(b"")
        if layout == "msmt17":
            (tmp_path / "list_query.txt").write_text(f"{path.name} 0", encoding="utf-8")
    except (OSError, ValueError):  # no name for a file here
        return
    try:
        read = load_dataset(layout, tmp_path)
    except (ValueError, FileNotFoundError) as error:
        named = [path.name, repr(path.name)] + ["list_query.txt, line"] * (layout == "msmt17")
        assert any(words in str(error) for words in named)
    else:
        table = pd.concat(read.splits.values())
        assert (table[["identity", "camera", "session", "frame"]].to_numpy() >= 0).all()
        if str(path) in set(table["path"]):
            assert path.name.isascii()
        else:
            bad = layout == "market1501" and name.startswith("-1_")  # a bad detection
            assert bad or path.name.startswith(".")
    finally:
        if new:
            path.unlink()


def test_a_camera_that_duke_does_not_have_is_named(tmp_path: Path) -> None:
    path = plant("dukemtmc", tmp_path) / "0005_c9_f0000001.jpg"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0005_c9_f0000001.jpg names a camera above 8"):
        load_dataset("dukemtmc", tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_to_files_are_followed_and_others_named(tmp_path: Path) -> None:
    link = plant("market1501", tmp_path) / "0003_c1s1_000001_00.jpg"
    link.symlink_to("0002_c1s1_000451_03.jpg")
    assert load_dataset("market1501", tmp_path).query["identity"].tolist() == [2, 2, 3]
    for target in ("gone.jpg", link.name, "."):  # gone, in a circle, a folder
        link.unlink()
        link.symlink_to(target)
        with pytest.raises(FileNotFoundError, match=link.name):
            load_dataset("market1501", tmp_path)
