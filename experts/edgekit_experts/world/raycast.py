"""First hits of all rays of a camera with a height field, to a small part of a pixel.

Per direction on the map (a column of the table) the height field is sampled at growing distances; the running
maximum of the elevation angle seen from the camera says which samples are visible ("voxel space", NovaLogic
1992). Counting samples per angle turns that into a table from (column, angle) to the two distances between which
the ray enters the ground. A bracketed root search on the bilinear height field then finds the hit itself, for
a camera turned in any way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world.landscape import CELL, COARSE, SIZE, Layer

Array = npt.NDArray[Any]

NEAREST, FARTHEST, STEPS = 12.0, 4200.0, 480
_SMOOTH_FROM, _SMOOTH_TO = 320.0, 640.0  # metres: the coarse maps take over
_MOST_PARTS = 12  # of a spot: more, and the calls cost more than they spare
_TOLERANCE, _RELATIVE = 0.01, 4e-4  # metres up or down, and per metre of distance; the last step is on top of it
_MAX_TURNS = 24
_MARCH = 128
_LONGEST = 32000  # OpenCV remaps no longer rows


@dataclass(frozen=True)
class _Part:
    """Rows of a spot that look at the same layers: `far` is the weight of the coarse one, an array or 0 or 1."""

    rows: slice
    x: Array
    z: Array
    far: Array | float
    near_x: Array | None = None  # with mixed weights: where to look on the fine layer
    near_z: Array | None = None

    @classmethod
    def mixed(cls, rows: slice, x: Array, z: Array, far: Array) -> _Part:
        # Points of no weight all look at one node: far ones are scattered over the fine map, and each look would
        # wait for the memory.
        near = (far < 1).astype(np.float32)
        return cls(rows, x, z, far, x * near, z * near)

    def sample(self, layer: Layer) -> Array:
        scale = np.float32(1 / COARSE)
        if isinstance(self.far, float):
            if self.far:
                return np.asarray(cv2.remap(layer.coarse, self.x * scale, self.z * scale, cv2.INTER_LINEAR))
            return np.asarray(cv2.remap(layer.fine, self.x, self.z, cv2.INTER_LINEAR))
        fine = cv2.remap(layer.fine, self.near_x, self.near_z, cv2.INTER_LINEAR)
        coarse = cv2.remap(layer.coarse, self.x * scale, self.z * scale, cv2.INTER_LINEAR)
        if fine.dtype == np.uint8:
            return np.asarray(cv2.blendLinear(fine, coarse, 1 - self.far, self.far))
        coarse -= fine
        coarse *= self.far
        coarse += fine
        return np.asarray(coarse)


@dataclass(frozen=True)
class Spot:
    """Points on the map, ready to sample layers at: nodes `x` and `z` within the map, `(rows, columns)`.

    Near ones take the fine layer, far ones the coarse, those between a mixture; rows that are all near or all far
    are spared the other.
    """

    x: Array
    z: Array
    parts: tuple[_Part, ...]

    @classmethod
    def at(cls, origin: tuple[float, float], x: Array, z: Array, distance: Array, farthest: float) -> Spot:
        """`x`, `z`: nodes from `origin`, fresh arrays; `distance` metres along the map, at most `farthest`."""
        reach = farthest / CELL
        for node, start in ((x, origin[0]), (z, origin[1])):
            node += np.float32(start)
            if start < reach or start + reach > SIZE:
                turns = np.floor(node * np.float32(1 / SIZE))
                turns *= np.float32(SIZE)
                node -= turns
        if farthest <= _SMOOTH_FROM:
            return cls(x, z, (_Part(slice(None), x, z, 0.0),))
        near, far = distance.max(axis=1) <= _SMOOTH_FROM, distance.min(axis=1) >= _SMOOTH_TO
        kind = np.where(near, 0, np.where(far, 1, 2))
        cuts = np.flatnonzero(np.diff(kind)) + 1
        if len(cuts) > _MOST_PARTS:
            cuts, kind = cuts[:0], np.full_like(kind, 2)
        parts = []
        for first, end in zip([0, *cuts], [*cuts, len(kind)], strict=True):
            rows = slice(int(first), int(end))
            if kind[first] < 2:
                parts.append(_Part(rows, x[rows], z[rows], float(kind[first])))
                continue
            weight = (distance[rows] - np.float32(_SMOOTH_FROM)) * np.float32(1 / (_SMOOTH_TO - _SMOOTH_FROM))
            parts.append(_Part.mixed(rows, x[rows], z[rows], np.clip(weight, 0, 1)))
        return cls(x, z, tuple(parts))

    def sample(self, layer: Layer) -> Array:
        """Bilinear values, in the layer's type."""
        if len(self.parts) == 1:
            return self.parts[0].sample(layer)
        values = np.empty((*self.x.shape, *layer.fine.shape[2:]), layer.fine.dtype)
        for part in self.parts:
            values[part.rows] = part.sample(layer)
        return values


