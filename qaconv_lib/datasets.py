"""Re-identification datasets as tables, and their images (built in chapter 1).

A set of images is a pandas table with the columns `path`, `identity` (0 = distractor in
Market-1501), `camera` (from 0), `session` (as in the file name, or the scene of rendered data, else
0), `frame` (number in the file name) and `seconds` (on the camera's clock; NaN if unknown).
"""

from __future__ import annotations

import hashlib
import numbers
import os
import re
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, UnidentifiedImageError

from qaconv_lib._checks import is_number
from qaconv_lib._files import data_folders
from qaconv_lib.layouts import LAYOUTS, WORLD
from qaconv_lib.layouts.own import read_csv, read_table
from qaconv_lib.layouts.places import find_csv, find_folder, not_found

#: Miniature -> name of its archive, name of its layout.
MINIATURES = {
    "mini-market": ("mini-market", "market1501"),
    "mini-duke": ("mini-duke", "dukemtmc"),
    "mini-cuhk03": ("mini-cuhk03", "cuhk03-np-detected"),
    "mini-cuhk03-detected": ("mini-cuhk03", "cuhk03-np-detected"),
    "mini-cuhk03-labeled": ("mini-cuhk03", "cuhk03-np-labeled"),
    "mini-msmt17": ("mini-msmt17", "msmt17"),
}
#: Names that ``load_dataset`` knows.
DATASETS = (*LAYOUTS, *MINIATURES)


@dataclass(frozen=True, repr=False, eq=False)
class ReidDataset:
    """A dataset with its standard split; people of `distractor_identity` belong to no query.

    `numbered_together` says that an identity is one person in all splits, as in your own tables.
    """

    name: str
    root: Path
    train: pd.DataFrame
    query: pd.DataFrame
    gallery: pd.DataFrame
    distractor_identity: int | None = None
    numbered_together: bool = False

    @property
    def splits(self) -> dict[str, pd.DataFrame]:
        """The three tables by name."""
        return {"train": self.train, "query": self.query, "gallery": self.gallery}

    @property
    def has_time(self) -> bool:
        """Whether there are queries, and every query and gallery image has a time in seconds."""
        seconds = pd.concat([self.query["seconds"], self.gallery["seconds"]])
        return self.has_test and bool(seconds.notna().all())

    @property
    def untimed(self) -> str:
        """Where only some query and gallery images have a time: how many lack one, in words."""
        seconds = pd.concat([self.query["seconds"], self.gallery["seconds"]])
        lacking = int(seconds.isna().sum())
        if not 0 < lacking < len(seconds):
            return ""
        return f"{lacking:,} of {len(seconds):,} query and gallery images have no time (seconds)"

    @property
    def has_test(self) -> bool:
        """Whether there are query and gallery images; RandPerson, for example, has none."""
        return len(self.query) > 0 and len(self.gallery) > 0

    @property
    def num_cameras(self) -> int:
        """Number of cameras over all splits."""
        return int(pd.concat(table["camera"] for table in self.splits.values()).nunique())

    def summary(self) -> pd.DataFrame:
        """Counts of each split; distractors count as images, not as an identity."""
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
        counts = self.summary().query("images > 0")[["images", "identities"]].itertuples()
        parts = [f"{split} {n:,} images of {people:,} identities" for split, n, people in counts]
        time = "with time" if self.has_time else "without time"
        time = time if self.has_test else "nothing to test on"
        return f"ReidDataset({self.name!r}: {', '.join(parts)}; {self.num_cameras} cameras; {time})"


