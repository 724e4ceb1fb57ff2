"""`mini-world`: a training set of drawn people that is drawn on demand instead of shipped.

A person's images depend on the seed and on the number of cameras, but not on how many other people
there are, so a smaller world is a part of a larger one and can grow.
"""

from __future__ import annotations

import functools
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from qaconv_lib._files import check_writable, write_json, write_whole
from qaconv_lib.datasets import choose_queries

from .cameras import Camera
from .domains import DOMAINS, Colour, as_colour, weights
from .drawing import mapped
from .people import Person, sample_family, sample_person
from .plans import FOLDERS
from .prints import PRINTS
from .wild import Look, photograph, sample_view, vary

VERSION = 1  # of the drawing: images of two versions are not mixed in one folder
SESSIONS = 4  # days on which each camera records, with other views and another light
_FAMILY = 5  # look-alikes
_FIRST_HELD_OUT = 50_001  # identity
_PASSERS_BY = 600
_STREAMS = {"camera": 0, "family": 1, "person": 2, "walk": 3, "split": 4, "draw": 5}
_POPULATIONS = {"train": 0, "test": 1, "passer-by": 2}
_CLOTHES = dict(
    patterns=weights(
        "plain 0.59, stripes 0.06, pinstripes 0.02, check 0.007, plaid 0.04, yoke 0.035, "
        "block 0.04, band 0.03, gradient 0.02, print 0.015, sides 0.03, camouflage 0.015, "
        "floral 0.025, picture 0.015, melange 0.09, geometric 0.012"
    ),
    skins=(0.36, 0.28, 0.16, 0.11, 0.09),
    scarf=0.07,
    redraw_lower=0.4,
    colour_jitter=0.04,
)
_SEASONS = [
    replace(DOMAINS[name], name="world", **_CLOTHES)  # type: ignore[arg-type]
    for name in ("market", "duke", "msmt17")
]
_VIEWS = replace(
    DOMAINS["msmt17"], name="world", cast=0.06, gain=(0.7, 1.4), gamma=(0.75, 1.25),
    saturation=(0.5, 1.2), contrast=(0.75, 1.25), sun=(0.05, 1.2), ambient=(0.35, 0.9),
    sun_elevation=(10, 80), warmth=0.10,
)  # fmt: skip


@dataclass(frozen=True)
class World:
    """What a world consists of; a tenth more people, under other cameras, is held out."""

    identities: int = 1500
    cameras: int = 40
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("identities", 2), ("cameras", 2), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.identities >= _FIRST_HELD_OUT:
            raise ValueError(f"identities must be below {_FIRST_HELD_OUT}, got {self.identities}")

    @property
    def name(self) -> str:
        """Its name as a dataset: `mini-world`, or with ten cameras `mini-world-10`."""
        return "mini-world" if self.cameras == World.cameras else f"mini-world-{self.cameras}"

    def rng(self, stream: str, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, 2200, _STREAMS[stream], *numbers])