@dataclass(frozen=True)
class Rays:
    """Rays by their direction on the map and their rise: `ux`, `uz` nodes per metre along the map, `rise` metres
    up per metre, `column` and `angle` their place in the table; float32 arrays of one shape."""

    ux: Array
    uz: Array
    rise: Array
    column: Array
    angle: Array


@dataclass(frozen=True)
class _Guess:
    """`distance` of each ray; where it is not near enough to the ground, `loose` (flat indices) with the `ends` of
    the bracket, and the ground above the ray there.
    """

    distance: Array
    loose: Array
    ends: tuple[Array, Array, Array, Array]


class Panorama:
    """All that is visible from one place, in the directions that a camera looks."""

    def __init__(
        self,
        height: Layer,
        position: Array,
        heading: float,
        sides: tuple[float, float],
        rises: tuple[float, float],
        spacing: float,
    ) -> None:
        """`position` world x, y, z; `sides` and `rises` the ranges of `Rays.column` and `Rays.angle` as
        `rays` gives them for any camera at that place; `spacing` the angle of a pixel in radians."""
        self._height = height
        self._altitude = np.float32(-position[1])
        self._origin = (float(position[0] / CELL % SIZE), float(position[2] / CELL % SIZE))
        self._heading = heading
        # Half-angle tangents: nearly even in the angle, and free of trigonometry per pixel.
        self._step = spacing / 2
        self._stride = 1.3 * self._step
        self._first_column, self._first_angle = sides[0] - self._stride, rises[0] - self._step
        self._columns = int((sides[1] - self._first_column) / self._stride) + 3
        self._angles = int((rises[1] - self._first_angle) / self._step) + 3
        self._enter, self._leave = self._table()

    def _table(self) -> tuple[Array, Array]:
        """Distances before and after the first hit, flat `(columns * angles)` float32; inf: no hit."""
        distance = np.geomspace(NEAREST, FARTHEST, STEPS).astype(np.float32)
        bearing = 2 * np.arctan(self._first_column + self._stride * np.arange(self._columns)) + self._heading
        east, north = (np.sin(bearing) / CELL).astype(np.float32), (np.cos(bearing) / CELL).astype(np.float32)
        bins = np.empty((STEPS, self._columns), np.float32)
        # In slabs of growing distance, so that only the far ones read the coarse map.
        for first in range(0, STEPS, 56):
            slab = distance[first : first + 56, None]
            spot = Spot.at(
                self._origin,
                slab * east,
                slab * north,
                np.broadcast_to(slab, (len(slab), self._columns)),
                float(slab[-1, 0]),
            )
            rise = (spot.sample(self._height) - self._altitude) / slab
            bins[first : first + 56] = rise / (1 + np.sqrt(1 + rise * rise))
        np.maximum.accumulate(bins, axis=0, out=bins)
        bins -= np.float32(self._first_angle)
        bins *= np.float32(1 / self._step)
        np.clip(bins, 0, self._angles, out=bins)
        index = bins.astype(np.int32)
        index += np.arange(self._columns, dtype=np.int32) * (self._angles + 1)
        counts = np.bincount(index.ravel(), minlength=self._columns * (self._angles + 1))
        below = np.cumsum(counts.reshape(self._columns, -1), axis=1, dtype=np.int32)
        # below[j, b]: samples that the top of angle bin b looks over. A pixel lies between two columns.
        before = np.zeros((self._columns, self._angles), np.int32)
        before[:, 1:] = below[:, : self._angles - 1]
        after = below[:, : self._angles].copy()
        np.minimum(before[:-1], before[1:], out=before[:-1])
        np.maximum(after[:-1], after[1:], out=after[:-1])
        near = np.concatenate([[np.float32(0.5)], distance])
        far = np.concatenate([distance, [np.float32(np.inf)]])
        return near[before].ravel(), far[after].ravel()

    def rays(self, right: Array, up: Array, ahead: Array) -> Rays:
        """Rays from direction vectors in a level frame turned to the heading, float32, any length."""
        flat = right * right
        flat += ahead * ahead
        length = np.sqrt(flat + up * up)
        np.sqrt(flat, out=flat)
        inverse = 1 / flat
        step = inverse * np.float32(1 / CELL)
        sine, cosine = np.float32(np.sin(self._heading)), np.float32(np.cos(self._heading))
        return Rays(
            ux=(ahead * sine + right * cosine) * step,
            uz=(ahead * cosine - right * sine) * step,
            rise=up * inverse,
            column=right / (ahead + flat),
            angle=up / (flat + length),
        )

    def hits(self, bands: Sequence[Rays]) -> list[Array]:
        """Distance along the map to the first hit of each ray, float32; inf where there is none."""
        guesses = [self._guess(rays) for rays in bands]
        # All that are left at once: the search has many small steps.
        loose = [_picked(rays, guess.loose) for rays, guess in zip(bands, guesses, strict=True)]
        together = Rays(*(np.concatenate(values, axis=1) for values in zip(*map(_fields, loose), strict=True)))
        ends = (np.concatenate(values) for values in zip(*(guess.ends for guess in guesses), strict=True))
        found = self._search(together, *ends)
        start = 0
        for guess in guesses:
            end = start + len(guess.loose)
            guess.distance.reshape(-1)[guess.loose] = found[start:end]
            start = end
        return [guess.distance for guess in guesses]

    def _guess(self, rays: Rays) -> _Guess:
        """Three looks at each ray: the ends of its bracket, and twice where a straight line through two looks says."""
        column = ((rays.column - np.float32(self._first_column)) * np.float32(1 / self._stride)).astype(np.intp)
        angle = ((rays.angle - np.float32(self._first_angle)) * np.float32(1 / self._step)).astype(np.intp)
        np.clip(column, 0, self._columns - 1, out=column)
        np.clip(angle, 0, self._angles - 1, out=angle)
        column *= self._angles
        column += angle
        low, high = np.take(self._enter, column), np.take(self._leave, column)

        sky = np.isinf(high)
        any_sky = bool(sky.any())
        if any_sky:
            high[sky] = FARTHEST
            low[sky & (low >= FARTHEST)] = FARTHEST * 0.99
        at_low, at_high = self._above(rays, low), self._above(rays, high)
        if any_sky:
            sky &= at_high < 0
            at_high[sky] = 1
        first = low + _share(at_low, at_high) * (high - low)
        at_first = self._above(rays, first)
        # The end of the bracket on the other side of the hit; arithmetic is faster here than a selection.
        under = (at_first < 0).astype(np.float32)
        other = low + under * (high - low)
        at_other = at_low + under * (at_high - at_low)
        hit = first + (other - first) * _between(at_first, at_other)
        at_hit = self._above(rays, hit)
        open_ = np.abs(at_hit) > _tolerance(hit)
        if any_sky:
            open_ &= ~sky
        loose = np.flatnonzero(open_)
        # Within tolerance the ground is straight: one more step needs no look at it.
        last = hit + (first - hit) * _between(at_hit, at_first)
        if any_sky:
            last[sky] = np.inf
        looks = (low, high, at_low, at_high, first, at_first, hit, at_hit)
        return _Guess(last, loose, _bracket(*(values.ravel()[loose] for values in looks)))

    def _search(self, rays: Rays, low: Array, high: Array, at_low: Array, at_high: Array) -> Array:
        """The sure way for those that are left, `(P,)`: make the bracket valid, then go on, now and then by half."""
        hit = high.copy()
        left = np.arange(len(hit))
        for factor in (0.99, 0.97, 0.93, 0.85, 0.6, 0.1):
            inside = np.flatnonzero(at_low >= 0)
            if not len(inside):
                break
            high[inside], at_high[inside] = low[inside], at_low[inside]
            low[inside] *= np.float32(factor)
            at_low[inside] = self._above_some(_picked(rays, inside), low[inside])
        beyond = np.flatnonzero(at_high < 0)
        if len(beyond):
            found = self._march(_picked(rays, beyond), high[beyond])
            for values, new in zip((low, high, at_low, at_high), found, strict=True):
                values[beyond] = new
        sky = np.isinf(high)
        if sky.any():
            hit[sky] = np.inf
            left = np.flatnonzero(~sky)
            rays = _picked(rays, left)
            low, high, at_low, at_high = low[left], high[left], at_low[left], at_high[left]
        for turn in range(_MAX_TURNS if len(left) else 0):
            share = np.float32(0.5) if turn % 3 == 2 else _share(at_low, at_high)
            middle = low + share * (high - low)
            at_middle = self._above_some(rays, middle)
            hit[left] = middle
            under = at_middle < 0
            # Illinois: an end that stays loses half its value, so that both ends move.
            at_high = np.where(under, at_high * np.float32(0.5), at_middle)
            at_low = np.where(under, at_middle, at_low * np.float32(0.5))
            low, high = np.where(under, middle, low), np.where(under, high, middle)
            open_ = np.flatnonzero(np.abs(at_middle) > _tolerance(middle))
            if not len(open_):
                break
            if len(open_) < 0.8 * len(left):
                left, rays = left[open_], _picked(rays, open_)
                low, high, at_low, at_high = low[open_], high[open_], at_low[open_], at_high[open_]
        return hit

    def _march(self, rays: Rays, start: Array) -> tuple[Array, Array, Array, Array]:
        """Ends of a bracket, and the ground above the ray at both, beyond `start` `(P,)`, where rays that pass a
        crest enter the ground again; an infinite end where they do not."""
        steps = np.linspace(0, 1, _MARCH, dtype=np.float32)[:, None]
        distance = start * (np.float32(FARTHEST) / start) ** steps
        above = self._above(Rays(*(np.repeat(values, _MARCH, axis=0) for values in _fields(rays))), distance)
        first = np.argmax(above > 0, axis=0)
        every = np.arange(len(start))
        before = np.maximum(first - 1, 0)
        high = np.where(first > 0, distance[first, every], np.float32(np.inf))
        return distance[before, every], high, above[before, every], above[first, every]

    def spot(self, rays: Rays, distance: Array) -> Spot:
        """Where rays are after `distance` metres along the map."""
        return Spot.at(self._origin, rays.ux * distance, rays.uz * distance, distance, float(distance.max()))

    def _above_some(self, rays: Rays, distance: Array) -> Array:
        """`_above` for `(P,)`, in pieces that OpenCV takes."""
        pieces = [
            self._above(Rays(*(values[:, part] for values in _fields(rays))), distance[None, part])[0]
            for part in (slice(start, start + _LONGEST) for start in range(0, max(1, len(distance)), _LONGEST))
        ]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _above(self, rays: Rays, distance: Array) -> Array:
        """Metres that the ground is above the ray."""
        result: Array = self.spot(rays, distance).sample(self._height)
        result -= self._altitude
        result -= rays.rise * distance
        return result


