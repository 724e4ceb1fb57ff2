"""Re-identification datasets as tables (built in chapter 1).

``load_dataset`` reads the public datasets and the miniatures that ship with this repository
through the same code, for the miniatures keep the public layouts. A set of images is a pandas
table with the columns

=========  ================================================================================
path       image file
identity   who is on it; 0 = distractor in Market-1501
camera     from 0
session    as the file name counts it (Market-1501), else 0
frame      number in the file name; a time only where ``seconds`` is one
seconds    time on the camera's clock, NaN where the dataset has none
=========  ================================================================================

Which gallery images are junk for which query is not decided here but when results are evaluated.
"""

from __future__ import annotations

import numbers
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from qaconv_lib.archives import data_folders, unpack_archive
from qaconv_lib.arrays import is_number
from qaconv_lib.layouts import LAYOUTS, Layout

__all__ = [
    "DATASETS",
    "ReidDataset",
    "all_images",
    "choose_queries",
    "load_dataset",
    "load_image",
    "load_part_map",
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
_PART_MAPS = "part_maps"
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")  # others may start programs, as EPS does
_UNREADABLE = (OSError, SyntaxError, ValueError, LookupError, TypeError, EOFError, struct.error)


@dataclass(frozen=True, repr=False, eq=False)
class ReidDataset:
    """A dataset with its standard split.

    Attributes:
        name: name it was loaded by.
        root: its folder.
        train, query, gallery: tables of images, see the head of this module.
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
        """Whether every query and gallery image has a time in seconds."""
        return bool(self.query["seconds"].notna().all() and self.gallery["seconds"].notna().all())

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
        ]
        time = "with time" if self.has_time else "without time"
        return f"ReidDataset({self.name!r}: {', '.join(parts)}; {self.num_cameras} cameras; {time})"


def load_dataset(name: str, root: str | os.PathLike[str] | None = None) -> ReidDataset:
    """Load a public dataset or a miniature.

    Args:
        name: one of ``DATASETS``; ``mini-cuhk03`` means its detected boxes.
        root: the dataset's folder or the folder above it; for a miniature also its zip file or the
            folder that holds it. None looks in the data search path: the environment variable
            ``QACONV_DATA``, ``data/`` beside the package, ``data/`` of the working directory and
            of the folders above it.

    Raises:
        FileNotFoundError: the dataset, or an image that one of its lists names, is not there.
        ValueError: unknown name, an empty split, a file name that cannot be read, or a damaged
            archive.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}; known are {', '.join(DATASETS)}")
    archive, layout_name = _MINIATURES.get(name, (None, name))
    layout = LAYOUTS[layout_name]
    places = data_folders() if root is None else [Path(root)]
    folder = _find(layout, archive, places, given=root is not None)
    if folder is None:
        raise FileNotFoundError(_not_found(name, layout, archive, places, root))
    tables = layout.read(folder)
    return ReidDataset(name, folder, **tables, distractor_identity=layout.distractor)


def _find(layout: Layout, archive: str | None, places: list[Path], given: bool) -> Path | None:
    """First folder of the dataset in ``places``; ``given`` says that the caller named the place."""
    for place in places:
        if archive is not None:
            bundle = place / f"{archive}.zip" if place.is_dir() else place
            if bundle.is_file():
                return unpack_archive(bundle)
            if (folder := layout.find(place / archive)) is not None:
                return folder
        if (given or archive is None) and (folder := layout.find(place)) is not None:
            return folder
    return None


def _not_found(
    name: str,
    layout: Layout,
    archive: str | None,
    places: list[Path],
    root: str | os.PathLike[str] | None,
) -> str:
    looked = ", ".join(str(place) for place in places) or "no folder at all"
    if root is not None and not Path(root).exists():
        return f"{name}: there is no folder {root}"
    wanted = f"a folder {layout.folders[0]} with {layout.describe()}"
    if archive is not None:
        return (
            f"{name}: neither {archive}.zip nor {wanted} found in {looked}; "
            f"draw it with `python -m qaconv_lib synthesize {archive}`, "
            "or name its place with root= or QACONV_DATA"
        )
    return f"{name}: {wanted} not found in {looked}; name its place with root= or QACONV_DATA"


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as RGB.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no readable image.
    """
    return _decode(path, "RGB")


def _decode(path: str | os.PathLike[str], mode: str | None) -> Image.Image:
    """A picture's pixels, converted to a mode of Pillow's, or as they are."""
    try:
        with Image.open(path, formats=_FORMATS) as image:
            image.load()
            return image if mode is None else image.convert(mode)
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {os.fspath(path)}") from None
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise ValueError(f"cannot read the image {os.fspath(path)}: {error}") from error


def load_part_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Body part shown by each pixel of a query or gallery image of a miniature.

    Args:
        path: the image (not the map), as in the column ``path``.

    Returns:
        (H, W) uint8 of indices into ``qaconv_lib.synthetic.domains.PART_NAMES``; 0 is the
        background.

    Raises:
        FileNotFoundError: the image has no part map: it is a training image, or of no miniature.
        ValueError: the part map is no readable image.
    """
    path = Path(path)
    for folder in path.parents:
        if (folder / _PART_MAPS).is_dir():
            part_map = (folder / _PART_MAPS / path.relative_to(folder)).with_suffix(".png")
            if part_map.is_file():
                return np.asarray(_decode(part_map, None), dtype=np.uint8)
            break
    raise FileNotFoundError(
        f"no part map for {path}; the query and gallery images of the miniatures have one"
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
