"""Segmentation metrics over confusion matrices: counts add up, so pooled and per-video scores come from one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]
Confusion = npt.NDArray[np.int64]


def confusion(prediction: Labels, target: Labels, classes: int, ignore: int) -> Confusion:
    """Pixel counts `(classes, classes + 1)`: rows are the target, columns the prediction.

    Both arrays hold class ids in the same shape. Target pixels equal to `ignore` (or outside the classes)
    do not count; predictions that name no class are counted in the last column.
    """
    if prediction.shape != target.shape:
        raise ValueError(f"prediction {prediction.shape} and target {target.shape} differ in shape")
    target = target.ravel().astype(np.int64)
    prediction = np.minimum(prediction.ravel().astype(np.int64), classes)
    counted = (target < classes) & (target != ignore)
    cells = target[counted] * (classes + 1) + prediction[counted]
    return np.bincount(cells, minlength=classes * (classes + 1)).reshape(classes, classes + 1)


def class_iou(table: Confusion) -> npt.NDArray[np.float64]:
    """Intersection over union of each class; NaN where the target has none of it."""
    classes = table.shape[0]
    hit = np.diagonal(table[:, :classes]).astype(np.float64)
    target = table.sum(axis=1)
    union = target + table[:, :classes].sum(axis=0) - hit
    return np.where(target > 0, hit / np.maximum(union, 1), np.nan)


def miou(table: Confusion) -> float:
    """Mean IoU over the classes present in the target, 0..1; NaN when nothing was counted."""
    scores = class_iou(table)
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else float("nan")


def pixel_accuracy(table: Confusion) -> float:
    """Share of counted pixels that are right, 0..1; NaN when nothing was counted."""
    total = int(table.sum())
    return float(np.trace(table[:, : table.shape[0]]) / total) if total else float("nan")
