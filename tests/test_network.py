"""The camera network: who is seen where and when."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qaconv_lib.datasets import choose_queries
from qaconv_lib.miniatures.network import SIGHTINGS, Habits, build_network, simulate

SECONDS = 1500.0


def network_and_walks(seed: int = 0, people: int = 120, cameras: int = 6, sessions: int = 3):
    rng = np.random.default_rng(seed)
    network = build_network(cameras, rng, num_sessions=sessions, session_seconds=SECONDS)
    return network, simulate(network, people, rng, Habits(visits=(5, 6)))


@pytest.fixture(scope="module")
def walks() -> pd.DataFrame:
    return network_and_walks()[1]


def test_same_seed_same_walks(walks: pd.DataFrame) -> None:
    assert list(walks.columns) == SIGHTINGS
    pd.testing.assert_frame_equal(network_and_walks()[1], walks)
    assert not network_and_walks(seed=1)[1].equals(walks)


def test_network_has_paths_but_not_between_all() -> None:
    network, _ = network_and_walks()
    joined = np.isfinite(network.walking)
    assert (joined == joined.T).all() and not joined.diagonal().any()
    degree = joined.sum(axis=1)
    assert degree.min() >= 2 and degree.max() < network.num_cameras - 1
    reached = np.linalg.matrix_power(joined.astype(int) + np.eye(6, dtype=int), 6)
    assert (reached > 0).all()
    assert np.array_equal(network.neighbours(2), np.flatnonzero(joined[2]))


def test_walks_follow_the_paths() -> None:
    """Where nobody comes back and groups stay together, every step leads to a neighbour."""
    rng = np.random.default_rng(5)
    network = build_network(8, rng, session_seconds=1e5)
    table = simulate(network, 60, rng, Habits(group_sizes=(1.0,), spread=0.0, comeback=0.0))
    for _, person in table.sort_values("time").groupby("identity"):
        cameras = person.groupby("visit", sort=False)["camera"].first().to_numpy()
        assert np.isfinite(network.walking[cameras[:-1], cameras[1:]]).all()


@pytest.mark.parametrize(("cameras", "seconds"), [(2, 300.0), (6, SECONDS), (15, 3000.0)])
def test_everybody_is_seen_by_two_cameras_in_time(cameras: int, seconds: float) -> None:
    rng = np.random.default_rng(2)
    network = build_network(cameras, rng, num_sessions=2, session_seconds=seconds)
    table = simulate(network, 80, rng)
    assert sorted(table["identity"].unique()) == list(range(80))
    assert table.groupby("identity")["camera"].nunique().min() >= 2
    assert table["time"].min() >= 0 and table["time"].max() <= seconds + 1e-6
    assert set(table["session"]) <= {0, 1} and set(table["camera"]) <= set(range(cameras))


def test_groups_stay_together_mostly(walks: pd.DataFrame) -> None:
    """Two of a group who pass one camera in a session mostly do so within half a minute."""
    first = walks.groupby(["group", "session", "camera", "identity"])["time"].min().reset_index()
    pairs = first.merge(first, on=["group", "session", "camera"])
    pairs = pairs[pairs["identity_x"] < pairs["identity_y"]]
    gap = (pairs["time_x"] - pairs["time_y"]).abs()
    assert (gap < 30).mean() > 0.8
    assert (gap > 100).any()  # some groups split


def test_group_sizes(walks: pd.DataFrame) -> None:
    sizes = walks.groupby("group")["identity"].nunique()
    assert set(sizes) == {1, 2, 3, 4}
    assert walks.groupby("identity")["group"].nunique().max() == 1
    assert (sizes == 1).sum() >= 3  # lone walkers, whom temporal lifting cannot help


def test_images_of_a_visit(walks: pd.DataFrame) -> None:
    visits = walks.groupby("visit")
    assert set(visits.size()) == {2, 3}
    assert (visits[["identity", "camera", "session"]].nunique() == 1).all(axis=None)
    assert (visits["time"].max() - visits["time"].min()).max() < 10


def test_people_meet_cameras_again(walks: pd.DataFrame) -> None:
    visits = walks.groupby(["identity", "camera"])["visit"].nunique()
    assert 0.05 < (visits > 1).mean() < 0.5
    assert (walks.groupby("identity")["session"].nunique() > 1).any()


def test_clocks_run_ahead_by_a_constant() -> None:
    network, table = network_and_walks()
    ahead = (table["clock"] - table["time"]).groupby([table["camera"], table["session"]])
    assert ahead.std().max() < 1e-9
    for (camera, session), value in ahead.first().items():
        assert value == pytest.approx(network.clock_offsets[camera, session])
    assert network.clock_offsets.std() > 1


def test_transit_times_have_no_single_value() -> None:
    """Between one pair of cameras: a peak of straight walks, and a long tail of others."""
    rng = np.random.default_rng(7)
    network = build_network(2, rng, session_seconds=1e6)
    habits = Habits(group_sizes=(1.0,), spread=0.0, comeback=0.0)
    table = simulate(network, 300, rng, habits).sort_values("time")
    starts = table.groupby(["identity", "visit"], sort=False)["time"].first()
    steps = starts.groupby("identity").diff().dropna() / network.walking[0, 1]
    straight = ((steps > 0.6) & (steps < 1.5)).mean()
    assert 0.5 < straight < 0.75
    assert (steps > 2).mean() > 0.15


def test_headings_of_one_visit_agree_and_differ_between_visits(walks: pd.DataFrame) -> None:
    direction = np.exp(1j * walks["heading"])
    length = direction.groupby(walks["visit"]).agg(lambda v: abs(np.mean(v)))
    assert length.median() > 0.95
    by_camera = direction.groupby(walks["camera"]).agg(lambda v: abs(np.mean(v)))
    assert by_camera.mean() < 0.8


def test_what_temporal_lifting_needs() -> None:
    """Nearby queries (tau = 100 s) and, for groups of three and more, about K = 10 true pivots.

    Pivots of a query in another camera: gallery images there of people near the query.
    """
    near, pivots, lone_pivots = [], [], []
    for seed in range(2):
        _, table = network_and_walks(seed, people=100)
        chosen = choose_queries(table, np.random.default_rng(0))
        query, gallery = table[chosen].reset_index(drop=True), table[~chosen]
        images = pd.crosstab(gallery["identity"], gallery["camera"])  # (identity, camera) counts
        sizes = query["group"].map(table.groupby("group")["identity"].nunique())
        time = query["time"].to_numpy()
        around = np.abs(time[:, None] - time) < 100
        for name in ("camera", "session"):
            around &= query[name].to_numpy()[:, None] == query[name].to_numpy()
        near.extend(around.sum(axis=1) - 1)
        for row, neighbours, size in zip(query.itertuples(), around, sizes, strict=True):
            counts = images.loc[query["identity"][neighbours].unique()].sum()
            other = (images.loc[row.identity] > 0) & (images.columns != row.camera)
            if size != 2:
                (pivots if size >= 3 else lone_pivots).extend(counts[other])
    assert np.median(near) >= 3
    assert np.median(pivots) >= 10
    assert np.median(lone_pivots) < np.median(pivots)


@pytest.mark.parametrize(
    "wrong",
    [{"group_sizes": (0.5, 0.6)}, {"images": (-0.5, 1.5)}, {"visits": (1, 3)}, {"visits": (5, 4)}],
)
def test_wrong_habits(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Habits(**wrong)


def test_one_camera_is_no_network() -> None:
    with pytest.raises(ValueError, match="at least 2 cameras, got 1"):
        build_network(1, np.random.default_rng(0))