def _share(at_low: Array, at_high: Array) -> Array:
    """Where between its ends a bracket is crossed, by a straight line; never quite at an end."""
    share = at_low / np.minimum(at_low - at_high, np.float32(-1e-6))
    return np.asarray(np.clip(share, 0.01, 0.99, out=share))


def _between(at: Array, at_other: Array) -> Array:
    """How far towards `other` the crossing is, -0.5 to 1 of the way; 0 where the two do not differ."""
    difference = at - at_other
    difference += np.copysign(np.float32(1e-6), difference)
    share = at / difference
    return np.asarray(np.clip(share, -0.5, 0.99, out=share))


def _bracket(
    low: Array, high: Array, at_low: Array, at_high: Array, first: Array, at_first: Array, hit: Array, at_hit: Array
) -> tuple[Array, Array, Array, Array]:
    """The ends of a bracket drawn in by two looks inside of it."""
    for inner, at_inner in ((first, at_first), (hit, at_hit)):
        inside = (inner > low) & (inner < high)
        up, down = inside & (at_inner < 0), inside & (at_inner >= 0)
        low, at_low = np.where(up, inner, low), np.where(up, at_inner, at_low)
        high, at_high = np.where(down, inner, high), np.where(down, at_inner, at_high)
    return low, high, at_low, at_high


def _tolerance(distance: Array) -> Array:
    return np.maximum(distance * np.float32(_RELATIVE), np.float32(_TOLERANCE))


def _fields(rays: Rays) -> tuple[Array, ...]:
    return rays.ux, rays.uz, rays.rise, rays.column, rays.angle


def _picked(rays: Rays, index: Array) -> Rays:
    return Rays(*(values.ravel()[index][None] for values in _fields(rays)))
