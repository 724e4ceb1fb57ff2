"""The run folder: log, description, TensorBoard; and the augmentation of several workers."""

import csv
import dataclasses
import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from qaconv_lib._files import read_checkpoint, write_checkpoint
from qaconv_lib.cli import main
from qaconv_lib.experiments import runs
from qaconv_lib.experiments.profiles import RunConfig
from qaconv_lib.experiments.runs import Run, train_run
from qaconv_lib.training import LOG_COLUMNS

TINY = RunConfig(
    backbone="resnet18",
    pretrained=False,
    final_layer="layer2",
    neck_channels=8,
    height=32,
    width=16,
    batch_size=4,
    epochs=3,
    decay_epochs=2,
)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight times one image, of two people by two cameras."""
    path = tmp_path_factory.mktemp("images") / "0.png"
    pixels = np.random.default_rng(0).integers(0, 255, (32, 16, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(path)
    numbers = np.arange(8)
    return pd.DataFrame({"path": str(path), "identity": numbers % 2, "camera": numbers // 4})


def read_log(folder):
    with open(folder / "log.csv", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == LOG_COLUMNS
    return rows


class TestLog:
    def test_a_row_an_epoch_with_what_the_trainer_knows(self, table, tmp_path):
        trainer = TINY.trainer(table, device="cpu", run_folder=tmp_path)
        trainer.train()
        rows = read_log(tmp_path)
        assert [row["epoch"] for row in rows] == ["1", "2", "3"]
        for row, known in zip(rows, trainer.history, strict=True):
            assert {key: float(row[key]) for key in known} == known
            seconds, speed = float(row["seconds"]), float(row["images_per_second"])
            assert seconds > 0 and speed == pytest.approx(8 / seconds, rel=0.1, abs=1)
            assert row["peak_megabytes"] == "" or int(row["peak_megabytes"]) > 50

    def test_resuming_adds_to_it_and_repeats_nothing(self, table, tmp_path):
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=2)
        before = read_log(tmp_path)
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train()
        after = read_log(tmp_path)
        assert after[:2] == before and [row["epoch"] for row in after] == ["1", "2", "3"]

    @pytest.mark.parametrize("harm", ["lost", "one epoch ahead"])
    def test_it_is_brought_in_line_with_the_state(self, table, tmp_path, harm):
        """As after a crash between the two files, or when somebody removed it."""
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=1)
        log = tmp_path / "log.csv"
        content = log.read_text()
        if harm == "lost":
            log.unlink()
        else:
            log.write_text(content + content.splitlines()[1].replace("1", "2", 1) + "\n")
        TINY.trainer(table, device="cpu", run_folder=tmp_path)
        assert log.read_text() == content

    def test_epochs_that_nobody_timed_have_empty_places(self, table, tmp_path):
        """A state written before there was a log."""
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=1)
        tensors, details = read_checkpoint(tmp_path / "last.safetensors")
        del details["timings"]
        write_checkpoint(tmp_path / "last.safetensors", tensors, details)
        (tmp_path / "log.csv").unlink()
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=2)
        first, second = read_log(tmp_path)
        assert first["loss"] and not first["seconds"] and second["seconds"]


class TestTensorBoard:
    def test_the_package_reads_back_what_two_starts_wrote(self, small):
        from tensorboard.backend.event_processing import event_accumulator

        run, folder = Run("qaconv", "somewhere", "smoke"), small / "run"
        train_run(run, device="cpu", run_folder=folder, tensorboard=True)
        train_run(run, device="cpu", run_folder=folder, tensorboard=True)
        found = event_accumulator.EventAccumulator(str(folder / "tensorboard")).Reload()
        assert [event.step for event in found.Scalars("loss")] == [1, 2]
        assert "images_per_second" in found.Tags()["scalars"]


class TestWorkers:
    """One image eight times, so that batches differ by their augmentation alone."""

    def batches(self, table, epoch):
        trainer = dataclasses.replace(TINY, workers=2).trainer(table, device="cpu")
        trainer.epoch = epoch
        return [images for images, _ in trainer._batches()]

    def test_augmentation_is_the_same_every_time_and_new_elsewhere(self, table):
        first, again, later = (self.batches(table, epoch) for epoch in (0, 0, 1))
        torch.rand(3)  # what else is drawn does not matter
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], first[1])  # of two workers
        assert not any(torch.equal(a, b) for a, b in zip(first, later, strict=True))

    def test_the_images_can_be_sent_to_workers_that_are_started_afresh(self, table):
        """Where processes are spawned, as on Windows and macOS."""
        images = dataclasses.replace(TINY, workers=2).trainer(table, device="cpu").images
        again = pickle.loads(pickle.dumps(images))
        torch.manual_seed(0)
        expected = images[1][0]
        torch.manual_seed(0)
        assert torch.equal(again[1][0], expected)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A data folder and a cache of their own."""
    (tmp_path / "data" / "results").mkdir(parents=True)
    monkeypatch.setenv("QACONV_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("QACONV_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def small(place, table, monkeypatch):
    """The smoke profile on eight small images, without weights from a file."""
    monkeypatch.setattr(runs, "training_images", lambda source: table)
    profile = runs.get_profile("smoke")
    base = dataclasses.replace(TINY, epochs=2, decay_epochs=1)
    changed = dataclasses.replace(profile, base=base, identities=None)
    monkeypatch.setitem(sys.modules["qaconv_lib.experiments.profiles"].PROFILES, "smoke", changed)
    return place


class TestDescription:
    def test_a_folder_says_what_it_is(self, small):
        folder = small / "my run"
        run = Run("qaconv", "somewhere", "smoke", 3, {"precision": "bfloat16", "accumulate": 2})
        path = train_run(run, device="cpu", run_folder=folder)
        about = json.loads((folder / "run.json").read_text())
        assert about["run"] == run.about
        assert about["config"] == dataclasses.asdict(run.config())
        assert (about["images"], about["identities"], about["cameras"]) == (8, 2, 2)
        assert about["model"] == str(path)
        (start,) = about["starts"]
        assert start["epoch"] == 0 and "CPU" in start["device"] and "torch" in start["versions"]
        assert {path.name for path in folder.iterdir()} == {
            "run.json",
            "log.csv",
            "last.safetensors",
        }

    def test_every_start_is_kept_and_a_damaged_list_is_begun_anew(self, small):
        run, folder = Run("qaconv", "somewhere", "smoke"), small / "run"
        train_run(run, device="cpu", run_folder=folder)
        train_run(run, device="cpu", run_folder=folder)
        starts = json.loads((folder / "run.json").read_text())["starts"]
        assert [start["epoch"] for start in starts] == [0, 2]
        for harm in ("{", "[]", '{"starts": 3}'):
            (folder / "run.json").write_text(harm)
            train_run(run, device="cpu", run_folder=folder)
            (start,) = json.loads((folder / "run.json").read_text())["starts"]
            assert start["epoch"] == 2


class TestCommands:
    def test_settings_of_ones_own_do_not_take_the_place_of_the_profiles_model(self, small, capsys):
        words = ["train", "qaconv", "mini-market", "--profile", "smoke", "--quiet", "--device=cpu"]
        assert main([*words, "--accumulate", "2", "--run-folder", str(small / "run")]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path.is_relative_to(small / "cache") and "accumulate=2" in str(path)
        assert not (small / "data" / "checkpoints").exists()
        (record,) = (small / "data" / "results" / "train").glob("*.json")
        assert json.loads(record.read_text())["config"]["accumulate"] == 2

    def test_memory_is_predicted_and_nothing_trained(self, small, capsys):
        words = ["train", "qaconv", "mini-market", "--profile", "smoke", "--predict-memory"]
        assert main([*words, "--device", "cpu", "--accumulate", "2"]) == 0
        text = capsys.readouterr().out
        for part in ("4 images, 2 at a time", "MB  backbone", "MB  class memory", "MB  sum"):
            assert part in text
        assert not list((small / "data" / "results").iterdir())
        assert main(["run", "memory", "--profile", "smoke", "--predict-memory"]) == 0
        assert capsys.readouterr().out.count("MB  sum") == 2  # of both variants

    @pytest.mark.parametrize(
        "words, message",
        [
            (["--precision", "half"], "precision must be one of"),
            (["--precision", "float16", "--device", "cpu"], "needs a GPU"),
            (["--accumulate", "3"], "accumulate must divide batch_size (4)"),
            (["--tensorboard"], "needs a run folder"),
            (["--predict-memory", "--device", "gpu"], "device must be cpu"),
        ],
    )
    def test_bad_settings_end_in_one_sentence(self, small, capsys, words, message):
        command = ["train", "qaconv", "mini-market", "--profile", "smoke", "--quiet"]
        assert main([*command, *words]) == 2
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1

    @pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory.")])
    def test_memory_that_runs_out_ends_in_one_sentence(self, small, capsys, monkeypatch, error):
        def fail(*_):
            raise error

        monkeypatch.setattr("qaconv_lib.losses.QAConvLoss.forward", fail)
        words = ["train", "qaconv", "mini-market", "--profile", "smoke", "--quiet"]
        assert main([*words, "--device", "cpu"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("qaconv_lib: out of memory while training on 4 images")
        assert "accumulate" in error and error.count("\n") == 1

    def test_a_missing_package_ends_in_one_sentence(self, small, capsys, monkeypatch):
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
        words = ["train", "qaconv", "mini-market", "--profile", "smoke", "--quiet"]
        folder = ["--run-folder", str(small / "run"), "--device", "cpu"]
        assert main([*words, *folder, "--tensorboard"]) == 2
        assert "pip install tensorboard" in capsys.readouterr().err
