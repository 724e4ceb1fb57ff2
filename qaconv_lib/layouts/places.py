"""Where a dataset is, and the message if it is not found."""

from __future__ import annotations

import os
from pathlib import Path

from qaconv_lib.layouts import LAYOUTS, WORLD, Layout
from qaconv_lib.layouts.archives import unpack_archive


def find_csv(name: str, places: list[Path]) -> Path:
    """The CSV file of that name in the first place that has it, or that is it."""
    if Path(name).name != name:
        hint = "name the folder with root= (--root) or QACONV_DATA"
        raise ValueError(f"{name!r} must be a file name without its folder; {hint}")
    for place in places:
        path = place if place.name == name and place.is_file() else place / name
        if path.is_file():
            return path
    raise FileNotFoundError(f"{name} not found in {_listed(places)}; set QACONV_DATA to its folder")


def find_folder(
    layout: Layout, archive: str | None, places: list[Path], given: bool
) -> Path | None:
    """First folder of the dataset in ``places``; ``given`` says that the caller named the place."""
    for place in places:
        if archive is not None:
            bundle = place / f"{archive}.zip" if place.is_dir() else place
            if bundle.is_file():
                return unpack_archive(bundle)
            if (folder := layout.find(place / archive)) is not None:
                return folder
        if (given or archive is None) and (folder := layout.find(place)) is not None:
            if layout is not WORLD or folder.name == archive:  # one world is like another
                return folder
    return None


def not_found(
    name: str, layout: Layout, archive: str | None, places: list[Path],
    root: str | os.PathLike[str] | None,
) -> str:  # fmt: skip
    """Why there is no such dataset: a sentence for the error."""
    if root is not None and not places[0].exists():
        return f"{name}: there is no folder {root}"
    folder = archive if layout is WORLD else layout.folders[0]
    wanted = f"a folder {folder} with {layout.describe()}"
    found = f"found in {_listed(places)}; {_what_is_there(layout, places, given=root is not None)}"
    if archive is None:
        return f"{name}: {wanted} not {found}name its folder with root= or QACONV_DATA"
    drawn = archive.replace("mini-world-", "world --cameras ")
    return (
        f"{name}: neither {archive}.zip nor {wanted} {found}draw it with `python -m qaconv_lib "
        f"synthesize {drawn}`, or name its folder with root= or QACONV_DATA"
    )


def _listed(places: list[Path]) -> str:
    shown = (f"{place}{'' if place.exists() else ' (which does not exist)'}" for place in places)
    return ", ".join(shown) or "any folder, since there is no data folder"


def _what_is_there(layout: Layout, places: list[Path], given: bool) -> str:
    """Why a place may not do: it has a part of the dataset, another one, or something else."""
    for place in places:
        if lacking := layout.lacking(place):
            return f"{lacking}, so part of it was not unpacked; "
    if not given:
        return ""
    for name, other in LAYOUTS.items():
        if (folder := other.find(places[0])) is not None:
            return f"{folder} looks like {other.title} ({name}); "
    entries = sorted(path.name for path in places[0].iterdir()) if places[0].is_dir() else []
    shown = ", ".join(entries[:5]) + " ..." * (len(entries) > 5)
    return f"{places[0]} holds {shown or 'nothing'}; "
