"""What `match` and `search` write, and where they may write it (appendix B)."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from qaconv_lib._files import make_folder, write_whole
from qaconv_lib.photographs.files import read_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FORMATS = (".png", ".svg", ".pdf")


def write_lists(found: pd.DataFrame, folder: Path) -> None:
    """Write the table of `search_gallery`, and a figure per query; earlier lists go."""
    make_folder(folder)
    for path in _earlier_lists(folder):
        path.unlink(missing_ok=True)
    text = found.to_csv(index=False, float_format="%.6g")
    write_whole(folder / "ranks.csv", text.encode("utf-8", "backslashreplace"))
    groups = found.groupby("query", sort=False)
    for name, (query, rows) in zip(_list_names(found["query"]), groups, strict=True):
        save_figure(draw_list(str(query), rows), folder / name)


def draw_list(query: str, rows: pd.DataFrame) -> Figure:
    """A query and the images found for it, with their similarities."""
    from qaconv_lib.datasets import load_image
    from qaconv_lib.visualize import show_rank_list

    images, unknown = [load_image(path) for path in rows["image"]], ["unknown"] * len(rows)
    alt = f"A query and the {len(rows)} most similar gallery images, with their scores."
    return show_rank_list(load_image(query), images, unknown, rows["similarity"], alt=alt)


def _list_names(queries: Iterable[str]) -> list[str]:
    """File names of the figures, for the table's column of queries."""
    stems = [Path(query).stem[:60] for query in dict.fromkeys(queries)]
    return [f"{number:03d}-{stem}.png" for number, stem in enumerate(stems, start=1)]


def _earlier_lists(folder: Path) -> list[Path]:
    """Figures of an earlier search; ValueError if ranks.csv was not written by a search."""
    table = folder / "ranks.csv"
    if not table.is_file():
        return []
    return [folder / name for name in _list_names(read_csv(table, ("query", "image"))["query"])]


def check_output(path: Path, images: Sequence[Path]) -> None:
    """Refuse, before the work, a path that the figure cannot be written to."""
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"the figure's name must end in {', '.join(_FORMATS)}, got {path.name!r}")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} for the figure")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; the figure needs another name")
    if os.path.realpath(path) in map(os.path.realpath, images):
        raise ValueError(f"{path} is one of the images; the figure needs another name")


def check_folder(folder: Path) -> None:
    """Refuse, before the work, a folder that results cannot be written to."""
    places = (folder.absolute(), *folder.absolute().parents)
    there = next(place for place in places if place.exists())
    if not there.is_dir():
        raise ValueError(f"{there} is a file, not a folder for the results")
    if not os.access(there, os.W_OK):
        raise ValueError(f"{folder} cannot be written to")
    _earlier_lists(folder)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure whole, with its description, and close it."""
    import matplotlib.pyplot as plt

    kind, stream = path.suffix.lower()[1:], io.BytesIO()
    about = {"Subject" if kind == "pdf" else "Description": figure.get_label()}
    figure.savefig(stream, format=kind, dpi=200, metadata=about)
    plt.close(figure)
    write_whole(path, stream.getvalue())
