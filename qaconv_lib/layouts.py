"""Folder layouts of the public re-identification datasets: file names in, tables out.

Each reader takes a dataset's folder and returns the three tables ``train``, ``query`` and
``gallery`` with the columns of ``COLUMNS``. Chapter 1 shows what the parts of a file name mean;
``qaconv_lib.datasets`` finds the folders and is what other code calls.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

__all__ = ["COLUMNS", "DUKE_FPS", "DUKE_OFFSETS", "LAYOUTS", "MARKET_FPS", "Layout", "Tables"]

COLUMNS = ["path", "identity", "camera", "session", "frame", "seconds"]
MARKET_FPS = 25.0
DUKE_FPS = 59.94
#: Frames to add to the counter of each camera of DukeMTMC-reID so that the eight clocks agree.
DUKE_OFFSETS = (5542, 3606, 27243, 31181, 0, 22401, 18967, 46765)

Tables = dict[str, pd.DataFrame]
_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp"}
_BOX_FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
_MOST_DIGITS = 12  # of a number in a name: sums of such numbers fit into 64 bits
_SUFFIX_PATTERN = r"(?:\.jpe?g|\.png|\.bmp)+$"


@dataclass(frozen=True)
class Layout:
    """How one public dataset lies on disk.

    Attributes:
        title: the dataset's name in messages.
        folders: names its folder goes by; the first is the official one.
        markers: sets of entries; a folder that has all entries of one set is taken for the dataset.
        read: from the folder to the tables.
        distractor: identity number of people who belong to no query, or None.
    """

    title: str
    folders: tuple[str, ...]
    markers: tuple[tuple[str, ...], ...]
    read: Callable[[Path], Tables]
    distractor: int | None = None

    def describe(self) -> str:
        """What a folder of this dataset must hold, in words."""
        return " or ".join(", ".join(names) for names in self.markers)

    def find(self, root: Path) -> Path | None:
        """The dataset's folder: ``root`` itself or a folder in it that bears a known name."""
        if not root.is_dir():
            return None
        known = {_plain(name) for name in self.folders}
        inside = sorted(p for p in root.iterdir() if p.is_dir() and _plain(p.name) in known)
        for folder in (root, *inside):
            if any(all((folder / name).exists() for name in names) for names in self.markers):
                return folder
        return None


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _images(folder: Path) -> list[Path]:
    """Image files in ``folder``, sorted by name; ``._x.jpg`` and ``Thumbs.db`` are passed over."""
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}; a folder of images is expected there")
    with os.scandir(folder) as entries:
        files = {e.name: e for e in entries if _is_image(e.name) and not e.name.startswith(".")}
    if not files:
        raise ValueError(f"no images in {folder}; files ending in .jpg or .png are expected")
    for name, entry in files.items():
        if not _is_file(entry):
            raise FileNotFoundError(f"{folder / name} is no file, or a link to one that is gone")
    return [folder / name for name in sorted(files)]


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in _SUFFIXES


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()  # asks the disk for links alone
    except OSError:  # links in a circle
        return False


def _parse(name: str, pattern: re.Pattern[str], folder: Path, example: str) -> dict[str, int]:
    match = pattern.match(name)
    if match is None:
        raise ValueError(
            f"cannot read the file name {name!r} in {folder}; a name like {example} is expected"
        )
    if any(len(value) > _MOST_DIGITS for value in match.groupdict().values()):
        raise ValueError(f"the file name {name!r} in {folder} holds an impossibly large number")
    return {key: int(value) for key, value in match.groupdict().items()}


def _from_zero(camera: int, path: Path) -> int:
    if camera < 1:
        raise ValueError(f"{path.name!r} in {path.parent} has camera 0; file names count from 1")
    return camera - 1


def _table(rows: list[dict]) -> pd.DataFrame:
    """Rows to a table with the common columns; absent numbers are 0, absent time is NaN."""
    table = pd.DataFrame(rows).reindex(columns=COLUMNS)
    for column in ("session", "frame"):
        table[column] = table[column].fillna(0)
    integers = ["identity", "camera", "session", "frame"]
    table[integers] = table[integers].astype("int64")
    table["seconds"] = table["seconds"].astype("float64")
    return table


