"""The frame itself, in two colour spaces."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]


class Rgb(Expert):
    """The frame as decoded: RGB, uint8 (H, W, 3), 0 to 255, stored without loss."""

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("rgb", Kind.IMAGE, 3, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        return batch.frames


class Hsv(Expert):
    """Hue, saturation, value: uint8 (H, W, 3), each over the whole of 0 to 255 (hue: 256 steps are 360°).

    Method: Smith, Color Gamut Transform Pairs, 1978, as in OpenCV.
    """

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("hsv", Kind.IMAGE, 3, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        out = np.empty_like(batch.frames)
        for frame, result in zip(batch.frames, out, strict=True):
            cv2.cvtColor(frame, cv2.COLOR_RGB2HSV_FULL, dst=result)
        return out
