"""Depth from motion: the expert that needs no weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.classical.normals import pinhole
from edgekit_experts.expert import Batch, Expert
from edgekit_experts.typecheck import expect
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_POINTS = 1500  # correspondences that decide the motion of the camera
_LEAST_FLOW = 0.3  # pixels, of the median: below it the camera stood still
_FARTHEST = 100.0  # times the median


class ParallaxDepth(Expert):
    """Relative depth from the flow `of` another modality: float16 (H, W, 1), 1 at its median, NaN where unknown.

    The essential matrix of the flow (five points, RANSAC) says how the camera moved; each pixel is triangulated
    along its flow. What does not move as the rest of a still scene does (`tolerance`, pixels from its epipolar
    line), what shows too little parallax and whole frames without motion have no value. The camera is a pinhole of
    horizontal field of view `fov` in degrees, or of `intrinsics` = [fx, fy, cx, cy]. Method: Nistér, An Efficient
    Solution to the Five-Point Relative Pose Problem, 2004, as in OpenCV.
    """

    example: ClassVar[Mapping[str, Any]] = {"of": "dis_flow"}

    def __init__(
        self, of: str, fov: float = 60.0, intrinsics: tuple[float, ...] | None = None, tolerance: float = 1.0
    ) -> None:
        if not 1 <= fov <= 170 or tolerance <= 0:
            raise ExpertError(f"parallax_depth: fov {fov}, tolerance {tolerance} make no sense.")
        if intrinsics is not None and (len(intrinsics) != 4 or min(intrinsics[:2]) <= 0):
            raise ExpertError("parallax_depth: intrinsics are [fx, fy, cx, cy] in pixels.")
        self.of, self.fov, self.intrinsics, self.tolerance = of, fov, intrinsics, tolerance

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        flow = expect(inputs, self.of, Kind.FLOW, "parallax_depth")
        return Modality("parallax_depth", Kind.DEPTH, 1, "float16", (0, _FARTHEST), "relative", truth=flow.truth)

    def compute(self, batch: Batch) -> Array:
        flows = batch.inputs[self.of]
        camera = self.intrinsics or pinhole(flows.shape[1], flows.shape[2], self.fov)
        return np.stack([depth_from_flow(flow, camera, self.tolerance) for flow in flows])[..., None]


def depth_from_flow(flow: Array, camera: tuple[float, ...], tolerance: float) -> Array:
    """Float16 `(H, W)`; all NaN where the camera did not move or its motion cannot be found."""
    height, width = flow.shape[:2]
    flow = flow.astype(np.float32)
    nothing = np.full((height, width), np.nan, np.float16)
    fx, fy, cx, cy = camera
    y, x = np.mgrid[:height, :width].astype(np.float32)
    # Rays of unit depth through each pixel and through where it went.
    first = (x - cx) / fx, (y - cy) / fy
    second = (x + flow[..., 0] - cx) / fx, (y + flow[..., 1] - cy) / fy
    step = max(1, int(np.sqrt(height * width / _POINTS)))
    picks = (slice(step // 2, None, step),) * 2
    before, after = (np.stack([axis[picks].ravel() for axis in rays], axis=1) for rays in (first, second))
    known = np.isfinite(after).all(axis=1)
    before, after = before[known].astype(np.float64), after[known].astype(np.float64)
    if len(before) < 20 or np.median(np.linalg.norm(after - before, axis=1)) * fx < _LEAST_FLOW:
        return nothing
    cv2.setRNGSeed(0)  # the same frame, the same answer
    essential, inliers = cv2.findEssentialMat(
        before, after, np.eye(3), method=cv2.RANSAC, prob=0.999, threshold=tolerance / fx
    )
    if essential is None or essential.shape != (3, 3):
        return nothing
    _, turn, move, _ = cv2.recoverPose(essential, before, after, np.eye(3), mask=inliers)
    turned = [turn[i, 0] * first[0] + turn[i, 1] * first[1] + turn[i, 2] for i in range(3)]
    # The ray after the move is parallel to z·turned + move: their cross product is zero, in the least squares.
    a = _cross(second, turned)
    b = _cross(second, [np.float32(value) for value in move.ravel()])
    aa = a[0] ** 2 + a[1] ** 2 + a[2] ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = -(a[0] * b[0] + a[1] * b[1] + a[2] * b[2]) / aa
        there = [depth * turned[i] + np.float32(move[i, 0]) for i in range(3)]
        off = np.hypot(there[0] / there[2] - second[0], there[1] / there[2] - second[1]) * fx
        # A quarter of a pixel of parallax: below it, depth is noise.
        parallax = np.sqrt(aa) * fx
        unknown = ~((depth > 0) & (there[2] > 0) & (off < tolerance) & (parallax > 0.25))
    depth[unknown] = np.nan
    if unknown.all():
        return nothing
    depth /= np.nanmedian(depth)
    return np.asarray(np.clip(depth, 0, _FARTHEST).astype(np.float16))


def _cross(ray: tuple[Array, Array], other: Any) -> tuple[Array, Array, Array]:
    """(ray_x, ray_y, 1) × other."""
    x, y = ray
    return y * other[2] - other[1], other[0] - x * other[2], x * other[1] - y * other[0]
