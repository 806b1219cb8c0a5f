"""Temporal consistency: do two consecutive predictions agree where they show the same thing?

The following prediction is carried back along optical flow and compared with the present one (Liu et al., Efficient
Semantic Video Segmentation with Per-frame Inference, ECCV 2020). Flow is that of the pictures, by inverse search, so
that every model is measured with the same. Pixels that are hidden in one of the frames do not count: flow there and
back does not return to them (Sundaram et al., ECCV 2010).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.classical.flow import DisFlow
from edgekit_experts.expert import Batch
from edgekit_experts.pipeline.local import one_thread_per_call

Array = npt.NDArray[Any]

_FLOW = DisFlow()


def correspondence(first: Array, second: Array) -> tuple[Array, Array]:
    """Flow from one picture to the next, float32 `(H, W, 2)` pixels (dx, dy), and bool `(H, W)`: seen in both.

    Pictures are uint8 RGB `(H, W, 3)`.
    """
    forward = _flow(first, second)
    backward = carried(_flow(second, first), forward)
    error = np.square(forward + backward).sum(axis=-1)
    allowed = 0.01 * (np.square(forward).sum(axis=-1) + np.square(backward).sum(axis=-1)) + 0.5
    height, width = error.shape
    rows, columns = _positions(forward)
    inside = (columns >= 0) & (columns <= width - 1) & (rows >= 0) & (rows <= height - 1)
    return forward, (error < allowed) & inside


def carried(following: Array, flow: Array) -> Array:
    """What the following frame has where this one's pixels have gone; class ids are those of the nearest pixel."""
    rows, columns = _positions(flow)
    how = cv2.INTER_NEAREST if following.dtype == np.uint8 else cv2.INTER_LINEAR
    return np.asarray(cv2.remap(following, columns, rows, how, borderMode=cv2.BORDER_REPLICATE))


def _flow(first: Array, second: Array) -> Array:
    with one_thread_per_call():  # the same on every machine
        return np.asarray(_FLOW.compute(Batch(np.stack([first, second]), {}, 0))[0], np.float32)


def _positions(flow: Array) -> tuple[Array, Array]:
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return rows + flow[..., 1], columns + flow[..., 0]
