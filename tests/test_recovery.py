"""Killed at every step of writing: what is found afterwards is the old or the new, and goes on.

A child process is killed by SIGKILL just before its n-th step on the file system inside a folder:
opening, making, renaming or removing something there. Every n is tried until the child gets
through, so no moment between two steps is left out. Within a write a child is killed by SIGXFSZ,
which comes when a file grows beyond a limit. Torn files, as an interruption or a crash of the
machine leaves them, are also made by hand: these tests need no signals and run on Windows, too.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib._files import read_checkpoint, write_whole
from qaconv_lib.experiments.profiles import RunConfig
from qaconv_lib.experiments.records import read_records, write_record
from qaconv_lib.layouts.archives import unpack_archive

_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}
_MOST_STEPS = 60


def _die_at(step: int, folder: str, action: Callable, *arguments: object) -> None:
    """Do something, and be killed before the given step on the file system below a folder."""
    seen = 0

    def hook(event: str, values: tuple) -> None:
        nonlocal seen
        if event in _STEPS and isinstance(values[0], (str, Path)):
            if str(values[0]).startswith(folder):
                seen += 1
                if seen == step:
                    os.kill(os.getpid(), signal.SIGKILL)

    torch.set_num_threads(1)
    sys.addaudithook(hook)
    action(*arguments)


@pytest.fixture(scope="module")
def children() -> multiprocessing.context.ForkServerContext:
    """Children of a process that has imported the library once."""
    if not hasattr(signal, "SIGKILL"):
        pytest.skip("Windows has no SIGKILL and no server of forks")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pytest", "qaconv_lib.scale.store", "qaconv_lib.training"])
    return context


@pytest.fixture
def killed(children, tmp_path: Path) -> Callable[..., Iterator[int]]:
    """Do something in a child that is killed at step 1, 2, ..., until it gets through."""

    def steps(action: Callable, *arguments: object, first: int = 1) -> Iterator[int]:
        for step in range(first, _MOST_STEPS):
            process = children.Process(
                target=_die_at, args=(step, str(tmp_path), action, *arguments)
            )
            process.start()
            process.join()
            if process.exitcode == 0:
                assert step > 3, "nothing was written"
                return
            assert process.exitcode == -signal.SIGKILL
            yield step
        raise AssertionError(f"{action.__name__} was not through after {_MOST_STEPS} steps")

    return steps


def _die_within(limit: int, action: Callable, *arguments: object) -> None:
    """Do something, and be killed within the write that makes a file larger than the limit."""
    import resource

    torch.set_num_threads(1)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python ignores it
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    action(*arguments)


@pytest.fixture
def torn(children, tmp_path: Path) -> Callable[..., Path]:
    """Do something in a child that is killed within a write; returns the half-written file."""

    def tear(limit: int, action: Callable, *arguments: object) -> Path:
        before = set(tmp_path.rglob("*"))
        process = children.Process(target=_die_within, args=(limit, action, *arguments))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGXFSZ
        new = [path for path in set(tmp_path.rglob("*")) - before if path.is_file()]
        (left,) = [path for path in new if path.stat().st_size == limit]
        return left

    return tear


def _cuts(content: bytes) -> list[int]:
    """Lengths that a torn file may have: from nothing to all but its last two bytes."""
    size = len(content)
    return sorted({0, 1, 8, size // 4, size // 2, 3 * size // 4, size - 2})


def test_a_file_is_the_old_or_the_new_one(killed, tmp_path: Path) -> None:
    path, found = tmp_path / "page.md", []
    path.write_bytes(b"old" * 9999)
    for _ in killed(write_whole, path, b"new" * 99):
        found.append(path.read_bytes())
        path.write_bytes(b"old" * 9999)
    assert set(found) == {b"old" * 9999, b"new" * 99}
    assert path.read_bytes() == b"new" * 99


@pytest.mark.parametrize("limit", [1, 4096, 99_998])
def test_a_file_that_was_torn_within_its_write_is_the_old_one(torn, tmp_path, limit: int) -> None:
    path = tmp_path / "page.md"
    path.write_bytes(b"old")
    left = torn(limit, write_whole, path, b"new" * 33_333)
    assert path.read_bytes() == b"old" and left.name.startswith(".page.md-")
    write_whole(path, b"new" * 33_333)
    assert path.read_bytes() == b"new" * 33_333


def _record(data: Path, record: dict) -> None:
    os.environ["QACONV_DATA"] = str(data)  # the server of the children does not know it
    write_record("made-up", "one", record)


def test_a_record_is_the_old_or_the_new_one(killed, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    about = dict.fromkeys(("experiment", "loss", "source", "profile", "device"), "x")
    old, new = ({**about, "seed": seed, "note": list(range(seed, 9999))} for seed in (0, 1))
    write_record("made-up", "one", old)
    found = []
    for _ in killed(_record, tmp_path, new):
        found += [record["seed"] for record in read_records("made-up")]
        write_record("made-up", "one", old)
    assert set(found) == {0, 1}
    assert read_records("made-up") == [new]


def test_a_record_is_there_or_not(killed, tmp_path: Path, monkeypatch) -> None:
    """The first record of a folder."""
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    about = dict.fromkeys(("experiment", "loss", "source", "profile", "device", "seed"), "x")
    found = []
    for _ in killed(_record, tmp_path, about):
        found.append(len(read_records("made-up")))
        (tmp_path / "results" / "made-up" / "one.json").unlink(missing_ok=True)
    assert set(found) == {0, 1} and read_records("made-up") == [about]


ABOUT = dict.fromkeys(("experiment", "loss", "source", "profile", "device", "seed"), "x")


def test_a_record_that_was_torn_within_its_write_is_not_read(torn, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    record = ABOUT | {"note": list(range(999))}
    for limit in (10, 3000):
        torn(limit, _record, tmp_path, record)
        assert read_records("made-up") == []
    write_record("made-up", "one", record)
    assert read_records("made-up") == [record]


def test_a_torn_record_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("QACONV_DATA", str(tmp_path))
    (tmp_path / "results").mkdir()
    path = write_record("made-up", "one", ABOUT)
    whole = path.read_bytes()
    for length in _cuts(whole):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="one.json is not a record"):
            read_records("made-up")
        path.unlink()  # so that no two contents have one time of change
        write_record("made-up", "one", ABOUT)
        assert read_records("made-up") == [ABOUT]
        path.with_name(".one.json-torn").write_bytes(whole[:length])
        assert read_records("made-up") == [ABOUT]


def _zip(path: Path) -> dict[str, bytes]:
    contents = {f"{folder}/{n}.jpg": os.urandom(70_000) for folder in ("a", "b/c") for n in "12"}
    with zipfile.ZipFile(path, "w") as bundle:
        for name, content in contents.items():
            bundle.writestr(name, content)
    return contents


def _read(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_unpacking_goes_on(killed, tmp_path: Path) -> None:
    contents = _zip(tmp_path / "mini.zip")
    cache = tmp_path / "cache"
    for step in killed(_unpack, tmp_path / "mini.zip", cache):
        for folder in cache.glob("mini-*"):  # what a reader would take for a dataset
            assert _read(folder) == contents, step
        assert _read(unpack_archive(tmp_path / "mini.zip", cache)) == contents
        shutil.rmtree(cache)
    assert _read(unpack_archive(tmp_path / "mini.zip", cache)) == contents


def _unpack(archive: Path, cache: Path) -> None:
    unpack_archive(archive, cache)


@pytest.mark.parametrize("limit", [1, 65_536, 69_999])
def test_unpacking_that_was_torn_within_a_file_leaves_no_dataset(torn, tmp_path, limit) -> None:
    contents, cache = _zip(tmp_path / "mini.zip"), tmp_path / "cache"
    left = torn(limit, _unpack, tmp_path / "mini.zip", cache)
    assert left.relative_to(cache).parts[0].startswith(".mini-")
    assert not list(cache.glob("mini-*"))
    assert _read(unpack_archive(tmp_path / "mini.zip", cache)) == contents


def test_a_torn_archive_is_refused(tmp_path: Path) -> None:
    _zip(tmp_path / "whole.zip")
    whole = (tmp_path / "whole.zip").read_bytes()
    for length in _cuts(whole):
        (tmp_path / "mini.zip").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="mini.zip is damaged"):
            unpack_archive(tmp_path / "mini.zip", tmp_path / "cache")
        assert not (tmp_path / "cache").exists()


SHAPE = (2, 4, 1)


PART = [f"part-000001.{kind}" for kind in ("maps.npy", "vectors.npy", "table.json")]


TINY = RunConfig(
    backbone="resnet18", pretrained=False, final_layer="layer2", neck_channels=4,
    height=32, width=16, batch_size=2, epochs=3, decay_epochs=2,
)  # fmt: skip


def _table(folder: Path) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for number in range(4):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (32, 16, 3), dtype=np.uint8)).save(path)
        rows.append({"path": str(path), "identity": number // 2})
    return pd.DataFrame(rows)


def _train_one_more(table: pd.DataFrame, folder: Path) -> None:
    trainer = TINY.trainer(table, device="cpu", run_folder=folder)
    trainer.train(epochs=trainer.epoch + 1)


def test_training_goes_on_to_the_same_weights(killed, tmp_path_factory, tmp_path: Path) -> None:
    """Killed at every step of writing its state, then carried to the end."""
    table, folder = _table(tmp_path_factory.mktemp("images")), tmp_path / "run"
    TINY.trainer(table, device="cpu", run_folder=folder).train(epochs=1)
    first = (folder / "last.safetensors").read_bytes()
    epochs = []
    for _ in killed(_train_one_more, table, folder, first=2):  # the first step reads the state
        epochs.append(_epochs(folder))
        (folder / "last.safetensors").write_bytes(first)
    assert set(epochs) == {1, 2}
    resumed = TINY.trainer(table, device="cpu", run_folder=folder)
    assert resumed.epoch == 2
    resumed.train()
    whole = TINY.trainer(table, device="cpu")
    whole.train()
    expected, found = whole.model.state_dict(), resumed.model.state_dict()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert json.dumps(resumed.history) == json.dumps(whole.history)


def _epochs(folder: Path) -> int:
    return read_checkpoint(folder / "last.safetensors")[1]["epoch"]


def test_a_state_that_was_torn_within_its_write_is_the_old_one(
    torn, tmp_path_factory, tmp_path: Path
) -> None:
    table, folder = _table(tmp_path_factory.mktemp("images")), tmp_path / "run"
    TINY.trainer(table, device="cpu", run_folder=folder).train(epochs=1)
    left = torn(99_999, _train_one_more, table, folder)
    assert left.name.startswith(".last.safetensors-")
    assert TINY.trainer(table, device="cpu", run_folder=folder).epoch == 1


def test_a_torn_state_is_refused_and_a_torn_log_is_written_anew(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    table, folder = _table(tmp_path / "images"), tmp_path / "run"
    TINY.trainer(table, device="cpu", run_folder=folder).train(epochs=2)
    state, log = (folder / "last.safetensors"), (folder / "log.csv")
    whole, lines = state.read_bytes(), log.read_bytes()
    for length in _cuts(whole):
        state.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="last.safetensors is damaged"):
            TINY.trainer(table, device="cpu", run_folder=folder)
    state.write_bytes(whole)
    (folder / ".last.safetensors-torn").write_bytes(whole[: len(whole) // 2])
    for length in _cuts(lines)[::3]:
        log.write_bytes(lines[:length])
        trainer = TINY.trainer(table, device="cpu", run_folder=folder)
        trainer.train(epochs=2)
        assert trainer.epoch == 2 and log.read_bytes() == lines
