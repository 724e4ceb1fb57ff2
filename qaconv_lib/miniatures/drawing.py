"""Drawing the miniatures, packing them into archives, and inspecting them.

Every image has random numbers of its own, so it can be drawn alone or by any process.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import signal
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from tqdm import tqdm

from qaconv_lib._files import check_writable, write_whole
from qaconv_lib.datasets import ReidDataset, load_image

from .cameras import DAYLIGHT, Camera, sample_camera
from .domains import DOMAINS, PART_NAMES
from .people import Person, sample_family, sample_person
from .plans import MINIATURES, POPULATIONS, Miniature, make_plan, seeded
from .render import Drawing, render_background, render_person

_SIZE = (128, 64)
_THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_PALETTE = (
    (0, 0, 0), (250, 210, 60), (220, 60, 50), (150, 40, 120), (70, 150, 230), (20, 80, 160),
    (130, 200, 250), (60, 120, 200), (90, 190, 90), (20, 110, 50), (160, 230, 140), (60, 150, 90),
    (250, 150, 50), (190, 90, 20), (160, 110, 70), (128, 128, 128), (200, 200, 200),
)  # fmt: skip

Change = Callable[[Person], Person]


def plan(name: str) -> pd.DataFrame:
    """The plan of a miniature: one row per image, see `plans.make_plan`."""
    return _world(name).plan.copy()


class _World:
    """Plan, people and cameras of one miniature, drawn when they are needed."""

    def __init__(self, spec: Miniature) -> None:
        self.spec, self.domain, self.plan = spec, DOMAINS[spec.domain], make_plan(spec)
        self.rows = self.plan.to_dict("records")
        self.position = {row["path"]: index for index, row in enumerate(self.rows)}
        visible = self.plan[self.plan["population"] != "nobody"]
        self.sizes = visible.groupby("population")["person"].nunique().to_dict()
        groups = visible[visible["group"] >= 0].groupby(["population", "group"])["person"]
        self.groups = {key: tuple(sorted(set(members))) for key, members in groups}

    @functools.cache  # noqa: B019 - a world lives as long as its process
    def camera(self, index: int, time_of_day: int) -> Camera:
        """A camera, under the light of a time of day; its place and its sensor stay as they are."""
        camera = sample_camera(self.domain, seeded(self.spec, "camera", index))
        if time_of_day == 0:
            return camera
        other = sample_camera(self.domain, seeded(self.spec, "camera", index, time_of_day))
        light: dict[str, Any] = {"gain": other.gain, "light_colour": other.light_colour}
        if not camera.indoors and not other.indoors:
            light.update({name: getattr(other, name) for name in DAYLIGHT})
        return replace(camera, **light)

    def camera_of(self, row: dict) -> Camera:
        return self.camera(row["camera"], row["session"] % self.spec.times_of_day)

    @functools.cache  # noqa: B019
    def person(self, population: str, index: int) -> Person:
        """Distractors come from the families of the test people, so that they resemble them."""
        rng = seeded(self.spec, "person", POPULATIONS[population], index)
        in_test = int(population != "train")
        family = int(rng.integers(self.spec.families[in_test]))
        traits = sample_family(self.domain, seeded(self.spec, "family", in_test, family))
        return sample_person(self.domain, traits, rng)

    def bystanders(self, row: dict, rng: np.random.Generator) -> tuple[Person, ...]:
        """Two people who may be in the image, the first of the same group if possible."""
        nobody = row["population"] == "nobody"
        population, own = ("test", None) if nobody else (row["population"], row["person"])
        group = self.groups.get((population, row["group"]), ())
        companions = [person for person in group if person != own]
        chosen = []
        if companions and rng.random() < 0.6:
            chosen.append(int(rng.choice(companions)))
        while len(chosen) < 2:
            other = int(rng.integers(self.sizes[population]))
            if other not in (own, *chosen):
                chosen.append(other)
        return tuple(self.person(population, other) for other in chosen)


@functools.cache
def _world(name: str) -> _World:
    if name not in MINIATURES:
        raise ValueError(f"unknown miniature {name!r}; known are {', '.join(MINIATURES)}")
    return _World(MINIATURES[name])


def draw_image(
    name: str, image: int | str, change: Change | None = None, *, scale: int = 1
) -> Drawing:
    """Draw an image of a miniature again, by its row in the plan or its path in the archive.

    `change` makes another person of the one shown, see `people.CHANGES`; everything else stays as
    it was, to the noise. With a `scale` above 1 it is the same scene through a finer sensor. The
    image is (128 * scale, 64 * scale, 3) uint8, before JPEG.
    """
    world = _world(name)
    index = world.position.get(image, -1) if isinstance(image, str) else image
    if not 0 <= index < len(world.rows):
        paths = f"0 to {len(world.rows) - 1}, or the paths in its archive"
        raise ValueError(f"{name} has the images {paths}, not {image!r}")
    row, size = world.rows[index], (scale * _SIZE[0], scale * _SIZE[1])
    numbers = (POPULATIONS[row["population"]], row["drawing"])
    rng = seeded(world.spec, "draw", *numbers, 0)
    company = world.bystanders(row, seeded(world.spec, "draw", *numbers, 1))
    camera, options = world.camera_of(row), dict[str, Any](bystanders=company, size=size)
    if row["population"] == "nobody":
        return render_background(camera, world.domain, rng, **options)
    person = world.person(row["population"], row["person"])
    options |= {"heading": row["heading"], "labelled_box": row["labelled"]}
    return render_person(change(person) if change else person, camera, world.domain, rng, **options)


def encode_image(name: str, path: str) -> tuple[bytes, bytes | None]:
    """JPEG file of an image and PNG file of its part map (None for training images)."""
    world = _world(name)
    row, drawing, picture = world.rows[world.position[path]], draw_image(name, path), io.BytesIO()
    quality = world.camera_of(row).jpeg_quality
    Image.fromarray(drawing.image).save(picture, "JPEG", quality=quality, optimize=True)
    if row["split"] == "train":
        return picture.getvalue(), None
    parts = io.BytesIO()
    labels = Image.fromarray(drawing.parts, mode="P")
    labels.putpalette([value for colour in _PALETTE for value in colour])
    labels.save(parts, "PNG", optimize=True)
    return picture.getvalue(), parts.getvalue()


def write_archive(
    name: str, out: str | os.PathLike[str], *, jobs: int | None = None, progress: bool = False
) -> Path:
    """Draw a miniature and write ``out/<name>.zip``, whole or not at all.

    It is the same for any number of `jobs` (processes; as many as CPUs if None).
    """
    world = _world(name)
    check_writable(Path(out))
    paths = sorted(world.position)
    content, encode = io.BytesIO(), functools.partial(encode_image, name)
    with zipfile.ZipFile(content, "w") as bundle, mapped(encode, paths, jobs) as files:
        for file_name, text in _texts(world).items():
            _add(bundle, file_name, text.encode(), zipfile.ZIP_DEFLATED)
        bar = tqdm(files, total=len(paths), desc=name, unit="image", disable=not progress)
        for path, (picture, parts) in zip(paths, bar, strict=True):
            _add(bundle, path, picture)
            if parts is not None:
                _add(bundle, str(PurePosixPath("part_maps", path).with_suffix(".png")), parts)
    archive = Path(out) / f"{name}.zip"
    write_whole(archive, content.getvalue())
    return archive


def _end_with_parent() -> None:
    """Leave Ctrl-C to the parent, which then stops its workers, and do not outlive it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()

    def wait() -> None:
        parent.join()  # type: ignore[union-attr]  # this is a worker
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def mapped(function: Callable, items: Sequence, jobs: int | None) -> Iterator[Iterator]:
    """What a function gives for items, in order, here or by processes with one BLAS thread each."""
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if jobs == 1:
        yield map(function, items)
        return
    before = {key: os.environ[key] for key in _THREAD_LIMITS if key in os.environ}
    context = multiprocessing.get_context("spawn")
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))  # inherited by the processes below
    pool = ProcessPoolExecutor(jobs, context, _end_with_parent)
    try:
        yield pool.map(function, items, chunksize=8 if len(items) > 999 else 1)
    except BrokenProcessPool as error:
        raise OSError("a process that draws was ended, perhaps for lack of memory") from error
    finally:
        pool.shutdown(cancel_futures=True)
        for key in _THREAD_LIMITS:
            os.environ.pop(key)
        os.environ.update(before)


