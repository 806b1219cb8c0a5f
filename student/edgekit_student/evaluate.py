"""Scores against human labels or exact truth: for a PHG-MAE, a student, or an expert's modality in the store."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.boundaries import Boundaries
from edgekit_student.calibration import Calibration
from edgekit_student.encoding import decode
from edgekit_student.ensemble import Members, read_inputs
from edgekit_student.ensemble import predict as ensemble_predict
from edgekit_student.geometry_scores import GEOMETRY, Errors, alignment, new_errors, pooled, truths
from edgekit_student.metrics import Confusion, class_f1, class_iou, confusion, miou, pixel_accuracy
from edgekit_student.networks import device_of
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.samples import PRESENT, Array, FrameRef, ModalityDataset, Sample, declarations
from edgekit_student.student import Student
from edgekit_student.temporal import carried, correspondence

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

TRUTH = "labels"


@dataclass(frozen=True)
class Score:
    """Measures are pooled over all frames, and 0..1 unless their name has a unit; None where they do not apply.

    `per_class` is the IoU by class name (None if absent), `f1` and `boundary_f1` are means over classes,
    `temporal_consistency` is the mIoU of consecutive predictions along optical flow, `calibration_error` the
    expected calibration error. `confusion` has a row for each true class, pixel counts of what was predicted.
    Where a model has no labels, `taxonomy` is None, and the measures of labels are NaN or empty.

    `geometry` are the measures of depth and normals by name (see `geometry_scores`), `geometry_per_video` the same
    for each video; `geometry_truth` says against which modalities, `depth_alignment` how depth was made metric.
    `ensemble` says which masks an ensemble had chosen (see `Members.describe`), nothing otherwise.
    """

    name: str
    taxonomy: Taxonomy | None
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
    geometry: dict[str, float] = field(default_factory=dict)
    geometry_per_video: dict[str, dict[str, float]] = field(default_factory=dict)
    geometry_truth: dict[str, str] = field(default_factory=dict)
    depth_alignment: str | None = None
    ensemble: Mapping[str, Any] = field(default_factory=dict)

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
        del table["geometry"]
        return {**table, **self.geometry, "taxonomy": self.taxonomy.name if self.taxonomy else None}

    @property
    def geometry_words(self) -> dict[str, str]:
        """What was measured of depth and normals, in the words of people, each with its unit."""
        return {
            words: f"{scale * self.geometry[name]:.{digits}f}{unit}"
            for name, (words, scale, digits, unit) in _GEOMETRY_WORDS.items()
            if name in self.geometry
        }


# Words, factor, decimals and unit of each.
_GEOMETRY_WORDS = {
    "depth_abs_rel": ("depth, AbsRel", 1, 3, ""),
    "depth_rmse_m": ("depth, RMSE", 1, 2, " m"),
    "depth_delta1": ("depth within 1.25", 100, 1, " %"),
    "depth_coverage": ("depth, covered", 100, 1, " %"),
    "normals_mean_deg": ("normals, mean error", 1, 1, "°"),
    "normals_median_deg": ("normals, median error", 1, 1, "°"),
    "normals_within_11_25_deg": ("normals within 11.25°", 100, 1, " %"),
    "normals_within_22_5_deg": ("normals within 22.5°", 100, 1, " %"),
    "normals_within_30_deg": ("normals within 30°", 100, 1, " %"),
    "normals_coverage": ("normals, covered", 100, 1, " %"),
}


@dataclass(frozen=True)
class Prediction:
    """`ids` uint8 (H, W), of models that segment; `confidence` float (H, W), 0..1, of those that say how sure they are;
    `uncertainty` likewise of ensembles, how far their members disagree.

    `geometry` has depth `(H, W, 1)` and normals `(H, W, 3)` of models that know them, at the size of the frame.
    """

    ids: Array | None
    confidence: Array | None = None
    geometry: Mapping[Kind, Array] = field(default_factory=dict)
    uncertainty: Array | None = None


@dataclass(frozen=True)
class Predictor:
    """Asks a model about a sample; `outputs` says what its answers are, of each kind that is scored, `ensemble` which
    masks it had chosen, if any.
    """

    predict: Callable[[Sample], Prediction]
    outputs: Mapping[Kind, Modality]
    ensemble: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, sample: Sample) -> Prediction:
        return self.predict(sample)


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
    predict: Predictor,
    *,
    thorough: bool = False,
    on_frame: Callable[[Judged], None] = lambda judged: None,
    timings: list[float] | None = None,
) -> Score:
    """Compares predictions with the truth of every sample: classes, depth and normals, of those that both have.

    `thorough` adds what takes longer than a prediction: borders, and consistency over time, for which the samples
    must have `rgb`. `timings`, if given, takes the seconds that each prediction took.
    """
    labels = _Labels(samples.modalities[TRUTH], thorough) if Kind.LABELS in predict.outputs else None
    geometry = {
        kind: _Geometry(truth, predict.outputs[kind])
        for kind, truth in truths(samples.modalities).items()
        if kind in predict.outputs
    }
    for ref, sample in zip(samples.frames, samples, strict=True):
        began = time.perf_counter()
        prediction = predict(sample)
        if timings is not None:
            timings.append(time.perf_counter() - began)
        reached = labels.add(ref, sample, prediction) if labels and sample[TRUTH + PRESENT] else float("nan")
        for kind, errors in geometry.items():
            errors.add(ref, sample, prediction.geometry[kind])
        on_frame(Judged(ref, sample, prediction, reached))
    measured = {name: value for errors in geometry.values() for name, value in errors.measures.items()}
    depth = predict.outputs.get(Kind.DEPTH) if Kind.DEPTH in geometry else None
    return Score(
        name=name,
        frames=len(samples),
        **(labels.scores() if labels else NO_LABELS),
        geometry=measured,
        geometry_per_video={
            video: {name: value for errors in geometry.values() for name, value in errors.of(video).items()}
            for video in dict.fromkeys(ref.video for ref in samples.frames)
            if geometry
        },
        geometry_truth={kind.value: errors.truth.name for kind, errors in geometry.items()},
        depth_alignment=alignment(depth) if depth else None,
        ensemble=predict.ensemble,
    )


# What stands in a score without labels.
NO_LABELS: dict[str, Any] = {
    "taxonomy": None,
    "miou": float("nan"),
    "pixel_accuracy": float("nan"),
    "f1": float("nan"),
    "per_class": {},
    "per_video": {},
    "confusion": [],
}


class _Labels:
    """Everything that is measured of classes."""

    def __init__(self, truth: Modality, thorough: bool) -> None:
        self.taxonomy = _taxonomy(truth)
        self._thorough = thorough
        self._tables: dict[str, Confusion] = {}
        self._calibration = Calibration()
        self._boundaries = Boundaries(len(self.taxonomy), self.taxonomy.ignore)
        self._consistency = _Consistency(len(self.taxonomy))

    def add(self, ref: FrameRef, sample: Sample, prediction: Prediction) -> float:
        """Returns the mIoU of this frame."""
        assert prediction.ids is not None, "the predictor says that there are labels"
        classes, ignore = len(self.taxonomy), self.taxonomy.ignore
        target = sample[TRUTH][..., 0]
        table = confusion(prediction.ids, target, classes, ignore)
        self._tables[ref.video] = self._tables.get(ref.video, 0) + table
        if prediction.confidence is not None:
            counted = (target != ignore) & (target < classes)
            self._calibration.add(prediction.confidence, prediction.ids == target, counted)
        if self._thorough:
            self._boundaries.add(prediction.ids, target)
            self._consistency.add(ref, sample["rgb"], prediction.ids)
        return miou(table)

    def scores(self) -> dict[str, Any]:
        """Fields of `Score`."""
        pooled_table: Confusion = np.sum(list(self._tables.values()), axis=0)
        return {
            "taxonomy": self.taxonomy,
            "miou": miou(pooled_table),
            "pixel_accuracy": pixel_accuracy(pooled_table),
            "f1": _mean(class_f1(pooled_table)),
            "per_class": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(self.taxonomy.classes, class_iou(pooled_table), strict=True)
            },
            "per_video": {video: miou(table) for video, table in self._tables.items()},
            "confusion": pooled_table[:, : len(self.taxonomy)].tolist(),
            "boundary_f1": _mean(self._boundaries.f1) if self._thorough else None,
            "temporal_consistency": self._consistency.miou if self._thorough else None,
            "calibration_error": self._calibration.error,
        }


class _Geometry:
    """Depth, or normals, by video."""

    def __init__(self, truth: Modality, predicted: Modality) -> None:
        self.truth = truth
        self._predicted = predicted
        self._errors: dict[str, Errors] = {}

    def add(self, ref: FrameRef, sample: Sample, predicted: Array) -> None:
        if not sample[self.truth.name + PRESENT]:
            return
        found, true = predicted.astype(np.float32), sample[self.truth.name].astype(np.float32)
        if self.truth.kind is Kind.DEPTH:
            found, true = found[..., 0], true[..., 0]
        self._errors.setdefault(ref.video, new_errors(self.truth.kind)).add(found, self._predicted, true)

    @property
    def measures(self) -> dict[str, float]:
        return pooled(self._errors.values())

    def of(self, video: str) -> dict[str, float]:
        return self._errors[video].measures() if video in self._errors else {}


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


def scored_samples(data: Dataset, split: str, outputs: Mapping[Kind, Modality], *names: str) -> ModalityDataset:
    """The frames of a split with the named modalities, and with truth of those kinds that a model answers with.

    Raises DataError when there is no truth to score against.
    """
    videos = [video for video in map(data.video, data.videos) if video.split == split]
    there = {name: modality for video in videos for name, modality in video.modalities.items()}
    judged = [truth.name for kind, truth in truths(there).items() if kind in outputs]
    if Kind.LABELS in outputs and TRUTH in there:
        judged.insert(0, TRUTH)
    if not judged or (Kind.LABELS in outputs and TRUTH not in there):
        kinds = [Kind.LABELS] if Kind.LABELS in outputs else [kind for kind in GEOMETRY if kind in outputs]
        raise _nothing_to_score_against(data, split, kinds[0])
    wanted = list(dict.fromkeys([*judged, *names]))
    # Where only some frames have exact depth, the others still count for labels.
    groups = [judged[:1], *([name] for name in names)]
    return ModalityDataset(data, wanted, split=split, missing="mask", one_of=groups)


def _nothing_to_score_against(data: Dataset, split: str, kind: Kind) -> DataError:
    what = "labels" if kind is Kind.LABELS else f"exact {kind.value}"
    have = sorted(
        {
            video.split
            for video in map(data.video, data.videos)
            if (TRUTH in video.modalities if kind is Kind.LABELS else kind in truths(video.modalities))
        }
    )
    where = f"{what[0].upper()}{what[1:]} {'are' if what.endswith('s') else 'is'} in {', '.join(have)}"
    return DataError(
        f"The split {split!r} has no {what} to score against.",
        hint=f"{where}; choose with --split."
        if have
        else "No split has: import some from people or exact truth, as docs/importing.md shows.",
    )


def declared_outputs(modalities: Mapping[str, Modality] | tuple[Modality, ...]) -> dict[Kind, Modality]:
    """Of each kind that is scored, the first."""
    found: dict[Kind, Modality] = {}
    for modality in modalities.values() if isinstance(modalities, Mapping) else modalities:
        if modality.kind in (Kind.LABELS, *GEOMETRY):
            found.setdefault(modality.kind, modality)
    return found


def student_predictor(student: Student) -> Predictor:
    """Everything at the frame's size from a student."""
    outputs = declared_outputs(student.config.outputs)

    @torch.inference_mode()
    def predict(sample: Sample) -> Prediction:
        rgb = torch.from_numpy(sample["rgb"]).to(device_of(student)).permute(2, 0, 1).unsqueeze(0).float()
        answers = (answer.cpu() for answer in student(rgb))
        raw = dict(zip((modality.name for modality in student.config.outputs), answers, strict=True))
        size = (sample["rgb"].shape[0], sample["rgb"].shape[1])
        logits = upsample(raw[outputs[Kind.LABELS].name], size)
        geometry = {
            kind: _picture(upsample(decode(modality, raw[modality.name], student.config.statistics), size))
            for kind, modality in outputs.items()
            if kind in GEOMETRY
        }
        return _surest(logits.softmax(dim=1), geometry)

    return Predictor(predict, outputs)


