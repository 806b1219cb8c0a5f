"""What people put on the ground: houses with yards along the roads, and small things everywhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.world.roads import Road
from edgekit_experts.world.torus import sample

Array = npt.NDArray[Any]
_VILLAGE_REACH = 135.0  # metres around a village centre with houses along through roads


@dataclass(frozen=True)
class Box:
    """An upright box on the ground, metres and radians: `length` runs along `yaw`, `height` is the wall's.

    `roof` is the rise of the roof per metre from the long wall to the ridge; 0 is flat.
    """

    x: float
    z: float
    yaw: float
    length: float
    width: float
    height: float
    roof: float = 0.0

    def corners(self, margin: float = 0.0) -> Array:
        """`(4, 2)` as (x, z) in metres, `margin` metres outside of the box."""
        along = np.array([np.cos(self.yaw), np.sin(self.yaw)]) * (self.length / 2 + margin)
        across = np.array([-np.sin(self.yaw), np.cos(self.yaw)]) * (self.width / 2 + margin)
        centre = np.array([self.x, self.z])
        return np.array(
            [centre + along + across, centre + along - across, centre - along - across, centre - along + across]
        )


@dataclass(frozen=True)
class Plot:
    """A house and the yard (`(4, 2)` corners in metres) that it stands in."""

    house: Box
    yard: Array


def make_plots(rng: np.random.Generator, roads: list[Road], villages: Array, usable: Array, cell: float) -> list[Plot]:
    """Plots on both sides of the roads in and near villages, where the boolean map `usable` allows."""
    free = usable.copy()
    extent = free.shape[0] * cell
    plots: list[Plot] = []
    for road in sorted(roads, key=lambda road: not road.street):
        for side in (-1.0, 1.0):
            position = rng.uniform(4, 12)
            points, tangents, total = _arc_length(road.line)
            while position < total - 4:
                frontage = rng.uniform(16, 26)
                at = position + frontage / 2
                position += frontage + 0.5
                x, z = (np.interp(at, points, road.line[:, axis]) for axis in (0, 1))
                if not road.street and _nearest(villages, x, z, extent) > _VILLAGE_REACH:
                    continue
                angle = float(np.interp(at, points, tangents))
                depth = rng.uniform(24, 36)
                plot = _plot(rng, float(x), float(z), angle, side, road.width / 2 + 1, frontage, depth)
                if rng.random() < 0.08 or not sample(free, _inside(plot.yard) / cell).all():
                    continue
                _occupy(free, plot.yard, cell)
                plots.append(plot)
    return plots


def make_objects(
    rng: np.random.Generator, roads: list[Road], plots: list[Plot], water: Array, land: Array, cell: float
) -> list[Box]:
    """Cars and trucks on roads, sheds and cars in yards, boats, containers and bales elsewhere (boolean maps)."""
    extent = water.shape[0] * cell
    boxes = []
    for road in roads:
        points, tangents, total = _arc_length(road.line)
        for at in np.cumsum(rng.exponential(24 if road.street else 34, int(total / 20) + 1)):
            if at < total:
                angle = float(np.interp(at, points, tangents))
                lane = rng.choice((-1, 1)) * road.width / 4
                x = np.interp(at, points, road.line[:, 0]) - lane * np.sin(angle)
                z = np.interp(at, points, road.line[:, 1]) + lane * np.cos(angle)
                boxes.append(_vehicle(rng, float(x), float(z), angle))
    for plot in plots:
        for _ in range(rng.integers(0, 4)):
            weights = rng.dirichlet((0.8, 0.8, 0.8, 0.8))
            x, z = weights @ plot.yard
            if max(abs(x - plot.house.x), abs(z - plot.house.z)) > 9:
                boxes.append(_vehicle(rng, float(x), float(z), plot.house.yaw + rng.choice((0, np.pi / 2))))
    for place, count in ((water, 110), (land, 420)):
        candidates = np.argwhere(place[::8, ::8]) * 8 * cell
        if len(candidates) == 0:
            continue
        share = len(candidates) / place[::8, ::8].size
        number = int(count * min(1.0, 2.5 * share) * (extent / 1536) ** 2)
        for z, x in candidates[rng.integers(len(candidates), size=number)]:
            group, yaw = rng.integers(1, 5), rng.uniform(0, np.pi)
            for _ in range(group):
                dx, dz = rng.normal(0, 7, 2)
                boxes.append(_crate(rng, float(x + dx), float(z + dz), yaw))
    return boxes


def _plot(
    rng: np.random.Generator, x: float, z: float, angle: float, side: float, kerb: float, frontage: float, depth: float
) -> Plot:
    along = np.array([np.cos(angle), np.sin(angle)])
    across = np.array([-np.sin(angle), np.cos(angle)]) * side
    foot = np.array([x, z])
    yard = np.array(
        [foot + a * along * frontage / 2 + b * across for a, b in ((1, kerb), (1, depth), (-1, depth), (-1, kerb))]
    )
    width, length = rng.uniform(8, 11), rng.uniform(10, min(17, frontage - 3))
    turned = rng.random() < 0.25
    setback = kerb + rng.uniform(3, 7) + (length if turned else width) / 2
    centre = foot + across * setback + along * rng.normal(0, 0.8)
    house = Box(
        float(centre[0]),
        float(centre[1]),
        angle + (np.pi / 2 if turned else 0) + rng.normal(0, 0.04),
        float(min(length, depth - kerb - 4)),
        float(width),
        float(rng.uniform(3.2, 6.5)),
        float(rng.choice((0.0, 0.45, 0.6, 0.75), p=(0.2, 0.3, 0.3, 0.2))),
    )
    return Plot(house, yard)


def _vehicle(rng: np.random.Generator, x: float, z: float, yaw: float) -> Box:
    if rng.random() < 0.2:
        return Box(x, z, yaw, float(rng.uniform(6.5, 10)), 2.6, float(rng.uniform(2.6, 3.4)))
    return Box(x, z, yaw, float(rng.uniform(4.2, 5.2)), float(rng.uniform(2.1, 2.4)), float(rng.uniform(1.6, 2.1)))


def _crate(rng: np.random.Generator, x: float, z: float, yaw: float) -> Box:
    length = float(rng.uniform(2.6, 8))
    return Box(x, z, yaw + rng.normal(0, 0.15), length, float(rng.uniform(2.4, 3.2)), float(rng.uniform(1.4, 2.8)))


def _arc_length(line: Array) -> tuple[Array, Array, float]:
    """Distance along the line at each point, direction there (unwrapped), and the whole length."""
    steps = np.diff(line, axis=0)
    along = np.concatenate([[0.0], np.cumsum(np.hypot(steps[:, 0], steps[:, 1]))])
    gradient = np.gradient(line, axis=0)
    return along, np.unwrap(np.arctan2(gradient[:, 1], gradient[:, 0])), float(along[-1])


def _nearest(villages: Array, x: float, z: float, extent: float) -> float:
    apart = np.abs(villages - np.array([x, z])) % extent
    apart = np.minimum(apart, extent - apart)
    return float(np.hypot(apart[:, 0], apart[:, 1]).min())


def _inside(quad: Array, steps: int = 9) -> Array:
    """A grid of points inside a parallelogram."""
    u, v = np.meshgrid(np.linspace(0.02, 0.98, steps), np.linspace(0.02, 0.98, steps))
    result: Array = quad[0] + u.reshape(-1, 1) * (quad[1] - quad[0]) + v.reshape(-1, 1) * (quad[3] - quad[0])
    return result


def _occupy(free: Array, yard: Array, cell: float) -> None:
    nodes = np.rint(_inside(yard, 40) / cell).astype(np.int64) % free.shape[0]
    free[nodes[:, 1], nodes[:, 0]] = False
