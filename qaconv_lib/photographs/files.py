"""Which files a folder of pictures holds, and when they were taken (chapter 14)."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qaconv_lib.datasets import image_size, load_image

#: Endings of the files that are taken from a folder.
ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
SMALLEST_SIDE = 8  # pixels; less shows nobody


def list_photographs(folder: str | os.PathLike[str]) -> list[Path]:
    """The images of a folder and of the folders in it, by name; hidden files are left out.

    Numbers in names go by their value: `frame 2.png` comes before `frame 10.png`.

    Raises:
        OSError: there is no such folder, or one in it may not be looked into.
        ValueError: it is a file, or holds no images.
    """
    folder = Path(folder)
    if not folder.exists():
        raise FileNotFoundError(f"there is no folder {folder}")
    if not folder.is_dir():
        raise ValueError(f"{folder} is a file; a folder of images is wanted")
    found = [path for path in _visible_files(folder) if path.suffix.lower() in ENDINGS]
    if not found:
        raise ValueError(f"no images in {folder}; files that end in {', '.join(ENDINGS)} count")
    return sorted(found, key=_by_name)


def other_files(folder: str | os.PathLike[str]) -> list[str]:
    """Endings of the files that `list_photographs` passes by, one for each file; no CSV."""
    endings = (path.suffix.lower() for path in _visible_files(Path(folder)))
    return sorted(ending for ending in endings if ending not in (*ENDINGS, ".csv"))


def _visible_files(folder: Path) -> Iterator[Path]:
    """What is in a folder and the folders in it; OSError names one that cannot be looked into."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths = (Path(place, name) for name in names if not name.startswith("."))
        yield from (path for path in paths if path.is_file())


def _by_name(path: Path) -> list[tuple[list[tuple[int, str]], str]]:
    """What to sort a path by: of each part its words and numbers, then its letters."""
    return [
        ([(int(number or 0), word) for word, number in re.findall(r"(\D+)|([0-9]+)", part)], part)
        for part in path.parts
    ]


def photograph_table(paths: Iterable[str | os.PathLike[str]]) -> pd.DataFrame:
    """Image files as a table that `ReidModel.extract` takes; who is on them is not known."""
    paths = [str(path) for path in paths]
    return pd.DataFrame({"path": paths, "identity": np.zeros(len(paths), dtype=np.int64)})


