"""Surface normals from a depth map, by fitting a plane to the points of a window around each pixel."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.typecheck import expect
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_STRIP_ROWS = 32  # rows at a time: the working arrays stay in the cache
_LAGUERRE_STEPS = 4


class Normals(Expert):
    """Normals from the depth `of` another modality: float16 (H, W, 3), unit vectors, NaN where there is none.

    Camera frame: x right, y down, z forward; every normal faces the camera (n · p < 0). `window` is the odd
    side of the window in pixels. The camera is a pinhole with its centre in the middle of the picture and
    square pixels, of horizontal field of view `fov` (degrees), or as `intrinsics` = [fx, fy, cx, cy] in pixels
    of the stored frame say. Of inverse depth the reciprocal is taken; where it is relative, with a scale and an
    offset that nobody knows, normals are as good as the guess that the offset is 0.

    Method: the normal is the eigenvector of the smallest eigenvalue of the 3×3 covariance of the points, as an
    SVD of each window would give it; the covariances of all windows come from ten box filters over products of
    the coordinates, the eigenvectors in closed form.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "true_depth"}

    def __init__(
        self, of: str, window: int = 11, fov: float = 60.0, intrinsics: tuple[float, ...] | None = None
    ) -> None:
        if window < 3 or window % 2 == 0:
            raise ExpertError(f"normals: window {window} must be odd and at least 3.")
        if not 1 <= fov <= 170:
            raise ExpertError(f"normals: a field of view of {fov} degrees makes no sense.")
        if intrinsics is not None and (len(intrinsics) != 4 or min(intrinsics[:2]) <= 0):
            raise ExpertError("normals: intrinsics are [fx, fy, cx, cy] in pixels.")
        self.of, self.window, self.fov = of, window, fov
        self.intrinsics = intrinsics
        self._inverse = False

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        depth = expect(inputs, self.of, Kind.DEPTH, "normals")
        self._inverse = depth.near_is_high
        return Modality("normals", Kind.NORMALS, 3, "float16", (-1, 1), truth=depth.truth)

    def compute(self, batch: Batch) -> Array:
        depths = batch.inputs[self.of][..., 0]
        height, width = depths.shape[1:]
        camera = self.intrinsics or pinhole(height, width, self.fov)
        out = np.empty((*depths.shape, 3), np.float16)
        for depth, result in zip(depths, out, strict=True):
            if self._inverse:
                with np.errstate(divide="ignore", invalid="ignore"):
                    depth = 1 / depth.astype(np.float32)
            result[...] = normals_from_depth(depth, camera, self.window)
        return out


def pinhole(height: int, width: int, fov: float) -> tuple[float, float, float, float]:
    """(fx, fy, cx, cy) in pixels for a horizontal field of view in degrees."""
    focal = width / 2 / math.tan(math.radians(fov) / 2)
    return focal, focal, (width - 1) / 2, (height - 1) / 2


