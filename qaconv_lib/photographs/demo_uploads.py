"""Files that were uploaded to the demo, and pictures to try it with (chapter 14)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pandas as pd

from qaconv_lib.datasets import load_dataset
from qaconv_lib.photographs.files import ENDINGS, read_times

T = TypeVar("T")
MAX_BYTES = 10 * 2**20  # of one file
MAX_FILES = 200  # of one search
KEPT_MINUTES = 10

#: Drawn people to try it with: a query of a miniature, the same person, and a stranger whom the
#: model that comes with the book takes for them at the threshold of 1 %.
_EXAMPLE_DATA = "mini-msmt17"
_QUERY = "0011_001_04_0302afternoon_0004_1.jpg"
_SAME = "0011_003_05_0302afternoon_0003_0.jpg"
_STRANGER = "0176_001_03_0113noon_0003_1.jpg"
_GALLERY = (
    "0078_006_15_0113morning_0001_0.jpg",
    _STRANGER,
    "0011_007_06_0302afternoon_0002_2.jpg",
    "0132_009_13_0302morning_0003_1.jpg",
    _SAME,
    "0087_002_08_0302afternoon_0003_2.jpg",
    "0081_003_05_0302morning_0003_0.jpg",
    "0007_003_04_0113noon_0002_0.jpg",
)


class Upload(NamedTuple):
    """A file that came in: where it lies, and what its owner calls it."""

    path: str
    name: str


class Examples(NamedTuple):
    """Pictures of drawn people to try the demo with."""

    query: str
    same: str
    stranger: str
    gallery: list[str]


def example_pictures() -> Examples | None:
    """Pictures from a miniature; None where it is not at hand."""
    try:
        data = load_dataset(_EXAMPLE_DATA)
    except FileNotFoundError:
        return None
    paths = {Path(path).name: path for path in [*data.query["path"], *data.gallery["path"]]}
    gallery = [paths[name] for name in _GALLERY]
    return Examples(paths[_QUERY], paths[_SAME], paths[_STRANGER], gallery)


def check_uploads(uploads: Sequence[Upload]) -> None:
    """Raise ValueError, in a sentence, for files that the demo does not take.

    What is in a file the library finds out when it opens it.

    Raises:
        ValueError: more than `MAX_FILES`, or a file that is gone, larger than `MAX_BYTES`, or of
            another kind by its ending.
    """
    if len(uploads) > MAX_FILES:
        raise ValueError(f"{len(uploads):,} files are too many; {MAX_FILES} can be searched")
    for path, name in uploads:
        if Path(name).suffix.lower() not in ENDINGS:
            raise ValueError(f"{name} is no image; files that end in {', '.join(ENDINGS)} count")
        check_size(Upload(path, name))


def check_size(upload: Upload) -> None:
    """Raise ValueError if a file is gone or larger than `MAX_BYTES`."""
    if not os.path.isfile(upload.path):
        raise ValueError(
            f"{upload.name} is no longer here: uploads are deleted after {KEPT_MINUTES} minutes; "
            "choose it again"
        )
    if os.path.getsize(upload.path) > MAX_BYTES:
        raise ValueError(f"{upload.name} is larger than {MAX_BYTES // 2**20} MB")


def with_names(uploads: Sequence[Upload], function: Callable[[], T]) -> T:
    """Do something; what goes wrong is said with the names that the files' owner knows."""
    try:
        return function()
    except (ValueError, OSError) as error:
        raise ValueError(short_names(str(error), uploads)) from error


def short_names(text: str, uploads: Sequence[Upload]) -> str:
    """A text in which the files have the names that their owner knows."""
    for path, name in uploads:
        text = text.replace(path, name)
    return text


def read_upload_times(times: Upload, uploads: Sequence[Upload]) -> pd.DataFrame:
    """Read a CSV of times for files that came without their folders, and perhaps under other names.

    Raises:
        ValueError: as `check_size` and `read_times`; or two rows name files of one name.
    """
    check_size(times)
    table = read_times(times.path)
    names = table["file"].map(os.path.basename)
    if names.duplicated().any():
        raise ValueError(
            f"{times.name} names {names[names.duplicated()].iloc[0]} in several folders; a browser "
            "sends files without their folders, so their names must differ"
        )
    stored = {Path(upload.name).name: os.path.basename(upload.path) for upload in uploads}
    return table.assign(file=names.map(lambda name: stored.get(name, name)))
