"""Colours of the land, drawn so that no class owns one: fields, hills, yards and forests share their palettes,
roads share theirs with roofs and bare soil, small things have any."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world.conditions import Conditions
from edgekit_experts.world.relief import Relief
from edgekit_experts.world.roads import Road
from edgekit_experts.world.structures import Box
from edgekit_experts.world.torus import (
    blurred,
    draw_line,
    draw_polygon,
    fractal,
    jittered,
    nearest_seed,
    sample,
    smoothstep,
    upsampled,
)

Array = npt.NDArray[Any]

GROWING = np.array(
    [(84, 104, 56), (104, 120, 66), (66, 88, 48), (136, 130, 84), (166, 150, 100), (54, 74, 44), (122, 116, 70)],
    np.float32,
)
EARTH = np.array([(118, 98, 76), (92, 76, 60), (142, 124, 98), (120, 116, 108), (150, 146, 138)], np.float32)
CROWNS = np.array([(48, 70, 38), (62, 86, 44), (80, 96, 50), (110, 108, 56), (96, 84, 62), (40, 56, 36)], np.float32)
PAVED = np.array(
    [(92, 92, 95), (112, 111, 110), (140, 136, 130), (158, 155, 150), (128, 108, 84), (150, 134, 106)], np.float32
)
ROOFS = np.array(
    [
        (104, 98, 96),
        (138, 134, 130),
        (146, 84, 62),
        (120, 70, 58),
        (86, 66, 58),
        (78, 92, 74),
        (98, 106, 120),
        (168, 160, 148),
    ],
    np.float32,
)


@dataclass(frozen=True)
class Fields:
    """Parcels of farmed land: `parcel` int32 ids, `edge` m to the parcel's border (roughly), `count`."""

    parcel: Array
    edge: Array
    count: int


@dataclass(frozen=True)
class Trees:
    """`height` of the crowns (m, 0 outside), `cover` uint8 coverage of forest, `tint` `(size, size)` 0..1 per tree."""

    height: Array
    cover: Array
    tint: Array


def make_fields(rng: np.random.Generator, size: int, cell: float) -> Fields:
    half = size // 2
    seeds = jittered(rng, half, 64)
    _, parcel = nearest_seed(seeds, half, 128)
    border = (parcel != np.roll(parcel, 1, 0)) | (parcel != np.roll(parcel, 1, 1))
    edge = cv2.distanceTransform((~border).astype(np.uint8), cv2.DIST_L2, 3) * (2 * cell)
    large = cv2.resize(parcel.astype(np.float32), (size, size), interpolation=cv2.INTER_NEAREST).astype(np.int32)
    return Fields(large, cv2.resize(edge, (size, size), interpolation=cv2.INTER_LINEAR), len(seeds))


