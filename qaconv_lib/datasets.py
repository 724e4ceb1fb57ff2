"""Re-identification datasets as tables (built in chapter 1).

``load_dataset`` reads the public datasets and the miniatures that ship with this repository
through the same code, for the miniatures keep the public layouts. A set of images is a pandas
table with the columns

=========  ================================================================================
path       image file
identity   who is on it; 0 = distractor in Market-1501
camera     from 0
session    as the file name counts it (Market-1501; the scene of rendered data), else 0
frame      number in the file name; a time only where ``seconds`` is one
seconds    time on the camera's clock, NaN where the dataset has none
=========  ================================================================================

Which gallery images are junk for which query is not decided here but when results are evaluated.
"""

from __future__ import annotations

import dataclasses
import numbers
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from qaconv_lib.archives import data_folders
from qaconv_lib.arrays import is_number
from qaconv_lib.images import load_image, load_part_map
from qaconv_lib.layouts import LAYOUTS
from qaconv_lib.layouts.own import read_csv, read_table
from qaconv_lib.places import find_csv, find_folder, not_found
from qaconv_lib.unreadable import readable_rows

__all__ = [
    "DATASETS",
    "ReidDataset",
    "all_images",
    "choose_queries",
    "dataset_from_table",
    "load_dataset",
    "load_image",
    "load_part_map",
    "load_test",
    "validation_split",
]

#: Miniature -> (archive, name of the layout).
_MINIATURES = {
    "mini-market": ("mini-market", "market1501"),
    "mini-duke": ("mini-duke", "dukemtmc"),
    "mini-cuhk03": ("mini-cuhk03", "cuhk03-np-detected"),
    "mini-cuhk03-detected": ("mini-cuhk03", "cuhk03-np-detected"),
    "mini-cuhk03-labeled": ("mini-cuhk03", "cuhk03-np-labeled"),
    "mini-msmt17": ("mini-msmt17", "msmt17"),
}
#: Names that ``load_dataset`` knows.
DATASETS = (*LAYOUTS, *_MINIATURES)
_OWN_SUFFIX = ".csv"