def load_dataset(name: str, root: str | os.PathLike[str] | None = None) -> ReidDataset:
    """Load a public dataset, a miniature, or your own images.

    Args:
        name: one of ``DATASETS``, a world drawn by ``synthesize world`` (``mini-world``), or a CSV
            file such as ``people.csv`` with the columns of `dataset_from_table`, whose paths start
            at its folder. ``-all`` after a name makes all splits training images. Names joined by
            ``+`` (a CSV file first), as in ``mini-world+mini-duke``, make one training set of
            distinct people and cameras, with nothing to test on; ``root`` holds all of them.
        root: the dataset's folder, zip or CSV file, or the folder that has it. If None, it is
            looked for in `data_folders`: those named by the environment variable ``QACONV_DATA``,
            and ``data/`` of the checkout, of the working directory and of the folders above it.
    """
    if "+" in name and not name.lower().endswith(".csv"):
        return _union(name, root)
    if name.endswith("-all"):
        whole = load_dataset(name.removesuffix("-all"), root)
        return ReidDataset(name, whole.root, all_images(whole), *[whole.query.iloc[:0]] * 2)
    places = data_folders() if root is None else [Path(os.path.expanduser(root))]
    if name.lower().endswith(".csv"):
        path = find_csv(name, places)
        return ReidDataset(name, path.parent, **read_csv(path), numbered_together=True)
    if name not in DATASETS and not re.fullmatch(r"mini-world(-(?!1$|40$)[1-9]\d*)?", name):
        raise ValueError(
            f"unknown dataset {name!r}; known are {', '.join(DATASETS)}, mini-world, and CSV files "
            "such as people.csv; name-all trains on all splits, and name+name on both datasets"
        )
    archive, layout_name = MINIATURES.get(name, (None if name in LAYOUTS else name, name))
    layout = LAYOUTS.get(layout_name, WORLD)
    folder = find_folder(layout, archive, places, given=root is not None)
    if folder is None:
        raise FileNotFoundError(not_found(name, layout, archive, places, root))
    return ReidDataset(name, folder, **layout.read(folder), distractor_identity=layout.distractor)


def _union(name: str, root: str | os.PathLike[str] | None) -> ReidDataset:
    """The training sets of several datasets as one; people and cameras of each are its own."""
    names = name.split("+")
    sources = [re.sub("(-all|-detected|-labeled|(?<=world)-[0-9]+)+$", "", part) for part in names]
    if twice := [part for part in names if sources.count(sources[names.index(part)]) > 1]:
        raise ValueError(f"{name} names the same images twice: {' and '.join(twice)}")
    parts, identities, cameras = [], 0, 0
    for table in (load_dataset(part, root).train for part in names):
        people = table["identity"].rank(method="dense").astype(int) - 1
        table = table.assign(identity=people + identities, camera=table["camera"] + cameras)
        identities, cameras = table["identity"].max() + 1, table["camera"].max() + 1
        parts.append(table)
    train = pd.concat(parts, ignore_index=True)
    return ReidDataset(name, Path(root or "."), train, train.iloc[:0], train.iloc[:0])


def dataset_from_table(
    table: pd.DataFrame, root: str | os.PathLike[str] = ".", name: str = "own images"
) -> ReidDataset:
    """A dataset of your own images, from a table with one row per image.

    Its columns are ``path`` (relative ones start at `root`), ``identity`` and ``camera``, and
    perhaps ``seconds`` (time on the camera's clock, may be empty) and ``split`` (train, query or
    gallery; default train). Identities and cameras are whole numbers, which stay as they are, or
    names, which are numbered in sorted order, identities from 1 and cameras from 0.
    """
    tables = read_table(table.reset_index(drop=True), Path(root), name)
    return ReidDataset(name, Path(root), **tables, numbered_together=True)


def all_images(dataset: ReidDataset) -> pd.DataFrame:
    """All splits as one training table, identities renumbered from 0, without distractors.

    The paper trains on all of MSMT17 in this way (Table 3). Training and test people differ there
    and in the other public datasets, but not if the dataset is `numbered_together`.
    """
    table = pd.concat(dataset.splits.values(), ignore_index=True)
    table["tested"] = (table.index >= len(dataset.train)) & (not dataset.numbered_together)
    table = table[table["identity"] != dataset.distractor_identity]
    table = table.drop_duplicates("path", ignore_index=True)  # one image, query and gallery
    people = table.groupby(["tested", "identity"])
    return table.assign(identity=people.ngroup()).drop(columns="tested")


def content_key(table: pd.DataFrame, labels: Iterable[str] = ("identity",)) -> str:
    """Sixteen digits that name the contents of a table's images and some of its columns.

    Neither the images' folder nor their names count, so data that moved keep their key.
    """
    key = hashlib.sha256(table[list(labels)].to_csv(index=False, lineterminator="\n").encode())
    for path in map(Path, table["path"]):
        key.update(hashlib.sha256(path.read_bytes() if path.is_file() else b"").digest())
    return key.hexdigest()[:16]