def normals_from_depth(depth: Array, camera: tuple[float, ...], window: int) -> Array:
    """Normals float32 (H, W, 3) of a depth map (H, W); no value where depth is not finite or not positive.

    A pixel has a normal if it has a depth, and at least a quarter of its window has.
    """
    height, width = depth.shape
    fx, fy, cx, cy = camera
    out = np.empty((height, width, 3), np.float32)
    ray_x = (np.arange(width) - cx) / fx
    ray_y = (np.arange(height) - cy) / fy
    for top, bottom, first, last in _strips(height, window // 2):
        z = depth[first:last].astype(np.float64)
        valid = np.isfinite(z) & (z > 0)
        # Selections by mask cost several times what arithmetic does: most strips of most depth maps need none.
        dense = bool(valid.all())
        if not dense:
            z[~valid] = 0
        count = _count(None if dense else valid, z.shape, window)
        covariance = _covariances(z, count, ray_x[None], ray_y[first:last, None], window)
        inner = slice(top - first, top - first + bottom - top)
        normal = _smallest_eigenvector(*(moment[inner] for moment in covariance))
        towards = normal[0] * ray_x[None] + normal[1] * ray_y[top:bottom, None] + normal[2]
        sign = np.copysign(np.float32(1), -towards)
        if not dense:
            sign[~valid[inner] | (count[inner] < max(3, window * window // 4))] = np.nan
        for axis in range(3):
            np.multiply(normal[axis], sign, out=out[top:bottom, :, axis])
    return out


def _strips(height: int, margin: int) -> Iterator[tuple[int, int, int, int]]:
    """(top, bottom) of strips of rows, and (first, last) with the margin that their windows need."""
    for top in range(0, height, _STRIP_ROWS):
        bottom = min(height, top + _STRIP_ROWS)
        yield top, bottom, max(0, top - margin), min(height, bottom + margin)


def _window_sum(values: Array, window: int) -> Array:
    sums = cv2.boxFilter(values, cv2.CV_64F, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.asarray(sums)


def _count(valid: Array | None, shape: tuple[int, ...], window: int) -> Array:
    """How many points there are in the window of each pixel; all that lie within `shape` where `valid` is None."""
    if valid is not None:
        return _window_sum(valid.astype(np.float64), window)
    rows, columns = (
        np.minimum(np.arange(side), window // 2) + np.minimum(np.arange(side)[::-1], window // 2) + 1.0
        for side in shape
    )
    return rows[:, None] * columns


def _covariances(z: Array, count: Array, ray_x: Array, ray_y: Array, window: int) -> tuple[Array, ...]:
    """(xx, xy, xz, yy, yz, zz) of the points in each window, scaled to unit trace, float32.

    The sums are float64: the square of a distance minus the square of its mean cancels almost all digits.
    """
    x, y = z * ray_x, z * ray_y
    share = 1 / np.maximum(count, 1)
    mean_x, mean_y, mean_z = (_window_sum(axis, window) * share for axis in (x, y, z))
    xx = _window_sum(x * x, window) * share - mean_x * mean_x
    xy = _window_sum(x * y, window) * share - mean_x * mean_y
    xz = _window_sum(x * z, window) * share - mean_x * mean_z
    yy = _window_sum(y * y, window) * share - mean_y * mean_y
    yz = _window_sum(y * z, window) * share - mean_y * mean_z
    zz = _window_sum(z * z, window) * share - mean_z * mean_z
    # Where nothing is, rounding is all that there is: it must not be blown up.
    scale = (count > 2) / np.maximum(xx + yy + zz, 1e-12 * mean_z * mean_z + 1e-30)
    return tuple((moment * scale).astype(np.float32) for moment in (xx, xy, xz, yy, yz, zz))


def _smallest_eigenvector(
    xx: Array, xy: Array, xz: Array, yy: Array, yz: Array, zz: Array
) -> tuple[Array, Array, Array]:
    """Unit eigenvector of the smallest eigenvalue of symmetric 3×3 matrices of unit trace.

    The eigenvalue is the smallest root of λ³ - λ² + sλ - d. All roots are real, so Laguerre's steps from 0
    approach it from below and never pass it, quickly even where two eigenvalues nearly coincide. The
    eigenvector is the largest column of the adjugate of the matrix minus λ, whose rank is one.
    """
    minors = yy * zz - yz * yz, xx * zz - xz * xz, xx * yy - xy * xy
    s = minors[0] + minors[1] + minors[2]
    d = xx * minors[0] - xy * (xy * zz - yz * xz) + xz * (xy * yz - yy * xz)
    root = np.zeros_like(xx)
    for _ in range(_LAGUERRE_STEPS):
        value = ((root - 1) * root + s) * root - d
        slope = (3 * root - 2) * root + s
        inner = 4 * slope * slope - 6 * value * (6 * root - 2)
        root -= 3 * value / np.maximum(slope + np.sqrt(np.maximum(inner, 0)), np.float32(1e-12))
    a, b, c = xx - root, yy - root, zz - root
    xx, yy, zz = b * c - yz * yz, a * c - xz * xz, a * b - xy * xy
    xy, xz, yz = xz * yz - xy * c, xy * yz - b * xz, xy * xz - a * yz
    first = ((xx >= yy) & (xx >= zz)).astype(np.float32)
    second = (yy >= zz) * (1 - first)
    third = 1 - first - second
    x = first * xx + second * xy + third * xz
    y = first * xy + second * yy + third * yz
    z = first * xz + second * yz + third * zz
    length = 1 / np.sqrt(np.maximum(x * x + y * y + z * z, np.float32(1e-30)))
    return x * length, y * length, z * length
