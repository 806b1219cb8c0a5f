"""Scores against human labels or exact truth: for a PHG-MAE, a student, or an expert's modality in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.boundaries import Boundaries
from edgekit_student.calibration import Calibration
from edgekit_student.ensemble import Members, read_inputs
from edgekit_student.ensemble import predict as ensemble_predict
from edgekit_student.metrics import Confusion, class_f1, class_iou, confusion, miou, pixel_accuracy
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.samples import Array, FrameRef, ModalityDataset, Sample
from edgekit_student.student import Student
from edgekit_student.temporal import carried, correspondence

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

TRUTH = "labels"


@dataclass(frozen=True)
class Score:
    """All measures are 0..1 and pooled over all frames; None where they do not apply.

    `per_class` is the IoU by class name (None if absent), `f1` and `boundary_f1` are means over classes,
    `temporal_consistency` is the mIoU of consecutive predictions along optical flow, `calibration_error` the
    expected calibration error. `confusion` has a row for each true class, pixel counts of what was predicted.
    """

    name: str
    taxonomy: Taxonomy
    frames: int
    miou: float
    pixel_accuracy: float
    f1: float
    per_class: dict[str, float | None]
    per_video: dict[str, float]
    confusion: list[list[int]]
    boundary_f1: float | None = None
    temporal_consistency: float | None = None
    calibration_error: float | None = None

    @property
    def measures(self) -> dict[str, float]:
        """What was measured beside IoU, in the words of people."""
        found = {
            "pixel accuracy": self.pixel_accuracy,
            "F1": self.f1,
            "F1 of borders": self.boundary_f1,
            "consistency over time": self.temporal_consistency,
            "calibration error": self.calibration_error,
        }
        return {name: value for name, value in found.items() if value is not None and not np.isnan(value)}

    def to_dict(self) -> dict[str, Any]:
        table = {name: None if _absent(value) else value for name, value in vars(self).items()}
        return {**table, "taxonomy": self.taxonomy.name}


@dataclass(frozen=True)
class Prediction:
    """`ids` uint8 (H, W); `confidence` float (H, W), 0..1, of models that say how sure they are; `uncertainty` likewise
    of ensembles, how far their members disagree.
    """

    ids: Array
    confidence: Array | None = None
    uncertainty: Array | None = None


Predict = Callable[[Sample], Prediction]


@dataclass(frozen=True)
class Judged:
    """One frame as it was judged, for reports."""

    ref: FrameRef
    sample: Sample
    prediction: Prediction
    miou: float


def score(
    name: str,
    samples: ModalityDataset,
    predict: Predict,
    *,
    thorough: bool = False,
    on_frame: Callable[[Judged], None] = lambda judged: None,
    timings: list[float] | None = None,
) -> Score:
    """Compares predictions with the truth of every sample.

    `thorough` adds what takes longer than a prediction: borders, and consistency over time, for which the samples
    must have `rgb`. `timings`, if given, takes the seconds that each prediction took.
    """
    taxonomy = _taxonomy(samples.modalities[TRUTH])
    tables: dict[str, Confusion] = {}
    calibration, boundaries = Calibration(), Boundaries(len(taxonomy), taxonomy.ignore)
    consistency = _Consistency(len(taxonomy))
    for ref, sample in zip(samples.frames, samples, strict=True):
        target = sample[TRUTH][..., 0]
        began = time.perf_counter()
        prediction = predict(sample)
        if timings is not None:
            timings.append(time.perf_counter() - began)
        table = confusion(prediction.ids, target, len(taxonomy), taxonomy.ignore)
        tables[ref.video] = tables.get(ref.video, 0) + table
        counted = (target != taxonomy.ignore) & (target < len(taxonomy))
        if prediction.confidence is not None:
            calibration.add(prediction.confidence, prediction.ids == target, counted)
        if thorough:
            boundaries.add(prediction.ids, target)
            consistency.add(ref, sample["rgb"], prediction.ids)
        on_frame(Judged(ref, sample, prediction, miou(table)))
    pooled: Confusion = np.sum(list(tables.values()), axis=0)
    return Score(
        name=name,
        taxonomy=taxonomy,
        frames=len(samples),
        miou=miou(pooled),
        pixel_accuracy=pixel_accuracy(pooled),
        f1=_mean(class_f1(pooled)),
        per_class={
            name: None if np.isnan(value) else float(value)
            for name, value in zip(taxonomy.classes, class_iou(pooled), strict=True)
        },
        per_video={video: miou(table) for video, table in tables.items()},
        confusion=pooled[:, : len(taxonomy)].tolist(),
        boundary_f1=_mean(boundaries.f1) if thorough else None,
        temporal_consistency=consistency.miou if thorough else None,
        calibration_error=calibration.error,
    )


class _Consistency:
    """Consecutive frames of one video, compared along the flow between their pictures."""

    def __init__(self, classes: int) -> None:
        self._table: Confusion = np.zeros((classes, classes + 1), np.int64)
        self._last: tuple[FrameRef, Array, Array] | None = None

    def add(self, ref: FrameRef, rgb: Array, ids: Array) -> None:
        if self._last and (self._last[0].video, self._last[0].index + 1) == (ref.video, ref.index):
            _, picture, before = self._last
            flow, seen = correspondence(picture, rgb)
            hidden = len(self._table)  # an id that is no class: what is not seen in both frames does not count
            present = np.where(seen, before, np.uint8(hidden))
            self._table += confusion(carried(ids, flow), present, hidden, hidden)
        self._last = ref, rgb, ids

    @property
    def miou(self) -> float:
        """NaN where no frame follows another."""
        return miou(self._table)


def _mean(values: Array) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


def _absent(value: object) -> bool:
    return value is None or (isinstance(value, float) and np.isnan(value))


def labelled_samples(data: Dataset, split: str, *names: str) -> ModalityDataset:
    """The samples of a split with truth and the named modalities; DataError when nobody labelled it."""
    labelled = sorted({video.split for video in map(data.video, data.videos) if TRUTH in video.modalities})
    if split not in labelled:
        raise DataError(
            f"The split {split!r} has no labels to score against.",
            hint=f"Labels are in {', '.join(labelled)}; choose with --split."
            if labelled
            else "No split has: import some from people or exact truth, as docs/importing.md shows.",
        )
    return ModalityDataset(data, list(dict.fromkeys([TRUTH, *names])), split=split)


def student_predictor(student: Student, target: Modality) -> Predict:
    """Classes at the frame's size from a student; DataError when it speaks another taxonomy."""
    same_taxonomy(student.config.outputs[0], target)

    @torch.inference_mode()
    def predict(sample: Sample) -> Prediction:
        rgb = torch.from_numpy(sample["rgb"]).permute(2, 0, 1).unsqueeze(0).float()
        logits = student(rgb)[0]
        return _surest(upsample(logits, tuple(sample["rgb"].shape[:2])).softmax(dim=1))

    return predict


