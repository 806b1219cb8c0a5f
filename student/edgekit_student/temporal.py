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
import torch
from torch import Tensor
from torch.nn import functional as F

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


def at_grid(flow: Tensor, seen: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Flow `(N, H, W, 2)` and where it holds, bool `(N, H, W)`, on a coarser grid `(h, w)`, as `temporal_loss` takes
    them: a cell is seen where all of it is.
    """
    scale = flow.new_tensor([size[1] / flow.shape[2], size[0] / flow.shape[1]]).view(1, 2, 1, 1)
    coarse = F.adaptive_avg_pool2d(flow.permute(0, 3, 1, 2), size) * scale
    return coarse, (F.adaptive_avg_pool2d(seen[:, None].float(), size) == 1).float()


def temporal_loss(present: Tensor, following: Tensor, flow: Tensor, seen: Tensor) -> Tensor:
    """Squared distance of class probabilities along the flow, mean over what is seen in both frames; scalar, 0..2.

    `present` and `following` are `(N, classes, h, w)` of two consecutive frames, `flow` `(N, 2, h, w)` in pixels of
    that grid, from the present frame to the following one, `seen` `(N, 1, h, w)`, 0..1. Method: Liu et al., Efficient
    Semantic Video Segmentation with Per-frame Inference, ECCV 2020.
    """
    height, width = present.shape[-2:]
    rows = torch.arange(height, device=flow.device).view(1, -1, 1) + flow[:, 1]
    columns = torch.arange(width, device=flow.device).view(1, 1, -1) + flow[:, 0]
    # grid_sample counts from -1, the outer edge of the first pixel, to 1, that of the last one.
    grid = torch.stack([(2 * columns + 1) / width - 1, (2 * rows + 1) / height - 1], dim=-1)
    there = F.grid_sample(following.float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    distance = (present.float() - there).square().sum(dim=1, keepdim=True)
    return (distance * seen).sum() / seen.sum().clamp_min(1.0)


def _flow(first: Array, second: Array) -> Array:
    with one_thread_per_call():  # the same on every machine
        return np.asarray(_FLOW.compute(Batch(np.stack([first, second]), {}, 0))[0], np.float32)


def _positions(flow: Array) -> tuple[Array, Array]:
    rows, columns = np.indices(flow.shape[:2], np.float32)
    return rows + flow[..., 1], columns + flow[..., 0]