def _add(
    bundle: zipfile.ZipFile, name: str, content: bytes, compression: int = zipfile.ZIP_STORED
) -> None:
    """Add a file with fixed time and rights, so that equal drawings give equal archives."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system, entry.external_attr = 3, 0o100644 << 16
    bundle.writestr(entry, content, compress_type=compression)


def _texts(world: _World) -> dict[str, str]:
    """List files of MSMT17, and the manifest."""
    table = world.plan
    texts: dict[str, str] = {}
    if "list" in table:
        for list_name, rows in table.sort_values("path").groupby("list"):
            pairs = zip(rows["path"].str.partition("/")[2], rows["identity"], strict=True)
            texts[str(list_name)] = "".join(f"{path} {label}\n" for path, label in pairs)
    manifest = {
        "name": world.spec.name,
        "about": "drawn people, no photographs; made by `python -m qaconv_lib synthesize`",
        "specification": asdict(world.spec),
        "images": table["split"].value_counts().sort_index().to_dict(),
        "image size": list(_SIZE),
        "part names": list(PART_NAMES),
    }
    texts["manifest.json"] = json.dumps(manifest, indent=1) + "\n"
    return texts


def contact_sheet(
    dataset: ReidDataset, identities: int = 10, cameras: int = 6, *, seed: int = 0
) -> Image.Image:
    """Training people drawn at random, a row each, by the first cameras; grey if not seen there."""
    table = dataset.train[dataset.train["camera"] < cameras]
    rng = np.random.default_rng(seed)
    known = np.sort(table["identity"].unique())
    rows = np.sort(rng.choice(known, size=min(identities, len(known)), replace=False))
    height, width = _SIZE
    sheet = Image.new("RGB", (cameras * (width + 4) - 4, len(rows) * (height + 4) - 4), "white")
    blank = Image.new("RGB", (width, height), (225, 225, 225))
    for top, identity in enumerate(rows):
        for left in range(cameras):
            seen = (table["identity"] == identity) & (table["camera"] == left)
            paths = table["path"][seen].to_numpy()
            tile = load_image(rng.choice(paths)).resize((width, height)) if len(paths) else blank
            sheet.paste(tile, (left * (width + 4), top * (height + 4)))
    return sheet
