"""Moments of walking."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .people import Person


@dataclass(frozen=True)
class Pose:
    """A moment of walking.

    Attributes:
        phase: of the step, radians; the left leg is foremost at pi / 2.
        stride: swing of the thighs in radians; 0 = standing.
        arms: "swing", "phone", "pockets", "straps" or "carry".
        side: the arm meant by "phone": +1 left, -1 right.
        head_turn, twist, lean: radians.
    """

    phase: float
    stride: float
    arms: str
    side: int
    head_turn: float
    twist: float
    lean: float


def sample_pose(person: Person, rng: np.random.Generator, standing: float) -> Pose:
    """A random moment; ``standing`` is the probability of not walking."""
    still = rng.random() < standing
    arms = ["swing", "pockets", "straps", "phone"]
    share = np.array([0.8, 0.08, 0.02, 0.06])
    if person.bag.kind == "backpack":
        share[2] = 0.1
    if person.bag.handheld == "phone":
        share[3] = 0.3
    return Pose(
        phase=float(rng.uniform(0, 2 * np.pi)),
        stride=float(0.05 if still else 0.40 * person.body.stride * rng.uniform(0.8, 1.15)),
        arms=str(rng.choice(arms, p=share / share.sum())),
        side=int(rng.choice([-1, 1])),
        head_turn=float(0.22 * rng.normal()),
        twist=float(0.05 * rng.normal()),
        lean=float(person.body.lean + 0.02 * rng.normal()),
    )
