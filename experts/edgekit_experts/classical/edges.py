"""Edges: thin ones by Canny, graded ones from the structure tensor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]


class Canny(Expert):
    """Edges of the grey frame after a Gaussian blur: uint8 (H, W, 1), 0 or 255.

    `low` and `high` are the thresholds of the hysteresis on the gradient, `sigma` the blur in pixels, 0 for none.
    Method: Canny, A Computational Approach to Edge Detection, 1986, as in OpenCV.
    """

    def __init__(self, low: float = 60.0, high: float = 150.0, sigma: float = 1.0) -> None:
        if not 0 <= low <= high or sigma < 0:
            raise ExpertError(
                f"canny: low {low}, high {high}, sigma {sigma} make no sense.",
                hint="0 <= low <= high, sigma >= 0.",
            )
        self.low, self.high, self.sigma = low, high, sigma

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("canny", Kind.EDGES, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        out = np.empty((*batch.frames.shape[:3], 1), np.uint8)
        for frame, result in zip(batch.frames, out, strict=True):
            grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
            if self.sigma:
                grey = cv2.GaussianBlur(grey, (0, 0), self.sigma)
            result[..., 0] = cv2.Canny(grey, self.low, self.high)
        return out


class Gradients(Expert):
    """Strength of the local structure over all three colours: uint8 (H, W, 1), 0 to 255.

    The square root of the larger eigenvalue of the structure tensor, summed over the colour channels (Di Zenzo,
    A note on the gradient of a multi-image, 1986) and over a Gaussian of `sigma` pixels: an edge between two
    colours of one brightness shows, too. 255 is a step of `full` grey levels from pixel to pixel.
    """

    def __init__(self, sigma: float = 1.0, full: float = 64.0) -> None:
        if sigma <= 0 or full <= 0:
            raise ExpertError(f"gradients: sigma {sigma}, full {full} make no sense.", hint="Both are above 0.")
        self.sigma, self.full = sigma, full

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("gradients", Kind.EDGES, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        out = np.empty((*batch.frames.shape[:3], 1), np.uint8)
        for frame, result in zip(batch.frames, out, strict=True):
            # Scharr's kernel sums to 16 on each side of the centre: a step of one level gives 16.
            dx, dy = (cv2.Scharr(frame, cv2.CV_16S, *axis).astype(np.float32) / 16 for axis in ((1, 0), (0, 1)))
            xx, yy, xy = (
                cv2.GaussianBlur((a * b).sum(axis=2), (0, 0), self.sigma) for a, b in ((dx, dx), (dy, dy), (dx, dy))
            )
            larger = (xx + yy + np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2
            strength = np.sqrt(larger / 3) * np.float32(255 / self.full)
            result[..., 0] = np.clip(strength, 0, 255)
        return out
