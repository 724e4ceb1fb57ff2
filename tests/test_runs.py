"""Training runs: the log in the run folder, the workers, and the command `train`."""

import csv
import dataclasses
import pickle
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from tiny import TINY, noisy_people

from qaconv_lib.cli import main
from qaconv_lib.datasets import ReidDataset
from qaconv_lib.experiments import runs
from qaconv_lib.experiments.profiles import PROFILES
from qaconv_lib.experiments.records import read_records
from qaconv_lib.training import LOG_COLUMNS


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Eight times one image, of two people by two cameras."""
    table = noisy_people(tmp_path_factory.mktemp("images"), [0, 1] * 4)
    return table.assign(path=table["path"][0], camera=[0] * 4 + [1] * 4)


def read_log(folder):
    with open(folder / "log.csv", newline="") as stream:
        reader = csv.DictReader(stream)
        rows = list(reader)
    assert reader.fieldnames == LOG_COLUMNS
    return rows


class TestLog:
    def test_one_row_per_epoch_across_interruptions(self, table, tmp_path):
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=2)
        before = read_log(tmp_path)
        trainer = TINY.trainer(table, device="cpu", run_folder=tmp_path)
        trainer.train()
        rows = read_log(tmp_path)
        assert rows[:2] == before and [row["epoch"] for row in rows] == ["1", "2", "3"]
        for row, known in zip(rows, trainer.history, strict=True):
            assert {key: float(row[key]) for key in known} == known
            seconds, speed = float(row["seconds"]), float(row["images_per_second"])
            assert seconds > 0 and speed == pytest.approx(8 / seconds, rel=0.1, abs=1)
            assert row["peak_megabytes"] == "" or int(row["peak_megabytes"]) > 50

    @pytest.mark.parametrize("harm", ["lost", "one epoch ahead"])
    def test_it_is_brought_in_line_with_the_state(self, table, tmp_path, harm):
        """As after a crash between the two files, or when the log was deleted."""
        TINY.trainer(table, device="cpu", run_folder=tmp_path).train(epochs=1)
        log = tmp_path / "log.csv"
        content = log.read_text()
        log.unlink()
        if harm != "lost":
            log.write_text(content + content.splitlines()[1].replace("1", "2", 1) + "\n")
        TINY.trainer(table, device="cpu", run_folder=tmp_path)
        assert log.read_text() == content


class TestWorkers:
    """One image eight times, so that batches differ by their augmentation alone."""

    def test_augmentation_is_the_same_every_time_and_new_elsewhere(self, table):
        trainer = dataclasses.replace(TINY, workers=2).trainer(table, device="cpu")
        epochs = []
        for trainer.epoch in (0, 0, 1):
            epochs.append([images for images, _ in trainer._batches()])
            torch.rand(3)  # what else is drawn does not matter
        first, again, later = epochs
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert not torch.equal(first[0], first[1])  # of two workers
        assert not any(torch.equal(a, b) for a, b in zip(first, later, strict=True))

    def test_the_images_can_be_sent_to_workers_that_are_started_afresh(self, table):
        """Where processes are spawned, as on Windows and macOS."""
        images = dataclasses.replace(TINY, workers=2).trainer(table, device="cpu").images
        drawn = []
        for copy in (images, pickle.loads(pickle.dumps(images))):
            torch.manual_seed(0)
            drawn.append(copy[1][0])
        assert torch.equal(*drawn)


@pytest.fixture
def small(no_records, table, monkeypatch):
    """The smoke profile on eight small images, without weights from a file."""
    monkeypatch.setenv("QACONV_CACHE", str(no_records / "cache"))
    dataset = ReidDataset("mini-market", no_records, table, table, table)
    monkeypatch.setattr(runs, "load_dataset", lambda name: dataset)
    base = dataclasses.replace(TINY, epochs=2, decay_epochs=1)
    changed = dataclasses.replace(PROFILES["smoke"], base=base, identities=None)
    monkeypatch.setitem(PROFILES, "smoke", changed)
    return no_records


TRAIN = ["train", "qaconv", "mini-market", "--profile", "smoke", "--quiet", "--device=cpu"]


class TestCommands:
    def test_settings_of_your_own_do_not_replace_the_profiles_model(self, small, capsys):
        assert main([*TRAIN, "--accumulate", "2", "--run-folder", str(small / "run")]) == 0
        path = Path(capsys.readouterr().out.strip())
        assert path.is_relative_to(small / "cache") and "accumulate=2" in str(path)
        assert not (small / "checkpoints").exists()
        assert {path.name for path in (small / "run").iterdir()} == {"log.csv", "last.safetensors"}
        (record,) = read_records("train")
        assert record["config"]["accumulate"] == 2 and record["images"] == 8

    def test_memory_that_runs_out_ends_in_one_sentence(self, small, capsys, monkeypatch):
        fail = Mock(side_effect=RuntimeError("CUDA out of memory."))
        monkeypatch.setattr("qaconv_lib.losses.QAConvLoss.forward", fail)
        assert main(TRAIN) == 2
        error = capsys.readouterr().err
        assert "out of memory while training on 4 images" in error and error.count("\n") == 1
