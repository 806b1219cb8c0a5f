"""Which frames to calibrate with: few that show as much as possible, not many of the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

THUMBNAIL = (16, 9)  # width, height: what is where, in which colours, and no detail


def thumbnail(image: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """What frames are compared by: a uint8 picture `(H, W, 3)` as a small one, float32, flat."""
    small = cv2.resize(image, THUMBNAIL, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32).ravel()


def most_different(thumbnails: Sequence[npt.NDArray[np.floating[Any]]], count: int) -> list[int]:
    """Indices, ascending, of `count` frames such that every other one is as near as can be to one of them.

    Begins with the frame nearest to the mean and takes, each time, the one farthest from all taken so far: at most
    twice as far from the others as the best choice (k-centre, Gonzalez 1985).
    """
    points = np.stack(thumbnails).astype(np.float64)
    if len(points) <= count:
        return list(range(len(points)))
    taken = [int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())]
    distance = np.full(len(points), np.inf)
    while len(taken) < count:
        distance = np.minimum(distance, np.linalg.norm(points - points[taken[-1]], axis=1))
        distance[taken] = -1  # equal frames are two frames
        taken.append(int(distance.argmax()))
    return sorted(taken)
