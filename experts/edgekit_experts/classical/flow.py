"""Dense optical flow: by inverse search, and by polynomial expansion."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
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


class DenseFlow(Expert):
    """Flow from each frame to the one `gap` frames later (earlier, where it is negative)."""

    name: str

    def __init__(self, gap: int) -> None:
        if gap == 0:
            raise ExpertError(
                f"{self.name}: there is no flow over a gap of 0 frames.", hint="1: to the next, -1: to the last."
            )
        self.gap = gap
        self.context = (max(0, -gap), max(0, gap))

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality(self.name, Kind.FLOW, 2, "float16", None, "px")

    def compute(self, batch: Batch) -> Array:
        before, after = self.context
        views = [self._view(frame) for frame in batch.frames]
        height, width = batch.frames.shape[1:3]
        out = np.empty((len(views) - before - after, height, width, 2), np.float16)
        search = self._search()
        for index, result in enumerate(out, before):
            result[...] = search(views[index], views[index + self.gap])[:height, :width]
        return out

    def _view(self, frame: Array) -> Array:
        """What is searched in: the frame in grey, uint8 (H, W)."""
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY))

    @abstractmethod
    def _search(self) -> Callable[[Array, Array], Array]:
        """A function from the views of two frames to float32 (H, W, 2) or more, the frame at its upper left."""


class DisFlow(DenseFlow):
    """Flow from a frame to the one `gap` frames later: float16 (H, W, 2), pixels (dx, dy).

    A negative `gap` looks back. The frames at the end of a video, which have no such partner, are paired with its
    last one. `preset` trades accuracy for time: `medium` errs half as much as
    `fast` and takes four times as long. Method: Kroeger et al., Fast Optical Flow
    using Dense Inverse Search, ECCV 2016, as in OpenCV. OpenCV's search depends on the number of its threads: set
    it to one (as the pipeline does) where runs must agree to the bit.
    """

    name = "dis_flow"

    def __init__(self, gap: int = 1, preset: str = "medium") -> None:
        if preset not in PRESETS:
            raise ExpertError(f"dis_flow: unknown preset {preset!r}.", hint=closest(preset, PRESETS))
        super().__init__(gap)
        self.preset = preset

    def _search(self) -> Callable[[Array, Array], Array]:
        search = cv2.DISOpticalFlow.create(PRESETS[self.preset])
        return lambda first, second: np.asarray(search.calc(first, second, None))


class FarnebackFlow(DenseFlow):
    """Flow from a frame to the one `gap` frames later: float16 (H, W, 2), pixels (dx, dy).

    A negative `gap` looks back. `window` is the side of the averaging window in pixels, `levels` the number of
    pyramid levels. Method: Farnebäck, Two-Frame Motion Estimation Based on Polynomial Expansion, SCIA 2003, as in
    OpenCV. Slower and coarser than `dis_flow`, but with errors of its own.
    """

    name = "farneback_flow"

    def __init__(self, gap: int = 1, window: int = 15, levels: int = 4) -> None:
        if window < 3 or levels < 1:
            raise ExpertError(
                f"farneback_flow: window {window}, levels {levels} make no sense.", hint="window >= 3, levels >= 1."
            )
        super().__init__(gap)
        self.window, self.levels = window, levels

    def _search(self) -> Callable[[Array, Array], Array]:
        def search(first: Array, second: Array) -> Array:
            flow: Any = None
            return np.asarray(
                cv2.calcOpticalFlowFarneback(first, second, flow, 0.5, self.levels, self.window, 3, 7, 1.5, 0)
            )

        return search
