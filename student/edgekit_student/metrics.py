"""Segmentation metrics over confusion matrices: counts add up, so pooled and per-video scores come from one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Labels = npt.NDArray[np.integer[Any]]
Confusion = npt.NDArray[np.int64]

# A person wants to be told when a model has gone less than this part of the way from the best constant answer to a
# perfect one, or gives one answer for more than that share of all pixels.
LITTLE = 0.2
NEARLY_ALL = 0.95


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


def class_f1(table: Confusion) -> npt.NDArray[np.float64]:
    """Harmonic mean of precision and recall of each class (Dice), 0..1; NaN where the target has none of it."""
    overlap = class_iou(table)
    return 2 * overlap / (1 + overlap)


def pixel_accuracy(table: Confusion) -> float:
    """Share of counted pixels that are right, 0..1; NaN when nothing was counted."""
    total = int(table.sum())
    return float(np.trace(table[:, : table.shape[0]]) / total) if total else float("nan")


def constant_miou(table: Confusion) -> float:
    """mIoU of the best answer that is the same for every pixel, 0..1; NaN when nothing was counted."""
    target = table.sum(axis=1)
    present = int((target > 0).sum())
    return float(target.max() / target.sum() / present) if present else float("nan")


def doubts(table: Confusion, classes: Sequence[str], against: str, *, told_apart: bool = True) -> tuple[str, ...]:
    """What speaks against a model with this confusion table, in words; empty where nothing does.

    `against` names the target. Where the target is the model's own answer in another form, mIoU says nothing about
    what was learnt: `told_apart` is False then, and only the answers are looked at.
    """
    found = []
    score, constant = miou(table), constant_miou(table)
    if told_apart and score - constant < LITTLE * (1 - constant):
        found.append(
            f"its mIoU against {against} is only {100 * score:.1f} %, one class everywhere would have "
            f"{100 * constant:.1f} %"
        )
    said = table[:, : len(classes)].sum(axis=0) / max(1, int(table.sum()))
    most = int(said.argmax())
    if said[most] > NEARLY_ALL:
        found.append(f"it answers {classes[most]!r} for {said[most]:.1%} of all pixels")
    return tuple(found)
