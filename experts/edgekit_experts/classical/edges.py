"""Canny edges."""

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

    `low` and `high` are the thresholds of the hysteresis on the gradient (Canny 1986), `sigma` the blur in
    pixels, 0 for none.
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
