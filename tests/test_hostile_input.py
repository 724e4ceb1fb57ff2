"""Damaged and hostile files: every one is read or refused by name, and none leaves its folder."""

from __future__ import annotations

import argparse
import errno
import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
import warnings
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.beyond.tfusion import tfusion
from qaconv_lib.cli import main, make_parser
from qaconv_lib.datasets import (
    load_dataset,
    load_image,
    load_part_map,
    validation_split,
)
from qaconv_lib.evaluation import evaluate_ranking
from qaconv_lib.experiments import records
from qaconv_lib.experiments.profiles import RunConfig
from qaconv_lib.layouts import LAYOUTS
from qaconv_lib.layouts.archives import unpack_archive
from qaconv_lib.layouts.names import FORMATS, passing_over
from qaconv_lib.models import ReidModel, load_model, save_model
from qaconv_lib.reranking import k_reciprocal_rerank
from qaconv_lib.temporal import tlift

ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


def damaged(content: bytes, count: int) -> Iterator[bytes]:
    """Copies of a file: cut short, with changed bytes, with a piece zeroed, doubled or moved."""
    rng = random.Random(len(content))
    for number in range(count):
        copy, place = bytearray(content), rng.randrange(len(content))
        length = rng.choice([1, 2, 8, 64])
        if number % 5 == 0:
            copy = copy[:place]
        elif number % 5 == 1:
            copy[place] ^= 1 << rng.randrange(8)
        elif number % 5 == 2:
            copy[place : place + length] = bytes(len(copy[place : place + length]))
        elif number % 5 == 3:
            copy[place : place + length] = rng.randbytes(len(copy[place : place + length]))
        else:
            copy[place:place] = copy[place : place + length]
        yield bytes(copy)


