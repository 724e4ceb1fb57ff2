"""Drawing the four miniatures and packing them into archives.

Every image has its own random numbers, seeded by the miniature, the split's population and the
image's number, so an image can be drawn alone and archives do not depend on how many processes
drew them.
"""

from __future__ import annotations

import functools
import io
import json
import multiprocessing
import os
import platform
import signal
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from multiprocessing.synchronize import Event
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
import PIL
from PIL import Image
from tqdm import tqdm

from qaconv_lib.miniatures.domains import DOMAINS, PART_NAMES
from qaconv_lib.miniatures.overview import contact_sheet, counts_markdown
from qaconv_lib.miniatures.people import Person, sample_family, sample_person
from qaconv_lib.miniatures.plans import MINIATURES, POPULATIONS, Miniature, make_plan, seeded
from qaconv_lib.miniatures.render import Drawing, render_background, render_person
from qaconv_lib.miniatures.scenes import Camera, sample_camera

__all__ = [
    "MINIATURES",
    "contact_sheet",
    "counts_markdown",
    "draw_image",
    "encode_image",
    "plan",
    "write_archive",
]

_SIZE = (128, 64)
_THREAD_LIMITS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
_DAYLIGHT = ("sun", "ambient", "sun_azimuth", "sun_elevation")
_COMPANION = 0.6  # chance that the first bystander is of the same group
_PALETTE = (
    (0, 0, 0), (250, 210, 60), (220, 60, 50), (150, 40, 120), (70, 150, 230), (20, 80, 160),
    (130, 200, 250), (60, 120, 200), (90, 190, 90), (20, 110, 50), (160, 230, 140), (60, 150, 90),
    (250, 150, 50), (190, 90, 20), (160, 110, 70), (128, 128, 128), (200, 200, 200),
)  # fmt: skip


Files = tuple[bytes, bytes | None]  # image, part map
Change = Callable[[Person], Person]


def plan(name: str) -> pd.DataFrame:
    """The plan of a miniature: one row an image, see ``plans.make_plan``."""
    return _world(name).plan.copy()


class _World:
    """Plan, people and cameras of one miniature, drawn when they are needed."""

    def __init__(self, spec: Miniature) -> None:
        self.spec = spec
        self.domain = DOMAINS[spec.domain]
        self.plan = make_plan(spec)
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
            light.update({name: getattr(other, name) for name in _DAYLIGHT})
        return replace(camera, **light)

    def camera_of(self, row: dict) -> Camera:
        """The camera that took a row's picture."""
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
        """Two people who may be in the picture, the first rather a companion."""
        population = row["population"] if row["population"] in self.sizes else "test"
        group = self.groups.get((population, row["group"]), ())
        companions = [person for person in group if person != row["person"]]
        chosen = []
        if companions and rng.random() < _COMPANION:
            chosen.append(int(rng.choice(companions)))
        others = self.sizes[population] - (row["population"] != "nobody")
        while len(chosen) < min(2, others):
            other = int(rng.integers(self.sizes[population]))
            if other not in chosen and (other != row["person"] or row["population"] == "nobody"):
                chosen.append(other)
        return tuple(self.person(population, other) for other in chosen)

    def draw(self, index: int, change: Change | None = None) -> Drawing:
        row = self.rows[index]
        camera = self.camera_of(row)
        numbers = (POPULATIONS[row["population"]], row["drawing"])
        bystanders = self.bystanders(row, seeded(self.spec, "draw", *numbers, 1))
        rng = seeded(self.spec, "draw", *numbers, 0)
        if row["population"] == "nobody":
            return render_background(camera, self.domain, rng, size=_SIZE, bystanders=bystanders)
        person = self.person(row["population"], row["person"])
        return render_person(
            change(person) if change else person, camera, self.domain, rng,
            heading=row["heading"], bystanders=bystanders, labelled_box=row["labelled"], size=_SIZE,
        )  # fmt: skip


@functools.cache
def _world(name: str) -> _World:
    if name not in MINIATURES:
        raise ValueError(f"unknown miniature {name!r}; known are {', '.join(MINIATURES)}")
    return _World(MINIATURES[name])


def _index(name: str, image: int | str) -> int:
    world = _world(name)
    if isinstance(image, str):
        matches = (
            [image]
            if image in world.position
            else [p for p in world.position if p.endswith("/" + image)]
        )
        if len(matches) != 1:
            found = (
                f"{len(matches)} images end in that: {', '.join(matches)}"
                if matches
                else "there is none"
            )
            raise ValueError(
                f"{name} should have one image {image!r}, but {found}; give its path in the archive"
            )
        return world.position[matches[0]]
    if not 0 <= image < len(world.rows):
        raise ValueError(f"{name} has the images 0 to {len(world.rows) - 1}, not {image}")
    return int(image)


def draw_image(name: str, image: int | str, change: Change | None = None) -> Drawing:
    """Draw one image of a miniature again.

    Args:
        name: of the miniature.
        image: row of its plan, or its file name.
        change: makes somebody else of the person the image is about, see `changes`; everything
            else stays as it was, to the noise.

    Returns:
        The image before JPEG, (128, 64, 3) uint8, and its part map, (128, 64) uint8.
    """
    return _world(name).draw(_index(name, image), change)


