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
import hashlib
import numbers
import os
import struct
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError
from tqdm.auto import tqdm

from qaconv_lib._checks import is_number
from qaconv_lib._files import data_folders
from qaconv_lib.layouts import LAYOUTS
from qaconv_lib.layouts.own import read_csv, read_table
from qaconv_lib.layouts.places import find_csv, find_folder, not_found

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


# images ------------------------------------------------------------

_ORIENTATION = 274  # the EXIF tag
#: What turns an image upright, by the value of the tag (EXIF 2.32, section 4.6.4).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_LYING = (5, 6, 7, 8)
_PART_MAPS = "part_maps"
# Others may start programs, as EPS does.
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")
_OPENING = threading.Lock()


class UnreadableImageError(ValueError):
    """A file is no image, a damaged one, or one too large."""


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as RGB, upright.

    A rotation that the file notes (EXIF) is carried out, transparent parts become white, grey, CMYK
    and 16-bit pixels become RGB. Of an animation the first picture is read.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableImageError: the file is no readable image, or has more pixels than Pillow's limit
            (`PIL.Image.MAX_IMAGE_PIXELS`).
    """
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        image = _to_rgb(image)
        return image if turn is None else image.transpose(turn)


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image as `load_image` gives it, from the head of the file alone.

    Raises:
        FileNotFoundError, UnreadableImageError: as `load_image`; damage further on in the file
            goes unseen.
    """
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) in _LYING else (width, height)


def load_part_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Body part shown by each pixel of a query or gallery image of a miniature.

    Args:
        path: the image (not the map), as in the column ``path``.

    Returns:
        (H, W) uint8 of indices into ``qaconv_lib.miniatures.domains.PART_NAMES``; 0 is the
        background.

    Raises:
        FileNotFoundError: the image has no part map: it is a training image, or of no miniature.
    """
    path = Path(path)
    for folder in path.parents:
        if (folder / _PART_MAPS).is_dir():
            part_map = (folder / _PART_MAPS / path.relative_to(folder)).with_suffix(".png")
            if part_map.is_file():
                with _opened(part_map) as image:
                    return np.asarray(image, dtype=np.uint8)
            break
    raise FileNotFoundError(
        f"no part map for {path}; the query and gallery images of the miniatures have one"
    )


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An open image; whatever goes wrong in the block is said in one sentence."""
    name = os.fspath(path)
    if os.path.exists(name) and not (os.path.isfile(name) or os.path.isdir(name)):
        raise UnreadableImageError(
            f"{name} is no regular file"
        )  # reading a pipe could wait forever
    try:
        with _OPENING, warnings.catch_warnings():  # filters are shared by all threads
            warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {name}") from None
    except IsADirectoryError:
        raise UnreadableImageError(f"{name} is a folder, not an image") from None
    except UnidentifiedImageError as error:
        raise UnreadableImageError(
            f"{name} is no image, or of a kind that cannot be read; JPEG and PNG can"
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImageError(
            f"{name} has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first"
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise UnreadableImageError(f"cannot read the image {name}: {error}") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF tag; 1, upright, where there is none or it cannot be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, struct.error, KeyError, TypeError):
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        coloured = image.convert("RGBA")
        paper = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(paper, coloured).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are fractions; whole numbers of 8 or 16 bits are wanted")
    if image.mode.startswith("I"):  # one channel of 16 bits, which Pillow would cut off at 255
        pixels = np.asarray(image).astype(np.int64)
        scale = 257 if pixels.max() > 255 else 1
        return Image.fromarray((pixels // scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


# unreadable ------------------------------------------------------------

_NAMED = 3  # bad files that a message names


def unreadable_images(paths: Iterable[str], progress: bool = False) -> list[str]:
    """Those of the images that cannot be read, or are not there; every image is opened."""

    def is_bad(path: str) -> bool:
        try:
            load_image(path)
        except (UnreadableImageError, FileNotFoundError):
            return True
        return False

    paths = list(map(str, paths))
    bad = _in_threads(is_bad, paths, progress, "opening")
    return [path for path, is_so in zip(paths, bad, strict=True) if is_so]


def content_digests(paths: Iterable[str], progress: bool = False) -> list[str]:
    """One digest a file, equal where the contents are; empty for a file that is not there."""

    def digest(path: str) -> str:
        try:
            return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).hexdigest()
        except OSError:
            return ""

    return _in_threads(digest, list(map(str, paths)), progress, "comparing")


def _in_threads(work: Callable[[str], Any], paths: list[str], progress: bool, what: str) -> list:
    """Results in the order of the paths; reading and decoding leave Python's lock."""
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = pool.map(work, paths)
        bar = tqdm(results, what, len(paths), unit="image", disable=not progress)
        return list(bar)


def name_some(paths: list[str]) -> str:
    """The first few of the paths, for a message."""
    return ", ".join(paths[:_NAMED]) + " ..." * (len(paths) > _NAMED)


def readable_rows(table: pd.DataFrame, what: str, progress: bool = False) -> pd.DataFrame:
    """The rows of a table whose images can be read; a warning says how many cannot, and which.

    Args:
        table: images as `load_dataset` gives them.
        what: what messages call the table.
        progress: show a progress bar.

    Raises:
        UnreadableImageError: none can be read.
    """
    bad = unreadable_images(table["path"], progress)
    if not bad:
        return table
    message = f"{what}: {_count(bad, len(table))}"
    if len(bad) == len(table):
        raise UnreadableImageError(message)
    warnings.warn(f"{message}; their rows are left out", stacklevel=2)
    return table[~table["path"].isin(bad)].reset_index(drop=True)


@contextmanager
def counting_unreadable(table: pd.DataFrame, what: str) -> Iterator[None]:
    """Where the first unreadable image of a table stops the work, say how many there are.

    Raises:
        UnreadableImageError: names what cannot be read and how to go on.
    """
    try:
        yield
    except UnreadableImageError as error:
        bad = unreadable_images(table["path"])
        if not bad:  # it can be read now, or is not of this table
            raise
        raise UnreadableImageError(
            f"{what}: {_count(bad, len(table))}; --skip-unreadable (in Python, "
            "skip_unreadable=True) goes on without them"
        ) from error


def _count(bad: list[str], total: int) -> str:
    verb = "image cannot" if total == 1 else "images cannot"
    return f"{len(bad):,} of {total:,} {verb} be read: {name_some(bad)}"