def phg_mae_predictor(model: PHGMAE, *, members: Members | None, mirror: bool, aggregate: str = "mean") -> Predictor:
    """What a PHG-MAE says: everything visible where there are no `members` (1All), else what they say together."""
    others = (modality for modality in model.config.outputs if modality.kind in GEOMETRY)
    outputs = declared_outputs((model.target, *others))
    names = [modality.name for modality in outputs.values()]

    def predict(sample: Sample) -> Prediction:
        batch, present = read_inputs(model, sample)
        masks = members.masks(present) if members else model.everything()
        said = ensemble_predict(model, batch, masks, outputs=names, mirror=mirror, aggregate=aggregate)
        height, width = sample[model.config.inputs[0].name].shape[:2]
        grown = {kind: upsample(said.outputs[m.name], (height, width)) for kind, m in outputs.items()}
        geometry = {kind: _picture(values) for kind, values in grown.items() if kind in GEOMETRY}
        uncertainty = upsample(said.uncertainty, (height, width))[0, 0].numpy() if members else None
        return replace(_surest(grown[Kind.LABELS], geometry), uncertainty=uncertainty)

    return Predictor(predict, outputs, members.describe() if members else {})


def _picture(values: torch.Tensor) -> Array:
    """`(1, C, H, W)` as float32 `(H, W, C)`."""
    array: Array = values[0].permute(1, 2, 0).float().numpy()
    return array


def _surest(probabilities: torch.Tensor, geometry: Mapping[Kind, Array]) -> Prediction:
    """From `(1, classes, H, W)`."""
    confidence, ids = probabilities[0].max(dim=0)
    return Prediction(ids.to(torch.uint8).numpy(), confidence.float().numpy(), geometry=geometry)


def modality_predictor(data: Dataset, name: str, split: str) -> Predictor:
    """An expert's stored labels, depth or normals as they are; UsageError where it is nothing that is scored."""
    modality = declarations(data, [name], split=split)[name]
    outputs = declared_outputs((modality,))
    if not outputs:
        raise UsageError(
            f"{name!r} is of kind {modality.kind.value}: only labels, depth and normals can be scored.",
            hint="`edgekit status DATA` lists the modalities, `edgekit view DATA -o x.png` draws them all.",
        )
    if modality.kind is Kind.LABELS:
        return Predictor(lambda sample: Prediction(sample[name][..., 0]), outputs)
    return Predictor(lambda sample: Prediction(None, geometry={modality.kind: sample[name]}), outputs)


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
