"""People walking through a network of cameras: who is seen where and when.

The picture behind it: cameras stand along paths, so from one camera only its neighbours can be
reached. People walk alone or in groups. A group needs a varying time from one camera to the next:
most walk straight on, some linger, some take another route, so transit times have several modes
and no single typical value. Groups now and then split, people meet the same camera again, and some
come back in a later session.

Temporal lifting (chapter 10) assumes that people who are near each other under one camera are near
each other under the next. That holds here for those who walk in groups, until they split, and not
for those who walk alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

__all__ = ["CameraNetwork", "Habits", "build_network", "simulate"]

SIGHTINGS = ["identity", "camera", "session", "time", "clock", "visit", "group", "heading"]


@dataclass(frozen=True)
class Habits:
    """How people move.

    Attributes:
        group_sizes: probability of groups of 1, 2, 3, ... people (of the groups, not of the
            people).
        visits: fewest and most cameras passed on one trip, the same camera counted each time.
        images: probability of 1, 2, 3, ... images of a person on one visit.
        modes: probability of walking straight on, lingering, taking the other route.
        split: probability that a group of two or more parts after a visit.
        comeback: probability that a group makes a second trip in another session.
        spread: standard deviation in seconds of a member's time around that of the group.
    """

    group_sizes: tuple[float, ...] = (0.15, 0.25, 0.3, 0.3)
    visits: tuple[int, int] = (4, 6)
    images: tuple[float, ...] = (0.0, 0.55, 0.45)
    modes: tuple[float, float, float] = (0.6, 0.25, 0.15)
    split: float = 0.12
    comeback: float = 0.15
    spread: float = 8.0

    def __post_init__(self) -> None:
        for name in ("group_sizes", "images", "modes"):
            weights = getattr(self, name)
            if min(weights) < 0 or abs(sum(weights) - 1) > 1e-9:
                raise ValueError(f"{name} must be probabilities that sum to 1, got {weights}")
        if not 2 <= self.visits[0] <= self.visits[1]:
            raise ValueError(f"visits must be (fewest, most) with at least 2, got {self.visits}")


@dataclass(frozen=True, eq=False)
class CameraNetwork:
    """Cameras, the paths between them and their clocks.

    Attributes:
        positions: (cameras, 2) places on the plan, metres.
        yaw: (cameras,) direction each camera looks in, radians on the plan.
        walking: (cameras, cameras) seconds of a straight walk; infinite where no path leads.
        detour: (cameras, cameras) by how much the other route is longer, a factor.
        clock_offsets: (cameras, sessions) seconds by which a camera's clock is ahead of true time.
        session_seconds: length of one session.
    """

    positions: np.ndarray
    yaw: np.ndarray
    walking: np.ndarray
    detour: np.ndarray
    clock_offsets: np.ndarray
    session_seconds: float

    @property
    def num_cameras(self) -> int:
        """Number of cameras."""
        return len(self.yaw)

    @property
    def num_sessions(self) -> int:
        """Number of sessions."""
        return self.clock_offsets.shape[1]

    def neighbours(self, camera: int) -> np.ndarray:
        """Cameras that a path leads to from ``camera``."""
        return np.flatnonzero(np.isfinite(self.walking[camera]))


def build_network(
    num_cameras: int,
    rng: np.random.Generator,
    *,
    num_sessions: int = 1,
    session_seconds: float = 2400.0,
    largest_clock_offset: float = 60.0,
) -> CameraNetwork:
    """Draw a network: a ring of cameras with a few paths across it.

    Args:
        num_cameras: at least 2.
        rng: random numbers.
        num_sessions: recording sessions.
        session_seconds: length of each.
        largest_clock_offset: clocks are ahead of true time by 0 to this many seconds.
    """
    if num_cameras < 2:
        raise ValueError(f"a network needs at least 2 cameras, got {num_cameras}")
    angles = (
        2 * np.pi * (np.arange(num_cameras) + rng.uniform(-0.2, 0.2, num_cameras)) / num_cameras
    )
    radius = 60.0 * num_cameras / (2 * np.pi) * rng.uniform(0.8, 1.2, num_cameras)
    positions = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    joined = np.zeros((num_cameras, num_cameras), dtype=bool)
    ring = np.arange(num_cameras)
    joined[ring, (ring + 1) % num_cameras] = True
    for _ in range(num_cameras // 3):
        first, second = rng.choice(num_cameras, size=2, replace=False)
        joined[first, second] = True
    joined |= joined.T
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    speed = rng.uniform(0.9, 1.5, joined.shape)  # metres a second, crowds and stairs included
    factor = np.triu(speed) + np.triu(speed, 1).T  # the same both ways
    return CameraNetwork(
        positions=positions,
        yaw=rng.uniform(-np.pi, np.pi, num_cameras),
        walking=np.where(joined, distance / factor, np.inf),
        detour=rng.uniform(1.8, 3.0, joined.shape),
        clock_offsets=rng.uniform(0, largest_clock_offset, (num_cameras, num_sessions)),
        session_seconds=session_seconds,
    )


def simulate(
    network: CameraNetwork,
    num_identities: int,
    rng: np.random.Generator,
    habits: Habits | None = None,
) -> pd.DataFrame:
    """Let people walk through the network.

    Args:
        network: the cameras.
        num_identities: how many people.
        rng: random numbers; equal generators give equal tables.
        habits: how they move.

    Returns:
        One row an image, ordered by session, camera and time: ``identity`` and ``group`` from 0,
        ``camera`` and ``session`` from 0, ``time`` in true seconds from the start of the session
        (0 to its length), ``clock`` the same on the camera's clock, ``visit`` numbers the passages
        of one person past one camera, ``heading`` is the walking direction relative to the camera
        in radians (0 = towards it).
    """
    habits = habits or Habits()
    rows: list[tuple] = []
    everyone = rng.permutation(num_identities)
    taken = group = 0
    while taken < num_identities:
        size = 1 + rng.choice(len(habits.group_sizes), p=habits.group_sizes)
        members = everyone[taken : taken + size]
        taken += size
        first = int(rng.integers(network.num_sessions))
        sessions = [first]
        if network.num_sessions > 1 and rng.random() < habits.comeback:
            others = [s for s in range(network.num_sessions) if s != first]
            sessions.append(int(rng.choice(others)))
        for session in sessions:
            trip = _trip(network, members, habits, rng)
            rows += _fit(trip, network.session_seconds, session, group, rng)
        group += 1
    table = pd.DataFrame(
        rows, columns=["identity", "camera", "session", "time", "pass", "group", "heading"]
    )
    passage = ["group", "session", "identity", "pass"]
    table["visit"] = table.groupby(passage, sort=True).ngroup()
    offset = network.clock_offsets[table["camera"], table["session"]]
    table["clock"] = table["time"] + offset
    order = ["session", "camera", "time", "identity"]
    return table[SIGHTINGS].sort_values(order, kind="stable").reset_index(drop=True)


def _fit(
    trip: list[tuple], length: float, session: int, group: int, rng: np.random.Generator
) -> list[tuple]:
    """Put a trip somewhere in its session; one longer than the session is walked faster."""
    times = np.array([row[2] for row in trip])
    times -= times.min()
    times *= min(1.0, length / max(times.max(), 1e-9))
    times += rng.uniform(0, length - times.max())
    return [
        (int(identity), int(camera), session, float(time), number, group, heading)
        for (identity, camera, _, number, heading), time in zip(trip, times, strict=True)
    ]


def _trip(
    network: CameraNetwork, members: np.ndarray, habits: Habits, rng: np.random.Generator
) -> list[tuple]:
    """One trip of a group: rows (identity, camera, time, number of the passage, heading)."""
    rows: list[tuple] = []
    pace = float(np.exp(rng.normal(0, 0.12)))

    def walk(
        members: np.ndarray, camera: int, came_from: int, time: float, number: int, left: int
    ) -> None:
        seen = {camera}
        while True:
            target = _next_camera(network, camera, came_from, seen, rng)
            direction = _heading(network, camera, came_from, target)
            for member in members:
                rows.extend(_passage(member, camera, time, number, direction, habits, rng))
            left -= 1
            number += 1
            if left == 0:
                return
            if len(members) > 1 and rng.random() < habits.split:
                half = len(members) // 2
                apart = _next_camera(network, camera, came_from, seen, rng)
                arrival = time + pace * _transit(network, camera, apart, habits, rng)
                walk(members[:half], apart, camera, arrival, number, left)
                members = members[half:]
            time += pace * _transit(network, camera, target, habits, rng)
            came_from, camera = camera, target
            seen.add(camera)

    start = int(rng.integers(network.num_cameras))
    before = int(rng.choice(network.neighbours(start)))
    walk(members, start, before, 0.0, 0, int(rng.integers(habits.visits[0], habits.visits[1] + 1)))
    return rows


def _next_camera(
    network: CameraNetwork, camera: int, came_from: int, seen: set[int], rng: np.random.Generator
) -> int:
    """A neighbour, rather one not seen on this trip, and seldom the one just passed."""
    options = network.neighbours(camera)
    weights = np.array(
        [(1.0 if c in seen else 3.0) * (0.3 if c == came_from else 1.0) for c in options]
    )
    return int(rng.choice(options, p=weights / weights.sum()))


def _heading(network: CameraNetwork, camera: int, came_from: int, target: int) -> float:
    """Walking direction relative to the camera: 0 walks towards it, pi away from it."""
    step = network.positions[target] - network.positions[came_from]
    if target == came_from:  # turns round: seen on the way out
        step = network.positions[target] - network.positions[camera]
    return float(np.arctan2(step[1], step[0]) - network.yaw[camera] + np.pi)


def _passage(
    member: int,
    camera: int,
    time: float,
    number: int,
    direction: float,
    habits: Habits,
    rng: np.random.Generator,
) -> list[tuple]:
    """Images of one person on one visit, seconds apart, walking one way but for small turns."""
    count = 1 + int(rng.choice(len(habits.images), p=habits.images))
    moments = time + rng.normal(0, habits.spread) + np.cumsum(rng.uniform(0.6, 3.0, count))
    turn = direction + rng.normal(0, 0.35)
    return [
        (member, camera, moment, number, float(np.angle(np.exp(1j * (turn + rng.normal(0, 0.2))))))
        for moment in moments
    ]


def _transit(
    network: CameraNetwork, camera: int, target: int, habits: Habits, rng: np.random.Generator
) -> float:
    """Seconds from one camera to the next."""
    straight = network.walking[camera, target] * np.exp(rng.normal(0, 0.1))
    mode = rng.choice(3, p=habits.modes)
    if mode == 1:
        return float(straight + 60.0 + rng.exponential(150.0))
    if mode == 2:
        return float(straight * network.detour[camera, target])
    return float(straight)
