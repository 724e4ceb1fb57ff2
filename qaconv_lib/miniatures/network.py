"""People walking through a network of cameras: where and when each is seen.

What temporal lifting (chapter 10) assumes is true of groups until they split, not of lone walkers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

_CLOCK_OFFSET = 60.0  # seconds by which a clock is ahead of true time at most


@dataclass(frozen=True)
class Habits:
    group_sizes: tuple[float, ...] = (0.15, 0.25, 0.3, 0.3)  # shares of groups of 1, 2, 3, ...
    visits: tuple[int, int] = (4, 6)  # fewest and most cameras passed on a trip, with repetition
    images: tuple[float, ...] = (0.0, 0.55, 0.45)  # shares of visits with 1, 2, 3, ... images
    modes: tuple[float, float, float] = (0.6, 0.25, 0.15)  # straight on, lingering, other route
    split: float = 0.12  # probability that a group of two or more parts after a visit
    comeback: float = 0.15  # probability of a second trip in another session
    spread: float = 8.0  # standard deviation in seconds of a member's time around the group's


@dataclass(frozen=True, eq=False)
class CameraNetwork:
    positions: np.ndarray  # (cameras, 2) places on the plan, metres
    yaw: np.ndarray  # (cameras,) direction each camera looks in, radians on the plan
    walking: np.ndarray  # (cameras, cameras) seconds of a straight walk; infinite without a path
    detour: np.ndarray  # (cameras, cameras) by how much the other route is longer, a factor
    clock_offsets: np.ndarray  # (cameras, sessions) seconds a clock is ahead of true time
    session_seconds: float

    def neighbours(self, camera: int) -> np.ndarray:
        """Cameras that a path leads to from ``camera``."""
        return np.flatnonzero(np.isfinite(self.walking[camera]))


def build_network(
    num_cameras: int, rng: np.random.Generator, num_sessions: int, session_seconds: float
) -> CameraNetwork:
    """Draw a network: a ring of cameras with a few paths across it."""
    ring = np.arange(num_cameras)
    angles = 2 * np.pi * (ring + rng.uniform(-0.2, 0.2, num_cameras)) / num_cameras
    radius = 60.0 * num_cameras / (2 * np.pi) * rng.uniform(0.8, 1.2, num_cameras)
    positions = np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)
    joined = np.zeros((num_cameras, num_cameras), dtype=bool)
    joined[ring, (ring + 1) % num_cameras] = True
    for _ in range(num_cameras // 3):
        first, second = rng.choice(num_cameras, size=2, replace=False)
        joined[first, second] = True
    joined |= joined.T
    distance = np.linalg.norm(positions[:, None] - positions[None], axis=2)
    speed = rng.uniform(0.9, 1.5, joined.shape)  # metres per second, crowds and stairs included
    factor = np.triu(speed) + np.triu(speed, 1).T  # the same both ways
    return CameraNetwork(
        positions=positions,
        yaw=rng.uniform(-np.pi, np.pi, num_cameras),
        walking=np.where(joined, distance / factor, np.inf),
        detour=rng.uniform(1.8, 3.0, joined.shape),
        clock_offsets=rng.uniform(0, _CLOCK_OFFSET, (num_cameras, num_sessions)),
        session_seconds=session_seconds,
    )


def simulate(
    network: CameraNetwork, num_identities: int, rng: np.random.Generator, habits: Habits
) -> pd.DataFrame:
    """Let people walk through the network; one row per image, by session, camera and time.

    Columns, numbered from 0: ``identity``, ``group``, ``camera``, ``session``, ``time`` in true
    seconds from the start of the session, ``clock`` the same on the camera's clock, ``visit`` (a
    passage of one person past one camera), ``heading`` in radians (0 = towards the camera).
    """
    num_sessions = network.clock_offsets.shape[1]
    rows: list[tuple] = []
    everyone = rng.permutation(num_identities)
    taken = group = 0
    while taken < num_identities:
        size = 1 + rng.choice(len(habits.group_sizes), p=habits.group_sizes)
        members = everyone[taken : taken + size]
        taken += size
        sessions = [int(rng.integers(num_sessions))]
        if num_sessions > 1 and rng.random() < habits.comeback:
            sessions.append(int(rng.choice([s for s in range(num_sessions) if s != sessions[0]])))
        for session in sessions:
            trip = _Trip(network, habits, rng, members).rows
            # Somewhere in the session; a trip longer than the session is walked faster.
            times, length = np.array([row[2] for row in trip]), network.session_seconds
            times -= times.min()
            times *= min(1.0, length / max(times.max(), 1e-9))
            times += rng.uniform(0, length - times.max())
            for (identity, camera, _, number, heading), time in zip(trip, times, strict=True):
                rows.append((int(identity), camera, session, float(time), number, group, heading))
        group += 1
    columns = ["identity", "camera", "session", "time", "pass", "group", "heading"]
    table = pd.DataFrame(rows, columns=columns)
    table["visit"] = table.groupby(["group", "session", "identity", "pass"]).ngroup()
    table["clock"] = table["time"] + network.clock_offsets[table["camera"], table["session"]]
    kept = ["identity", "camera", "session", "time", "clock", "visit", "group", "heading"]
    order = ["session", "camera", "time", "identity"]
    return table[kept].sort_values(order, kind="stable").reset_index(drop=True)


class _Trip:
    """One trip of a group; rows are (identity, camera, time, number of the passage, heading)."""

    def __init__(
        self, network: CameraNetwork, habits: Habits, rng: np.random.Generator, members: np.ndarray
    ) -> None:
        self.network, self.habits, self.rng = network, habits, rng
        self.pace = float(np.exp(rng.normal(0, 0.12)))
        self.rows: list[tuple] = []
        start = int(rng.integers(len(network.yaw)))
        before = int(rng.choice(network.neighbours(start)))
        self.visits = int(rng.integers(habits.visits[0], habits.visits[1] + 1))
        self.walk(members, start, before, 0.0, 0)

    def walk(self, members: np.ndarray, camera: int, before: int, time: float, number: int) -> None:
        """From a passage on to the end of the trip; a part of the group may take another way."""
        seen = {camera}
        while True:
            target = self.next_camera(camera, before, seen)
            direction = self.heading(camera, before, target)
            for member in members:
                self.pass_by(member, camera, time, number, direction)
            number += 1
            if number == self.visits:
                return
            if len(members) > 1 and self.rng.random() < self.habits.split:
                half = len(members) // 2
                apart = self.next_camera(camera, before, seen)
                self.walk(members[:half], apart, camera, time + self.transit(camera, apart), number)
                members = members[half:]
            time += self.transit(camera, target)
            before, camera = camera, target
            seen.add(camera)

    def next_camera(self, camera: int, before: int, seen: set[int]) -> int:
        """A neighbour, rather one not seen on this trip, and seldom the one just passed."""
        options = self.network.neighbours(camera)
        shares = [(1.0 if c in seen else 3.0) * (0.3 if c == before else 1.0) for c in options]
        return int(self.rng.choice(options, p=np.array(shares) / np.sum(shares)))

    def heading(self, camera: int, before: int, target: int) -> float:
        """Walking direction relative to the camera: 0 walks towards it, pi away from it."""
        places = self.network.positions
        # those who turn round are seen on the way out
        step = places[target] - places[camera if target == before else before]
        return float(np.arctan2(step[1], step[0]) - self.network.yaw[camera] + np.pi)

    def pass_by(self, member: int, camera: int, time: float, number: int, direction: float) -> None:
        """Images of one person on one visit, seconds apart, walking one way but for small turns."""
        rng = self.rng
        count = 1 + int(rng.choice(len(self.habits.images), p=self.habits.images))
        moments = time + rng.normal(0, self.habits.spread) + np.cumsum(rng.uniform(0.6, 3.0, count))
        turn = direction + rng.normal(0, 0.35)
        for moment in moments:
            way = float(np.angle(np.exp(1j * (turn + rng.normal(0, 0.2)))))
            self.rows.append((member, camera, moment, number, way))

    def transit(self, camera: int, target: int) -> float:
        time = self.network.walking[camera, target] * np.exp(self.rng.normal(0, 0.1))
        mode = self.rng.choice(3, p=self.habits.modes)
        if mode == 1:
            time = time + 60.0 + self.rng.exponential(150.0)
        elif mode == 2:
            time *= self.network.detour[camera, target]
        return self.pace * float(time)
