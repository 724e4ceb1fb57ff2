"""What the layouts share: file names in, rows out, one kind of table."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pandas as pd

COLUMNS = ["path", "identity", "camera", "session", "frame", "seconds"]
Tables = dict[str, pd.DataFrame]
SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
BOX_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
MOST_DIGITS = 12  # of a number in a name: sums of such numbers fit into 64 bits
_ENDING = r"(?:\.jpe?g|\.png|\.bmp)+$"


class NameFormat:
    """How a dataset names its files; the groups of the pattern are whole numbers."""

    def __init__(self, pattern: str, example: str):
        # ASCII: otherwise \d matches the digits of every script, and the letter s a long s.
        self.pattern, self.example = re.compile(pattern + _ENDING, re.I | re.A), example


_SCENE = r"(?P<identity>\d+)_s(?P<session>\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)"
FORMATS = {
    "Market-1501": NameFormat(
        r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s(?P<session>\d+)_(?P<frame>\d+)_\d+",
        "0002_c1s1_000451_03.jpg",
    ),
    "DukeMTMC-reID": NameFormat(
        r"(?P<identity>\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)", "0005_c2_f0046985.jpg"
    ),
    "CUHK03-NP": NameFormat(r"(?P<identity>\d+)_c(?P<camera>\d+)_(?P<frame>\d+)", "0001_c1_1.png"),
    # Pair of cameras, person of the pair, view, image.
    "CUHK03": NameFormat(r"\d_\d+_(?P<camera>[12])_(?P<frame>\d+)", "1_001_1_01.png"),
    "MSMT17": NameFormat(
        r"\d+_\d+_(?P<camera>\d+)_[0-9]*[a-z]*_(?P<frame>\d+)_\d+(?:_ex)?",
        "0000_000_01_0303morning_0008_0.jpg",
    ),
    "RandPerson": NameFormat(_SCENE, "000000_s00_c00_f000264.jpg"),
    # The first release of RandPerson named camera and scene the other way round.
    "RandPerson (2020)": NameFormat(
        r"(?P<identity>\d+)_c(?P<camera>\d+)_s(?P<session>\d+)_f(?P<frame>\d+)",
        "000000_c00_s00_f000264.jpg",
    ),
    "ClonedPerson": NameFormat(_SCENE, "700000_s02_c00_f023389.jpg"),
}


def parse_name(name: str, dataset: str, folder: Path) -> dict[str, int]:
    """The numbers in a file name; ValueError says what is expected, and which dataset it fits."""
    expected = FORMATS[dataset]
    match = expected.pattern.match(name)
    if match is None:
        others = [title for title, other in FORMATS.items() if other.pattern.match(name)]
        hint = f"; this is how {others[0]} names its files" if others else ""
        wanted = f"a name like {expected.example} is expected{hint}"
        raise ValueError(f"cannot read the file name {name!r} in {folder}; {wanted}")
    if any(len(value) > MOST_DIGITS for value in match.groupdict().values()):
        raise ValueError(f"the file name {name!r} in {folder} contains an impossibly large number")
    return {key: int(value) for key, value in match.groupdict().items()}


def is_image(name: str) -> bool:
    """Whether a file is an image by its name; ``._x.jpg`` and ``Thumbs.db`` are not."""
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def image_files(folder: Path) -> list[Path]:
    """Image files in ``folder``, sorted by name."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; a folder of images is expected there")
    with os.scandir(folder) as entries:
        there = {entry.name: is_file(entry) for entry in entries if is_image(entry.name)}
    if not there:
        raise ValueError(f"no images in {folder}; files ending in .jpg or .png are expected")
    for name in there:
        if not there[name]:
            raise FileNotFoundError(f"{folder / name} is not a file, or is a broken link")
    return [folder / name for name in sorted(there)]


def is_file(entry: os.DirEntry[str]) -> bool:
    """Whether this is a file or a link to one; only links cost a disk access."""
    try:
        return entry.is_file()
    except OSError:  # links in a circle
        return False


def make_table(rows: list[dict]) -> pd.DataFrame:
    """Rows to a table with the common columns; absent numbers are 0, absent time is NaN."""
    table = pd.DataFrame(rows).reindex(columns=COLUMNS).fillna({"session": 0, "frame": 0})
    integers = dict.fromkeys(("identity", "camera", "session", "frame"), "int64")
    return table.astype({"path": "str", **integers, "seconds": "float64"})


def read_boxes(root: Path, dataset: str) -> Tables:
    """Tables of a dataset with the folders bounding_box_train, query and bounding_box_test."""
    tables = {}
    for split, folder in BOX_FOLDERS.items():
        rows = []
        for path in image_files(root / folder):
            fields = parse_name(path.name, dataset, path.parent)
            if fields["camera"] < 1:
                wrong = f"{path.name!r} in {path.parent} has camera 0"
                raise ValueError(f"{wrong}; file names count from c1")
            rows.append({**fields, "camera": fields["camera"] - 1, "path": str(path)})
        tables[split] = make_table(rows)
    return tables


def read_text(path: Path) -> str:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one."""
    content = path.read_bytes()
    utf16 = content.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        text = content.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        where = f"cannot be read as text (byte {error.start:,})"
        raise ValueError(f"{path} {where}; save it as UTF-8") from error
    if "\0" in text:
        raise ValueError(f"{path} is not UTF-8 but perhaps UTF-16; save it as UTF-8")
    return text