# Names ----------------------------------------------------------------------------------------


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A tree of five empty images in the layout of Market-1501."""
    for name in (
        "bounding_box_train/0002_c1s1_000451_03.jpg",
        "bounding_box_train/0007_c2s1_000451_01.jpg",
        "query/0001_c1s3_000010_00.jpg",
        "bounding_box_test/0001_c2s1_000200_01.jpg",
        "bounding_box_test/0000_c1s2_000500_01.jpg",
    ):
        path = tmp_path / "market" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    return tmp_path / "market"


class Tree(NamedTuple):
    """A dataset of few empty images, and the folder in it that a hostile name is put into."""

    files: tuple[str, ...]
    folder: str


def boxes(*names: str, inside: str = "") -> Tree:
    folders = ("bounding_box_train", "bounding_box_test", "query")
    files = (f"{inside}{folder}/{name}" for folder in folders for name in names)
    return Tree(tuple(files), f"{inside}query")


TREES = {
    "market1501": boxes("0002_c1s1_000451_03.jpg", "0002_c2s1_000451_01.jpg"),
    "dukemtmc": boxes("0005_c2_f0046985.jpg", "0005_c1_f0000001.jpg"),
    "cuhk03-np-detected": boxes("0001_c1_1.png", "0001_c2_1.png", inside="detected/"),
    "cuhk03-np-labeled": boxes("0001_c1_1.png", "0001_c2_1.png", inside="labeled/"),
    "msmt17": Tree(
        ("train/0000_000_01_0303morning_0008_0.jpg", "test/0000_000_01_0303morning_0008_0.jpg"),
        "test",
    ),
    "randperson": Tree(
        ("000000_s00_c00_f000264.jpg", "000000_s10_c03_f000096.jpg", "000007_s00_c01_f01.jpg"), ""
    ),
    "clonedperson": Tree(
        tuple(f"{part}/700000_s02_c00_f023389.jpg" for part in ("train", "test/query"))
        + ("test/gallery/700000_s06_c00_f023413.jpg",),
        "test/query",
    ),
}


def plant(layout: str, root: Path) -> Path:
    """Write the tree of a layout; returns the folder for a hostile name."""
    for name in TREES[layout].files:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    if layout == "msmt17":
        for name in ("train", "val", "query", "gallery"):
            (root / f"list_{name}.txt").write_text("0000_000_01_0303morning_0008_0.jpg 0\n")
    return root / TREES[layout].folder


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


@ONE_FOLDER
@given(name=NAMES, suffix=st.sampled_from([".jpg", ".JPG.jpg", ".png", ".bmp", ".jpeg"]))
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_file_name_is_read_counted_or_named(
    tmp_path: Path, layout: str, name: str, suffix: str
) -> None:
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
        if layout != "msmt17":  # whose lists are not gone on past
            with passing_over() as found:
                load_dataset(layout, tmp_path)
            assert str(path) in {one for paths in found.values() for one in paths}
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


def test_a_camera_that_duke_does_not_have_is_passed_over(tmp_path: Path) -> None:
    path = plant("dukemtmc", tmp_path) / "0005_c9_f0000001.jpg"
    path.write_bytes(b"")
    with pytest.raises(ValueError, match="0005_c9_f0000001.jpg names a camera above 8"):
        load_dataset("dukemtmc", tmp_path)
    with passing_over() as found:
        query = load_dataset("dukemtmc", tmp_path).query
    assert found == {"names have a camera above 8": [str(path)]}
    assert query["camera"].tolist() == [0, 1] and query["seconds"].notna().all()


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
class TestLinks:
    @pytest.mark.parametrize("target", ["gone.jpg", "0003_c1s1_000001_00.jpg", "."])
    def test_links_to_no_file_are_named(self, market: Path, target: str) -> None:
        """Gone, in a circle, or a folder."""
        (market / "query" / "0003_c1s1_000001_00.jpg").symlink_to(target)
        with pytest.raises(FileNotFoundError, match="0003_c1s1_000001_00.jpg is no file"):
            load_dataset("market1501", market)

    def test_links_to_files_are_followed(self, market: Path) -> None:
        (market / "query" / "0003_c1s1_000001_00.jpg").symlink_to("0001_c1s3_000010_00.jpg")
        assert load_dataset("market1501", market).query["identity"].tolist() == [1, 3]

    def test_links_in_the_lists_of_msmt17(self, tmp_path: Path) -> None:
        for name in ("train", "val", "query", "gallery"):
            folder = tmp_path / ("train" if name in ("train", "val") else "test")
            path = folder / "0000" / f"0000_{len(name):03d}_01_0303morning_0008_0.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(__file__)
            (tmp_path / f"list_{name}.txt").write_text(f"0000/{path.name} 0\n")
        assert len(load_dataset("msmt17", tmp_path).train) == 2
        path.unlink()
        path.symlink_to("nowhere")
        with pytest.raises(FileNotFoundError, match="list_gallery.txt, line 1, names"):
            load_dataset("msmt17", tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("../../etc/passwd 0", "cannot read the file name .passwd"),
        ("/etc/passwd 0", "cannot read the file name .passwd"),
        ("0000/0000_000_01_0303morning_0008_0.jpg " + "9" * 5000, "line 1"),
        ("0000/0000_000_00_0303morning_0008_0.jpg 0", "camera 0"),
        ("0000/0000_000_01_0303morning_0008_0.jpg -1", "line 1"),
        ("\0 0", "no UTF-8 text"),
    ],
)
def test_hostile_lines_of_a_list(tmp_path: Path, line: str, message: str) -> None:
    for name in ("train", "test"):
        for camera in (0, 1):
            path = tmp_path / name / "0000" / f"0000_000_{camera:02d}_0303morning_0008_0.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"")
    for name in ("train", "val", "query", "gallery"):
        (tmp_path / f"list_{name}.txt").write_text(line)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_dataset("msmt17", tmp_path)
    (tmp_path / "list_train.txt").write_bytes(b"\xff\xfe\xfa 0")
    with pytest.raises(ValueError, match="list_train.txt cannot be read as text"):
        load_dataset("msmt17", tmp_path)


# Images ---------------------------------------------------------------------------------------


def encoded(kind: str, **more: object) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 12, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind, **more)
    return stream.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "GIF", "WEBP"])
def test_a_damaged_image_is_read_or_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "damaged.jpg"
    path.write_bytes(encoded(kind))
    assert load_image(path).size == (12, 24)
    refused = 0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of corrupt metadata and large pictures
        for content in damaged(encoded(kind), 150):
            path.write_bytes(content)
            try:
                assert load_image(path).mode == "RGB"
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused


def png_chunk(name: bytes, content: bytes) -> bytes:
    body = name + content
    return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))


def test_a_damaged_part_map_is_named(tmp_path: Path) -> None:
    (tmp_path / "query").mkdir()
    path = tmp_path / "part_maps" / "query" / "1.png"
    path.parent.mkdir(parents=True)
    Image.fromarray(np.eye(8, dtype=np.uint8)).save(path)
    np.testing.assert_array_equal(load_part_map(tmp_path / "query" / "1.jpg"), np.eye(8))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match="part_maps"):
        load_part_map(tmp_path / "query" / "1.jpg")


# Archives -------------------------------------------------------------------------------------


def archive(path: Path, entries: dict[str, bytes], packing: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip file; names go in as they are, also those that `zipfile` would change."""
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in entries.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            bundle.writestr(entry, content, compress_type=packing)
    return path


