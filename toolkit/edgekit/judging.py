"""How near answers come to labels, or to what something else answers of the same frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.material import Judged
from edgekit_runtime.modality import Taxonomy
from edgekit_student.metrics import Confusion, confusion

# Outputs of the deploy graph.
LABELS, DEPTH = "labels", "depth"

ClassMap = npt.NDArray[np.uint8]
# The deploy graph's outputs by name, `(h, w)`.
Arrays = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Fidelity:
    """How near a candidate comes to something else that answers the same question, None for what it does not answer.

    `agreement` is the share of pixels of the same class, `depth_error` the mean difference of depth as a share of
    the mean depth; both 0..1.
    """

    agreement: float | None = None
    depth_error: float | None = None


def fidelity(found: Sequence[Arrays], expected: Sequence[Arrays]) -> Fidelity:
    """Of what was found for some images to what was expected."""
    pairs = list(zip(found, expected, strict=True))
    agreement = depth_error = None
    if LABELS in found[0]:
        agreement = float(np.mean([np.mean(a[LABELS] == b[LABELS]) for a, b in pairs]))
    if DEPTH in found[0]:
        scale = float(np.mean([np.abs(b[DEPTH]).mean() for _, b in pairs]))
        difference = float(np.mean([np.abs(a[DEPTH] - b[DEPTH]).mean() for a, b in pairs]))
        depth_error = difference / max(scale, 1e-9)
    return Fidelity(agreement, depth_error)


def class_maps(said: Sequence[Arrays]) -> list[ClassMap]:
    return [each[LABELS] for each in said]


def tally(maps: Sequence[ClassMap], targets: Sequence[ClassMap], taxonomy: Taxonomy) -> Confusion:
    """Confusion at the targets' resolution: class maps are enlarged as the overlay does it, by nearest pixel."""
    classes = len(taxonomy)
    total: Confusion = np.zeros((classes, classes + 1), np.int64)
    for found, target in zip(maps, targets, strict=True):
        enlarged = found
        if found.shape != target.shape:
            size = (target.shape[1], target.shape[0])
            enlarged = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST))
        total = total + confusion(enlarged, target, classes, taxonomy.ignore)
    return total


def targets_of(judged: Sequence[Judged], baseline: Sequence[ClassMap]) -> list[ClassMap]:
    """Labels where every frame has them, else the baseline's own class maps."""
    labels = [frame.labels for frame in judged if frame.labels is not None]
    return labels if len(labels) == len(judged) else list(baseline)
