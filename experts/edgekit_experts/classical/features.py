"""Key points as pictures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_DETECTORS = ("sift", "orb")


class KeyPoints(Expert):
    """Where key points are and how large: uint8 (H, W, 1), discs of their size, brighter where more salient.

    At most `count` of the strongest. `detector` is `sift` (Lowe, Distinctive Image Features from Scale-Invariant
    Keypoints, 2004) or `orb` (Rublee et al., ORB: an efficient alternative to SIFT or SURF, 2011), as in OpenCV.
    """

    def __init__(self, detector: str = "sift", count: int = 1000) -> None:
        if detector not in _DETECTORS:
            raise ExpertError(f"key_points: unknown detector {detector!r}.", hint=closest(detector, _DETECTORS))
        if count < 1:
            raise ExpertError(f"key_points: {count} key points make no sense.", hint="count >= 1.")
        self.detector, self.count = detector, count

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("key_points", Kind.EDGES, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        detector = cv2.SIFT.create(self.count) if self.detector == "sift" else cv2.ORB.create(self.count)
        out = np.zeros((*batch.frames.shape[:3], 1), np.uint8)
        for frame, result in zip(batch.frames, out, strict=True):
            points = sorted(
                detector.detect(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), None),
                key=lambda point: (point.response, point.pt),
            )
            canvas = result[..., 0].copy()
            for rank, point in enumerate(points, 1):  # the strongest last, on top
                centre = round(point.pt[0]), round(point.pt[1])
                cv2.circle(canvas, centre, max(1, round(point.size / 4)), 64 + 191 * rank // len(points), -1)
            result[..., 0] = canvas
        return out