def phg_mae_predictor(
    model: PHGMAE, target: Modality, *, members: Members | None, mirror: bool, aggregate: str = "mean"
) -> Predict:
    """Classes from a PHG-MAE: everything visible where there are no `members` (1All), else what they say together."""
    same_taxonomy(model.target, target)

    def predict(sample: Sample) -> Prediction:
        batch, present = read_inputs(model, sample)
        masks = members.masks(present) if members else model.everything()
        found = ensemble_predict(model, batch, masks, mirror=mirror, aggregate=aggregate)
        size = tuple(sample[TRUTH].shape[:2])
        uncertainty = upsample(found.uncertainty, size)[0, 0].numpy() if members else None
        return replace(_surest(upsample(found.outputs[model.target.name], size)), uncertainty=uncertainty)

    return predict


def _surest(probabilities: torch.Tensor) -> Prediction:
    """From `(1, classes, H, W)`."""
    confidence, ids = probabilities[0].max(dim=0)
    return Prediction(ids.to(torch.uint8).numpy(), confidence.float().numpy())


def modality_predictor(name: str, modality: Modality, target: Modality) -> Predict:
    """An expert's stored labels as they are."""
    same_taxonomy(modality, target)
    return lambda sample: Prediction(sample[name][..., 0])


def same_taxonomy(found: Modality, target: Modality) -> None:
    """Raises DataError when two label modalities do not speak of the same classes."""
    if found.kind is not Kind.LABELS or _taxonomy(found).classes != _taxonomy(target).classes:
        speaks = found.taxonomy.name if found.taxonomy else found.kind.value
        raise DataError(
            f"{found.name!r} speaks {speaks!r}, the labels to score against {_taxonomy(target).name!r}.",
            hint="Evaluate on a data set of the same taxonomy, or map its labels with the expert `label_map`.",
        )


def _taxonomy(modality: Modality) -> Taxonomy:
    assert modality.taxonomy is not None
    return modality.taxonomy
