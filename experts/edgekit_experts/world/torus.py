"""Arithmetic on a square map whose edges meet: noise, filters and drawing without a seam.

A map is `(size, size)`, indexed `[z, x]`, one value per node of a square grid; node `size` is node 0 again, so a
flight may go on for ever in any direction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
_SUBPIXEL_BITS = 6


def wrap_pad(image: Array, pad: int) -> Array:
    """The map with `pad` nodes of its other side around it."""
    return np.asarray(cv2.copyMakeBorder(image, pad, pad, pad, pad, cv2.BORDER_WRAP))


def filtered(image: Array, reach: int, operation: Callable[[Array], Array]) -> Array:
    """`operation`, which looks at most `reach` nodes around, applied without a seam."""
    reach = min(reach, image.shape[0])
    result: Array = operation(wrap_pad(image, reach))[reach:-reach, reach:-reach]
    return np.ascontiguousarray(result)


def blurred(image: Array, sigma: float) -> Array:
    """Gaussian blur; wide ones are done on a coarser grid, which cannot be told apart."""
    if sigma >= 8 and image.shape[0] % 4 == 0:
        small = cv2.resize(image, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        return upsampled(blurred(small, sigma / 4), image.shape[0])
    return filtered(image, int(3 * sigma) + 1, lambda padded: cv2.GaussianBlur(padded, (0, 0), sigma))


def upsampled(image: Array, size: int) -> Array:
    """Bicubic enlargement by a whole factor."""
    factor = size // image.shape[0]
    if factor == 1:
        return image
    padded = wrap_pad(image, 2)
    large = cv2.resize(padded, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(large[2 * factor : -2 * factor, 2 * factor : -2 * factor])


def fractal(rng: np.random.Generator, size: int, cycles: int, octaves: int, gain: float = 0.5) -> Array:
    """Fractal value noise, float32 `(size, size)` of zero mean and unit variance.

    `cycles` bumps across the map in the first octave (a power of two), doubled in each further one, each
    weaker by `gain`.
    """
    # Octaves are added from coarse to fine on a growing grid: a coarse bump needs no fine sampling.
    noise = np.zeros((cycles, cycles), np.float32)
    weight = 1.0
    for octave in range(octaves):
        grid = cycles << octave
        noise = upsampled(noise, grid) if octave else noise
        noise = noise + np.float32(weight) * rng.standard_normal((grid, grid), np.float32)
        weight *= gain
    while noise.shape[0] < size:
        noise = upsampled(noise, min(size, noise.shape[0] * (4 if size // noise.shape[0] % 4 == 0 else 2)))
    mean, deviation = cv2.meanStdDev(noise)
    return (noise - np.float32(mean[0, 0])) / np.float32(deviation[0, 0])


def smoothstep(values: Array, low: float, high: float) -> Array:
    """0 below `low`, 1 above `high`, smooth between."""
    t = np.clip((values - low) / (high - low), 0, 1)
    result: Array = t * t * (3 - 2 * t)
    return result


def sample(image: Array, points: Array) -> Array:
    """Values at the nearest nodes of `points`, `(P, 2)` as (x, z) in nodes."""
    nodes = np.rint(points).astype(np.int64) % image.shape[0]
    result: Array = image[nodes[:, 1], nodes[:, 0]]
    return result


def shifts(points: Array, size: int, margin: float) -> list[Array]:
    """The copies of a shape, `(P, 2)` in nodes, that touch the map."""
    low, high = points.min(axis=0) - margin, points.max(axis=0) + margin
    first, last = np.ceil((-high) / size).astype(int), np.floor((size - low) / size).astype(int)
    return [
        points + np.array([x, z]) * size for x in range(first[0], last[0] + 1) for z in range(first[1], last[1] + 1)
    ]


def _fixed(points: Array) -> Array:
    return np.asarray(np.rint(points * (1 << _SUBPIXEL_BITS)).astype(np.int32))


def draw_line(image: Array, points: Array, colour: float | Sequence[float], thickness: int) -> None:
    """An antialiased polyline through `points`, `(P, 2)` as (x, z) in nodes."""
    for copy in shifts(points, image.shape[0], thickness + 2):
        cv2.polylines(image, [_fixed(copy)], False, colour, thickness, cv2.LINE_AA, _SUBPIXEL_BITS)


def draw_polygon(image: Array, corners: Array, colour: float | Sequence[float]) -> None:
    """A filled convex polygon with antialiased edges."""
    for copy in shifts(corners, image.shape[0], 2):
        cv2.fillConvexPoly(image, _fixed(copy), colour, cv2.LINE_AA, _SUBPIXEL_BITS)


def nearest_seed(seeds: Array, size: int, pad: int) -> tuple[Array, Array]:
    """Distance (nodes) to, and index of, the nearest of `seeds`, `(P, 2)` whole (x, z): a Voronoi diagram.

    `pad` must exceed the largest distance.
    """
    where = np.full((size, size), -1, np.int32)
    where[seeds[:, 1], seeds[:, 0]] = np.arange(len(seeds))
    where = wrap_pad(where, pad)
    distance, label = cv2.distanceTransformWithLabels(
        (where < 0).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
    )
    # OpenCV numbers the zero pixels itself; its number of each seed leads back to ours.
    numbers = np.zeros(int(label.max()) + 1, np.int32)
    at_seed = where >= 0
    numbers[label[at_seed]] = where[at_seed]
    inner = slice(pad, pad + size)
    return np.ascontiguousarray(distance[inner, inner]), numbers[label[inner, inner]]


def jittered(rng: np.random.Generator, size: int, spacing: int) -> Array:
    """One whole random node (x, z) in each `spacing`-wide square of the map: `(P, 2)` int64."""
    count = size // spacing
    z, x = np.mgrid[0:count, 0:count]
    corners = np.stack([x.ravel(), z.ravel()], 1) * spacing
    return np.minimum(corners + rng.integers(0, spacing, corners.shape), size - 1)
