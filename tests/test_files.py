"""Where files are kept, and files, folders and archives that are there whole or not at all."""

import os
import threading
import zipfile
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import save

from qaconv_lib._files import (
    cache_folder,
    data_folders,
    read_checkpoint,
    write_checkpoint,
    write_json,
    write_whole,
)
from qaconv_lib.layouts.archives import unpack_archive


def test_working_directory_and_its_parents_are_searched(tmp_path, monkeypatch) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "book").mkdir()
    monkeypatch.chdir(tmp_path / "book")
    monkeypatch.setenv("QACONV_DATA", os.pathsep.join(["first", "", "~"]))
    folders = data_folders()
    assert folders[:2] == [Path("first"), Path.home()]
    assert (tmp_path / "data").resolve() in [folder.resolve() for folder in folders]


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


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    path = tmp_path / "mini-market.zip"
    with zipfile.ZipFile(path, "w") as bundle:
        for name in ("query/1.jpg", "query/2.jpg", "test/1.jpg"):
            bundle.writestr(name, b"x" * 99)
    return path


def test_without_a_home_the_cache_must_be_named(monkeypatch) -> None:
    # As for the number of no user, in a container.
    monkeypatch.setattr(Path, "home", Mock(side_effect=RuntimeError))
    for name in ("QACONV_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OSError, match="QACONV_CACHE"):
        cache_folder()


def test_archive_is_unpacked_once(mini: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("QACONV_CACHE", str(tmp_path / "cache"))
    folder = unpack_archive(mini)
    assert folder.parent == cache_folder() == tmp_path / "cache"
    assert len(list(folder.rglob("*.jpg"))) == 3
    made = folder.stat().st_mtime_ns
    assert unpack_archive(mini) == folder and folder.stat().st_mtime_ns == made
    with zipfile.ZipFile(mini, "a") as bundle:
        bundle.writestr("other", b"")
    assert unpack_archive(mini) != folder
    with pytest.raises(OSError, match="QACONV_CACHE"):
        unpack_archive(mini, mini / "cache")


def test_damaged_archive(mini: Path, tmp_path: Path) -> None:
    """A pointer of Git LFS; `test_damage` cuts and changes archives."""
    mini.write_bytes(b"version https://example.org/pointer")
    with pytest.raises(ValueError, match="damaged.*synthesize mini-market"):
        unpack_archive(mini, tmp_path / "cache")


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


def test_checkpoints_and_records(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    write_checkpoint(path, {"a": torch.eye(2).T}, {"epoch": 3})
    tensors, details = read_checkpoint(path)
    assert details == {"epoch": 3} and torch.equal(tensors["a"], torch.eye(2))
    write_json(tmp_path / "new" / "one.json", {"numbers": [1, 2.5]})
    assert (tmp_path / "new" / "one.json").read_text() == '{\n "numbers": [1, 2.5]\n}\n'
    with pytest.raises(ValueError, match="model.safetensors should be a folder"):
        write_json(path / "one.json", {})
    for content in (path.read_bytes()[:20], save({}), save({}, {"qaconv_lib": "[]"})):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model.safetensors"):
            read_checkpoint(path)
    for missing in (tmp_path, tmp_path / "none"):
        with pytest.raises(FileNotFoundError, match=str(missing)):
            read_checkpoint(missing)
