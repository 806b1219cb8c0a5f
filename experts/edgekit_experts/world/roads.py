"""A connected road network: villages on dry, flat ground, joined by the cheapest routes over the relief."""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world.relief import Relief

Array = npt.NDArray[Any]

_ROUTING_CELL = 12.0  # metres, about
_NEIGHBOURS = tuple((dz, dx) for dz in (-1, 0, 1) for dx in (-1, 0, 1) if dz or dx)


@dataclass(frozen=True)
class Road:
    """A smooth centre line, `(P, 2)` as (x, z) in metres, unwrapped; `street` marks those inside a village."""

    line: Array
    width: float
    street: bool


def make_roads(rng: np.random.Generator, relief: Relief, cell: float, villages: int) -> tuple[list[Road], Array]:
    """The network and the village centres, `(villages, 2)` as (x, z) in metres."""
    size = relief.height.shape[0]
    grid = 1 << int(np.log2(size * cell / _ROUTING_CELL))
    step = size * cell / grid
    height = cv2.resize(relief.height, (grid, grid), interpolation=cv2.INTER_AREA)
    hill = cv2.resize(relief.hill, (grid, grid), interpolation=cv2.INTER_AREA)
    slope = np.maximum(
        np.abs(np.roll(height, -1, 0) - np.roll(height, 1, 0)),
        np.abs(np.roll(height, -1, 1) - np.roll(height, 1, 1)),
    ) / (2 * step)
    cost = 1 + 60 * slope**2 + 12.0 * (height < 1) + 2.0 * (hill > 6) + rng.uniform(0, 1.2, height.shape)

    suited = (height > 2.5) & (hill < 3) & (slope < 0.12)
    centres = _spread(rng, suited, villages)
    goals: list[tuple[tuple[int, int], bool]] = [(centre, False) for centre in centres]
    for z, x in centres:
        for angle in rng.uniform(0, 2 * np.pi) + np.arange(4) * np.pi / 2 + rng.normal(0, 0.25, 4):
            reach = rng.uniform(5, 10)
            end = (int(z + reach * np.sin(angle)) % grid, int(x + reach * np.cos(angle)) % grid)
            if suited[end]:
                goals.append((end, True))

    network = np.zeros((grid, grid), bool)
    network[goals[0][0]] = True
    roads = []
    for goal, street in goals[1:]:
        if network[goal]:
            continue
        route = _cheapest(np.where(network, 0.3 * cost, cost), network, goal)
        network[tuple(route.T % grid)] = True
        line = _smoothed(route[:, ::-1].astype(np.float64)) * step
        roads.append(Road(line, width=float(rng.uniform(5.5, 7) if street else rng.uniform(7, 10)), street=street))
    return roads, np.array([(x * step, z * step) for z, x in centres])


def _spread(rng: np.random.Generator, suited: Array, count: int) -> list[tuple[int, int]]:
    """Nodes of `suited` that keep apart: each new one is the farthest of a few random ones."""
    grid = suited.shape[0]
    candidates = np.argwhere(suited if suited.any() else np.ones_like(suited))
    chosen = [candidates[rng.integers(len(candidates))]]
    while len(chosen) < count:
        some = candidates[rng.integers(len(candidates), size=12)]
        apart = np.abs(some[:, None] - np.array(chosen)[None])
        apart = np.hypot(*np.minimum(apart, grid - apart).transpose(2, 0, 1)).min(axis=1)
        chosen.append(some[int(apart.argmax())])
    return [(int(z), int(x)) for z, x in chosen]


def _cheapest(cost: Array, network: Array, goal: tuple[int, int]) -> Array:
    """Dijkstra's shortest path from `goal` to the network on the torus: `(P, 2)` as (z, x), unwrapped."""
    grid = cost.shape[0]
    price = cost.tolist()
    best = {goal: 0.0}
    previous: dict[tuple[int, int], tuple[int, int]] = {}
    queue = [(0.0, goal)]
    while queue:
        so_far, node = heapq.heappop(queue)
        if network[node]:
            break
        if so_far > best[node]:
            continue
        for dz, dx in _NEIGHBOURS:
            other = ((node[0] + dz) % grid, (node[1] + dx) % grid)
            total = so_far + price[other[0]][other[1]] * (1.4142 if dz and dx else 1.0)
            if total < best.get(other, np.inf):
                best[other] = total
                previous[other] = node
                heapq.heappush(queue, (total, other))
    route = [node]
    while node != goal:
        node = previous[node]
        route.append(node)
    steps = np.diff(np.array(route), axis=0)
    steps = (steps + grid // 2) % grid - grid // 2
    return np.concatenate([[route[0]], np.array(route[0]) + np.cumsum(steps, axis=0)]).astype(np.int64)


def _smoothed(line: Array) -> Array:
    """Corners of the grid route rounded off; ends stay where they meet the network."""
    points = np.repeat(line, 4, axis=0)
    reach = min(15, len(points) - 1)
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / 5.0) ** 2)
    kernel /= kernel.sum()
    # Reflection through the end points keeps both ends in place.
    head = 2 * points[0] - points[reach:0:-1]
    tail = 2 * points[-1] - points[-2 : -reach - 2 : -1]
    padded = np.concatenate([head, points, tail])
    return np.stack([np.convolve(padded[:, axis], kernel, "valid") for axis in (0, 1)], 1)
