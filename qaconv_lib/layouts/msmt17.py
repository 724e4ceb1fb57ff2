"""MSMT17: lists that say which images belong where."""

from __future__ import annotations

import os
from pathlib import Path

from qaconv_lib.layouts import names
from qaconv_lib.layouts.names import Tables

_LISTS = {
    "train": ("train", ("list_train.txt", "list_val.txt")),
    "query": ("test", ("list_query.txt",)),
    "gallery": ("test", ("list_gallery.txt",)),
}


def read_msmt17(root: Path) -> Tables:
    """MSMT17, first (``train``, ``test``) or second (``mask_train_v2``, ``mask_test_v2``) release.

    The lists give each image's split and identity; ``list_train.txt`` and ``list_val.txt`` together
    are the training set (32,621 images of 1,041 identities). The lists number training and test
    identities, which are unrelated, from 0 each; here both start at 1. The time of day in a name is
    not a clock.
    """
    tables, present = {}, {}
    for split, (part, lists) in _LISTS.items():
        folder = _image_folder(root, part)
        if folder not in present:
            present[folder] = _files_below(folder)
        rows = [row for name in lists for row in _list_rows(root / name, folder, present[folder])]
        tables[split] = names.make_table(rows)
    return tables


def _image_folder(root: Path, part: str) -> Path:
    """The folder of one part, whatever the case of its name; that of the first release first."""
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    for name in (part, f"mask_{part}_v2"):
        if name in folders:
            return folders[name]
    raise FileNotFoundError(
        f"no folder {root / part}; MSMT17 keeps train and test, or mask_train_v2 and mask_test_v2"
    )


def _files_below(folder: Path, inside: str = "") -> dict[str, str]:
    """Relative paths of all files, by their lower-case form."""
    found: dict[str, str] = {}
    with os.scandir(folder / inside) as entries:
        for entry in entries:
            path = f"{inside}{entry.name}"
            if entry.is_dir(follow_symlinks=False):
                found |= _files_below(folder, f"{path}/")
            elif names.is_file(entry):
                found[path.lower()] = path
    return found


def _list_rows(list_path: Path, folder: Path, present: dict[str, str]) -> list[dict]:
    """Rows of one list file, whose lines are ``0000/0000_000_01_0303morning_0008_0.jpg 0``."""
    if not list_path.is_file():
        hint = "MSMT17 keeps its list_*.txt files beside the image folders"
        raise FileNotFoundError(f"no list {list_path}; {hint}")
    rows, missing = [], []
    for number, line in enumerate(names.read_text(list_path).splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{list_path}, line {number}"
        name, label = (line.rsplit(maxsplit=1) + [""])[:2]
        if not (label.isascii() and label.isdecimal()) or len(label) > names.MOST_DIGITS:
            wanted = "an image path, a space and an identity are expected"
            raise ValueError(f"{place}: {line!r}; {wanted}")
        name = name.strip().removeprefix("./").replace("\\", "/")
        try:
            fields = names.parse_name(name.rpartition("/")[2], "MSMT17", folder)
        except ValueError as flaw:
            raise ValueError(f"{place}: {flaw}") from flaw
        fields["camera"] -= 1
        if fields["camera"] < 0:
            raise ValueError(f"{place}: {name} has camera 00; cameras count from 01")
        if name.lower() in present:
            path = str(folder / present[name.lower()])
            rows.append({**fields, "path": path, "identity": int(label) + 1})
        else:
            missing.append((place, name))
    if missing:
        place, name = missing[0]
        raise FileNotFoundError(
            f"{place}, names {name}, which is not in {folder}; {len(missing):,} of the list's "
            f"{len(missing) + len(rows):,} images are missing there"
        )
    if not rows:
        wanted = "lines with an image path and an identity are expected"
        raise ValueError(f"{list_path} is empty; {wanted}")
    return rows
