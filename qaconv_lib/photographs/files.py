"""Image files in folders, and the times at which they were taken (appendix B)."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qaconv_lib._checks import MOST_SECONDS
from qaconv_lib.datasets import image_size, load_image
from qaconv_lib.layouts.own import read_cells

#: Endings of the files that are taken from a folder.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SMALLEST_SIDE = 8  # pixels


def list_photographs(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder and the folders in it, by name, without hidden files."""
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file, not a folder of images")
    found = [path for path in _visible_files(folder) if path.suffix.lower() in ENDINGS]
    if not found:
        raise ValueError(f"no images in {folder}; files must end in {', '.join(ENDINGS)}")
    return sorted(found)


def other_files(folder: Path) -> list[str]:
    """A sentence on the files, except CSV files, that `list_photographs` leaves out, if any."""
    endings = [path.suffix.lower() for path in _visible_files(folder)]
    others = [ending for ending in endings if ending not in (*ENDINGS, ".csv")]
    kinds = ", ".join(sorted(set(others)))
    return [f"files of other kinds: {len(others):,} ({kinds})."] if others else []


def _visible_files(folder: Path) -> Iterator[Path]:
    """The files of a folder and the folders in it; OSError names one that may not be read."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def photograph_table(paths: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """Image files of unknown people as a table that `ReidModel.extract` takes."""
    paths = [str(path) for path in paths]
    return pd.DataFrame({"path": paths, "identity": np.zeros(len(paths), dtype=np.int64)})


def find_bad_photographs(
    paths: Iterable[str | os.PathLike[str]], *, whole: bool = False
) -> dict[str, str]:
    """The files that cannot be used, with reasons; `whole` reads more than their heads."""
    bad = {}
    for path in paths:
        try:
            width, height = image_size(path)
            if min(width, height) < SMALLEST_SIDE:
                least = f"it needs at least {SMALLEST_SIDE} in each direction"
                raise ValueError(f"{path} has {width} x {height} pixels; {least}")
            if whole:
                load_image(path)
        except (FileNotFoundError, ValueError) as error:
            bad[str(path)] = str(error)
    return bad


def usable_photographs(paths: Sequence[Path], report: Callable[[str], None]) -> list[Path]:
    """The usable files; `report` is called with the reason for each of the others."""
    bad = find_bad_photographs(paths, whole=True)
    for reason in bad.values():
        report(f"left out: {reason}")
    if len(bad) == len(paths):
        raise ValueError(f"none of the {len(paths):,} files can be used")
    return [path for path in paths if str(path) not in bad]


def check_photographs(paths: Iterable[str | os.PathLike[str]]) -> None:
    """Raise ValueError or FileNotFoundError for the first file that cannot be used."""
    bad = find_bad_photographs(paths)
    if bad:
        path, reason = next(iter(bad.items()))
        others = f" (and {len(bad) - 1:,} more that cannot be used)" if len(bad) > 1 else ""
        raise (ValueError if os.path.lexists(path) else FileNotFoundError)(reason + others)


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV file as strings without surrounding blanks; none may be empty."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    table = read_cells(path, f"it needs the columns {', '.join(columns)}")
    missing = [column for column in columns if column not in table]
    if missing:
        needs = f"it needs {', '.join(columns)}, it has {', '.join(table.columns)}"
        raise ValueError(f"{path} lacks the column {missing[0]}; {needs}")
    table = table[list(columns)].fillna("").apply(lambda values: values.str.strip())
    table = table[(table != "").any(axis=1)]
    if not len(table):
        raise ValueError(f"{path} has no rows")
    for column in columns:
        if len(empty := table.index[table[column] == ""]):
            raise ValueError(f"{path} has no {column} in row {empty[0]}")
    return table


def read_times(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV file with the columns `file`, `camera` (a number or a word) and `seconds`.

    File names are relative to its folder; one without a folder is that of an image anywhere.
    """
    path = Path(path)
    table = read_csv(path, ("file", "camera", "seconds"))
    seconds = pd.to_numeric(table["seconds"], errors="coerce").astype(np.float64)
    if len(wrong := table.index[~(seconds.abs() <= MOST_SECONDS)]):
        found = f"{table['seconds'][wrong[0]]!r} for seconds in row {wrong[0]}"
        raise ValueError(
            f"{path} has {found}; a number of seconds, not of milliseconds, is expected"
        )
    table["seconds"] = seconds
    table["file"] = [_named(path.parent, name) for name in table["file"]]
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise ValueError(f"{path} names {twice.iloc[0]} twice")
    return table


def add_times(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """The table of `photograph_table` with `camera` and `seconds` from `read_times`."""
    rows = {name: number for number, name in enumerate(times["file"])}
    found: list[int] = []
    owners: dict[int, str] = {}
    for path in table["path"]:
        real = os.path.realpath(path)
        row = rows.get(_normal(real), rows.get(_normal(os.path.basename(path))))
        if row is None:
            raise ValueError(f"{path} has no camera and time: no row of the CSV names it")
        if owners.setdefault(row, real) != real:
            both = f"{path} and {owners[row]} have one name"
            raise ValueError(f"{both}; give their folders in the CSV of times")
        found.append(row)
    known = times.iloc[found]
    return table.assign(camera=known["camera"].to_numpy(), seconds=known["seconds"].to_numpy())


def _named(folder: Path, name: str) -> str:
    """A file name of a CSV file: absolute if it has a folder, else as it is."""
    name = name.replace("\\", "/") if os.sep == "/" and "/" not in name else name
    return _normal(os.path.realpath(folder / name) if os.path.basename(name) != name else name)


def _normal(name: str) -> str:
    """One spelling of accented letters: macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", name)
