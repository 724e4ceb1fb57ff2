"""Your own images: a table or a CSV file with one row per image."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from functools import partial
from io import StringIO
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pandas as pd

from qaconv_lib._checks import MOST_SECONDS, spacing
from qaconv_lib.layouts.names import Tables, make_table, read_text

NEEDED = ("path", "identity", "camera")
KNOWN = (*NEEDED, "seconds", "split")
SPLITS = ("train", "query", "gallery")
_EXPECTED = f"the columns {', '.join(NEEDED)}, and perhaps seconds and split, are expected"


def read_csv(path: Path) -> Tables:
    """Tables of a CSV file, see `read_cells` and `read_table`. Paths start at its folder."""
    return read_table(read_cells(path, _EXPECTED), path.parent, path.name)


def read_cells(path: Path, expected: str) -> pd.DataFrame:
    """The cells of a CSV file with commas, semicolons or tabs as text, columns in lower case.

    Rows are numbered for messages as in a spreadsheet, where the header is row 1.
    """
    text = read_text(path)
    body = re.sub(r"\A(\s*\n)?(sep=.\s*\n)?", "", text, flags=re.I)  # spreadsheets write sep=;
    separator = max(",;\t", key=body.partition("\n")[0].count)
    try:
        options = {"keep_default_na": False, "skip_blank_lines": False, "skipinitialspace": True}
        table = pd.read_csv(StringIO(body), sep=separator, dtype=str, **options)
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; {expected}") from None
    except pd.errors.ParserError as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes surplus cells for an index
        raise ValueError(f"cannot read {path}: its rows have more cells than its header")
    table = table.rename(columns=lambda name: name.strip().lower())
    table.index += 2 + text.count("\n") - body.count("\n")
    if separator == ";" and "seconds" in table:  # as spreadsheets write where a comma is decimal
        table["seconds"] = table["seconds"].str.replace(",", ".")
    return table


def read_table(table: pd.DataFrame, folder: Path, name: str) -> Tables:
    """Tables of train, query and gallery from a table as `dataset_from_table` describes it.

    Relative paths start at `folder`; `name` is the table's in messages.
    """
    if lacking := [column for column in NEEDED if column not in table]:
        found = f"its columns are: {', '.join(map(str, table.columns))}"
        lacks = f"{name} has no column {' and no column '.join(lacking)}"
        raise ValueError(f"{lacks}; {_EXPECTED}, {found}")
    names = list(table.columns)  # pandas adds .1 to the second of a name
    if twice := [c for c in KNOWN if names.count(c) > 1 or f"{c}.1" in names]:
        raise ValueError(f"{name} has more than one column {twice[0]}")
    if "seconds" in table and (step := spacing(table["seconds"].to_numpy())) > 1:
        raise ValueError(
            f"{name}: seconds are rounded to {step:g} by their dtype; give float64, or times that "
            "start near 0"
        )
    cells = pd.DataFrame({c: table[c].astype(object).map(_text) for c in KNOWN if c in table})
    cells = cells[(cells != "").any(axis=1)]
    if cells.empty:
        raise ValueError(f"{name} has no rows; {_EXPECTED}")
    check = partial(_check, name, cells)
    split = cells["split"].str.lower() if "split" in cells else pd.Series("train", cells.index)
    check("split", ~split.isin(SPLITS), f"is not one of {', '.join(SPLITS)}")
    check("path", cells["path"] == "", "is not the path of an image")
    paths = cells["path"].map(partial(_find, folder))
    there = paths.map(lambda path: Path(path).is_file())
    check("path", ~there, f"is not a file; paths start at {folder}", FileNotFoundError)
    twice = pd.DataFrame({"path": paths.map(os.path.abspath), "split": split}).duplicated()
    check("path", twice, "was named before in the same split")
    numbers = {"identity": _numbers(cells["identity"], 1, check)}
    numbers["camera"] = _numbers(cells["camera"], 0, check)
    rows = pd.DataFrame({"path": paths, **numbers})
    if "seconds" in cells:
        rows["seconds"] = pd.to_numeric(cells["seconds"], errors="coerce")
        wrong = (cells["seconds"] != "") & ~np.isfinite(rows["seconds"])
        check("seconds", wrong, "is not a number of seconds")
        check("seconds", rows["seconds"].abs() > MOST_SECONDS, "is too large; are they seconds?")
    shown = rows.groupby("path")[["identity", "camera"]].transform("nunique")
    check("path", (shown > 1).any(axis=1), "is listed with several identities or cameras")
    tables = {part: make_table(rows[split == part].to_dict("records")) for part in SPLITS}
    for part, other in (("query", "gallery"), ("gallery", "query")):
        if len(tables[part]) and tables[other].empty:
            raise ValueError(f"{name} has {part} images but no {other} images")
    return tables


def _find(folder: Path, cell: str) -> str:
    """An image's path, however its name composes accents on this disk."""
    paths = [folder / normalize(form, cell.replace("\\", "/")) for form in ("NFC", "NFD")]
    return str(next((path for path in paths if path.is_file()), folder / cell.replace("\\", "/")))


def _check(
    name: str, cells: pd.DataFrame, column: str, bad: pd.Series, flaw: str,
    error: type[Exception] = ValueError,
) -> None:  # fmt: skip
    """Raise an error that names the first bad cell of a column and counts the others."""
    rows = cells.index[bad]
    if len(rows):
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        cell = cells[column][rows[0]]
        raise error(f"{name}, row {rows[0]}, column {column}: {cell!r} {flaw}{more}")


def _text(value: object) -> str:
    """A cell as text: empty if missing, a whole float without a point, accents composed."""
    if pd.isna(value):
        return ""
    text = str(int(value) if isinstance(value, float) and value % 1 == 0 else value)
    return normalize("NFC", text).strip()


def _numbers(texts: pd.Series, first: int, check: Callable[..., None]) -> pd.Series:
    """Whole numbers as they are; names by their place in sorted order, from ``first``."""
    column = str(texts.name)
    texts = texts.str.replace(r"^(-?[0-9]+)\.0+$", r"\1", regex=True)  # a column that lacked values
    check(column, texts == "", "is not a number or a name")
    whole = texts.str.fullmatch("-?[0-9]{1,18}")
    if not whole.any():
        return pd.Series(pd.factorize(texts, sort=True)[0] + first, index=texts.index)
    mostly = whole.mean() >= 0.5
    kind = "a whole number" if mostly else "a name"
    check(column, whole != mostly, f"is not {kind} like the others of this column")
    numbers = texts.astype("int64")
    check(column, numbers < 0, "is negative; leave such rows out")
    return numbers
