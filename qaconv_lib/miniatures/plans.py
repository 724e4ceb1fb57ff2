"""Plans of the miniatures: their images, the people on them, and the names of the files."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qaconv_lib.datasets import choose_queries
from qaconv_lib.layouts import DUKE_FPS, DUKE_OFFSETS, MARKET_FPS

from .network import Habits, build_network, simulate

# First numbers of the seeds: what the random numbers are for.
STREAMS = {"network": 0, "camera": 1, "family": 2, "person": 3, "walk": 4, "split": 5, "draw": 6}
POPULATIONS = {"train": 0, "test": 1, "distractor": 2, "nobody": 3}
_DUKE_START = 50_000  # frames; keeps the counters of all cameras positive
_TIMES_OF_DAY = ("morning", "noon", "afternoon")
_DAYS = ("0113", "0302", "0303", "0420")
_VALIDATION_SHARE = 14  # one in so many training images of mini-msmt17 is listed in list_val.txt


@dataclass(frozen=True)
class Miniature:
    name: str  # for `load_dataset`
    stands_for: str  # the public dataset whose layout it has
    domain: str  # name of the drawn domain
    seed: int
    cameras: int
    sessions: int = 1
    session_seconds: float = 2400.0
    times_of_day: int = 1  # the light changes with the session, in turn over so many
    train_identities: int = 200
    test_identities: int = 100
    distractors: int = 0  # people in the gallery who belong to no query
    bad_detections: int = 0  # gallery boxes without a person
    families: tuple[int, int] = (22, 16)  # groups of look-alikes in training and in test
    train_habits: Habits = field(default_factory=lambda: Habits(visits=(4, 5)))
    test_habits: Habits = field(default_factory=lambda: Habits(visits=(5, 7)))
    distractor_habits: Habits = field(default_factory=lambda: Habits(visits=(2, 4)))


#: The four miniatures by name.
MINIATURES: dict[str, Miniature] = {
    spec.name: spec
    for spec in (
        Miniature(
            "mini-market", "market1501", "market", seed=1501, cameras=6, sessions=3,
            session_seconds=1500.0, distractors=40, bad_detections=100,
            test_habits=Habits(visits=(5, 6), images=(0.0, 0.45, 0.55)),
        ),
        Miniature(
            "mini-duke", "dukemtmc", "duke", seed=1812, cameras=8, session_seconds=3000.0,
            distractors=40, train_habits=Habits(visits=(4, 6)),
            test_habits=Habits(visits=(5, 7), images=(0.0, 0.4, 0.6)),
        ),
        Miniature(
            "mini-cuhk03", "cuhk03-np", "cuhk03", seed=1467, cameras=2, train_identities=100,
            families=(12, 12),
        ),
        Miniature(
            "mini-msmt17", "msmt17", "msmt17", seed=4101, cameras=15, sessions=12,
            session_seconds=3000.0, times_of_day=len(_TIMES_OF_DAY), train_identities=300,
            test_identities=200, families=(36, 26),
            train_habits=Habits(visits=(3, 5), comeback=0.3, images=(0.1, 0.5, 0.4)),
            test_habits=Habits(visits=(3, 4), comeback=0.3, images=(0.0, 0.3, 0.7)),
        ),
    )
}  # fmt: skip


def seeded(spec: Miniature, stream: str, *numbers: int) -> np.random.Generator:
    """Random numbers for one purpose, independent of all others."""
    return np.random.default_rng([spec.seed, STREAMS[stream], *numbers])


def make_plan(spec: Miniature) -> pd.DataFrame:
    """Plan a miniature, one row per file.

    Columns: ``path`` inside the dataset's folder, ``split`` (train, query, gallery), ``population``
    and ``person`` (who is drawn), ``identity`` (what the labels say), ``camera`` and ``session``
    from 0, ``heading``, ``group``, ``labelled`` (tight box), ``drawing`` (rows with one number show
    one scene) and for mini-msmt17 ``list``, the list file that names it.
    """
    table = _two_views(spec) if spec.stands_for == "cuhk03-np" else _walks(spec)
    table = _split(spec, table)
    table["drawing"], table["labelled"] = np.arange(len(table)), False
    return _NAMES[spec.stands_for](spec, table).reset_index(drop=True)


def _walks(spec: Miniature) -> pd.DataFrame:
    """Sightings of all populations in one camera network; distractors walk among themselves."""
    rng = seeded(spec, "network")
    network = build_network(spec.cameras, rng, spec.sessions, spec.session_seconds)
    tables = []
    for population, count, habits in (
        ("train", spec.train_identities, spec.train_habits),
        ("test", spec.test_identities, spec.test_habits),
        ("distractor", spec.distractors, spec.distractor_habits),
    ):
        if count:
            rng = seeded(spec, "walk", POPULATIONS[population])
            seen = simulate(network, count, rng, habits).rename(columns={"identity": "person"})
            tables.append(seen.assign(population=population))
    if count := spec.bad_detections:
        rng = seeded(spec, "walk", POPULATIONS["nobody"])
        camera = rng.integers(spec.cameras, size=count)
        session = rng.integers(spec.sessions, size=count)
        time = rng.uniform(0, spec.session_seconds, count)
        columns = {"person": np.arange(count), "camera": camera, "session": session, "time": time}
        clock = time + network.clock_offsets[camera, session]
        nobody = {"heading": 0.0, "visit": -1, "group": -1, "population": "nobody"}
        tables.append(pd.DataFrame(columns).assign(clock=clock, **nobody))
    return pd.concat(tables, ignore_index=True)


def _two_views(spec: Miniature) -> pd.DataFrame:
    """Two views of each person as in CUHK03, four to six images in each."""
    rows = []
    for population, count in (("train", spec.train_identities), ("test", spec.test_identities)):
        rng = seeded(spec, "walk", POPULATIONS[population])
        habit = rng.uniform(-np.pi, np.pi) + np.array([0.0, rng.uniform(1.2, 2.4)])
        for person in range(count):
            back = np.pi * (rng.random() < 0.3)
            for camera in range(spec.cameras):
                heading = habit[camera] + back + rng.normal(0, 0.35)
                for _ in range(rng.integers(4, 7)):
                    turn = np.angle(np.exp(1j * (heading + rng.normal(0, 0.2))))
                    rows.append((person, camera, float(turn), population))
    table = pd.DataFrame(rows, columns=["person", "camera", "heading", "population"])
    return table.assign(session=0, time=np.nan, clock=np.nan, visit=-1, group=-1)


def _split(spec: Miniature, table: pd.DataFrame) -> pd.DataFrame:
    """Add ``split`` and ``identity``: training people from 1, then test people and distractors."""
    table["split"] = np.where(table["population"] == "train", "train", "gallery")
    test = table["population"] == "test"
    candidates = table.loc[test, ["person", "camera"]].rename(columns={"person": "identity"})
    chosen = choose_queries(candidates, seeded(spec, "split"))
    table.loc[candidates.index[chosen], "split"] = "query"
    first = {"train": 1, "test": 1 + spec.train_identities, "nobody": -1}
    first["distractor"] = first["test"] + spec.test_identities
    table["identity"] = table["person"] + table["population"].map(first)
    table.loc[table["population"] == "nobody", "identity"] = -1
    return table


FOLDERS = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}


def _name_market(spec: Miniature, table: pd.DataFrame) -> pd.DataFrame:
    table.loc[table["population"] == "distractor", "identity"] = 0
    table["frame"] = (table["clock"] * MARKET_FPS).round().astype(int)
    box = table.groupby(["identity", "camera", "session", "frame"]).cumcount() + 1
    table["path"] = [
        f"{FOLDERS[row.split]}/{'-1' if row.identity < 0 else f'{row.identity:04d}'}"
        f"_c{row.camera + 1}s{row.session + 1}_{row.frame:06d}_{number:02d}.jpg"
        for row, number in zip(table.itertuples(), box, strict=True)
    ]
    return table


def _name_duke(spec: Miniature, table: pd.DataFrame) -> pd.DataFrame:
    offsets = np.array(DUKE_OFFSETS)[table["camera"]]
    table["frame"] = (table["time"] * DUKE_FPS).round().astype(int) + _DUKE_START - offsets
    table["path"] = [
        f"{FOLDERS[row.split]}/{row.identity:04d}_c{row.camera + 1}_f{row.frame:07d}.jpg"
        for row in table.itertuples()
    ]
    return table


def _name_cuhk03(spec: Miniature, table: pd.DataFrame) -> pd.DataFrame:
    """Every scene twice: with the box of a detector and with a labelled one."""
    number = table.groupby("identity").cumcount() + 1
    names = [
        f"{FOLDERS[row.split]}/{row.identity:04d}_c{row.camera + 1}_{count}.jpg"
        for row, count in zip(table.itertuples(), number, strict=True)
    ]
    detected = table.assign(labelled=False, path=[f"detected/{name}" for name in names])
    labelled = table.assign(labelled=True, path=[f"labeled/{name}" for name in names])
    return pd.concat([detected, labelled], ignore_index=True)


def _name_msmt17(spec: Miniature, table: pd.DataFrame) -> pd.DataFrame:
    """Labels from 0 in training and in test; names hold day and time of day, and no clock."""
    table["identity"] = table["person"]
    number = table.groupby(["population", "person"]).cumcount()
    track = table.groupby(["population", "person"])["visit"].rank(method="dense").astype(int)
    box = table.groupby(["population", "visit"]).cumcount()
    names = []
    for row, count, passage, image in zip(table.itertuples(), number, track, box, strict=True):
        day, part = divmod(row.session, len(_TIMES_OF_DAY))
        when = f"{_DAYS[day]}{_TIMES_OF_DAY[part]}"
        folder = f"{'train' if row.split == 'train' else 'test'}/{row.person:04d}"
        file = f"{row.person:04d}_{count:03d}_{row.camera + 1:02d}_{when}_{passage:04d}_{image}.jpg"
        names.append(f"{folder}/{file}")
    table["path"] = names
    table["list"] = "list_" + table["split"] + ".txt"
    in_training = np.flatnonzero(table["split"] == "train")
    table.loc[in_training[::_VALIDATION_SHARE], "list"] = "list_val.txt"
    return table


_NAMES = {
    "market1501": _name_market, "dukemtmc": _name_duke, "cuhk03-np": _name_cuhk03,
    "msmt17": _name_msmt17,
}  # fmt: skip
