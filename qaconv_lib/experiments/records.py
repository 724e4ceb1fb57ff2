"""Result records: numbers with everything that made them (see `data/README.md`)."""

from __future__ import annotations

import functools
import json
import os
import platform
import subprocess
import warnings
from importlib.metadata import version
from pathlib import Path

import torch

from qaconv_lib._files import data_folders, write_json
from qaconv_lib._processes import process_count, process_rank

_REQUIRED = {"experiment", "loss", "source", "profile", "seed", "device"}
_TABLES = {"evaluate": {"settings", "stages"}, "search": {"settings", "scores"}}  # by folder
_PACKAGES = ("torch", "torchvision", "timm", "numpy", "scipy", "pandas", "pillow")


def results_folder() -> Path:
    """`results` in the first data folder that has one, else in the first data folder."""
    if not (folders := [folder / "results" for folder in data_folders()]):
        raise FileNotFoundError("no data folder found; set QACONV_DATA to the book's data folder")
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def provenance(device: str | torch.device) -> dict:
    """Device name, threads, processes, library versions and git commit."""
    return {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        **({"processes": process_count()} if process_count() > 1 else {}),
        "versions": {"python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        "commit": _commit(),
    }


def device_name(device: str | torch.device) -> str:
    """The GPU's name, or the processor's with its number of cores."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name, info = platform.processor() or platform.machine(), Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"CPU ({[*models, name][0]}, {os.cpu_count()} cores)"


def write_record(folder: str, name: str, record: dict) -> Path:
    """Write `data/results/<folder>/<name>.json`, whole or not at all; of several processes, one.

    Where it cannot be written a warning says so, and what was found can still be shown.
    """
    path = results_folder() / folder / f"{name}.json"
    if process_rank() == 0:
        try:
            write_json(path, record)
        except OSError as error:
            warnings.warn(f"the record is not kept: {error}", stacklevel=2)
    return path


def read_record(folder: str, name: str) -> dict | None:
    """The record of this name, or None; ValueError if the file is not a record."""
    path = results_folder() / folder / f"{name}.json"
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else None


def read_records(folder: str) -> list[dict]:
    """All records of a folder, sorted by name; ValueError if a file is not a record."""
    paths = sorted((results_folder() / folder).glob("*.json"))
    return [_read(path, path.stat().st_mtime_ns) for path in paths]


@functools.lru_cache(maxsize=4096)
def _read(path: Path, changed: int) -> dict:
    """One record; `changed` makes a file that was written anew be read again."""
    try:
        record = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a record: {error}") from error
    record, tables = record if isinstance(record, dict) else {}, _TABLES.get(path.parent.name, ())
    missing = {name for name in _REQUIRED if name not in record}
    missing |= {name for name in tables if not isinstance(record.get(name), dict)}
    if missing:
        raise ValueError(f"{path} is not a record: it lacks {', '.join(sorted(missing))}")
    return record


def _commit() -> str | None:
    """Commit of the checkout the library runs from, "+changes" if it has been changed since."""
    place = ["git", "-C", str(Path(__file__).resolve().parents[2])]
    git = functools.partial(subprocess.run, capture_output=True, text=True)
    try:
        commit = git([*place, "rev-parse", "HEAD"])
        changes = git([*place, "status", "--porcelain", "--", "qaconv_lib"])
    except OSError:  # no git
        return None
    return None if commit.returncode else commit.stdout.strip() + "+changes" * bool(changes.stdout)