def find_bad_photographs(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """What the head of each file already shows: path and reason of those that cannot be used."""
    bad = {}
    for path in paths:
        try:
            width, height = image_size(path)
            if min(width, height) < SMALLEST_SIDE:
                bad[str(path)] = (
                    f"{path} has {width} x {height} pixels; a picture of a person has at least "
                    f"{SMALLEST_SIDE} in each direction"
                )
        except (FileNotFoundError, ValueError) as error:
            bad[str(path)] = str(error)
    return bad


def check_photographs(paths: Sequence[str | os.PathLike[str]]) -> None:
    """Raise ValueError that names what is wrong with the first picture that cannot be used.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no image, or too small or too large.
    """
    bad = find_bad_photographs(paths)
    if not bad:
        return
    path, reason = next(iter(bad.items()))
    others = f" (and {len(bad) - 1:,} more that cannot be used)" if len(bad) > 1 else ""
    raise (ValueError if os.path.lexists(path) else FileNotFoundError)(reason + others)


def find_damaged_photographs(paths: Iterable[str | os.PathLike[str]]) -> dict[str, str]:
    """As `find_bad_photographs`, but every file is read to its end; that takes a while."""
    bad: dict[str, str] = {}
    for path in paths:
        bad |= find_bad_photographs([path])
        if str(path) not in bad:
            try:
                load_image(path)
            except ValueError as error:
                bad[str(path)] = str(error)
    return bad


def wide_photographs(paths: Iterable[str | os.PathLike[str]]) -> list[str]:
    """Those that are wider than high: probably whole frames, not crops of one person."""
    sizes = {str(path): image_size(path) for path in paths}
    return [path for path, (width, height) in sizes.items() if width > height]


def read_times(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a CSV of cameras and times, as `crop` writes it.

    Args:
        path: a CSV with the columns `file`, `camera` and `seconds`. A file name is relative to the
            CSV's folder; one without a folder fits an image of that name anywhere. A camera may be
            a number or a word. Other columns are ignored.

    Returns:
        The three columns; file names absolute where they have a folder.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a column is missing, a value too, a time is no finite number, or a file is
            named twice.
    """
    path = Path(path)
    table = read_csv(path, ("file", "camera", "seconds"))
    table["seconds"] = to_numbers(path, table, "seconds")
    table["file"] = [_named(path.parent, name) for name in table["file"]]
    twice = table["file"][table["file"].duplicated()]
    if len(twice):
        raise ValueError(f"{path} names {twice.iloc[0]} twice")
    return table


def read_csv(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Some columns of a CSV, as strings without blanks around them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no CSV, has no rows, or lacks a column or a value.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        table = pd.read_csv(path, dtype=str, encoding="utf-8-sig", keep_default_na=False)
    except ValueError as error:  # pandas' and Unicode errors are ValueErrors
        raise ValueError(f"{path} is no CSV in UTF-8: {error}") from error
    table.columns = [str(column).strip() for column in table.columns]
    missing = [column for column in columns if column not in table.columns]
    if missing:
        others = len(table.columns) == 1 and ";" in table.columns[0]
        raise ValueError(
            f"{path} lacks the column {missing[0]}; it needs {', '.join(columns)}, "
            f"it has {', '.join(table.columns)}"
            + ("; columns are separated by commas, not by semicolons" if others else "")
        )
    table = table[list(columns)].apply(lambda values: values.str.strip())
    if not len(table):
        raise ValueError(f"{path} has no rows")
    for column in columns:
        empty = np.flatnonzero(table[column].isin(["", None]) | table[column].isna())
        if len(empty):
            raise ValueError(f"{path} has no {column} in row {empty[0] + 1}")
    return table


def to_numbers(path: Path, table: pd.DataFrame, column: str) -> pd.Series:
    """A column of `read_csv` as float64; ValueError names an entry that is no finite number."""
    values = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise ValueError(
            f"{path} has {table[column].iloc[wrong[0]]!r} for {column} in row {wrong[0] + 1}; "
            "a number is wanted"
        )
    return values


def add_times(table: pd.DataFrame, times: pd.DataFrame) -> pd.DataFrame:
    """The table of `photograph_table` with the columns `camera` and `seconds`.

    Args:
        table: images.
        times: from `read_times`.

    Raises:
        ValueError: an image has no row in `times`, or two images share one.
    """
    rows = {name: number for number, name in enumerate(times["file"])}
    found: list[int] = []
    owners: dict[int, str] = {}
    for path in table["path"]:
        real = os.path.realpath(path)
        row = rows.get(_normal(real), rows.get(_normal(os.path.basename(path))))
        if row is None:
            raise ValueError(f"{path} has no camera and time: no row of the CSV names it")
        if owners.setdefault(row, real) != real:
            raise ValueError(
                f"{path} and {owners[row]} have one name; give their folders in the CSV of times"
            )
        found.append(row)
    known = times.iloc[found]
    return table.assign(camera=known["camera"].to_numpy(), seconds=known["seconds"].to_numpy())


def _named(folder: Path, name: str) -> str:
    """A file name of a CSV: as it is if it has no folder, else absolute."""
    name = name.replace("\\", "/") if os.sep == "/" and "/" not in name else name
    if os.path.basename(name) == name:
        return _normal(name)
    return _normal(os.path.realpath(folder / name))


def _normal(name: str) -> str:
    """One spelling of letters with accents: macOS stores file names decomposed."""
    return unicodedata.normalize("NFC", name)
