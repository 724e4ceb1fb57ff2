"""The command line: whatever is typed, one sentence names what is wrong."""

import errno
import os
import shlex
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from PIL import Image

from qaconv_lib.cli import COMMANDS, main


@pytest.fixture
def here(no_records: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with an image and no data; nothing else may be in it afterwards."""
    folder = no_records / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("QACONV_CACHE", str(no_records / "cache"))
    Image.new("RGB", (12, 24)).save("good.jpg")
    return folder


@pytest.mark.parametrize(
    ("command", "culprit"),
    [
        ("synthesize drawings", "unknown miniature 'drawings'"),
        ("synthesize mini-duke --jobs 0", "jobs must be at least 1, got 0"),
        ("synthesize --cameras 3", "--cameras"),
        ("synthesize mini-duke --identities 3 --jobs 1", "--identities"),
        ("synthesize mini-duke --out good.jpg/x", "good.jpg/x should be a folder"),
        ("check-data people", "'people'"),
        ("check-data people.csv", "people.csv not found"),
        ("check-data market1501 --root none", "none"),
        ("train triplet mini-market", "loss must be one of"),
        ("train qaconv people", "people"),
        ("train qaconv mini-market --profile big", "unknown profile 'big'"),
        ("train qaconv mini-market --batch-size 1", "batch_size must be"),
        ("train qaconv mini-market --height 0", "height must be"),
        ("train qaconv mini-market --epochs -1", "epochs must be"),
        ("train qaconv mini-market --clip-norm nan", "clip_norm must be"),
        ("train qaconv mini-market --precision float8", "'float8'"),
        ("train qaconv mini-market --accumulate 0", "accumulate must be"),
        ("train qaconv mini-market --backbone resnet9", "'resnet9'"),
        ("train qaconv mini-market --device tpu", "device must be"),
        ("evaluate qaconv mini-market people", "people"),
        ("evaluate qaconv market1501 mini-duke --device cpu", "no checkpoint at"),
        ("tune softmax people", "people"),
        ("export good.jpg m.onnx", "good.jpg is damaged"),
        ("run table9", "unknown experiment 'table9'"),
        ("run table9 --predict-memory", "unknown experiment 'table9'"),
        ("run table1 --seeds 0", "seeds must be at least 1"),
        ("run table1 --jobs 0", "jobs must be at least 1"),
        ("run cost --profile big", "unknown profile 'big'"),
        ("run distill --profile paper", "distill"),
        ("run memory --profile laptop+workers=x", "workers=x"),
        ("tables table9", "unknown table 'table9'"),
        ("tables headline --profile huge", "unknown profile 'huge'"),
        ("claims --profile big", "unknown profile 'big'"),
        ("bench speed", "unknown case 'speed'"),
        ("search good.jpg --gallery 'a\nb\x1b[31m.png'", r"a\nb\x1b[31m.png"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(here, capsys, command, culprit) -> None:
    assert main(shlex.split(command)) == 2
    error = capsys.readouterr().err
    assert error.startswith("qaconv_lib: ") and error.count("\n") == 1 and culprit in error
    assert [path.name for path in here.iterdir()] == ["good.jpg"]


@pytest.mark.parametrize("words", ["", "paint", "train qaconv", "train qaconv x --epochs two"])
def test_commands_that_are_not_complete_show_their_usage(capsys, words) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    assert capsys.readouterr().err.startswith("usage: python -m qaconv_lib")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture, command: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert len(capsys.readouterr().out.splitlines()) > 5


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


def test_a_code_page_without_arrows_gets_ascii():
    found = subprocess.run(
        [sys.executable, "-m", "qaconv_lib", "tables", "headline"],
        capture_output=True,
        env=os.environ | {"PYTHONIOENCODING": "cp1252"},
    )
    assert found.returncode == 0 and b"->" in found.stdout


def test_a_folder_that_cannot_be_written_to_stops_the_work_before_it_begins(
    tmp_path, monkeypatch, capsys
):
    (tmp_path / "results" / "train").mkdir(parents=True)
    monkeypatch.setenv("QACONV_DATA", f"{tmp_path}{os.pathsep}{Path(__file__).parents[1] / 'data'}")
    error = OSError(errno.EROFS, "Read-only file system")
    monkeypatch.setattr("tempfile.TemporaryFile", Mock(side_effect=error))
    assert main(["synthesize", "mini-duke", "--out", str(tmp_path / "there")]) == 2
    assert str(tmp_path / "there") in capsys.readouterr().err
    monkeypatch.setattr("qaconv_lib.training.Trainer.train", None)  # would fail
    assert main(["train", "softmax", "mini-duke", "--profile", "smoke", "--quiet"]) == 2
    assert "Read-only file system" in capsys.readouterr().err
