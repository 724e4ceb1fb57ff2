"""Folder layouts of the public datasets: from file names to tables (chapter 1)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from qaconv_lib.layouts import market_duke
from qaconv_lib.layouts.cuhk03 import protocol_name, read_cuhk03
from qaconv_lib.layouts.market_duke import DUKE_FPS, DUKE_OFFSETS, MARKET_FPS
from qaconv_lib.layouts.msmt17 import read_msmt17
from qaconv_lib.layouts.names import BOX_FOLDERS, COLUMNS, FORMATS, Tables
from qaconv_lib.layouts.rendered import CLONED_FOLDERS, read_clonedperson, read_randperson

__all__ = ["COLUMNS", "DUKE_FPS", "DUKE_OFFSETS", "LAYOUTS", "MARKET_FPS", "WORLD", "Layout"]


@dataclass(frozen=True)
class Layout:
    """The layout of one public dataset on disk.

    A folder that has all entries of one set of `markers` (patterns) is taken for the dataset;
    earlier sets are looked for first.
    """

    title: str
    folders: tuple[str, ...]  # names of its folder; the first is the official one
    markers: tuple[tuple[str, ...], ...]
    read: Callable[[Path], Tables]  # train, query and gallery with the columns of COLUMNS
    distractor: int | None = None  # identity number of people who belong to no query
    contents: str | None = None  # what the folder must have, in words; None names the markers

    def describe(self) -> str:
        """What a folder of this dataset must have, in words."""
        return self.contents or " or ".join(", ".join(names) for names in self.markers)

    def find(self, root: Path) -> Path | None:
        """The dataset's folder: ``root`` itself, or one below it along folders of known names."""
        folders = list(self._candidates(root))
        fits = (f for names in self.markers for f in folders if all(_has(f, n) for n in names))
        return next(fits, None)

    def lacking(self, root: Path) -> str:
        """Which parts of a dataset are there and which are missing, or ""."""
        for folder in self._candidates(root):
            for names in self.markers:
                there = [name for name in names if _has(folder, name)]
                if there and (absent := [name for name in names if name not in there]):
                    return f"{folder} holds {', '.join(there)} but lacks {', '.join(absent)}"
        return ""

    def _candidates(self, root: Path, depth: int = 3) -> Iterator[Path]:
        """``root``, then the folders in it that bear a known name, and those in them."""
        known = {_plain(name) for name in self.folders}
        level = [root] if root.is_dir() else []
        for _ in range(depth + 1):
            yield from level
            inside = [path for folder in level for path in sorted(folder.iterdir())]
            level = [path for path in inside if _plain(path.name) in known and path.is_dir()]


def _has(folder: Path, name: str) -> bool:
    return any(True for _ in folder.glob(name)) if "*" in name else (folder / name).exists()


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


_BOXES = tuple(BOX_FOLDERS.values())


def _cuhk03(boxes: str) -> Layout:
    return Layout(
        "CUHK03-NP",
        ("cuhk03-np", "cuhk03", "cuhk03_release"),
        ((f"{boxes}/{_BOXES[0]}",), (protocol_name(boxes),), (boxes,), _BOXES),
        lambda root: read_cuhk03(root, boxes),
        contents=f"a folder {boxes} with {', '.join(_BOXES)}, or {protocol_name(boxes)} beside "
        f"images_{boxes} or cuhk03_release/cuhk-03.mat",
    )


LAYOUTS = {
    "market1501": Layout(
        "Market-1501",
        ("Market-1501-v15.09.15", "Market-1501"),
        (_BOXES,),
        market_duke.read_market,
        0,
    ),
    "dukemtmc": Layout(
        "DukeMTMC-reID", ("DukeMTMC-reID", "DukeMTMC"), (_BOXES,), market_duke.read_duke
    ),
    "cuhk03-np-detected": _cuhk03("detected"),
    "cuhk03-np-labeled": _cuhk03("labeled"),
    "msmt17": Layout(
        "MSMT17",
        ("MSMT17_V1", "MSMT17_V2", "MSMT17"),
        (("list_train.txt",),),
        read_msmt17,
        contents="list_train.txt, list_val.txt, list_query.txt and list_gallery.txt beside train "
        "and test, or mask_train_v2 and mask_test_v2",
    ),
    "randperson": Layout(
        "RandPerson",
        ("randperson_subset", "randperson", "images", "subset"),
        (("*_s[0-9]*_c[0-9]*_f[0-9]*",), ("*_c[0-9]*_s[0-9]*_f[0-9]*",), ("scene[0-9]*",)),
        read_randperson,
        contents=f"images named like {FORMATS['RandPerson'].example}",
    ),
    "clonedperson": Layout(
        "ClonedPerson", ("clonedperson",), (tuple(CLONED_FOLDERS.values()),), read_clonedperson
    ),
}
#: `mini-world`, which is drawn on demand.
WORLD = Layout("mini-world", ("mini-world",), (("manifest.json", *_BOXES),), market_duke.read_world)
