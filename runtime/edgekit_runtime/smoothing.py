"""Labels that flicker less: a class has to be seen twice, where the picture went on as it was, before it is shown.

What was shown is carried along optical flow (dense inverse search, Kroeger et al., ECCV 2016) to where it is now; where
the picture is not what the flow says, the new class is taken at once.
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.model import Result

Labels = npt.NDArray[np.uint8]
Grey = npt.NDArray[np.uint8]
_WIDTH = 160
# Mean difference of grey levels, 3×3, up to which a picture went on as it was.
_SAME = 12
_GAP_S = 0.5


class Smoothing:
    """Keeps the state of one source; call it with its results in order, from one thread."""

    def __init__(self) -> None:
        self._flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._grey: Grey | None = None
        # What was shown, and what the network said: uint8 (h, w, 2).
        self._before: Labels | None = None
        self._captured = 0.0

    def __call__(self, result: Result) -> Result:
        """The result with steadier labels; as it is where it has none, after a gap, or when a size changed."""
        if result.labels is None:
            return result
        grey, before, gap_s = _small(result.frame.image), self._before, result.frame.captured - self._captured
        shown = result.labels
        known = self._grey is not None and self._grey.shape == grey.shape and gap_s < _GAP_S
        if known and self._grey is not None and before is not None and before.shape[:2] == shown.shape:
            shown = self._steadied(result.labels, before, grey, self._grey)
        self._grey, self._captured = grey, result.frame.captured
        self._before = cv2.merge([shown, result.labels])
        return replace(result, labels=shown)

    def _steadied(self, labels: Labels, before: Labels, grey: Grey, last: Grey) -> Labels:
        flow = self._flow.calc(grey, last, None)
        there = cv2.remap(last, cv2.add(_grid(*grey.shape), flow), None, cv2.INTER_LINEAR)
        new = cv2.compare(cv2.blur(cv2.absdiff(there, grey), (3, 3)), _SAME, cv2.CMP_GE)
        height, width = labels.shape
        scale = width / grey.shape[1], height / grey.shape[0]
        places = cv2.add(_grid(height, width), cv2.multiply(cv2.resize(flow, (width, height)), (*scale, 0, 0)))
        old, said = cv2.split(cv2.remap(before, places, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE))
        new = cv2.resize(new, (width, height), interpolation=cv2.INTER_NEAREST)
        taken = cv2.bitwise_or(new, cv2.compare(labels, said, cv2.CMP_EQ))
        return np.asarray(cv2.copyTo(labels, taken, old), np.uint8)


def _small(image: npt.NDArray[np.uint8]) -> Grey:
    height = max(round(image.shape[0] * _WIDTH / image.shape[1]), 16)
    # Before the conversion, which then has fewer pixels to do.
    small = cv2.resize(image, (_WIDTH, height), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> npt.NDArray[np.float32]:
    """Column and row of each pixel, `(height, width, 2)`; flow is added to it."""
    rows, columns = np.mgrid[:height, :width]
    return np.dstack([columns, rows]).astype(np.float32)