def _read_boxes(root: Path, pattern: re.Pattern[str], example: str) -> Tables:
    """Tables of a dataset with the folders bounding_box_train, query and bounding_box_test."""
    tables = {}
    for split, folder in _BOX_FOLDERS.items():
        rows = []
        for path in _images(root / folder):
            fields = _parse(path.name, pattern, path.parent, example)
            rows.append({**fields, "camera": _from_zero(fields["camera"], path), "path": str(path)})
        tables[split] = _table(rows)
    return tables


_MARKET = re.compile(
    r"(?P<identity>-1|\d+)_c(?P<camera>\d+)s(?P<session>\d+)_(?P<frame>\d+)_\d+" + _SUFFIX_PATTERN,
    re.I,
)


def read_market(root: Path) -> Tables:
    """Market-1501: ``0002_c1s1_000451_03.jpg`` = identity, camera and session, frame, box.

    Bad detections (identity -1) are dropped from the gallery, which leaves 15,913 images there,
    and distractors (identity 0) are kept. Names that end in ``.jpg.jpg`` count: the public archive
    has 24 of them.

    Frames restart at zero in every session of every camera. As in section 5.2 of the paper the
    sessions of a camera are laid end to end: a session starts where the one before it ends, its
    end being the largest frame seen of that camera and session in any split (bad detections too,
    for they bear a time as well). Sessions that all end at frame 1000 so start at 0, 1000, 2000,
    3000. The released code adds the offsets up twice and starts them at 0, 1000, 3000, 7000.
    Seconds are frames / 25.
    """
    tables = _read_boxes(root, _MARKET, "0002_c1s1_000451_03.jpg")
    last = pd.concat(tables.values()).groupby(["camera", "session"])["frame"].max().sort_index()
    start = last.groupby(level="camera").cumsum() - last
    for split, table in tables.items():
        keys = pd.MultiIndex.from_frame(table[["camera", "session"]])
        table["seconds"] = (table["frame"] + start.loc[keys].to_numpy()) / MARKET_FPS
        tables[split] = table[table["identity"] >= 0].reset_index(drop=True)
    return tables


_DUKE = re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)_f(?P<frame>\d+)" + _SUFFIX_PATTERN, re.I)


def read_duke(root: Path) -> Tables:
    """DukeMTMC-reID: ``0005_c2_f0046985.jpg`` = identity, camera, frame.

    Seconds are (frame + offset of the camera) / 59.94, on one clock for all eight cameras.
    """
    tables = _read_boxes(root, _DUKE, "0005_c2_f0046985.jpg")
    for split, table in tables.items():
        if table["camera"].max() >= len(DUKE_OFFSETS):
            path = table["path"][table["camera"].idxmax()]
            raise ValueError(
                f"{path} names a camera above 8; DukeMTMC-reID has the cameras c1 to c8"
            )
        offset = table["camera"].map(dict(enumerate(DUKE_OFFSETS)))
        tables[split]["seconds"] = (table["frame"] + offset) / DUKE_FPS
    return tables


_CUHK03 = re.compile(r"(?P<identity>\d+)_c(?P<camera>\d+)_(?P<frame>\d+)" + _SUFFIX_PATTERN, re.I)


def read_cuhk03(root: Path, boxes: str) -> Tables:
    """CUHK03-NP: ``detected/query/0001_c1_1.png`` = boxes, split, identity, camera, number.

    The number (column ``frame``) counts images and is no time. ``root`` may be the folder of the
    boxes itself.
    """
    if not (root / boxes).is_dir() and root.name != boxes and root.name in ("detected", "labeled"):
        raise ValueError(
            f"{root} holds the {root.name} boxes of CUHK03-NP; the {boxes} ones are asked for"
        )
    return _read_boxes(root / boxes if (root / boxes).is_dir() else root, _CUHK03, "0001_c1_1.png")


