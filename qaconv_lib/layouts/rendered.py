"""RandPerson and ClonedPerson: rendered people, seen by the cameras of several scenes.

Both name a file after person, scene, camera and frame. The camera of a name counts within its
scene, so a camera here is a pair of scene and camera; `session` holds the scene. Seconds are
frames / 24, as in the loaders that the authors of QAConv release. They are good within a scene:
the clocks of two scenes have nothing to do with each other.
"""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from qaconv_lib.layouts.names import (
    FORMATS,
    Tables,
    image_files,
    is_image,
    make_table,
    parse_names,
)

RENDERED_FPS = 24.0


def read_randperson(root: Path) -> Tables:
    """RandPerson: ``000000_s00_c00_f000264.jpg`` = person, scene, camera, frame.

    ``root`` holds the images themselves (the subset that its authors train on), or the folders
    ``scene00`` to ``scene10`` with the unpacked archives of all images; what lies in folders
    called ``delete_...`` was taken out by its authors. There are training images only: the tables
    of query and gallery are empty. People count from 1 here, because evaluation takes 0 for a
    distractor.
    """
    files = [path for path in root.iterdir() if is_image(path.name)] or _scene_files(root)
    if not files:
        raise ValueError(
            f"no images in {root}; names like {FORMATS['RandPerson'].example} are expected, or "
            "folders scene00 to scene10 with unpacked archives"
        )
    files.sort(key=lambda path: path.name)
    old = sum(bool(FORMATS["RandPerson (2020)"].pattern.match(path.name)) for path in files)
    train = make_table(_rows(files, "RandPerson (2020)" if old > len(files) / 2 else "RandPerson"))
    train["identity"] += 1
    empty = train.iloc[:0]
    return _number_cameras({"train": train, "query": empty, "gallery": empty})


def read_clonedperson(root: Path) -> Tables:
    """ClonedPerson: ``700000_s02_c00_f023389.jpg`` = person, scene, camera, frame.

    The folders are ``train``, ``test/query`` and ``test/gallery``. The released loader counts the
    cameras of all scenes as the same four; here every scene has its own, which makes the 24 that
    the paper names.
    """
    folders = {"train": "train", "query": "test/query", "gallery": "test/gallery"}
    return _number_cameras(
        {
            split: make_table(_rows(image_files(root / folder), "ClonedPerson"))
            for split, folder in folders.items()
        }
    )


def _scene_files(root: Path) -> list[Path]:
    """Images below the folders of the scenes, save those that were taken out."""
    found = []
    for scene in sorted(path for path in root.iterdir() if path.name.lower().startswith("scene")):
        for place, folders, names in os.walk(scene):
            folders[:] = sorted(f for f in folders if not f.startswith(("delete_", ".")))
            found += [Path(place) / name for name in names if is_image(name)]
    return found


def _rows(files: list[Path], dataset: str) -> list[dict]:
    return [{**fields, "path": str(path)} for path, fields in parse_names(files, dataset)]


def _number_cameras(tables: Tables) -> Tables:
    """Number the pairs of scene and camera from 0; seconds from frames."""
    pairs = pd.concat(table[["session", "camera"]] for table in tables.values()).drop_duplicates()
    order = pairs.sort_values(["session", "camera"]).itertuples(index=False)
    numbers = {tuple(pair): number for number, pair in enumerate(order)}
    return {
        split: table.assign(
            camera=pd.Series(
                [numbers[pair] for pair in zip(table["session"], table["camera"], strict=True)],
                index=table.index,
                dtype="int64",
            ),
            seconds=table["frame"] / RENDERED_FPS,
        )
        for split, table in tables.items()
    }
