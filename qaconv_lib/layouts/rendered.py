"""RandPerson and ClonedPerson: rendered people; a camera is a pair of scene and camera.

`session` is the scene. Seconds are frames / 24, as in the released loaders, on a clock per scene.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from qaconv_lib.layouts.names import FORMATS, Tables, image_files, is_image, make_table, parse_name

RENDERED_FPS = 24.0
CLONED_FOLDERS = {"train": "train", "query": "test/query", "gallery": "test/gallery"}


def read_randperson(root: Path) -> Tables:
    """RandPerson: ``000000_s00_c00_f000264.jpg`` = person, scene, camera, frame.

    ``root`` has the images themselves (the subset that its authors train on), or the folders
    ``scene00`` to ``scene10`` with all images; its authors discarded the folders ``delete_...``.
    There are training images only. People count from 1 here.
    """
    files = [path for path in root.iterdir() if is_image(path.name)] or _scene_files(root)
    if not files:
        raise ValueError(
            f"no images in {root}; names like {FORMATS['RandPerson'].example} are expected, or "
            "folders scene00 to scene10 with unpacked archives"
        )
    files.sort(key=lambda path: path.name)
    old = sum(bool(FORMATS["RandPerson (2020)"].pattern.match(path.name)) for path in files)
    train = _table(files, "RandPerson (2020)" if old > len(files) / 2 else "RandPerson")
    train["identity"] += 1
    empty = train.iloc[:0]
    return _number_cameras({"train": train, "query": empty, "gallery": empty})


def read_clonedperson(root: Path) -> Tables:
    """ClonedPerson: ``700000_s02_c00_f023389.jpg`` = person, scene, camera, frame.

    The released loader takes the cameras of all scenes for the same four; here every scene has its
    own, which makes the 24 that the paper names.
    """
    files = {split: image_files(root / folder) for split, folder in CLONED_FOLDERS.items()}
    return _number_cameras({split: _table(own, "ClonedPerson") for split, own in files.items()})


def _scene_files(root: Path) -> list[Path]:
    """Images below the folders of the scenes, except discarded ones."""
    found = []
    for scene in sorted(path for path in root.iterdir() if path.name.lower().startswith("scene")):
        for place, folders, names in os.walk(scene):
            folders[:] = sorted(f for f in folders if not f.startswith(("delete_", ".")))
            found += [Path(place) / name for name in names if is_image(name)]
    return found


def _table(files: list[Path], dataset: str) -> pd.DataFrame:
    rows = [{**parse_name(f.name, dataset, f.parent), "path": str(f)} for f in files]
    return make_table(rows)


def _number_cameras(tables: Tables) -> Tables:
    """Number the pairs of scene and camera from 0; seconds from frames."""
    pairs = {s: pd.MultiIndex.from_frame(t[["session", "camera"]]) for s, t in tables.items()}
    every = pairs["train"].append([pairs["query"], pairs["gallery"]]).unique().sort_values()
    for split, table in tables.items():
        camera, seconds = every.get_indexer(pairs[split]), table["frame"] / RENDERED_FPS
        tables[split] = table.assign(camera=camera, seconds=seconds)
    return tables