_MSMT17 = re.compile(
    r"\d+_\d+_(?P<camera>\d+)_[0-9]*[a-z]*_(?P<frame>\d+)_\d+(?:_ex)?" + _SUFFIX_PATTERN, re.I
)
_MSMT17_LISTS = {
    "train": ("train", ("list_train.txt", "list_val.txt")),
    "query": ("test", ("list_query.txt",)),
    "gallery": ("test", ("list_gallery.txt",)),
}


def read_msmt17(root: Path) -> Tables:
    """MSMT17, first (``train``, ``test``) or second (``mask_train_v2``, ``mask_test_v2``) release.

    The lists say which images belong where and who is on them; ``list_train.txt`` and
    ``list_val.txt`` together are the training set (32,621 images of 1,041 identities). Training
    and test identities are both numbered from 0 in the lists and have nothing to do with each
    other: ``all_images`` tells them apart. Here they count from 1, because evaluation takes 0 for
    a distractor. Time of day in the names is no clock.
    """
    tables, present = {}, {}
    for split, (folder, lists) in _MSMT17_LISTS.items():
        folder = folder if (root / folder).is_dir() else f"mask_{folder}_v2"
        if folder not in present:
            present[folder] = _files_below(root / folder)
        rows = [row for name in lists for row in _list_rows(root, folder, name, present[folder])]
        tables[split] = _table(rows)
    return tables


def _files_below(folder: Path) -> set[str]:
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no folder {folder}; MSMT17 keeps train and test, or mask_train_v2 and mask_test_v2"
        )
    found, waiting = set(), [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(f"{inside}{entry.name}/")
                elif _is_file(entry):
                    found.add(f"{inside}{entry.name}")
    return found


def _list_rows(root: Path, folder: str, list_name: str, present: set[str]) -> list[dict]:
    """Rows of one list file, whose lines are ``0000/0000_000_01_0303morning_0008_0.jpg 0``."""
    list_path = root / list_name
    if not list_path.is_file():
        raise FileNotFoundError(
            f"no list {list_path}; MSMT17 keeps its list_*.txt files beside the image folders"
        )
    try:
        lines = list_path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{list_path} is no text file in UTF-8 ({error})") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        if not name or not label.isdecimal() or len(label) > _MOST_DIGITS:
            raise ValueError(
                f"{list_path}, line {number}: {line!r}; "
                "an image path, a space and an identity are expected"
            )
        if name not in present:
            raise FileNotFoundError(
                f"{list_path}, line {number}, names {name}, which is not in {root / folder}"
            )
        example = "0000_000_01_0303morning_0008_0.jpg"
        path = root / folder / name
        fields = _parse(path.name, _MSMT17, path.parent, example)
        fields["camera"] = _from_zero(fields["camera"], path)
        rows.append({**fields, "identity": int(label) + 1, "path": str(path)})
    if not rows:
        raise ValueError(
            f"{list_path} is empty; lines with an image path and an identity are expected"
        )
    return rows


_BOXES = tuple(_BOX_FOLDERS.values())


def _cuhk03(boxes: str) -> Layout:
    folders = ("cuhk03-np", "cuhk03")
    return Layout("CUHK03-NP", folders, ((boxes,), _BOXES), lambda root: read_cuhk03(root, boxes))


LAYOUTS = {
    "market1501": Layout(
        "Market-1501",
        ("Market-1501-v15.09.15", "Market-1501"),
        (_BOXES,),
        read_market,
        distractor=0,
    ),
    "dukemtmc": Layout("DukeMTMC-reID", ("DukeMTMC-reID", "DukeMTMC"), (_BOXES,), read_duke),
    "cuhk03-np-detected": _cuhk03("detected"),
    "cuhk03-np-labeled": _cuhk03("labeled"),
    "msmt17": Layout(
        "MSMT17", ("MSMT17_V1", "MSMT17_V2", "MSMT17"), (("list_train.txt",),), read_msmt17
    ),
}