def make_trees(
    rng: np.random.Generator, size: int, cell: float, fields: Fields, open_land: Array, hill: Array
) -> Trees:
    """Woods, thinning at their rims, hedges along some parcels and a few lone trees, on `open_land` only."""
    spacing = max(2, round(5.5 / cell))
    seeds = jittered(rng, size, spacing)
    distance, tree = nearest_seed(seeds, size, 4 * spacing)

    wood = upsampled(fractal(rng, size // 4, 4, 4, gain=0.45), size)
    threshold = np.quantile(wood[::16, ::16], rng.uniform(0.62, 0.78))
    hedged = rng.random(fields.count) < 0.18
    parcel = sample(fields.parcel, seeds)
    grows = sample(wood, seeds) + rng.normal(0, 0.07, len(seeds)) > threshold + 0.25 * sample(hill, seeds)
    lone = (hedged[parcel] & (sample(fields.edge, seeds) < 3.2)) | (rng.random(len(seeds)) < 0.002)
    alive = (grows | lone) & sample(open_land, seeds)

    radius = rng.uniform(2.6, 4.6, len(seeds))
    tall = rng.uniform(5, 9) + rng.uniform(0, 5, len(seeds)) + np.where(grows, 2, 0)
    alive, radius, tall = (np.take(one.astype(np.float32), tree) for one in (alive, radius, tall))
    reach = distance * np.float32(cell) / radius
    # Between the crowns of a wood lies wood.
    thicket = np.clip((blurred(alive, 4.0) - 0.62) * 8, 0, 1) * open_land
    cover = (255 * np.maximum(alive * np.clip((1.12 - reach) * 3, 0, 1), thicket)).astype(np.uint8)
    height = np.sqrt(np.clip(1 - 0.8 * np.square(reach), 0, 1)) * np.clip((1.1 - reach) * 5, 0, 1) * tall * alive
    height = np.maximum(height, thicket * 4)
    tint = rng.random(len(seeds)).astype(np.float32)[tree]
    return Trees(blurred(height, 0.7), blurred(cover, 0.8), tint)


def make_ground(
    rng: np.random.Generator,
    conditions: Conditions,
    relief: Relief,
    fields: Fields,
    trees: Trees,
    residential: Array,
    ground: Array,
    cell: float,
) -> Array:
    """RGB and roughness, uint8 `(size, size, 4)`, of everything that is not built."""
    size = relief.height.shape[0]
    growing = GROWING * conditions.season
    broad = fractal(rng, size, 8, 4)
    fine = fractal(rng, size, 128, 4, gain=0.75)

    # Fields: each parcel has two neighbouring colours and rows of its own direction and spacing.
    palette = np.concatenate([growing, growing, EARTH])
    first = palette[rng.integers(len(palette), size=fields.count)] * rng.uniform(0.85, 1.12, (fields.count, 1))
    second = first * rng.uniform(0.82, 1.1, (fields.count, 1)) + rng.normal(0, 5, (fields.count, 3))
    angle, period = rng.uniform(0, np.pi, fields.count), rng.uniform(3.2, 9, fields.count)
    frequency = np.where(rng.random(fields.count) < 0.6, 2 * np.pi * cell / period, 0.01)
    node = np.arange(size, dtype=np.float32)
    phase = np.take((np.cos(angle) * frequency).astype(np.float32), fields.parcel) * node[None, :]
    phase += np.take((np.sin(angle) * frequency).astype(np.float32), fields.parcel) * node[:, None]
    stripe = np.clip(0.5 + 0.5 * np.sin(phase) + 0.35 * fine + 0.3 * broad, 0, 1)
    colour = _blend(_coloured(first, fields.parcel), _coloured(second, fields.parcel), stripe)

    meadow = _mixture(growing[rng.permutation(len(growing))[:4]], broad + 0.35 * fine)
    colour = _blend(colour, meadow, smoothstep(fractal(rng, size, 8, 3), 0.2, 0.5))

    slope = np.hypot(*np.gradient(relief.height[::4, ::4], 4 * cell)).astype(np.float32)
    bare = upsampled(slope, size) + 0.10 * fine + 0.12 * broad
    stone = _mixture(EARTH[rng.permutation(len(EARTH))[:3]], fine + 0.5 * broad)
    high = smoothstep(relief.hill, 5, 10)
    colour = _blend(colour, _blend(meadow, stone, smoothstep(bare, 0.42, 0.62)), high)

    yards = np.concatenate([growing[:4], EARTH])
    mixed = _mixture(yards[rng.permutation(len(yards))[:5]], 1.2 * fractal(rng, size, 64, 2))
    colour = _blend(colour, mixed, residential.astype(np.float32) * np.float32(0.8 / 255))

    crowns = CROWNS * conditions.season
    chosen = crowns[rng.permutation(len(crowns))[: rng.integers(2, 5)]]
    crown = _mixture(chosen, 2.2 * (trees.tint - 0.5) + 0.7 * broad)
    colour = _blend(colour, crown, trees.cover.astype(np.float32) * np.float32(1 / 255))

    silt = np.empty_like(colour)
    silt[:] = EARTH[int(rng.integers(len(EARTH)))]
    colour = _blend(colour, silt, smoothstep(ground, 1.1, 0.1) * np.float32(0.6))
    # Darker and lighter spots: half of the colour, and as much again as the noise says.
    spots = 0.5 + 0.025 * fine + 0.025 * broad + np.where(trees.cover > 100, 0.12 * (trees.tint - 0.6), 0)
    colour = cv2.blendLinear(colour, colour, spots.astype(np.float32), np.full_like(spots, 0.5, np.float32))
    rough = np.clip(110 + 90 * high + 60 * (trees.cover > 100).astype(np.float32), 0, 255).astype(np.uint8)
    return np.asarray(cv2.merge([*cv2.split(colour), rough]))


def make_roads(rng: np.random.Generator, roads: list[Road], size: int, cell: float) -> Array:
    """RGB uint8: road surfaces, a few metres wider than the roads; black elsewhere."""
    image = np.zeros((size, size, 3), np.uint8)
    common = PAVED[rng.permutation(len(PAVED))[:3]]
    for road in roads:
        colour = common[rng.integers(len(common))] * rng.uniform(0.85, 1.12)
        draw_line(image, road.line / cell, tuple(map(float, colour)), round(road.width / cell) + 5)
    grain = 1 + 0.05 * fractal(rng, size, 64, 4)
    return np.clip(image * grain[..., None], 0, 255).astype(np.uint8)


def paint_house(rng: np.random.Generator, image: Array, house: Box, cell: float) -> None:
    colour = ROOFS[rng.integers(len(ROOFS))] * rng.uniform(0.75, 1.2) + rng.normal(0, 6, 3)
    draw_polygon(image, house.corners(1.6) / cell, tuple(map(float, np.clip(colour, 0, 255))))


def paint_thing(rng: np.random.Generator, image: Array, box: Box, cell: float) -> None:
    pick = rng.random()
    if pick < 0.45:
        colour = np.full(3, rng.choice((30, 60, 120, 175, 220))) + rng.normal(0, 8, 3)
    elif pick < 0.7:
        colour = np.concatenate([GROWING, EARTH, ROOFS])[rng.integers(len(GROWING) + len(EARTH) + len(ROOFS))]
    else:
        vivid = rng.uniform(30, 205, 3)
        colour = vivid + rng.uniform(0.1, 0.7) * (vivid.mean() - vivid)
    draw_polygon(image, box.corners(0.9) / cell, tuple(map(float, np.clip(colour, 0, 255))))


def _mixture(colours: Array, value: Array) -> Array:
    """A smooth walk through `colours` as `value` (of about unit variance) grows: RGB uint8 `(h, w, 3)`."""
    steps = np.linspace(0, len(colours) - 1, 256)
    table = np.stack([np.interp(steps, np.arange(len(colours)), colours[:, axis]) for axis in range(3)], 1)
    index = cv2.convertScaleAbs(np.maximum(value * np.float32(62) + np.float32(128), 0))
    return np.asarray(cv2.LUT(cv2.merge([index] * 3), np.clip(table, 0, 255).astype(np.uint8)[:, None]))


def _coloured(colours: Array, index: Array) -> Array:
    """RGB uint8 `(h, w, 3)`: the colour of each index."""
    table = np.clip(colours, 0, 255).astype(np.uint8)
    return np.asarray(cv2.merge([np.take(table[:, axis], index) for axis in range(3)]))


def _blend(below: Array, above: Array, weight: Array) -> Array:
    """uint8 pictures mixed by a float weight map, 0..1."""
    weight = weight.astype(np.float32)
    return np.asarray(cv2.blendLinear(below, above, 1 - weight, weight))
