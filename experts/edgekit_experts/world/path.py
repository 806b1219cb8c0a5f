"""Where the camera is: a smooth path over the landscape, a pure function of time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.world.landscape import CELL, COARSE, EXTENT, Landscape

Array = npt.NDArray[Any]
_CLASSES = 8


@dataclass(frozen=True)
class Waves:
    """A sum of sines of time."""

    amplitude: Array
    frequency: Array  # radians per second
    phase: Array

    @classmethod
    def random(cls, rng: np.random.Generator, amplitude: float, periods: tuple[float, float]) -> Waves:
        """Three of them, together about `amplitude`, with periods in seconds."""
        share = rng.dirichlet((4, 4, 4)) * amplitude
        return cls(share, 2 * np.pi / rng.uniform(*periods, 3), rng.uniform(0, 2 * np.pi, 3))

    def __call__(self, t: float) -> float:
        return float(np.sum(self.amplitude * np.sin(self.frequency * t + self.phase)))

    def rate(self, t: float) -> float:
        return float(np.sum(self.amplitude * self.frequency * np.cos(self.frequency * t + self.phase)))


@dataclass(frozen=True)
class FlightPath:
    """A straight course with slow turns about it; the camera looks ahead and down, and sways a little.

    World axes: x east, y down, z north, metres; y is 0 at the water level.
    """

    start: Array
    course: float
    speed: float
    altitude: float  # metres above the smooth upper bound of the ground
    pitch: float  # radians below the horizon
    drift: Waves
    climb: Waves
    pitching: Waves
    rolling: Waves
    looking: Waves
    clearance: Array

    def position(self, t: float) -> Array:
        """(x, z) on the map."""
        along = np.array([np.sin(self.course), np.cos(self.course)])
        across = np.array([along[1], -along[0]])
        place: Array = self.start + self.speed * t * along + self.drift(t) * across
        return place

    def heading(self, t: float) -> float:
        """Where the camera looks, radians from north to east."""
        return float(self.course + np.arctan2(self.drift.rate(t), self.speed) + self.looking(t))

    def pose(self, t: float) -> Array:
        """Camera-to-world, 4x4 float64, at `t` seconds."""
        position = self.position(t)
        height = self._ground(position) + self.altitude + self.climb(t)
        # A drone banks into its turns; a gimbal takes most of that out.
        turn = (self.drift.rate(t + 0.5) - self.drift.rate(t - 0.5)) / self.speed
        pose = np.eye(4)
        pose[:3, :3] = _rotation(self.heading(t), self.pitch + self.pitching(t), 0.5 * turn + self.rolling(t))
        pose[:3, 3] = position[0], -height, position[1]
        return pose

    def _ground(self, position: Array) -> float:
        count = self.clearance.shape[0]
        x, z = np.mod(position / EXTENT, 1.0) * count - 0.5
        left, top = int(np.floor(x)), int(np.floor(z))
        u, v = x - left, z - top
        rows, columns = np.array([top, top + 1]) % count, np.array([left, left + 1]) % count
        corner = self.clearance[np.ix_(rows, columns)]
        # Smooth weights: the height has no kinks where the path crosses from one square to the next.
        u, v = u * u * (3 - 2 * u), v * v * (3 - 2 * v)
        return float(np.array([1 - v, v]) @ corner @ np.array([1 - u, u]))


def make_path(seed: int, landscape: Landscape, number: int = 0) -> FlightPath:
    """Path `number` of a seed: of many, the one that sees the most even mix of classes in its first minutes."""
    rng = np.random.default_rng([seed, 3, number] if number else [seed, 3])
    speed = float(rng.uniform(8, 15))
    path = FlightPath(
        start=np.zeros(2),
        course=0.0,
        speed=speed,
        altitude=float(rng.uniform(40, 75)),
        pitch=float(np.deg2rad(rng.uniform(14, 34))),
        drift=Waves.random(rng, speed * 5.0, (35, 80)),
        climb=Waves.random(rng, 9.0, (25, 60)),
        pitching=Waves.random(rng, np.deg2rad(2.2), (4, 17)),
        rolling=Waves.random(rng, np.deg2rad(2.0), (3, 11)),
        looking=Waves.random(rng, np.deg2rad(14), (15, 50)),
        clearance=landscape.clearance,
    )
    courses = [
        replace(path, start=rng.uniform(0, EXTENT, 2), course=float(rng.uniform(0, 2 * np.pi))) for _ in range(160)
    ]
    return max(courses, key=lambda one: _variety(landscape.survey, one))


def _variety(survey: Array, path: FlightPath) -> float:
    """How many classes the views at a few moments of the first half minute hold, and how evenly."""
    ahead, aside = np.meshgrid(np.linspace(25, 380, 30), np.linspace(-0.55, 0.55, 15))
    score = 0.0
    for t in (0.0, 4.0, 9.0, 16.0, 25.0):
        position, heading = path.position(t), path.heading(t)
        x = position[0] + ahead * (np.sin(heading) + aside * np.cos(heading))
        z = position[1] + ahead * (np.cos(heading) - aside * np.sin(heading))
        nodes = [np.mod(axis / (CELL * COARSE), survey.shape[0] - 1).astype(int) for axis in (z, x)]
        share = np.bincount(survey[nodes[0], nodes[1]].ravel(), minlength=_CLASSES) / ahead.size
        score += float(np.sum(np.sqrt(share)))
    return score


def _rotation(heading: float, pitch: float, roll: float) -> Array:
    """Camera axes (right, down, forward) in the world as columns."""
    forward = np.array([np.sin(heading) * np.cos(pitch), np.sin(pitch), np.cos(heading) * np.cos(pitch)])
    right = np.array([np.cos(heading), 0.0, -np.sin(heading)])
    down = np.cross(forward, right)
    return np.stack(
        [right * np.cos(roll) + down * np.sin(roll), down * np.cos(roll) - right * np.sin(roll), forward], 1
    )
