"""A flight over a generated landscape: frames with exact ground truth, each a pure function of its number."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world.landscape import CELL, classify, make_landscape
from edgekit_experts.world.path import make_path
from edgekit_experts.world.raycast import Panorama, Rays
from edgekit_experts.world.shading import develop, expose, sky_colour, surface_colour
from edgekit_runtime.errors import UsageError

Array = npt.NDArray[Any]

FOCAL = 0.62  # of the width: 78 degrees from side to side, a drone's usual camera
_SKY = 6
_BAND = 90_000  # pixels worked on at a time: few enough for the cache, enough to keep two threads apart
_THREADS = 2


@dataclass(frozen=True)
class FlightFrame:
    """One frame of a flight with its ground truth.

    `rgb` uint8 `(H, W, 3)`; `depth` float32 `(H, W)`, metres along the optical axis, NaN in the sky; `normals`
    float32 `(H, W, 3)`, unit, camera frame (x right, y down, z forward), towards the camera, NaN in the sky; `flow`
    float32 `(H, W, 2)`, pixels (dx, dy) to frame `index + 1`, in the sky that of the rotation alone; `labels`
    uint8 `(H, W)` Dronescapes ids; `pose` float64 4x4, camera to world (x east, y down, z north, metres); `time`
    seconds.
    """

    index: int
    time: float
    rgb: Array
    depth: Array
    normals: Array
    flow: Array
    labels: Array
    pose: Array


class Flight:
    """A flight of `frames` frames (None: endless) of `size` (height, width) at `fps`.

    The landscape and the conditions depend on `seed` alone, where the camera goes on `seed` and `path`, so flights
    of one seed and path in several sizes show the same. Raises UsageError for sizes below 16, frame rates and counts
    that make no sense.
    """

    def __init__(
        self,
        seed: int,
        size: tuple[int, int] = (544, 960),
        frames: int | None = 120,
        fps: float = 25.0,
        path: int = 0,
    ) -> None:
        height, width = size
        if height < 16 or width < 16 or height > 4320 or width > 7680:
            raise UsageError(
                f"A flight cannot be {width}x{height} pixels.", hint="Give a size from 16x16 to 7680x4320."
            )
        if not 0 < fps <= 1000:
            raise UsageError(
                f"A flight cannot have {fps} frames per second.", hint="Give a frame rate above 0, up to 1000."
            )
        if seed < 0 or path < 0 or (frames is not None and frames < 0):
            raise UsageError("The seed, the path and the number of frames of a flight cannot be negative.")
        self.seed, self.size, self.frames, self.fps = seed, (height, width), frames, float(fps)
        focal = FOCAL * width
        self.intrinsics: Array = np.array(
            [[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], np.float64
        )
        self._land = make_landscape(seed)
        self._path = make_path(seed, self._land, path)

    def __len__(self) -> int:
        if self.frames is None:
            raise TypeError("an endless flight has no length")
        return self.frames

    def __iter__(self) -> Iterator[FlightFrame]:
        """Frames in order, rendered ahead by two threads; bounded, also when endless."""
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="flight") as pool:
            ahead: deque[Future[FlightFrame]] = deque()
            following = 0
            try:
                while ahead or self.frames is None or following < self.frames:
                    while len(ahead) <= _THREADS and (self.frames is None or following < self.frames):
                        ahead.append(pool.submit(self.render, following))
                        following += 1
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def pose(self, index: int) -> Array:
        """Camera-to-world of a frame, also of one beyond the end."""
        return self._path.pose(index / self.fps)

    def render(self, index: int) -> FlightFrame:
        """Frame `index`, the same bytes whatever was rendered before. Raises IndexError outside of the flight."""
        if index < 0 or (self.frames is not None and index >= self.frames):
            raise IndexError(f"frame {index} of a flight of {self.frames}")
        height, width = self.size
        pose, following = self.pose(index), self.pose(index + 1)
        view = _View(self.intrinsics, self.size, pose)
        panorama = view.panorama(self._land.height)
        rgb = np.empty((height, width, 3), np.uint8)
        depth = np.empty((height, width), np.float32)
        normals = np.empty((height, width, 3), np.float32)
        flow = np.empty((height, width, 2), np.float32)
        labels = np.empty((height, width), np.uint8)
        rows = max(1, _BAND // width)
        bands = [slice(top, min(top + rows, height)) for top in range(0, height, rows)]
        directions = [view.directions(band) for band in bands]
        rays = [panorama.rays(*direction) for direction in directions]
        for band, direction, some, along in zip(bands, directions, rays, panorama.hits(rays), strict=True):
            out = rgb[band], depth[band], normals[band], flow[band], labels[band]
            self._render_band(view, panorama, following, band, direction, some, along, out)
        image = develop(self._land.conditions, rgb, flow, self.fps, self.seed, index)
        return FlightFrame(index, index / self.fps, image, depth, normals, flow, labels, pose)

    def _render_band(
        self,
        view: _View,
        panorama: Panorama,
        following: Array,
        band: slice,
        direction: tuple[Array, Array, Array],
        rays: Rays,
        along: Array,
        out: tuple[Array, Array, Array, Array, Array],
    ) -> None:
        land = self._land
        rgb, depth, normals, flow, labels = out
        right, up, ahead = direction
        flat = np.sqrt(right * right + ahead * ahead)
        np.divide(along, flat, out=depth)
        sky = np.isinf(depth)
        any_sky, all_sky = bool(sky.any()), bool(sky.all())
        if any_sky:
            along[sky] = 1.0
            depth[sky] = 1.0
        length = np.sqrt(flat * flat + up * up)

        if not all_sky:
            spot = panorama.spot(rays, along)
            marks = spot.sample(land.marks)
            labels[:] = classify(spot.sample(land.classes), marks)
            slope_x, slope_z = spot.sample(land.slope_x), spot.sample(land.slope_z)
            upward = 1 / np.sqrt(1 + slope_x * slope_x + slope_z * slope_z)
            normal = (-slope_x * upward, upward, -slope_z * upward)
            view.camera_normals(normal, rays, up / flat, normals)
            rgb[:] = expose(
                land.conditions,
                surface_colour(land, spot, marks, normal, depth, np.maximum(-up / length, 0), view.pixel),
            )
        view.flow(following, depth, sky if any_sky else None, band, flow)
        if any_sky:
            above = np.flatnonzero(sky.any(axis=1))
            part = slice(int(above[0]), int(above[-1]) + 1)
            metres = flat[part] * np.float32(CELL)
            planes = sky_colour(land.conditions, rays.ux[part] * metres, up[part], rays.uz[part] * metres, length[part])
            np.copyto(rgb[part], expose(land.conditions, planes), where=sky[part, :, None])
            labels[sky] = _SKY
            depth[sky] = np.nan
            normals[sky] = np.nan


class _View:
    """The rays of one camera pose, band by band."""

    def __init__(self, intrinsics: Array, size: tuple[int, int], pose: Array) -> None:
        self.size, self.pose = size, pose
        self.focal, self.centre = float(intrinsics[0, 0]), intrinsics[:2, 2]
        self.pixel = 1 / self.focal
        forward = pose[:3, 2]
        self.heading = float(np.arctan2(forward[0], forward[2]))
        sine, cosine = np.sin(self.heading), np.cos(self.heading)
        # Rows: right, up, ahead of a level frame that is turned to the heading.
        level = np.array([[cosine, 0, -sine], [0, -1, 0], [sine, 0, cosine]])
        self._turn = level @ pose[:3, :3]
        self._x = ((np.arange(size[1]) - self.centre[0]) / self.focal).astype(np.float32)[None, :]
        self._y = ((np.arange(size[0]) - self.centre[1]) / self.focal).astype(np.float32)[:, None]

    def directions(self, rows: slice | None = None) -> tuple[Array, Array, Array]:
        """(right, up, ahead) of each pixel's ray at unit depth, float32."""
        y = self._y if rows is None else self._y[rows]
        m = self._turn.astype(np.float32)
        return tuple(m[i, 0] * self._x + (m[i, 1] * y + m[i, 2]) for i in range(3))

    def panorama(self, height: Any) -> Panorama:
        """The visible ground for all rays of this view: the border of the picture spans them."""
        x, y = np.meshgrid(self._x[0], self._y[:, 0])
        edge = [np.concatenate([a[0], a[-1], a[:, 0], a[:, -1], a[:, a.shape[1] // 2]]) for a in (x, y)]
        right, up, ahead = (self._turn @ np.stack([edge[0], edge[1], np.ones_like(edge[0])])).astype(np.float64)
        flat = np.hypot(right, ahead)
        sides, rises = right / (ahead + flat), up / (flat + np.hypot(flat, up))
        return Panorama(
            height, self.pose[:3, 3], self.heading, (sides.min(), sides.max()), (rises.min(), rises.max()), self.pixel
        )

    def camera_normals(self, normal: tuple[Array, Array, Array], rays: Rays, rise: Array, out: Array) -> None:
        """Into the camera frame; a smoothed normal that turns away from the ray is laid across it."""
        toward = normal[0] * rays.ux
        toward += normal[2] * rays.uz
        toward *= np.float32(CELL)
        toward += normal[1] * rise
        away = toward > -0.001
        if away.any():
            ray = np.stack([rays.ux[away] * CELL, rise[away], rays.uz[away] * CELL])
            bent = np.stack([component[away] for component in normal])
            bent -= ray * ((toward[away] + 0.001) / (1 + rise[away] ** 2))
            bent /= np.sqrt(np.sum(bent * bent, axis=0))
            for component, value in zip(normal, bent, strict=True):
                component[away] = value
        # The world's y axis points down.
        turn = self.pose[:3, :3].T * np.array([1.0, -1.0, 1.0])
        out[:] = cv2.transform(cv2.merge(normal), turn)

    def flow(self, following: Array, depth: Array, sky: Array | None, rows: slice, out: Array) -> None:
        """Where each surface point is in the next picture, minus where it is in this one."""
        turn = (following[:3, :3].T @ self.pose[:3, :3]).astype(np.float32)
        move = (following[:3, :3].T @ (self.pose[:3, 3] - following[:3, 3])).astype(np.float32)
        # Everything divided by depth, so that the sky is simply where the inverse depth is 0.
        inverse = 1 / depth
        if sky is not None:
            inverse[sky] = 0
        x, y = self._x, self._y[rows]
        z = turn[2, 0] * x + (turn[2, 1] * y + turn[2, 2]) + move[2] * inverse
        np.divide(np.float32(self.focal), z, out=z)
        planes = []
        for axis, start in ((0, x), (1, y)):
            there = turn[axis, 0] * x + (turn[axis, 1] * y + turn[axis, 2]) + move[axis] * inverse
            there *= z
            there -= start * np.float32(self.focal)
            planes.append(there)
        out[:] = cv2.merge(planes)