def choose_queries(table: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Choose one query per identity and camera, as Market-1501 does: (len(table),) bool.

    The gallery keeps an image of each, so every query has a match under another camera.
    """
    chosen = np.zeros(len(table), dtype=bool)
    cameras_of = table.groupby("identity")["camera"].nunique()
    for (identity, _), rows in sorted(table.groupby(["identity", "camera"]).indices.items()):
        if len(rows) >= 2 and cameras_of[identity] >= 2:
            chosen[rng.choice(rows)] = True
    return chosen


def validation_split(
    train: pd.DataFrame, identities: int | float = 0.2, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Hold out training identities, so that settings are chosen without looking at test images.

    `identities` is their number or, as a float, their share. Returns the remaining training table,
    and query and gallery of the held-out identities, as `choose_queries` divides them.
    """
    total = train["identity"].nunique()
    if not is_number(identities) or not np.isfinite(identities):
        raise ValueError(f"identities must be a number or a share of them, got {identities!r}")
    count = identities if isinstance(identities, numbers.Integral) else round(identities * total)
    seen = train.groupby(["identity", "camera"]).size().groupby("identity").agg(["size", "max"])
    usable = seen.index[(seen >= 2).all(axis=1)].to_numpy()
    most = min(len(usable), total - 1)
    if not 1 <= count <= most:
        raise ValueError(
            f"cannot hold out {count} of {total} identities, only 1 to {most}; two cameras must "
            "have seen each, one of them twice, and one identity must remain"
        )
    rng = np.random.default_rng(seed)
    held_out = train["identity"].isin(rng.choice(usable, size=count, replace=False))
    part = train[held_out]
    is_query = choose_queries(part, rng)
    rest, query, gallery = train[~held_out], part[is_query], part[~is_query]
    return tuple(table.reset_index(drop=True) for table in (rest, query, gallery))


# Images -------------------------------------------------------------------------------------------

_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # readers of others may start programs
_TURNS = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}  # EXIF orientation -> Image.Transpose
_OPENING = threading.Lock()


class UnreadableImageError(ValueError):
    """A file is not an image, is damaged, or is too large."""


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as RGB, turned upright as its EXIF data say.

    Transparent parts become white, 16-bit values are scaled to 8 bits, and of an animation the
    first frame is read. Images above Pillow's limit (`PIL.Image.MAX_IMAGE_PIXELS`) are refused.
    """
    with _opened(path) as image:
        turn = _TURNS.get(_orientation(image))
        image.load()
        image = _to_rgb(image)
        return image if turn is None else image.transpose(Image.Transpose(turn))


def image_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Width and height of an image as `load_image` returns it, from the head of the file alone."""
    with _opened(path) as image:
        width, height = image.size
        return (height, width) if _orientation(image) >= 5 else (width, height)


def load_part_map(path: str | os.PathLike[str]) -> np.ndarray:
    """Body part shown by each pixel of a query or gallery image of a miniature: (H, W) uint8.

    Indices into `qaconv_lib.miniatures.domains.PART_NAMES`; 0 is the background.
    """
    path = Path(path)
    for folder in path.parents:
        part_map = (folder / "part_maps" / path.relative_to(folder)).with_suffix(".png")
        if part_map.is_file():
            with _opened(part_map) as image:
                return np.asarray(image, dtype=np.uint8)
    raise FileNotFoundError(f"no part map for {path}; only test images of the miniatures have one")


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """An open image; any error in the block becomes one sentence."""
    if os.path.exists(path) and not os.path.isfile(path):  # reading a pipe could wait forever
        raise UnreadableImageError(f"{path} is not a file, but a folder or a device")
    try:
        with _OPENING, warnings.catch_warnings():  # filters are shared by all threads
            warnings.filterwarnings("ignore", module="PIL")  # of odd metadata
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            image = Image.open(path, formats=_FORMATS)
        with image:
            yield image
    except FileNotFoundError:
        raise FileNotFoundError(f"no image at {path}") from None
    except UnidentifiedImageError as error:
        flaw = "is not an image in a readable format, such as JPEG or PNG"
        raise UnreadableImageError(f"{path} {flaw}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        flaw = f"has more than {Image.MAX_IMAGE_PIXELS:,} pixels; make it smaller first"
        raise UnreadableImageError(f"{path} {flaw}") from error
    except Exception as error:  # decoders of damaged files raise anything
        raise UnreadableImageError(f"cannot read the image {path}: {error}") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, if there is none or it cannot be read."""
    try:
        return image.getexif().get(274, 1)
    except Exception:  # damaged metadata raise anything
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are fractions; whole numbers of 8 or 16 bits are expected")
    if image.mode.startswith("I"):  # one channel of 16 bits, which Pillow would cut off at 255
        pixels = np.asarray(image).astype(np.int64)
        pixels = pixels // (257 if pixels.max() > 255 else 1)
        image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
