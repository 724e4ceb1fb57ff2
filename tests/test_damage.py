"""Damaged and half-written files: each is read or refused by name, and the old or the new one."""

import dataclasses
import io
import json
import os
import random
import shutil
import signal
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tiny import TINY, noisy_people

from qaconv_lib._files import read_checkpoint, write_checkpoint, write_whole
from qaconv_lib.cli import main
from qaconv_lib.datasets import load_image
from qaconv_lib.experiments.records import read_records, results_folder, write_record
from qaconv_lib.layouts.archives import unpack_archive
from qaconv_lib.models import ReidModel, load_model, save_model

SMALL = dataclasses.replace(TINY, neck_channels=4, batch_size=2, epochs=2, decay_epochs=1)


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


def cuts(content: bytes) -> list[bytes]:
    """What an interruption may leave of a file: from nothing to all but its last two bytes."""
    size = len(content)
    return [content[:end] for end in sorted({0, 1, 8, size // 4, size // 2, size - 2})]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_an_image_is_read_or_named(tmp_path: Path, kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (24, 12, 3), dtype=np.uint8)
    stream, path, refused = io.BytesIO(), tmp_path / "damaged.jpg", 0
    Image.fromarray(pixels).save(stream, kind)
    path.write_bytes(stream.getvalue())
    assert load_image(path).size == (12, 24)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of corrupt metadata and large images
        for content in damaged(stream.getvalue(), 100):
            path.write_bytes(content)
            try:
                assert load_image(path).mode == "RGB"
            except ValueError as error:
                assert str(path) in str(error)
                refused += 1
    assert refused


class TestArchives:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
        contents = {f"{part}/{n}.jpg": bytes(range(40)) * n for part in "ab" for n in (1, 2)}
        with zipfile.ZipFile(tmp_path / "mini.zip", "w", zipfile.ZIP_DEFLATED) as bundle:
            for name, content in contents.items():
                bundle.writestr(name, content)
        return tmp_path / "mini.zip", contents

    def test_an_archive_is_unpacked_right_or_named(self, archive, tmp_path: Path) -> None:
        (path, contents), cache, refused = archive, tmp_path / "deep" / "cache", 0
        whole = path.read_bytes()
        for content in [*cuts(whole), *damaged(whole, 150)]:
            path.write_bytes(content)
            try:
                folder = unpack_archive(path, cache)
            except (ValueError, OSError) as error:
                assert str(path) in str(error)
                refused += 1
            else:
                assert folder.parent == cache
                for file in folder.rglob("*"):  # contents have a checksum, names and sizes do not
                    assert file.is_dir() or file.read_bytes() in [*contents.values(), b""]
        assert 30 < refused < 156
        assert sorted(p.name for p in tmp_path.iterdir()) == ["deep", "mini.zip"]
        assert not [p for p in cache.iterdir() if p.name.startswith(".")]

    @pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
    def test_a_killed_process_leaves_no_half_dataset(self, archive, tmp_path: Path) -> None:
        (path, contents), cache = archive, tmp_path / "cache"

        def read(folder: Path) -> dict[str, bytes]:
            files = (file for file in folder.rglob("*") if file.is_file())
            return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}

        for _ in killed_at_every_step(tmp_path, lambda: unpack_archive(path, cache)):
            assert all(read(folder) == contents for folder in cache.glob("mini-*"))
            assert read(unpack_archive(path, cache)) == contents
            shutil.rmtree(cache)


_STEPS = {"open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.chmod", "os.truncate"}


def killed_at_every_step(folder: Path, action: Callable[[], object]) -> Iterator[int]:
    """Fork a child that is killed before step 1, 2, ... on files below a folder, until it ends."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork and SIGKILL")
    for step in range(1, 60):
        child = os.fork()
        if not child:
            left = [step]

            def hook(event: str, values: tuple, left: list[int] = left) -> None:
                if event in _STEPS and str(values[0]).startswith(str(folder)):
                    left[0] -= 1
                    if not left[0]:
                        os.kill(os.getpid(), signal.SIGKILL)

            try:
                sys.addaudithook(hook)
                action()
            except BaseException:
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            assert step > 3, "nothing was written"
            return
        assert status == -signal.SIGKILL
        yield step
    raise AssertionError("not through after 59 steps")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_file_is_the_old_or_the_new_one(tmp_path: Path) -> None:
    path, found = tmp_path / "page.md", []
    path.write_bytes(b"old" * 9999)
    for _ in killed_at_every_step(tmp_path, lambda: write_whole(path, b"new" * 99)):
        found.append(path.read_bytes())
        path.write_bytes(b"old" * 9999)
    assert set(found) == {b"old" * 9999, b"new" * 99} and path.read_bytes() == b"new" * 99


@pytest.fixture
def record(no_records: Path) -> Path:
    """The only record of a data folder of its own."""
    about = {"loss": "qaconv", "source": "mini-market", "profile": "laptop", "seed": 0}
    about |= {"experiment": "x", "device": "CPU", "settings": {}, "target": "mini-duke"}
    return write_record("evaluate", "one", about | {"stages": {}})


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"3", b"\xff", b"[" * 99_999, "loss", "settings", "stages"]
)
def test_a_record_ends_a_command_with_one_sentence(record, capsys, content) -> None:
    """Text stands for an entry that is lost."""
    (found,) = read_records("evaluate")
    if isinstance(content, str):
        content = json.dumps({k: v for k, v in found.items() if k != content}).encode()
    record.with_name(".one.json-torn").write_bytes(content)  # of a process that was killed
    assert read_records("evaluate") == [found]
    record.write_bytes(content)
    assert main(["tables", "headline"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "one.json is not a record" in error


def test_a_record_that_cannot_be_written_is_a_warning(no_records: Path) -> None:
    (results_folder() / "evaluate" / "one.json").mkdir(parents=True)  # in the way
    with pytest.warns(UserWarning, match="record is not kept: .*one.json"):
        write_record("evaluate", "one", {})


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(path, ReidModel(SMALL, 3))
    return path


class TestCheckpoints:
    def test_a_checkpoint_is_read_or_named(self, tmp_path: Path) -> None:
        path, tensors = tmp_path / "m.safetensors", {"a": torch.arange(6.0), "b": torch.ones(2)}
        write_checkpoint(path, tensors, {"x": [1, {}]})
        for content in damaged(path.read_bytes(), 200):
            path.write_bytes(content)
            try:
                assert isinstance(read_checkpoint(path)[1], dict)
            except ValueError as error:
                assert str(path) in str(error)

    @pytest.mark.parametrize(
        "changes",
        [{"config": None}, {"config": {"learning_rate": "fast"}}, {"config": {"neck_channels": -4}}]
        + [{"num_classes": "many"}, {"num_classes": 10**15}],
    )
    def test_details_of_no_model_are_refused(self, checkpoint, tmp_path, changes: dict) -> None:
        path = tmp_path / "m.safetensors"
        tensors, details = read_checkpoint(checkpoint)
        if isinstance(changes.get("config"), dict):
            changes = {"config": details["config"] | changes["config"]}
        write_checkpoint(path, tensors, details | changes)
        with pytest.raises(ValueError, match="m.safetensors does not describe a model"):
            load_model(path)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """Four images, and the folder of a run after its first epoch."""
    folder = tmp_path_factory.mktemp("run")
    table = noisy_people(folder, [0, 0, 1, 1])
    SMALL.trainer(table, run_folder=folder / "run").train(epochs=1)
    return table, folder / "run"


class TestTrainingStates:
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"decisive": None}, "settings"),
            ({"decisive": {"seed": 7}}, "images"),
            ({"momentum.0": torch.zeros(3)}, "momentum is of another model"),
            ({"model.y": torch.zeros(3)}, "left over"),
        ],
    )
    def test_a_wrong_state_is_named(self, trained, tmp_path: Path, changes, message: str) -> None:
        tensors, details = read_checkpoint(trained[1] / "last.safetensors")
        tensors |= {key: value for key, value in changes.items() if isinstance(value, torch.Tensor)}
        details |= {key: value for key, value in changes.items() if key not in tensors}
        write_checkpoint(tmp_path / "last.safetensors", tensors, details)
        with pytest.raises(ValueError, match=f"last.safetensors .*{message}"):
            SMALL.trainer(trained[0], run_folder=tmp_path)

    def test_a_torn_state_is_refused_and_a_torn_log_written_anew(self, trained, tmp_path) -> None:
        table, folder = trained[0], tmp_path / "run"
        shutil.copytree(trained[1], folder)
        state, log = folder / "last.safetensors", folder / "log.csv"
        whole, lines = state.read_bytes(), log.read_bytes()
        for content in cuts(whole):
            state.write_bytes(content)
            with pytest.raises(ValueError, match="last.safetensors is damaged"):
                SMALL.trainer(table, run_folder=folder)
        state.write_bytes(whole)
        (folder / ".last.safetensors-torn").write_bytes(whole[: len(whole) // 2])
        for content in cuts(lines)[::2]:
            log.write_bytes(content)
            trainer = SMALL.trainer(table, run_folder=folder)
            trainer.train(epochs=1)
            assert trainer.epoch == 1 and log.read_bytes() == lines