@dataclass(frozen=True, repr=False, eq=False)
class ReidDataset:
    """A dataset with its standard split.

    Attributes:
        name: name it was loaded by.
        root: its folder.
        train: table of the training images; its columns stand at the head of this module.
        query: table of the query images.
        gallery: table of the gallery images.
        distractor_identity: identity number shared by people who belong to no query, or None.
    """

    name: str
    root: Path
    train: pd.DataFrame
    query: pd.DataFrame
    gallery: pd.DataFrame
    distractor_identity: int | None = None

    @property
    def splits(self) -> dict[str, pd.DataFrame]:
        """The three tables by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def has_time(self) -> bool:
        """Whether there are queries, and every query and gallery image has a time in seconds."""
        tables = (self.query, self.gallery)
        return self.has_test and all(bool(table["seconds"].notna().all()) for table in tables)

    @property
    def has_test(self) -> bool:
        """Whether there are query and gallery images; RandPerson, for one, has none."""
        return len(self.query) > 0 and len(self.gallery) > 0

    @property
    def num_cameras(self) -> int:
        """Number of cameras over all splits."""
        return int(pd.concat(table["camera"] for table in self.splits.values()).nunique())

    def summary(self) -> pd.DataFrame:
        """Counts of each split; distractors are counted as images and as no identity."""
        rows = {}
        for split, table in self.splits.items():
            known = table["identity"] != self.distractor_identity
            rows[split] = {
                "images": len(table),
                "identities": table["identity"][known].nunique(),
                "cameras": table["camera"].nunique(),
                "distractor images": int((~known).sum()),
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("split")

    def __repr__(self) -> str:
        parts = [
            f"{split} {row['images']:,} images of {row['identities']:,} identities"
            for split, row in self.summary().iterrows()
            if row["images"]
        ]
        time = "with time" if self.has_time else "without time"
        time = time if self.has_test else "nothing to test on"
        return f"ReidDataset({self.name!r}: {', '.join(parts)}; {self.num_cameras} cameras; {time})"


def load_dataset(name: str, root: str | os.PathLike[str] | None = None) -> ReidDataset:
    """Load a public dataset, a miniature, or one's own images.

    Args:
        name: one of ``DATASETS``; ``mini-cuhk03`` means its detected boxes. Or the name of a CSV
            file with a row for each of one's own images, such as ``people.csv``: see
            `dataset_from_table` for its columns; its paths count from the file's folder.
        root: the dataset's folder or the folder above it; for a miniature also its zip file or the
            folder that holds it; for a CSV file its folder. None looks in the data search path:
            the environment variable ``QACONV_DATA``, ``data/`` beside the package, ``data/`` of
            the working directory and of the folders above it.

    Raises:
        FileNotFoundError: the dataset, or an image that one of its lists names, is not there.
        ValueError: unknown name, an empty split, a file name or a list that cannot be read, or a
            damaged archive.
    """
    places = data_folders() if root is None else [Path(root)]
    if name.lower().endswith(_OWN_SUFFIX):
        path = find_csv(name, places)
        return ReidDataset(name, path.parent, **read_csv(path), distractor_identity=0)
    if name not in DATASETS:
        raise ValueError(
            f"unknown dataset {name!r}; known are {', '.join(DATASETS)}, and CSV files such as "
            "people.csv"
        )
    archive, layout_name = _MINIATURES.get(name, (None, name))
    layout = LAYOUTS[layout_name]
    folder = find_folder(layout, archive, places, given=root is not None)
    if folder is None:
        raise FileNotFoundError(not_found(name, layout, archive, places, root))
    tables = layout.read(folder)
    return ReidDataset(name, folder, **tables, distractor_identity=layout.distractor)


def dataset_from_table(
    table: pd.DataFrame, root: str | os.PathLike[str] = ".", name: str = "own images"
) -> ReidDataset:
    """A dataset of one's own images, from a table with one row an image.

    Args:
        table: columns ``path``, ``identity`` and ``camera``, and perhaps ``seconds`` (time on the
            camera's clock, may be empty) and ``split`` (train, query or gallery; without it all
            images are training images). Identities and cameras are whole numbers or names. Numbers
            stay as they are; names are numbered in sorted order, identities from 1 and cameras
            from 0. Identity 0 stands for people who belong to no query.
        root: where relative paths start.
        name: the dataset's name.

    Raises:
        FileNotFoundError: an image is not there.
        ValueError: a column is missing, or a cell cannot be read; messages name row and column,
            the first row being row 0.
    """
    tables = read_table(table, Path(root), name)
    return ReidDataset(name, Path(root), **tables, distractor_identity=0)


def load_test(name: str, skip_unreadable: bool = False) -> ReidDataset:
    """Load a dataset to test on.

    Args:
        name: as for `load_dataset`.
        skip_unreadable: open every query and gallery image, and leave out those that cannot be
            read; a warning says which.

    Raises:
        FileNotFoundError: as `load_dataset`.
        ValueError: as `load_dataset`; or the dataset has no query and gallery images.
    """
    dataset = load_dataset(name)
    if not dataset.has_test:
        raise ValueError(
            f"{name} has no query and gallery images, so nothing can be tested on it; train on it "
            "and test on another dataset"
        )
    if not skip_unreadable:
        return dataset
    return dataclasses.replace(
        dataset,
        query=readable_rows(dataset.query, f"{name}, query"),
        gallery=readable_rows(dataset.gallery, f"{name}, gallery"),
    )


def all_images(dataset: ReidDataset) -> pd.DataFrame:
    """All splits as one training table, identities numbered anew from 0; distractors are left out.

    The paper trains on all of MSMT17 in this way ("MSMT (all)" in its Table 3). Training
    identities come first; a query and its gallery images keep one identity, a training identity of
    the same number is another one.
    """
    test = pd.concat([dataset.query, dataset.gallery])
    parts, count = [], 0
    for table in (dataset.train, test):
        table = table[table["identity"] != dataset.distractor_identity]
        if table.empty:
            continue
        numbers, known = pd.factorize(table["identity"], sort=True)
        parts.append(table.assign(identity=numbers + count))
        count += len(known)
    return pd.concat(parts, ignore_index=True)


def choose_queries(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Choose one query per identity and camera, as Market-1501 does.

    A camera that saw an identity once keeps its image for the gallery, so that every identity
    stays in the gallery under all its cameras and every query has a match under another camera.

    Args:
        table: images with the columns ``identity`` and ``camera``.
        rng: random numbers.

    Returns:
        (len(table),) bool: which rows become queries; the others are the gallery.
    """
    chosen = np.zeros(len(table), dtype=bool)
    rows = table.assign(row=np.arange(len(table)))
    cameras_of = table.groupby("identity")["camera"].nunique()
    for (identity, _), group in rows.groupby(["identity", "camera"]):
        if len(group) >= 2 and cameras_of[identity] >= 2:
            chosen[rng.choice(group["row"].to_numpy())] = True
    return chosen


def validation_split(
    train: pd.DataFrame, identities: int | float = 0.2, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Hold out training identities, so that knobs are chosen without looking at test images.

    Args:
        train: a training table.
        identities: how many to hold out; a float is a share of all.
        seed: of the choice.

    Returns:
        The rest of the training table, and query and gallery of the held-out identities: one query
        per identity and camera, each with a gallery image of the same identity under another
        camera.

    Raises:
        ValueError: fewer identities than asked for were seen by two cameras, none would be left
            to train on, or no number is given.
    """
    total = train["identity"].nunique()
    if not is_number(identities) or not np.isfinite(identities):
        raise ValueError(f"identities must be a number or a share of them, got {identities!r}")
    whole = isinstance(identities, numbers.Integral)
    count = int(identities) if whole else round(identities * total)
    by_camera = (
        train.groupby(["identity", "camera"]).size().groupby("identity").agg(["size", "max"])
    )
    usable = by_camera.index[(by_camera["size"] >= 2) & (by_camera["max"] >= 2)].to_numpy()
    if not 1 <= count <= min(len(usable), total - 1):
        raise ValueError(
            f"cannot hold out {count} of {total} identities: between 1 and "
            f"{min(len(usable), total - 1)} can be (seen by two cameras, at least twice by one of "
            "them, with one identity left to train on)"
        )
    rng = np.random.default_rng(seed)
    held_out = train["identity"].isin(rng.choice(usable, size=count, replace=False))
    part = train[held_out].reset_index(drop=True)
    is_query = choose_queries(part, rng)
    return (
        train[~held_out].reset_index(drop=True),
        part[is_query].reset_index(drop=True),
        part[~is_query].reset_index(drop=True),
    )
