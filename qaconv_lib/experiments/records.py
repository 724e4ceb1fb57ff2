"""Result records: numbers with everything that made them (see `data/README.md`)."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from qaconv_lib._files import data_folders, write_json
from qaconv_lib._processes import process_count, process_rank

_EVERYWHERE = {"experiment", "loss", "source", "profile", "seed", "device"}
_OWN = {"evaluate": {"settings", "stages"}, "search": {"settings", "scores"}}  # by folder
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "pillow")


def results_folder() -> Path:
    """`results` in the first data folder that has one, else in the first data folder.

    Raises:
        FileNotFoundError: there is no data folder; set QACONV_DATA.
    """
    folders = data_folders()
    if not folders:
        raise FileNotFoundError("no data folder found; set QACONV_DATA to the book's data folder")
    return next(
        (f / "results" for f in folders if (f / "results").is_dir()), folders[0] / "results"
    )


def provenance(device: str | torch.device) -> dict:
    """Device name, threads, processes, library versions and git commit."""
    several = {"processes": process_count()} if process_count() > 1 else {}
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        **several,
        "versions": {"python": platform.python_version()} | _package_versions(),
        "commit": _commit(),
    }


def device_name(device: str | torch.device) -> str:
    """The name a reader would look for: the GPU's, or the processor's with its core count."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    return f"CPU ({name}, {os.cpu_count()} cores)"


def write_record(folder: str, name: str, record: dict) -> Path:
    """Write `data/results/<folder>/<name>.json`, whole or not at all, and return its path.

    Of several processes the first one writes.
    """
    path = results_folder() / folder / f"{name}.json"
    if process_rank() == 0:
        write_json(path, record)
    return path


def read_record(folder: str, name: str) -> dict | None:
    """The record that `write_record` wrote under this name, or None.

    Raises:
        ValueError: the file is not a JSON record.
    """
    path = results_folder() / folder / f"{name}.json"
    return _read_record(path, path.stat().st_mtime_ns) if path.is_file() else None


def read_records(folder: str) -> list[dict]:
    """All records of a folder, sorted by name; none if there is no such folder.

    Raises:
        ValueError: a file that is not a JSON record.
    """
    records = []
    for path in sorted((results_folder() / folder).glob("*.json")):
        records.append(_read_record(path, path.stat().st_mtime_ns))
    return records


@functools.lru_cache(maxsize=4096)
def _read_record(path: Path, changed: int) -> dict:
    """One record; `changed` makes a file that was written anew be read again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    found = set(record) if isinstance(record, dict) else set()
    tables = _OWN.get(path.parent.name, set())
    if missing := (_EVERYWHERE | tables) - found:
        raise ValueError(f"{path} is not a record: it lacks {', '.join(sorted(missing))}")
    for name in tables:
        if not isinstance(record[name], dict):
            raise ValueError(f"{path} is not a record: its {name} are {record[name]!r}")
    return record


def _package_versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _commit() -> str | None:
    """Commit of the checkout the library runs from, "+changes" if it has been changed since."""
    root = Path(__file__).resolve().parents[2]
    try:
        run = ["git", "-C", str(root)]
        commit = subprocess.run([*run, "rev-parse", "HEAD"], capture_output=True, text=True)
        changed = subprocess.run(
            [*run, "status", "--porcelain", "--", "qaconv_lib"], capture_output=True, text=True
        )
    except OSError:
        return None
    if commit.returncode:
        return None
    return commit.stdout.strip() + ("+changes" if changed.stdout.strip() else "")