def encode_image(name: str, image: int | str) -> Files:
    """JPEG file of an image and PNG file of its part map (None for training images)."""
    world, index = _world(name), _index(name, image)
    row, drawing = world.rows[index], world.draw(index)
    picture = io.BytesIO()
    quality = int(world.camera_of(row).jpeg_quality)
    Image.fromarray(drawing.image).save(picture, "JPEG", quality=quality, optimize=True)
    if row["split"] == "train":
        return picture.getvalue(), None
    parts = io.BytesIO()
    labels = Image.fromarray(drawing.parts, mode="P")
    labels.putpalette([value for colour in _PALETTE for value in colour])
    labels.save(parts, "PNG", optimize=True)
    return picture.getvalue(), parts.getvalue()


def _encode_task(task: tuple[str, str]) -> Files:
    if _stopped is not None and _stopped.is_set():
        raise InterruptedError("the drawing was stopped")
    return encode_image(*task)


_stopped: Event | None = None  # set when nobody waits for the drawings of this process any more


def _prepare(stopped: Event) -> None:
    """Make a process leave Ctrl-C to the one that started it, which then stops all of them."""
    global _stopped
    _stopped = stopped
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def write_archive(
    name: str, folder: str | os.PathLike[str], *, jobs: int | None = None, progress: bool = False
) -> Path:
    """Draw a miniature and write ``folder/<name>.zip``, whole or not at all.

    Args:
        name: of the miniature.
        folder: made if absent.
        jobs: processes; the number of CPUs if None. The archive is the same for any number.
        progress: show a bar on stderr.

    Returns:
        The archive's path.
    """
    world = _world(name)
    jobs = (os.cpu_count() or 1) if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = sorted(world.position)
    handle, temporary = tempfile.mkstemp(prefix=f".{name}-", suffix=".zip", dir=folder)
    try:
        with os.fdopen(handle, "wb") as stream:
            with zipfile.ZipFile(stream, "w") as bundle:
                for file_name, text in _texts(world).items():
                    _add(bundle, file_name, text.encode(), zipfile.ZIP_DEFLATED)
                with _drawn([(name, path) for path in paths], jobs) as files:
                    bar = tqdm(
                        files, total=len(paths), desc=name, unit="image", disable=not progress
                    )
                    for path, (picture, parts) in zip(paths, bar, strict=True):
                        _add(bundle, path, picture)
                        if parts is not None:
                            part_map = PurePosixPath("part_maps", path).with_suffix(".png")
                            _add(bundle, str(part_map), parts)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).chmod(0o644)
        os.replace(temporary, folder / f"{name}.zip")
    finally:
        Path(temporary).unlink(missing_ok=True)
    return folder / f"{name}.zip"


@contextmanager
def _drawn(tasks: list[tuple[str, str]], jobs: int) -> Iterator[Iterator[Files]]:
    """Encoded images in order, drawn here or by processes with one BLAS thread each."""
    if jobs == 1:
        yield map(_encode_task, tasks)
        return
    before = {key: os.environ.get(key) for key in _THREAD_LIMITS}
    os.environ.update(dict.fromkeys(_THREAD_LIMITS, "1"))  # inherited by the processes below
    context = multiprocessing.get_context("spawn")
    stopped = context.Event()
    pool = ProcessPoolExecutor(jobs, context, _prepare, (stopped,))
    try:
        yield pool.map(_encode_task, tasks, chunksize=32)
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)
        for key, value in before.items():
            os.environ.pop(key) if value is None else os.environ.update({key: value})


def _add(
    bundle: zipfile.ZipFile, name: str, content: bytes, compression: int = zipfile.ZIP_STORED
) -> None:
    """Add a file with fixed time and rights, so that equal drawings give equal archives."""
    entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    entry.create_system = 3
    entry.external_attr = 0o100644 << 16
    bundle.writestr(entry, content, compress_type=compression)


def _texts(world: _World) -> dict[str, str]:
    """List files of MSMT17, and the manifest."""
    table = world.plan
    texts = {}
    if "list" in table:
        for list_name, rows in table.sort_values("path").groupby("list"):
            lines = [
                f"{path.partition('/')[2]} {label}\n"
                for path, label in zip(rows["path"], rows["identity"], strict=True)
            ]
            texts[str(list_name)] = "".join(lines)
    manifest = {
        "name": world.spec.name,
        "about": "drawn people, no photographs; made by `python -m qaconv_lib synthesize`",
        "specification": asdict(world.spec),
        "images": table["split"].value_counts().sort_index().to_dict(),
        "image size": list(_SIZE),
        "part names": list(PART_NAMES),
        "drawn with": {
            "python": platform.python_version(), "numpy": np.__version__, "pandas": pd.__version__,
            "pillow": PIL.__version__,
        },
    }  # fmt: skip
    texts["manifest.json"] = json.dumps(manifest, indent=1) + "\n"
    return texts
