"""Market-1501, DukeMTMC-reID and mini-world: three folders of boxes, and times in file names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pandas as pd

from qaconv_lib.layouts.names import BOX_FOLDERS, Tables, is_image, read_boxes, stop_at

MARKET_FPS = 25.0
DUKE_FPS = 59.94
#: Frames to add to the counter of each camera of DukeMTMC-reID so that the eight clocks agree.
DUKE_OFFSETS = (5542, 3606, 27243, 31181, 0, 22401, 18967, 46765)


def read_market(root: Path) -> Tables:
    """Market-1501: ``0002_c1s1_000451_03.jpg`` = identity, camera and session, frame, box.

    Bad detections (identity -1) are dropped from the gallery, which leaves 15,913 images there;
    distractors (identity 0) are kept. Names may end in ``.jpg.jpg``, as 24 public ones do.

    Frames restart at zero in every session of every camera. As in section 5.2 of the paper, each
    session starts where the camera's previous one ends, at its largest frame in any split (bad
    detections included): if all end at frame 1000, at 0, 1000, 2000, 3000. The released code adds
    the offsets up twice and starts them at 0, 1000, 3000, 7000. Seconds are frames / 25.
    """
    tables = read_boxes(root, "Market-1501")
    last = pd.concat(tables.values()).groupby(["camera", "session"])["frame"].max().sort_index()
    start = last.groupby(level="camera").cumsum() - last
    for split, table in tables.items():
        keys = pd.MultiIndex.from_frame(table[["camera", "session"]])
        table["seconds"] = (table["frame"] + start.loc[keys].to_numpy()) / MARKET_FPS
        bad = table["identity"] < 0
        tables[split] = table[~bad].reset_index(drop=True)
        tables[split].attrs["bad detections"] = int(bad.sum())
    return tables


def read_duke(root: Path) -> Tables:
    """DukeMTMC-reID: ``0005_c2_f0046985.jpg`` = identity, camera, frame.

    Seconds are (frame + offset of the camera) / 59.94, on one clock for all eight cameras.
    """
    tables = read_boxes(root, "DukeMTMC-reID")
    for split, table in tables.items():
        above = table["camera"] >= len(DUKE_OFFSETS)
        for path in table["path"][above]:
            message = f"{path} names a camera above 8; DukeMTMC-reID has the cameras c1 to c8"
            stop_at(Path(path), "names have a camera above 8", ValueError(message))
        table = table[~above].reset_index(drop=True)
        offset = table["camera"].map(dict(enumerate(DUKE_OFFSETS)))
        tables[split] = table.assign(seconds=(table["frame"] + offset) / DUKE_FPS)
    return tables


def read_world(root: Path) -> Tables:
    """`mini-world`: ``00001_c01_000.jpg`` = person, camera, image. An unfinished one is refused."""
    manifest, command = root / "manifest.json", "`python -m qaconv_lib synthesize world`"
    command += " and the same options"
    try:
        planned = sum(json.loads(manifest.read_bytes())["images"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        wrong = f"{manifest} is damaged; remove it, and write it again with {command}"
        raise ValueError(wrong) from error
    there = sum(is_image(name) for part in BOX_FOLDERS.values() for name in os.listdir(root / part))
    if there < planned:
        raise ValueError(f"{root} has {there:,} of {planned:,} images; complete it with {command}")
    return read_boxes(root, "CUHK03-NP")  # whose names have the same form