def test_a_damaged_archive_is_unpacked_right_or_named(tmp_path: Path) -> None:
    entries = {f"query/{n}.jpg": bytes(range(40)) * n for n in range(1, 5)}
    good = archive(tmp_path / "good.zip", entries).read_bytes()
    path, cache, refused = tmp_path / "mini.zip", tmp_path / "deep" / "cache", 0
    for content in damaged(good, 250):
        path.write_bytes(content)
        try:
            folder = unpack_archive(path, cache)
        except (ValueError, OSError) as error:
            assert str(path) in str(error)
            refused += 1
        else:
            assert folder.parent == cache
            for file in folder.rglob("*"):  # names may be damaged, contents have a checksum
                assert file.is_dir() or file.read_bytes() in entries.values()
    assert 50 < refused < 250
    assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "good.zip", "mini.zip"]
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["cache"]
    assert not [p for p in cache.iterdir() if p.name.startswith(".")]


# Checkpoints and training states --------------------------------------------------------------

TINY = RunConfig(
    backbone="resnet18", pretrained=False, final_layer="layer2", neck_channels=4,
    height=32, width=16, batch_size=2, epochs=2, decay_epochs=1,
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, ReidModel(TINY, 3))
    return path


def test_a_damaged_checkpoint_is_read_or_named(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, {"a": torch.arange(6.0), "b": torch.ones(2, 2).half()}, {"x": [1, {}]})
    for content in damaged(path.read_bytes(), 300):
        path.write_bytes(content)
        try:
            _, details = read_checkpoint(path)
            assert isinstance(details, dict)
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize(
    "changes",
    [
        {"config": None},
        {"config": [1]},
        {"config": {"loss": ["qaconv"]}},
        {"config": {"loss": "qaconv", "backbone": None}},
        {"config": {"learning_rate": "fast"}},
        {"config": {"height": 2**30, "width": 2**30, "backbone": "resnet18", "pretrained": False}},
        {"config": {"neck_channels": -4}},
        {"config": {"neck_channels": 1e99}},
        {"config": {"kernel_size": 2}},
        {"num_classes": "many"},
        {"num_classes": 0},
        {"num_classes": 10**15},
        {"num_classes": 10**40},
        {"num_classes": None},
        {"num_classes": [3]},
    ],
)
def test_details_that_describe_no_model_are_refused(
    model: Path, tmp_path: Path, changes: dict
) -> None:
    tensors, details = read_checkpoint(model)
    if isinstance(changes.get("config"), dict):
        changes = {"config": details["config"] | changes["config"]}
    path = tmp_path / "m.safetensors"
    write_checkpoint(path, tensors, details | changes)
    with pytest.raises(ValueError, match="m.safetensors does not describe a model"):
        load_model(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    paths = [folder / f"{number}.png" for number in range(4)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(path)
    return pd.DataFrame({"path": map(str, paths), "identity": [0, 0, 1, 1]})


@pytest.fixture(scope="module")
def state(images: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    TINY.trainer(images, run_folder=folder).train(epochs=1)
    return folder / "last.safetensors"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config": None}, "does not say its settings"),
        ({"config": ["x"]}, "does not say its settings"),
        ({"config": {"seed": 7}}, "other settings"),
        ({"images": None}, "other images"),
        ({"epoch": None}, "which epochs are done"),
        ({"epoch": "1"}, "which epochs are done"),
        ({"epoch": [1]}, "which epochs are done"),
        ({"epoch": 3, "history": [{}] * 3}, "which epochs are done"),
        ({"epoch": -1}, "which epochs are done"),
        ({"history": []}, "which epochs are done"),
        ({"history": 5}, "which epochs are done"),
        ({"momentum.0": torch.zeros(3)}, "momentum is of another model"),
        ({"momentum.9999": torch.zeros(3)}, "momentum is of another model"),
        ({"momentum.x": torch.zeros(3)}, "momentum is of another model"),
        ({"model.y": torch.zeros(3)}, "left over"),
    ],
)
def test_a_damaged_training_state_is_named(
    images: pd.DataFrame, state: Path, tmp_path: Path, changes: dict, message: str
) -> None:
    tensors, details = read_checkpoint(state)
    tensors |= {key: value for key, value in changes.items() if isinstance(value, torch.Tensor)}
    details |= {key: value for key, value in changes.items() if key not in tensors}
    write_checkpoint(tmp_path / "last.safetensors", tensors, details)
    with pytest.raises(ValueError, match=f"last.safetensors .*{message}"):
        TINY.trainer(images, run_folder=tmp_path)


# Records and stores ---------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder of its own, with one record of each kind."""
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    about = {"loss": "qaconv", "source": "mini-market", "profile": "laptop", "seed": 0}
    about |= {"experiment": "x", "device": "CPU", "settings": {}}
    (tmp_path / "results").mkdir()
    records.write_record("evaluate", "one", about | {"target": "mini-duke", "stages": {}})
    records.write_record("search", "one", about | {"scores": {"mean_ap": 0.5}})
    return tmp_path / "results"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"[]", b"null", b"3", b"\xff", b"[" * 100_000, b'{"experiment": 1}', "loss",
        "settings", "stages",
    ],
)  # fmt: skip
def test_a_damaged_record_ends_a_command_with_one_sentence(
    results: Path, capsys: pytest.CaptureFixture, content: bytes | str
) -> None:
    """Text stands for an entry that is lost."""
    path = results / "evaluate" / "one.json"
    assert len(records.read_records("evaluate")) == 1
    if isinstance(content, str):
        record = json.loads(path.read_text())
        del record[content]
        content = json.dumps(record).encode()
    path.write_bytes(content)
    assert main(["tables", "headline"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "one.json is not a record" in error


HOSTILE = [None, -1, 0, 1.5, 10**30, "", "../../x", "part-000001", [], {}, [[]], True]


def places(tree: object, path: tuple = ()) -> Iterator[tuple]:
    """Where something stands in a JSON document."""
    if path:
        yield path
    for key in (
        tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    ):
        yield from places(tree[key], (*path, key))


# Command line ---------------------------------------------------------------------------------


def commands() -> dict[str, argparse.ArgumentParser]:
    """Every command and its parser."""
    (found,) = (a for a in make_parser()._actions if isinstance(a, argparse._SubParsersAction))
    return dict(found.choices)


NUMBERS = ["0", "-1", "1", "2", "1.5", "nan", "-inf", "1e3", "9" * 30, "9" * 5000, "\u0663"]
PLACES = [
    "good.jpg", "empty.jpg", "none.jpg", "folder", "new", ".", "../..", "/dev/null/x", "boxes.csv",
    "e\u0301/\u00fc", "a\nb.png", "x" * 300, "x" * 5000, "no\0file", "out.svg", "good.jpg/x",
]  # fmt: skip
NAMED = [
    "qaconv", "softmax", "pairwise", "mini-market", "mini-duke", "market1501", "randperson",
    "memory", "matching", "table1", "cost", "correspondence", "headline", "within", "smoke",
    "paper", "paper+precision=bfloat16", "resnet18", "float16", "cpu", "cuda:99", "meta",
    "127.0.0.1", "::1", "boxes.csv", "none.csv", "-h", "--", "--help=no",
]  # fmt: skip
ANY = st.one_of(
    st.sampled_from(NUMBERS + PLACES + NAMED + [""]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
)


def value_for(action: argparse.Action) -> st.SearchStrategy[str]:
    """What may be right for an option or argument by its kind, or anything."""
    likely = NUMBERS if action.type in (int, float) else PLACES if action.type is Path else NAMED
    return st.one_of(st.sampled_from(list(action.choices or likely)), ANY)


def words_for(data: st.DataObject, action: argparse.Action) -> list[str]:
    """The words of a command line that give an option or argument, perhaps none."""
    if not action.option_strings:
        least, most = {None: (1, 1), "?": (0, 1), "*": (0, 2), "+": (1, 2)}[action.nargs]
        return data.draw(st.lists(value_for(action), min_size=least, max_size=most))
    if not (action.required or data.draw(st.integers(0, 3), "given at 3") == 3):
        return []
    option = data.draw(st.sampled_from(action.option_strings))
    if action.nargs == 0:
        return [option]
    return [f"{option}={data.draw(value_for(action))}"]  # so that a value may begin with a dash


def refuse(*_: object, **__: object) -> None:
    raise ArithmeticError("nothing is computed here")


@pytest.fixture
def nothing_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without data or models; what is costly or asks the network refuses."""
    here = tmp_path / "a" / "b" / "c"  # so that ../.. is of this test, too
    (here / "folder").mkdir(parents=True)
    (here / "data").mkdir()
    (here / "good.jpg").write_bytes(encoded("JPEG"))
    (here / "empty.jpg").write_bytes(b"")
    (here / "boxes.csv").write_text("file,x,y,width,height\ngood.jpg,1,1,9,20\n")
    monkeypatch.chdir(here)
    monkeypatch.setenv("QACONV_CACHE", str(here / "cache"))
    for module in ("datasets", "experiments.records", "backbones"):
        monkeypatch.setattr(f"qaconv_lib.{module}.data_folders", lambda: [here / "data"])
    for costly in ("miniatures.drawing.write_archive", "experiments.cost.cost_record"):
        monkeypatch.setattr(f"qaconv_lib.{costly}", refuse)
    monkeypatch.setattr("qaconv_lib.experiments.suite._execute_all", lambda *_: iter(()))
    monkeypatch.setattr(
        "qaconv_lib.experiments.bench.CASES", {"matching": [refuse], "memory": [refuse]}
    )
    monkeypatch.setattr("qaconv_lib.photographs.demo.serve", lambda *_: None)
    look_up = socket.getaddrinfo
    monkeypatch.setattr(
        "socket.getaddrinfo",
        lambda host, port, **more: look_up(host, port, flags=socket.AI_NUMERICHOST, **more),
    )
    return here


@ONE_FOLDER
@given(data=st.data())
@pytest.mark.parametrize("command", commands())
def test_any_command_line_ends_with_a_status(
    command: str, data: st.DataObject, nothing_there: Path, capsys: pytest.CaptureFixture
) -> None:
    """Every command with some of its options, with fitting and hostile values."""
    actions = [action for action in commands()[command]._actions if action.dest != "help"]
    words = [word for action in actions for word in words_for(data, action)]
    try:
        status = main([command, *words])
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status in (0, 2) and "Traceback" not in error
    if status == 2 and not error.startswith("usage"):
        *announced, last = error.removesuffix("\n").split("\n")
        assert last.startswith("qaconv_lib: ") and last != "qaconv_lib: "
        assert all(line.startswith(("calibrating ", "left out: ")) for line in announced)


def test_two_dashes_are_no_value(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["train", "qaconv", "mini-duke", "--profile=--"])
    assert "--profile=--: -- is not a value" in capsys.readouterr().err


def test_a_message_is_one_line_whatever_the_name(
    nothing_there: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["search", "good.jpg", "--gallery", "a\nb\x1b[31m.png"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and r"a\nb\x1b[31m.png" in error


def test_a_folder_that_no_archive_can_be_written_to_is_named(
    nothing_there: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    assert main(["synthesize", "mini-duke", "--out", "there"]) == 2
    error = capsys.readouterr().err
    assert "cannot write archives to there (Read-only file system); name another" in error


def test_calibrate_says_first_what_it_does(
    nothing_there: Path, capsys: pytest.CaptureFixture
) -> None:
    assert main(["calibrate"]) == 2  # there are no models here
    first, last = capsys.readouterr().err.splitlines()
    assert first.startswith("calibrating ") and "mini-market, mini-duke" in first
    assert "no checkpoint at" in last
    assert main(["calibrate", "--quiet"]) == 2
    assert capsys.readouterr().err.startswith("qaconv_lib: no checkpoint at")


@pytest.mark.parametrize("size", ["two", "", "-1", "1.5", "\u0662"])
def test_a_wrong_world_size_is_named(
    size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", size)
    assert main(["train", "qaconv", "mini-market"]) == 2
    assert "WORLD_SIZE must be a whole number" in capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="pipes break in another way on Windows")
def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    """As in `python -m qaconv_lib run | head -1`, the reader gone before the first line."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "qaconv_lib", "run"], stdout=writing, stderr=subprocess.PIPE
    )
    os.close(writing)
    assert done.returncode == 141 and done.stderr == b""


# Arguments ------------------------------------------------------------------------------------

RANKED = [[[0.1, 0.9]], [1], [1, 2], [0], [1, 1]]
TIMED = [[[0.1, 0.9]], [0], [3.0], [1, 1], [1.0, 2.0]]
SQUARE = [[[0.1, 0.9]], [[0.0]], [[0.0, 0.5], [0.5, 0.0]]]
CALLS = [
    (evaluate_ranking, RANKED),
    (tlift, TIMED),
    (tfusion, TIMED),
    (k_reciprocal_rerank, SQUARE),
]
TOTALLY_WRONG = [
    None, "text", b"bytes", 3, {}, {1, 2}, object(), [[]], [None], ["1", "2"], [[1, 2], [3]],
    [torch.ones(2), torch.ones(3)], np.ma.masked_array([[1.0, 2.0]], mask=[[True, False]]),
    np.array([[1 + 2j, 0]]), np.array([["2020-01-01"] * 2], dtype="M8[s]"), [[True, "x"]],
    pd.Series([1, None], dtype="Float64"), float("nan"), torch.ones(1, 2, 1), lambda: 0,
]  # fmt: skip


@pytest.mark.parametrize("function, good", CALLS, ids=lambda value: getattr(value, "__name__", ""))
@pytest.mark.parametrize("wrong", TOTALLY_WRONG, ids=lambda value: type(value).__name__)
def test_arguments_of_the_wrong_kind_are_named(function, good, wrong) -> None:
    names = function.__code__.co_varnames
    function(*good)
    for place in range(len(good)):
        arguments = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises((TypeError, ValueError), match=names[place]):
            function(*arguments)


@pytest.mark.parametrize("wrong", ["10", None, [1], np.ones(2), True, 1 + 2j, float("nan")])
def test_parameters_of_the_wrong_kind_are_named(wrong) -> None:
    for name in ("tau", "sigma", "alpha", "k"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            tlift(*TIMED, **{name: wrong})
    for name in ("k1", "k2", "lambda_value"):
        with pytest.raises(ValueError, match=f"{name} must be"):
            k_reciprocal_rerank(*SQUARE, **{name: wrong})
    for name in ("window", "floor", "num_matches", "num_random", "error_positive"):
        with pytest.raises(ValueError, match=name):
            tfusion(*TIMED, **{name: wrong})
    table = pd.DataFrame({"identity": [1, 1, 1, 2, 2], "camera": [0, 0, 1, 0, 1]})
    with pytest.raises(ValueError, match="identities must be a number"):
        validation_split(table, wrong)
