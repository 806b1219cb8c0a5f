"""What teaches a student: the ensemble of a PHG-MAE, or label maps that are stored already.

A teacher says per frame what each of its outputs is. Labels are class probabilities where it can doubt, ids where it
cannot; everything else comes in the unit in which it is stored, NaN where there is no value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor

from edgekit_experts.dataset.names import closest
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import Encoded, Statistics, encode
from edgekit_student.ensemble import EnsemblePrediction, Members, choose_members, predict, read_inputs
from edgekit_student.phg_mae import PHGMAE
from edgekit_student.samples import PRESENT, Array, ModalityDataset, Sample, declarations, learnt_from_truth
from edgekit_student.settings import Ensemble

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

STORED = "expert:"
# What networks predict is kept as halves: the largest of them is far beyond any depth.
HALF_MAX = 65504.0

OnTeaching = Callable[[int, int], None]


@dataclass(frozen=True)
class Lessons:
    """What a student learns of each frame, in the order of the samples.

    `taught[i]` has for each output of the teacher an array `(h, w, C)` at the teacher's resolution, and whether it is
    there under `name + PRESENT`. `forms` says how each is written: a labels modality as ids, or as an image with one
    channel per class, probability × 255. `frequencies` `(classes,)` counts the pixels of each class of the target.
    `provenance` is what else the student's checkpoint keeps of it.
    """

    forms: Mapping[str, Modality]
    taught: Sequence[Sample]
    frequencies: Tensor
    provenance: Mapping[str, Any] = field(default_factory=dict)


class Teacher(Protocol):
    """`outputs` are what it teaches, the target first; `reads` which modalities of the data set it needs for that.

    `parent` is what provenance calls it, `supervised` whether human labels or exact truth are behind it.
    """

    parent: str
    supervised: bool
    outputs: tuple[Modality, ...]
    reads: tuple[str, ...]

    def statistics(self, samples: ModalityDataset) -> Statistics:
        """Of its outputs."""
        ...

    def lessons(self, samples: ModalityDataset, seed: int, on_teaching: OnTeaching) -> Lessons:
        """`on_teaching(done, total)` counts frames, where telling takes time."""
        ...


class EnsembleTeacher:
    """The mean of what a PHG-MAE predicts under random masks: smoother than the experts it has learnt from, and there
    on every frame. Where an expert had no value (the sky has no depth), there is none to learn.
    """

    def __init__(self, model: PHGMAE, ensemble: Ensemble, names: Sequence[str] = (), *, parent: str) -> None:
        """`names` are the outputs to teach, else the target alone. Raises UsageError where it does not predict one."""
        predicted = {modality.name: modality for modality in model.config.outputs}
        for name in names:
            if name not in predicted:
                raise UsageError(
                    f"The PHG-MAE does not predict {name!r}, which outputs asks for.",
                    hint=f"{closest(name, predicted)} It predicts {', '.join(predicted)}.",
                )
        self.model, self.ensemble, self.parent = model, ensemble, parent
        self.outputs = tuple(predicted[name] for name in _target_first(model.target.name, names))
        self.reads = tuple(modality.name for modality in model.config.inputs)
        self.supervised = any(modality.truth for modality in (*model.config.inputs, *model.config.outputs))

    def statistics(self, samples: ModalityDataset) -> Statistics:
        return self.model.config.statistics

    def lessons(self, samples: ModalityDataset, seed: int, on_teaching: OnTeaching) -> Lessons:
        fitting(self.model, samples)
        members = choose_members(self.model, samples, self.ensemble, seed)
        taught: list[Sample] = []
        for sample in samples:
            taught.append(self._say(sample, members))
            on_teaching(len(taught), len(samples))
        target = self.outputs[0].name
        counts = np.sum([each[target].mean(axis=(0, 1), dtype=np.float64) for each in taught], axis=0)
        forms = {modality.name: written(modality) for modality in self.outputs}
        chosen = members.describe()
        return Lessons(forms, taught, torch.from_numpy(counts), {"ensemble": chosen} if chosen else {})

    def predict(self, sample: Sample, members: Members) -> EnsemblePrediction:
        """What the ensemble says of one frame, `(1, features, h, w)` each."""
        batch, present = read_inputs(self.model, sample)
        names = [modality.name for modality in self.outputs]
        how = self.ensemble
        masks = members.masks(present)
        return predict(self.model, batch, masks, outputs=names, mirror=how.mirror, aggregate=how.aggregate)

    def _say(self, sample: Sample, members: Members) -> Sample:
        said: Sample = {}
        answers = self.predict(sample, members).outputs
        for modality in self.outputs:
            array = _kept(modality, answers[modality.name])
            if modality.name in self.reads and sample[modality.name + PRESENT]:
                array = _without_holes(array, sample[modality.name])
            said |= {modality.name: array, modality.name + PRESENT: np.asarray(True)}
        return said


class StoredTeacher:
    """Modalities of the data set as they are: an expert's, what people labelled, what an earlier student said."""

    def __init__(self, data: Dataset, target: str, names: Sequence[str] = ()) -> None:
        """Raises DataError where there is nothing of a name, UsageError where the target is no labels."""
        self.reads = _target_first(target, names)
        declared = declarations(data, self.reads, split="train")
        if (kind := declared[target].kind) is not Kind.LABELS:
            raise UsageError(
                f"{target!r} is of kind {kind.value}: a student needs labels to learn.",
                hint="Name labels after expert:, and other modalities in `outputs` of [distill].",
            )
        self.parent = STORED + target
        self.outputs = tuple(declared.values())
        self.supervised = any(modality.truth for modality in self.outputs) or _behind(data, self.reads)

    def statistics(self, samples: ModalityDataset) -> Statistics:
        return samples.statistics()

    def lessons(self, samples: ModalityDataset, seed: int, on_teaching: OnTeaching) -> Lessons:
        forms = {modality.name: modality for modality in self.outputs}
        return Lessons(forms, _Stored(samples, self.reads), samples.frequencies(self.reads[0]))


