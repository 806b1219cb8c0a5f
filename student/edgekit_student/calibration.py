"""Expected calibration error: of the pixels that a model is 80 % sure of, are 80 % right? (Guo et al., ICML 2017)."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 15


class Calibration:
    """Counts, hits and confidences in `BINS` equal bins; they add up over frames."""

    def __init__(self) -> None:
        self._sums = np.zeros((3, BINS), np.float64)

    def add(self, confidence: Array, right: Array, counted: Array) -> None:
        """`confidence` float 0..1, `right` and `counted` bool, of one shape."""
        sure = confidence[counted].astype(np.float64)
        place = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
        for row, weights in enumerate((np.ones_like(sure), right[counted].astype(np.float64), sure)):
            self._sums[row] += np.bincount(place, weights, minlength=BINS)

    @property
    def error(self) -> float:
        """Mean distance of confidence and accuracy over the bins, weighted by their pixels, 0..1; NaN without any."""
        count, hits, sure = self._sums
        return float(np.abs(hits - sure).sum() / count.sum()) if count.any() else float("nan")
