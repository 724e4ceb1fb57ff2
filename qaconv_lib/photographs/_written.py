"""What the commands for pictures of one's own write, and where they may (chapter 14)."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")
_DPI = 200  # twice what a page shows


def write_lists(found: pd.DataFrame, folder: Path) -> None:
    """The table, and one picture a query."""
    from qaconv_lib._files import make_folder, write_whole
    from qaconv_lib.datasets import load_image
    from qaconv_lib.visualize import show_rank_list

    make_folder(folder)
    for path in _earlier_lists(folder):
        path.unlink(missing_ok=True)
    text = found.to_csv(index=False, float_format="%.6g")
    write_whole(folder / "ranks.csv", text.encode("utf-8", "backslashreplace"))
    pictures = zip(_list_names(found["query"]), found.groupby("query", sort=False), strict=True)
    for name, (query, rows) in pictures:
        figure = show_rank_list(
            load_image(query),
            [load_image(path) for path in rows["image"]],
            ["unknown"] * len(rows),
            rows["similarity"],
            alt=f"A query and the {len(rows)} best pictures of the gallery with their similarity.",
        )
        save_figure(figure, folder / name)


def _list_names(queries: Iterable[str]) -> list[str]:
    """What the pictures of the rank lists are called, by the table's column of queries."""
    stems = [Path(query).stem[:60] for query in dict.fromkeys(queries)]
    return [f"{number:03d}-{stem}.png" for number, stem in enumerate(stems, start=1)]


def _earlier_lists(folder: Path) -> list[Path]:
    """The pictures that an earlier search wrote here: they would look like lists of this one.

    Raises:
        ValueError: there is a ranks.csv that no search has written.
    """
    from qaconv_lib.photographs.files import read_csv

    table = folder / "ranks.csv"
    if not table.is_file():
        return []
    queries = read_csv(table, ("query", "rank", "image"))["query"]
    return [folder / name for name in _list_names(queries)]


def check_output(path: Path, pictures: list[Path]) -> None:
    """Refuse, before the work, a place that the picture cannot be written to."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"the picture must end in {', '.join(_FORMATS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for the picture")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; the picture needs another name")
    if os.path.realpath(path) in map(os.path.realpath, pictures):
        raise ValueError(f"{path} is one of the pictures; the output needs another name")


def check_folder(folder: Path) -> None:
    """Refuse, before the work, a place that results cannot be written to."""
    places = (folder.absolute(), *folder.absolute().parents)
    there = next(place for place in places if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file; a folder for the results is wanted")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{folder} cannot be written to")
    _earlier_lists(folder)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole, its alternative text with it, and forget it."""
    import io

    import matplotlib.pyplot as plt

    from qaconv_lib._files import write_whole

    kind = path.suffix.lower()[1:]
    stream = io.BytesIO()
    about = {"Subject" if kind == "pdf" else "Description": figure.get_label()}
    figure.savefig(stream, format=kind, dpi=_DPI, metadata=about)
    plt.close(figure)
    write_whole(path, stream.getvalue())
