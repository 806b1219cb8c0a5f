"""A piece of country of about 2 km², periodic in both directions: relief, roads, villages, fields, forests.

Everything that a camera may see is baked into maps over a square grid. Class borders are stored as antialiased
coverage (0 to 255, the border at 128), so they stay smooth between nodes and agree with the geometry.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world import paint
from edgekit_experts.world.conditions import Conditions, make_conditions
from edgekit_experts.world.relief import make_relief
from edgekit_experts.world.roads import make_roads
from edgekit_experts.world.structures import Box, make_objects, make_plots
from edgekit_experts.world.torus import (
    blurred,
    draw_line,
    draw_polygon,
    filtered,
    wrap_pad,
)

Array = npt.NDArray[Any]

SIZE = 2048  # nodes along one side
CELL = 0.8  # metres between nodes
COARSE = 4  # nodes of the fine grid to one of the coarse
EXTENT = SIZE * CELL


@dataclass(frozen=True)
class Layer:
    """One map twice: as it is, `(SIZE+1, SIZE+1[, C])`, and smoothed on a coarse grid for far away."""

    fine: Array
    coarse: Array

    @classmethod
    def of(cls, image: Array, sigma: float) -> Layer:
        smooth = np.ascontiguousarray(blurred(image, sigma)[::COARSE, ::COARSE])
        return cls(_closed(image), _closed(smooth))


@dataclass(frozen=True)
class Landscape:
    """`height` (m) and its slopes along x and z; `classes` and `marks` uint8 coverages; two colour layers.

    `classes` is (road, residential, forest, little-objects), `marks` is (water, hill, painted, sunlit);
    `ground` RGB with the roughness in the 4th channel; `painted` RGB of roads, houses and things with the
    share of wall in the 4th. `clearance` is a smooth upper bound of the ground, for the path, on a grid
    of an eighth; `survey` the class ids on the coarse grid. About 120 MB.
    """

    conditions: Conditions
    height: Layer
    slope_x: Layer
    slope_z: Layer
    classes: Layer
    marks: Layer
    ground: Layer
    painted: Layer
    clearance: Array
    survey: Array


@lru_cache(maxsize=2)
def make_landscape(seed: int) -> Landscape:
    """The landscape of a seed; takes a second or two, the last few are kept."""
    rng = np.random.default_rng([seed, 1])
    conditions = make_conditions(seed)
    relief = make_relief(rng, SIZE, CELL)
    roads, villages = make_roads(rng, relief, CELL, villages=int(rng.integers(6, 9)))

    road = np.zeros((SIZE, SIZE), np.uint8)
    for one in roads:
        draw_line(road, one.line / CELL, 255, max(2, round(one.width / CELL)))
    ground = _graded(relief.height, road)
    water = ground < 0
    hill = relief.hill > 9
    near_water = filtered(water.astype(np.uint8), 6, lambda padded: cv2.dilate(padded, np.ones((9, 9)))) > 0
    near_road = filtered(road, 3, lambda padded: cv2.dilate(padded, np.ones((3, 3)))) > 128
    plots = make_plots(rng, roads, villages, ~(near_water | hill | (road > 100)), CELL)

    residential = np.zeros((SIZE, SIZE), np.uint8)
    for plot in plots:
        draw_polygon(residential, plot.yard / CELL, 255)
    # Crowns reach 4 m: trees keep that far from roads and yards, or their crowns would be road.
    settled = filtered(cv2.max(road, residential), 6, lambda padded: cv2.dilate(padded, np.ones((11, 11)))) > 0
    fields = paint.make_fields(rng, SIZE, CELL)
    trees = paint.make_trees(rng, SIZE, CELL, fields, open_land=~(near_water | settled), hill=hill)
    open_land = ~(near_water | hill | (residential > 0) | near_road | (trees.cover > 40))
    deep = ground < -1.0
    boxes = make_objects(rng, roads, plots, deep, open_land, CELL)

    colours = paint.make_ground(rng, conditions, relief, fields, trees, residential, ground, CELL)
    upland = cv2.convertScaleAbs(np.maximum(128 + (relief.hill - 9) * 14, 0))
    del relief, fields  # tens of megabytes each, and more are to come
    height, dry = np.maximum(ground, 0), np.maximum(ground, 0)
    height += trees.height
    house, thing = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE), np.uint8)
    painted = paint.make_roads(rng, roads, SIZE, CELL)
    for plot in plots:
        _raise(height, house, plot.house, dry)
        paint.paint_house(rng, painted, plot.house, CELL)
    for box in boxes:
        _raise(height, thing, box, height)
        paint.paint_thing(rng, painted, box, CELL)

    built = cv2.max(cv2.max(road, house), thing)
    wet = cv2.subtract(np.clip(128 - ground * 160, 0, 255).astype(np.uint8), cv2.max(road, thing))
    slope_z, slope_x = _gradient(height)
    classes = Layer.of(cv2.merge([blurred(road, 0.6), cv2.max(residential, house), trees.cover, thing]), 2.5)
    marks = Layer.of(cv2.merge([wet, upland, built, _sunlight(height, conditions)]), 2.5)
    return Landscape(
        conditions=conditions,
        height=Layer.of(height, 1.8),
        slope_x=Layer.of(slope_x, 1.8),
        slope_z=Layer.of(slope_z, 1.8),
        classes=classes,
        marks=marks,
        ground=Layer.of(colours, 3.5),
        painted=Layer.of(cv2.merge([*cv2.split(painted), _walls(slope_x, slope_z, house)]), 2.5),
        clearance=_clearance(ground + trees.height),
        survey=classify(classes.coarse, marks.coarse),
    )


def classify(classes: Array, marks: Array) -> Array:
    """Dronescapes ids, uint8, from sampled `classes` and `marks`, `(..., 4)` uint8; never sky."""
    labels = np.zeros(classes.shape[:-1], np.uint8)
    for identity, cover in (
        (7, marks[..., 1]),
        (5, marks[..., 0]),
        (1, classes[..., 2]),
        (2, classes[..., 1]),
        (3, classes[..., 0]),
        (4, classes[..., 3]),
    ):
        np.copyto(labels, np.uint8(identity), where=cover >= 128)
    return labels


def _closed(image: Array) -> Array:
    """One more row and column, the first again, so that interpolation needs no wrap."""
    return np.ascontiguousarray(cv2.copyMakeBorder(image, 0, 1, 0, 1, cv2.BORDER_WRAP))


def _gradient(height: Array) -> tuple[Array, Array]:
    padded = wrap_pad(height, 1)
    scale = np.float32(1 / (2 * CELL))
    return (padded[2:, 1:-1] - padded[:-2, 1:-1]) * scale, (padded[1:-1, 2:] - padded[1:-1, :-2]) * scale


def _walls(slope_x: Array, slope_z: Array, house: Array) -> Array:
    """uint8: 255 where a house is steeper than a roof, and next to it, so that no roof colour leaks out."""
    steep = np.clip((np.hypot(slope_x, slope_z) - 1.1) * 255, 0, 255).astype(np.uint8)
    wider = filtered(steep, 2, lambda padded: np.asarray(cv2.dilate(padded, np.ones((3, 3)))))
    return np.asarray(cv2.bitwise_and(wider, house))


def _clearance(height: Array) -> Array:
    """A smooth surface above everything, on a grid of an eighth."""
    small = cv2.resize(height, None, fx=0.125, fy=0.125, interpolation=cv2.INTER_AREA)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15))
    return blurred(filtered(small, 12, lambda padded: np.asarray(cv2.dilate(padded, disc))), 7.0)


def _graded(height: Array, road: Array) -> Array:
    """The ground with road beds: level across, and a dam where a road crosses water."""
    near = blurred(cv2.min(road, 255).astype(np.float32), 4.0) / 255
    weight = np.clip(near * 3.5, 0, 1)
    bed = np.maximum(blurred(height, 6.0), 1.2)
    return np.asarray(height + weight * (bed - height))


def _raise(height: Array, cover: Array, box: Box, ground: Array) -> None:
    """Puts a box on the map, antialiased: its walls are one cell wide."""
    reach = int(np.hypot(box.length, box.width) / 2 / CELL) + 3
    centre = np.array([box.x, box.z]) / CELL
    node = np.rint(centre).astype(int)
    offset = np.arange(-reach, reach + 1)
    rows, columns = (node[1] + offset) % SIZE, (node[0] + offset) % SIZE
    x = (node[0] - centre[0] + offset[None, :]) * CELL
    z = (node[1] - centre[1] + offset[:, None]) * CELL
    along = np.abs(x * np.cos(box.yaw) + z * np.sin(box.yaw))
    across = np.abs(z * np.cos(box.yaw) - x * np.sin(box.yaw))
    inside = np.clip(np.minimum(box.length / 2 - along, box.width / 2 - across) / CELL + 0.5, 0, 1)
    if not inside.any():
        return
    patch = np.ix_(rows, columns)
    base = float(ground[rows[reach], columns[reach]])
    top = base + box.height + box.roof * np.clip(box.width / 2 - across, 0, None)
    height[patch] += (inside * (top - height[patch])).astype(np.float32)
    cover[patch] = np.maximum(cover[patch], (255 * inside).astype(np.uint8))


def _sunlight(height: Array, conditions: Conditions) -> Array:
    """255 where the sun's disc is seen, 0 in cast shadow: a running maximum along the sun's direction.

    max over 2n steps is the max of max over n steps, here and n steps on: five passes look 45 m far.
    """
    low = cv2.resize(height, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    step = 2 * CELL
    x, z = np.cos(conditions.sun_azimuth), np.sin(conditions.sun_azimuth)
    drop = np.tan(conditions.sun_elevation) * step
    pad = 40
    shade = wrap_pad(low, pad)
    for doubling in range(5):
        reach = float(1 << doubling)
        move = np.array([[1, 0, reach * x], [0, 1, reach * z]], np.float64)
        moved = cv2.warpAffine(
            shade,
            move,
            shade.shape[::-1],
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )
        shade = np.maximum(shade, moved - np.float32(reach * drop))
    shade = shade[pad:-pad, pad:-pad]
    lit = np.clip(1 - (shade - low - 0.25) * 0.8, 0, 1)
    return np.asarray(cv2.resize((lit * 255).astype(np.uint8), height.shape, interpolation=cv2.INTER_LINEAR))