class _Stored(Sequence[Sample]):
    """Read when they are needed: what fits into memory is in the cache of the samples already."""

    def __init__(self, samples: ModalityDataset, names: Sequence[str]) -> None:
        self._samples = samples
        self._keys = [key for name in names for key in (name, name + PRESENT)]

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        sample = self._samples[index]
        return {key: sample[key] for key in self._keys}


def written(modality: Modality) -> Modality:
    """How a prediction of this modality is kept: see `Lessons.forms`."""
    if modality.taxonomy:
        return Modality(modality.name, Kind.IMAGE, channels=modality.features, unit="probability × 255")
    return replace(modality, dtype="float16")


def class_probabilities(modality: Modality, form: Modality, taught: Tensor) -> Encoded:
    """What was taught of labels, `(N, h, w, C)`, as probabilities `(N, classes, h, w)`, and where they hold."""
    if form.taxonomy:
        return encode(modality, taught, {})
    probabilities = taught.permute(0, 3, 1, 2).float()
    total = probabilities.sum(dim=1, keepdim=True)
    return Encoded(probabilities / total.clamp_min(1.0), total > 0)


def class_ids(form: Modality, taught: Array) -> Array:
    """Ids `(h, w)` of what was taught of labels, `(h, w, C)`: the likeliest class."""
    ids: Array = taught[..., 0] if form.taxonomy else taught.argmax(axis=-1).astype(np.uint8)
    return ids


def fitting(model: PHGMAE, samples: ModalityDataset) -> None:
    """Raises DataError when a modality of the data set is not what the PHG-MAE was trained on."""
    for modality in model.config.inputs:
        found = samples.modalities[modality.name]
        if (found.kind, found.channels, found.taxonomy) != (modality.kind, modality.channels, modality.taxonomy):
            raise DataError(
                f"Modality {modality.name!r} of the data set is not the one that the PHG-MAE was trained on.",
                hint="Extract or import the data set with the configuration that the training data had.",
            )


def _target_first(target: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys([target, *names]))


def _kept(modality: Modality, values: Tensor) -> Array:
    """`(1, features, h, w)` as an array `(h, w, C)`: bytes for probabilities, halves for the rest."""
    values = values[0].permute(1, 2, 0)
    if modality.taxonomy:
        kept: Array = (values * 255).round().to(torch.uint8).contiguous().numpy()
    else:
        kept = values.clamp(-HALF_MAX, HALF_MAX).to(torch.float16).contiguous().numpy()
    return kept


def _without_holes(array: Array, stored: Array) -> Array:
    """NaN where the nearest pixel of what is stored `(H, W, C)` has no value."""
    if not (np.issubdtype(array.dtype, np.floating) and np.issubdtype(stored.dtype, np.floating)):
        return array
    height, width = array.shape[:2]
    rows = (np.arange(height) * 2 + 1) * stored.shape[0] // (2 * height)
    columns = (np.arange(width) * 2 + 1) * stored.shape[1] // (2 * width)
    there = np.isfinite(stored[np.ix_(rows, columns)]).all(axis=-1, keepdims=True)
    return np.where(there, array, np.float16(np.nan))


def _behind(data: Dataset, names: Sequence[str]) -> bool:
    """Whether a model that learnt from truth is behind one of these modalities."""
    arrays = (data.video(video).arrays for video in data.videos)
    return any(learnt_from_truth(found, name) for found in arrays for name in names)