@functools.lru_cache(maxsize=4)
def plan(world: World) -> pd.DataFrame:
    """One row per image: path, split, population, person, identity, camera, session, heading."""
    rows: list[tuple] = []
    people, cameras = max(2, world.identities // 10), max(2, world.cameras // 5)
    for population, count, first, own in (
        ("train", world.identities, 0, world.cameras), ("test", people, world.cameras, cameras),
    ):  # fmt: skip
        for person in range(count):
            rng = world.rng("walk", _POPULATIONS[population], person)
            visits = min(own, int(rng.integers(4, 9)))
            for camera in rng.choice(own, size=visits, replace=False):
                session, way = int(rng.integers(SESSIONS)), rng.uniform(-np.pi, np.pi)
                for _ in range(rng.choice([2, 3, 4, 5], p=[0.3, 0.3, 0.2, 0.2])):
                    way += 0.3 * rng.normal()
                    rows.append((population, person, first + int(camera), session, way))
    table = pd.DataFrame(rows, columns=["population", "person", "camera", "session", "heading"])
    test = table["population"] == "test"
    table["identity"] = table["person"] + np.where(test, _FIRST_HELD_OUT, 1)
    table["image"] = table.groupby(["population", "person"]).cumcount()
    table["split"] = np.where(test, "gallery", "train")
    chosen = choose_queries(table.loc[test, ["identity", "camera"]], world.rng("split"))
    table.loc[table.index[test][chosen], "split"] = "query"
    table["path"] = [
        f"{FOLDERS[row.split]}/{row.identity:05d}_c{row.camera + 1:02d}_{row.image:03d}.jpg"
        for row in table.itertuples()
    ]
    return table


@functools.lru_cache(maxsize=4096)
def person(world: World, population: str, index: int) -> Person:
    """A person; five in a row are look-alikes."""
    numbers = _POPULATIONS[population], index // _FAMILY
    shared = world.rng("family", *numbers)
    domain = _SEASONS[shared.integers(len(_SEASONS))]
    family = sample_family(domain, shared)
    vivid = 1.0 if shared.random() < 0.4 else shared.uniform(0.1, 0.9)
    bright = 1.0 if shared.random() < 0.5 else shared.uniform(0.25, 1.0)
    rng = world.rng("person", _POPULATIONS[population], index)
    found = sample_person(domain, family, rng)

    def mute(colour: Colour, darker: float = 1.0) -> Colour:
        grey = float(np.mean(colour))
        return as_colour(np.clip(darker * (grey + vivid * (np.array(colour) - grey)), 0.03, 0.97))

    top, emblem = found.top, found.top.emblem
    if rng.random() < 0.4:
        emblem = replace(emblem, shape=str(rng.choice(PRINTS)))
    wide = rng.normal(1, 0.07)
    body = _scaled(
        _scaled(found.body, limb=wide, waist=wide),
        height=rng.uniform(0.7, 0.95) if rng.random() < 0.05 else 1.0,  # a child
        limb=rng.uniform(0.92, 1.1),
        hips=rng.uniform(0.94, 1.08),
        head=rng.uniform(0.95, 1.1),
        stride=rng.uniform(0.55, 1.1),
    )
    parts = ("colour", "sleeve_colour", "collar_colour")
    colours: dict[str, Any] = {name: mute(getattr(top, name), bright) for name in parts}
    top = replace(top, emblem=emblem, inner=mute(top.inner), **colours)
    top = _scaled(top, ease=rng.uniform(0.8, 1.8), folds=rng.uniform(0.7, 1.6))
    bottom = replace(found.bottom, colour=mute(found.bottom.colour))
    return replace(found, body=body, top=top, bottom=_scaled(bottom, ease=rng.uniform(0.7, 1.6)))


def _scaled(part: Any, **factors: float) -> Any:
    return replace(part, **{name: getattr(part, name) * by for name, by in factors.items()})


@functools.lru_cache(maxsize=256)
def view(world: World, camera: int, session: int) -> tuple[Camera, Look]:
    """A camera as it is on one day."""
    own, look = sample_view(_VIEWS, world.rng("camera", camera))
    return vary(own, _VIEWS, world.rng("camera", camera, 1 + session)), look


def draw_image(world: World, row: dict[str, Any]) -> bytes:
    """The JPEG file of one row of the plan."""
    rng = world.rng("draw", _POPULATIONS[row["population"]], row["person"], row["image"])
    camera, look = view(world, row["camera"], row["session"])
    others = [person(world, "passer-by", int(i)) for i in rng.integers(_PASSERS_BY, size=2)]
    shown = _today(person(world, row["population"], row["person"]), rng)
    image = photograph(shown, camera, look, rng, heading=row["heading"], passers_by=others)
    content = io.BytesIO()
    image.save(content, "JPEG", quality=90)
    return content.getvalue()


def _today(person: Person, rng: np.random.Generator) -> Person:
    """The same person with a coat open or closed, a hood up or down, another thing in hand."""
    top, bag, hat = person.top, person.bag, person.headwear
    if top.kind in ("jacket", "coat", "hoodie") and rng.random() < 0.15:
        top = replace(top, opening=0.0 if top.opening else float(rng.uniform(0.03, 0.09)))
    if rng.random() < 0.15:
        bag = replace(bag, handheld=str(rng.choice(["none", "phone", "cup", "umbrella"])))
    if top.collar == "hood" and rng.random() < 0.1:
        hat = replace(hat, kind="none" if hat.kind == "hood" else "hood")
    return replace(person, top=top, bag=bag, headwear=hat)


def _draw_rows(world: World, folder: Path, indices: Sequence[int]) -> int:
    """Draw and write images, by their rows in the plan; returns how many."""
    for row in plan(world).iloc[list(indices)].to_dict("records"):
        write_whole(folder / row["path"], draw_image(world, row))
    return len(indices)


def write_world(
    world: World, out: str | os.PathLike[str], *, jobs: int | None = None, progress: bool = False
) -> Path:
    """Draw a world into a folder of its name in `out`; what is there of it already is kept.

    It is the same for any number of `jobs` (processes; as many as CPUs if None). ValueError if the
    folder holds a world that cannot grow into this one, or its manifest is damaged.
    """
    folder = Path(out) / world.name
    table = plan(world)
    manifest: dict[str, Any] = {
        "name": world.name,
        "about": "drawn people, no photographs; made by `python -m qaconv_lib synthesize world`",
        "world": {**asdict(world), "version": VERSION},
        "images": table["split"].value_counts().sort_index().to_dict(),
    }
    check_writable(folder)
    record = folder / "manifest.json"
    if record.is_file():
        wanted = manifest["world"]
        try:
            there = json.loads(record.read_bytes())["world"]
            grows = {**wanted, "identities": there["identities"]} == there
            grows &= there["identities"] <= world.identities
        except (ValueError, KeyError, TypeError) as error:
            wrong = f"{record} is damaged; remove it, and use the same options as before"
            raise ValueError(wrong) from error
        if not grows:
            raise ValueError(
                f"{folder} holds a world of {there}, which cannot become one of {wanted}; "
                "remove it, or name another folder with --out"
            )
    write_json(record, manifest)
    for name in FOLDERS.values():
        check_writable(folder / name)
    there = {f"{name}/{file}" for name in FOLDERS.values() for file in os.listdir(folder / name)}
    left = table[~table["path"].isin(there)]
    # A task per scene, which takes long to build; small enough that the bar moves.
    tasks = [
        rows[start : start + 128]
        for rows in left.groupby(["camera", "session"]).groups.values()
        for start in range(0, len(rows), 128)
    ]
    draw = functools.partial(_draw_rows, world, folder)
    bar = tqdm(total=len(table), initial=len(table) - len(left), desc=world.name, unit="image",
               disable=not progress)  # fmt: skip
    with bar, mapped(draw, tasks, jobs) as counts:
        for count in counts:
            bar.update(count)
    return folder
