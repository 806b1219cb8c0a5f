"""Depth and normals against exact truth: sums over pixels, so that pooled and per-video scores come from one.

Depth: mean absolute relative error, RMSE in metres, and the share of pixels within a factor of 1.25 (Eigen et al.,
arXiv 1406.2283). What is not metric is aligned with the truth of each frame first: relative depth by the ratio of
medians, relative inverse depth by least squares over scale and shift (Ranftl et al., arXiv 1907.01341). Normals: the
angle between the vectors in degrees, and the shares below 11.25, 22.5 and 30 (Fouhey et al., ICCV 2013).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

GEOMETRY = (Kind.DEPTH, Kind.NORMALS)
METRIC = ("m", "1/m")
NEAREST_M = 1e-3
_BINS = 1800  # of a tenth of a degree: the median of any number of pixels in little memory


@dataclass
class DepthErrors:
    """Sums over the pixels that have a true depth; those that the prediction leaves out count as not covered."""

    truth_pixels: int = 0
    pixels: int = 0
    relative: float = 0.0
    squared: float = 0.0
    within: int = 0

    def add(self, predicted: Array, modality: Modality, truth: Array) -> None:
        """One frame: both `(H, W)`, the truth in metres, the prediction in the unit of its modality."""
        known = np.isfinite(truth) & (truth > 0)
        both = known & np.isfinite(predicted)
        self.truth_pixels += int(known.sum())
        if not both.any():
            return
        true = truth[both].astype(np.float64)
        found = np.maximum(metres(predicted[both].astype(np.float64), modality, true), NEAREST_M)
        self.pixels += len(true)
        self.relative += float((np.abs(found - true) / true).sum())
        self.squared += float(np.square(found - true).sum())
        self.within += int((np.maximum(found / true, true / found) < 1.25).sum())

    def __add__(self, other: DepthErrors) -> DepthErrors:
        return DepthErrors(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    def measures(self) -> dict[str, float]:
        """Empty where nothing was counted. `depth_coverage` is the share of the true pixels that were predicted."""
        if not self.pixels:
            return {}
        return {
            "depth_abs_rel": self.relative / self.pixels,
            "depth_rmse_m": float(np.sqrt(self.squared / self.pixels)),
            "depth_delta1": self.within / self.pixels,
            "depth_coverage": self.pixels / self.truth_pixels,
        }


class NormalErrors:
    """A histogram of angles between predicted and true normals."""

    def __init__(self, counts: Array | None = None, degrees: float = 0.0, truth_pixels: int = 0) -> None:
        self._counts = np.zeros(_BINS, np.int64) if counts is None else counts
        self._degrees, self._truth_pixels = degrees, truth_pixels

    def add(self, predicted: Array, modality: Modality, truth: Array) -> None:
        """One frame: both `(H, W, 3)`; the lengths of the vectors do not matter."""
        known = np.isfinite(truth).all(axis=-1)
        both = known & np.isfinite(predicted).all(axis=-1)
        self._truth_pixels += int(known.sum())
        first, second = (_unit(array[both].astype(np.float64)) for array in (predicted, truth))
        # The arc tangent is exact also for small angles, where the arc cosine is not.
        cross, dot = np.linalg.norm(np.cross(first, second), axis=-1), (first * second).sum(axis=-1)
        angles = np.degrees(np.arctan2(cross, dot))
        self._degrees += float(angles.sum())
        bins = np.minimum((angles * _BINS / 180).astype(np.int64), _BINS - 1)
        self._counts += np.bincount(bins, minlength=_BINS)

    def __add__(self, other: NormalErrors) -> NormalErrors:
        return NormalErrors(
            self._counts + other._counts, self._degrees + other._degrees, self._truth_pixels + other._truth_pixels
        )

    def measures(self) -> dict[str, float]:
        """Empty where nothing was counted. Medians are exact to a tenth of a degree, shares to a pixel in a bin."""
        total = int(self._counts.sum())
        if not total:
            return {}
        below = np.cumsum(self._counts)
        width = 180 / _BINS
        return {
            "normals_mean_deg": self._degrees / total,
            "normals_median_deg": (float(np.searchsorted(below, total / 2)) + 0.5) * width,
            **{
                f"normals_within_{name}_deg": float(below[round(limit / width) - 1] / total)
                for name, limit in (("11_25", 11.25), ("22_5", 22.5), ("30", 30.0))
            },
            "normals_coverage": total / self._truth_pixels,
        }


Errors = DepthErrors | NormalErrors


def new_errors(kind: Kind) -> Errors:
    return DepthErrors() if kind is Kind.DEPTH else NormalErrors()


def pooled(errors: Iterable[Errors]) -> dict[str, float]:
    """The measures of all videos of one kind together."""
    total: Any = None
    for each in errors:
        total = each if total is None else total + each
    return {} if total is None else dict(total.measures())


def alignment(modality: Modality) -> str:
    """How a depth is brought to metres, in words."""
    if modality.unit in METRIC:
        return "none"
    return "scale and shift of inverse depth, per frame" if modality.near_is_high else "median scale, per frame"


def metres(found: Array, modality: Modality, true: Array) -> Array:
    """Depth in metres of pixels `(n,)` whose true depths, metres, are known."""
    if modality.unit == "m":
        return found
    if modality.unit == "1/m":
        inverted: Array = 1 / np.maximum(found, 1e-6)
        return inverted
    if not modality.near_is_high:
        middle = float(np.median(found))
        return found * (float(np.median(true)) / middle) if middle > 0 else np.full_like(true, NEAREST_M)
    design = np.stack([found, np.ones_like(found)], axis=1)
    (scale, shift), *_ = np.linalg.lstsq(design, 1 / true, rcond=None)
    # What comes out as infinitely far, or behind the camera, is as far as anything in the frame.
    aligned: Array = 1 / np.maximum(scale * found + shift, 1 / float(true.max()))
    return aligned


def truths(modalities: Mapping[str, Modality]) -> dict[Kind, Modality]:
    """The exact depth, in metres, and normals of a data set, the first by name of each kind."""
    found: dict[Kind, Modality] = {}
    for _, modality in sorted(modalities.items()):
        metric = modality.kind is Kind.NORMALS or (modality.kind is Kind.DEPTH and modality.unit == "m")
        if modality.truth and metric:
            found.setdefault(modality.kind, modality)
    return found


def _unit(vectors: Array) -> Array:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Array = vectors / np.maximum(length, 1e-9)
    return unit
