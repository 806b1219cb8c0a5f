"""Dense optical flow by inverse search."""

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

PRESETS = {
    "ultrafast": cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST,
    "fast": cv2.DISOPTICAL_FLOW_PRESET_FAST,
    "medium": cv2.DISOPTICAL_FLOW_PRESET_MEDIUM,
}


class DisFlow(Expert):
    """Flow from a frame to the one `gap` frames later: float16 (H, W, 2), pixels (dx, dy).

    The last frames of a video, which have no such partner, are paired with the last one. `preset` trades
    accuracy for time: ultrafast, fast, medium. Method: Kroeger et al., Fast Optical Flow using Dense Inverse
    Search, ECCV 2016, as in OpenCV. OpenCV's search depends on the number of its threads: set it to one
    (as the pipeline does) where runs must agree to the bit.
    """

    def __init__(self, gap: int = 1, preset: str = "fast") -> None:
        if gap < 1:
            raise ExpertError(f"dis_flow: a gap of {gap} frames makes no sense.", hint="gap >= 1.")
        if preset not in PRESETS:
            raise ExpertError(f"dis_flow: unknown preset {preset!r}.", hint=closest(preset, PRESETS))
        self.gap, self.preset = gap, preset
        self.context = (0, gap)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("dis_flow", Kind.FLOW, 2, "float16", None, "px")

    def compute(self, batch: Batch) -> Array:
        count, height, width = len(batch.frames) - self.gap, *batch.frames.shape[1:3]
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in batch.frames]
        search = cv2.DISOpticalFlow.create(PRESETS[self.preset])
        out = np.empty((count, height, width, 2), np.float16)
        for index in range(count):
            out[index] = search.calc(greys[index], greys[index + self.gap], None)
        return out
