"""Boundary F1: are the borders of a class where they should be, to within a few pixels?

Csurka et al., What is a Good Evaluation Measure for Semantic Segmentation?, BMVC 2013: precision is the share of the
predicted border that lies near the true one, recall the share of the true border near the predicted one. The tolerance
is 0.75 % of the picture's diagonal, as there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_TOLERANCE = 0.0075


@dataclass
class Boundaries:
    """Border pixels of each class over all frames so far; counts add up, so that scores are pooled."""

    classes: int
    ignore: int

    def __post_init__(self) -> None:
        self._counts = np.zeros((self.classes, 4), np.int64)  # predicted, of them right, true, of them found

    def add(self, prediction: Array, target: Array) -> None:
        """One frame: uint8 class ids `(H, W)`; where the target is ignored, and next to it, nothing counts."""
        radius = max(1, round(_TOLERANCE * float(np.hypot(*target.shape))))
        near = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1))
        counted = cv2.erode((target != self.ignore).astype(np.uint8), near) > 0
        for number in np.unique(target[counted]) if counted.any() else ():
            if number >= self.classes:
                continue
            said, true = _border(prediction == number), _border(target == number)
            there, found = said.astype(bool) & counted, true.astype(bool) & counted
            self._counts[number] += (
                there.sum(),
                (there & (cv2.dilate(true, near) > 0)).sum(),
                found.sum(),
                (found & (cv2.dilate(said, near) > 0)).sum(),
            )

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """For each class, 0..1; NaN where the target has no border of it."""
        said, right, true, found = self._counts.T.astype(np.float64)
        precision, recall = right / np.maximum(said, 1), found / np.maximum(true, 1)
        score = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
        return np.where(true > 0, score, np.nan)


def _border(inside: Array) -> Array:
    """uint8 `(H, W)`: 1 on the pixels of a region that have a neighbour outside of it."""
    mask = inside.astype(np.uint8)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    eroded = cv2.erode(mask, cross, borderType=cv2.BORDER_REPLICATE)
    return np.asarray(mask - eroded)
