"""Scores against human labels or exact truth: for a PHG-MAE, a student, or an expert's modality in the store."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.batches import collate
from edgekit_student.metrics import Confusion, class_iou, confusion, miou, pixel_accuracy
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.samples import Array, ModalityDataset, Sample
from edgekit_student.student import Student

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

TRUTH = "labels"


@dataclass(frozen=True)
class Score:
    """Pooled over all frames: `miou` and `pixel_accuracy` 0..1, `per_class` IoU by class name (None if absent)."""

    name: str
    frames: int
    miou: float
    pixel_accuracy: float
    per_class: dict[str, float | None]
    per_video: dict[str, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


Predict = Callable[[Sample], Array]


def score(
    name: str,
    samples: ModalityDataset,
    predict: Predict,
    *,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    timings: list[float] | None = None,
) -> Score:
    """Compares `predict(sample) -> (H, W) class ids` with the truth of every sample.

    `timings`, if given, takes the seconds that each prediction took.
    """
    taxonomy = _taxonomy(samples.modalities[TRUTH])
    tables: dict[str, Confusion] = {}
    for done, (ref, sample) in enumerate(zip(samples.frames, samples, strict=True), 1):
        target = sample[TRUTH][..., 0]
        began = time.perf_counter()
        prediction = predict(sample)
        if timings is not None:
            timings.append(time.perf_counter() - began)
        table = confusion(prediction, target, len(taxonomy), taxonomy.ignore)
        tables[ref.video] = tables.get(ref.video, 0) + table
        on_progress(done, len(samples))
    pooled: Confusion = np.sum(list(tables.values()), axis=0)
    per_class = [None if np.isnan(v) else float(v) for v in class_iou(pooled)]
    return Score(
        name=name,
        frames=len(samples),
        miou=miou(pooled),
        pixel_accuracy=pixel_accuracy(pooled),
        per_class=dict(zip(taxonomy.classes, per_class, strict=True)),
        per_video={video: miou(table) for video, table in tables.items()},
    )


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
    """Class ids at the frame's size from a student; DataError when it speaks another taxonomy."""
    same_taxonomy(student.config.outputs[0], target)

    @torch.inference_mode()
    def predict(sample: Sample) -> Array:
        rgb = torch.from_numpy(sample["rgb"]).permute(2, 0, 1).unsqueeze(0).float()
        logits = student(rgb)[0]
        ids: Array = upsample(logits, tuple(sample["rgb"].shape[:2])).argmax(dim=1)[0].to(torch.uint8).numpy()
        return ids

    return predict


def phg_mae_predictor(model: PHGMAE, target: Modality, *, members: int, mirror: bool, seed: int = 0) -> Predict:
    """Class ids from a PHG-MAE: everything visible when `members` is 0 (1All), else random masks averaged."""
    same_taxonomy(model.target, target)
    names = [modality.name for modality in model.config.inputs]
    generator = torch.Generator().manual_seed(seed)

    def predict(sample: Sample) -> Array:
        masks = model.masks(members, generator) if members else torch.ones(1, len(names), dtype=torch.bool)
        batch = collate([{name: sample[name] for name in names}])
        probabilities = model.predict(batch, masks, mirror=mirror)
        ids: Array = upsample(probabilities, tuple(sample[TRUTH].shape[:2])).argmax(dim=1)[0].to(torch.uint8).numpy()
        return ids

    return predict


def modality_predictor(name: str, modality: Modality, target: Modality) -> Predict:
    """An expert's stored labels as they are."""
    same_taxonomy(modality, target)
    return lambda sample: sample[name][..., 0]


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
