"""One's own images: a table or a CSV file with a row for each."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import numpy as np
import pandas as pd

from qaconv_lib.layouts.names import Tables, make_table, read_text

NEEDED = ("path", "identity", "camera")
OPTIONAL = ("seconds", "split")
SPLITS = ("train", "query", "gallery")
_WHOLE = re.compile(r"-?[0-9]{1,18}")


def read_csv(path: Path) -> Tables:
    """Tables of a CSV file; see `read_table`. Paths count from the folder of the file.

    Raises:
        FileNotFoundError, ValueError: as `read_table`; messages count rows as a spreadsheet does,
            the header being row 1.
    """
    try:
        table = pd.read_csv(
            StringIO(read_text(path)),
            dtype=str,
            keep_default_na=False,
            skip_blank_lines=False,
            skipinitialspace=True,
        )
    except pd.errors.EmptyDataError:
        raise ValueError(f"{path} is empty; {_describe()} are expected") from None
    except pd.errors.ParserError as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from error
    if not isinstance(table.index, pd.RangeIndex):  # pandas takes what is too much for an index
        raise ValueError(f"cannot read {path}: its rows have more cells than its header")
    return read_table(table, path.parent, path.name, first_row=2)


def read_table(table: pd.DataFrame, folder: Path, name: str, first_row: int = 0) -> Tables:
    """Tables of train, query and gallery from a table with one row an image.

    Args:
        table: columns ``path``, ``identity`` and ``camera``, and perhaps ``seconds`` (time on the
            camera's clock, may be empty) and ``split`` (train, query or gallery; without it all
            images are training images). Identities and cameras are whole numbers or names, each
            column all of one kind. Numbers stay as they are; names are numbered in sorted order,
            identities from 1 and cameras from 0. Identity 0 stands for people who belong to no
            query, and may be in the gallery only.
        folder: where relative paths start.
        name: what messages call the table.
        first_row: number of the first row in messages.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: a column is missing, or a cell cannot be read; row and column are named.
    """
    lacking = [column for column in NEEDED if column not in table]
    if lacking:
        found = ", ".join(map(str, table.columns))
        raise ValueError(
            f"{name} has no column {' and no column '.join(lacking)}; {_describe()} are expected, "
            f"its columns are: {found}"
        )
    cells = pd.DataFrame({c: _text(table[c]) for c in (*NEEDED, *OPTIONAL) if c in table})
    cells["row"] = np.arange(len(cells)) + first_row
    cells = cells[(cells.drop(columns="row") != "").any(axis=1)].reset_index(drop=True)
    if cells.empty:
        raise ValueError(f"{name} has no rows; {_describe()} are expected")
    check = _Checker(name, cells)
    split = cells["split"].str.lower() if "split" in cells else pd.Series("train", cells.index)
    check("split", ~split.isin(SPLITS), lambda cell: f"{cell!r} is not one of {', '.join(SPLITS)}")
    rows = pd.DataFrame(
        {
            "path": _paths(cells, folder, check, split),
            "identity": _numbers(cells, "identity", 1, check),
            "camera": _numbers(cells, "camera", 0, check),
            "seconds": _seconds(cells, check),
        }
    )
    check(
        "identity",
        (rows["identity"] == 0) & (split != "gallery"),
        lambda cell: (
            "0 stands for people who belong to no query, so it may be in the gallery "
            "only; number people from 1"
        ),
    )
    tables = {part: make_table(rows[split == part].to_dict("records")) for part in SPLITS}
    for part, other in (("query", "gallery"), ("gallery", "query")):
        if len(tables[part]) and tables[other].empty:
            raise ValueError(f"{name} has {part} images but no {other} images")
    return tables


class _Checker:
    """Raises an error that names the first bad cell of a column, and how many more there are."""

    def __init__(self, name: str, cells: pd.DataFrame):
        self.name, self.cells = name, cells

    def __call__(
        self,
        column: str,
        bad: pd.Series,
        explain: Callable[[str], str],
        error: type[Exception] = ValueError,
    ) -> None:
        rows = np.flatnonzero(bad)
        if not len(rows):
            return
        row, cell = self.cells["row"][rows[0]], self.cells[column][rows[0]]
        more = f" (and {len(rows) - 1:,} more rows)" if len(rows) > 1 else ""
        raise error(f"{self.name}, row {row}, column {column}: {explain(cell)}{more}")


def _describe() -> str:
    return f"the columns {', '.join(NEEDED)}, and perhaps {' and '.join(OPTIONAL)},"


def _text(column: pd.Series) -> pd.Series:
    """Cells as stripped text; empty ones as "", whole floating-point numbers without a point."""
    if pd.api.types.is_float_dtype(column):
        return column.astype(object).map(
            lambda value: (
                "" if pd.isna(value) else str(int(value)) if value % 1 == 0 else str(value)
            )
        )
    return column.astype(object).map(lambda value: "" if pd.isna(value) else str(value).strip())


def _paths(cells: pd.DataFrame, folder: Path, check: _Checker, split: pd.Series) -> pd.Series:
    check("path", cells["path"] == "", lambda cell: "it is empty; an image path is expected")
    paths = cells["path"].map(lambda cell: str(folder / cell))
    check(
        "path",
        ~paths.map(lambda path: Path(path).is_file()),
        lambda cell: f"there is no file {folder / cell}",
        FileNotFoundError,
    )
    twice = pd.DataFrame({"path": paths, "split": split}).duplicated()
    check("path", twice, lambda cell: f"{cell} was named before in the same split")
    return paths


def _numbers(cells: pd.DataFrame, column: str, first: int, check: _Checker) -> pd.Series:
    """Whole numbers as they are; names by their place in sorted order, from ``first``."""
    texts = cells[column]
    check(column, texts == "", lambda cell: "it is empty; a number or a name is expected")
    whole = texts.map(lambda text: _WHOLE.fullmatch(text) is not None)
    if not whole.any():
        return pd.Series(pd.factorize(texts, sort=True)[0] + first, index=cells.index)
    kind = "a whole number" if whole.mean() >= 0.5 else "a name"
    check(
        column,
        ~whole if whole.mean() >= 0.5 else whole,
        lambda cell: f"{cell!r} is not {kind} like the others of this column",
    )
    numbers = texts.astype("int64")
    check(column, numbers < 0, lambda cell: f"{cell} is negative; leave such rows out")
    return numbers


def _seconds(cells: pd.DataFrame, check: _Checker) -> pd.Series:
    if "seconds" not in cells:
        return pd.Series(np.nan, index=cells.index)
    seconds = pd.to_numeric(cells["seconds"], errors="coerce").astype("float64")
    check(
        "seconds",
        (cells["seconds"] != "") & ~np.isfinite(seconds),
        lambda cell: f"{cell!r} is no number of seconds",
    )
    return seconds
