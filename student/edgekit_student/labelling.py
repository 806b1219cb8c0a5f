"""`edgekit label`: what a PHG-MAE or a student says about every frame becomes a modality of the data set.

It is one more expert, of the next round's PHG-MAE. Its declaration names the checkpoint by the hash of its weights,
and as inputs the modalities that the model reads: where one of those is made anew, these labels are stale.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from edgekit_experts.dataset.names import check_name
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.ensemble import Members
from edgekit_student.networks import device_of
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.samples import PRESENT, Array, Sample, declarations
from edgekit_student.settings import Ensemble
from edgekit_student.student import Student
from edgekit_student.teaching import EnsembleTeacher

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset, Declaration, Video

UNCERTAINTY = "_uncertainty"
# Experts of this name made a modality here; nothing else is ever overwritten.
EXPERTS = ("phg-mae", "student")
# `labels` are what models are scored against: what a model says must never stand there.
RESERVED = ("rgb", "labels")


@dataclass(frozen=True)
class Labeller:
    """`probabilities` gives class probabilities `(1, classes, h, w)` of a sample that has the `inputs`.

    `params` say how, `weights` which checkpoint (16 hexadecimal digits).
    """

    kind: str
    target: Modality
    inputs: tuple[Modality, ...]
    params: dict[str, Any]
    weights: str
    probabilities: Callable[[Sample], Tensor]

    @property
    def reads(self) -> tuple[str, ...]:
        return tuple(modality.name for modality in self.inputs)


def student_labeller(student: Student) -> Labeller:
    @torch.inference_mode()
    def probabilities(sample: Sample) -> Tensor:
        rgb = torch.from_numpy(sample["rgb"]).to(device_of(student)).permute(2, 0, 1).unsqueeze(0).float()
        logits: Tensor = student(rgb)[0]
        return logits.softmax(dim=1).cpu()

    config = student.config
    return Labeller(
        "student", config.outputs[0], config.inputs, _params(config), config.weights_sha256[:16], probabilities
    )


def ensemble_labeller(model: PHGMAE, ensemble: Ensemble, *, seed: int = 0) -> Labeller:
    """Every frame is seen under the same masks, so that frames that are made later fit to those made before."""
    teacher = EnsembleTeacher(model, ensemble, parent="")

    def probabilities(sample: Sample) -> Tensor:
        members = Members(model, ensemble.members, torch.Generator().manual_seed(seed))
        return teacher.predict(sample, members).outputs[model.target.name]

    params = {**_params(model.config), **ensemble.model_dump(mode="json"), "seed": seed}
    params["supervised"] = teacher.supervised
    return Labeller(
        "phg-mae", model.target, model.config.inputs, params, model.config.weights_sha256[:16], probabilities
    )


def label(
    data: Dataset,
    labeller: Labeller,
    name: str,
    *,
    splits: Sequence[str] = (),
    uncertainty: bool = False,
    overwrite: bool = False,
    on_frame: Callable[[], None] = lambda: None,
) -> int:
    """Writes the modality `name` of the splits (else of all), and `name_uncertainty` if asked for: uint8, 0 where the
    model is sure of its class to 255 where it has no idea (one minus its confidence).

    Frames that are there already stay. Returns how many were made. Raises UsageError where the name is taken by what
    this model has not made, unless that was another model and `overwrite` is given; DataError where no frame has
    what the model reads.
    """
    check_name(name, "modality")
    videos = [video for video in map(data.video, data.videos) if not splits or video.split in splits]
    if not videos:
        have = sorted({data.video(each).split for each in data.videos})
        raise DataError(
            f"No video is in the split {', '.join(splits)!r}.", hint=f"Splits here: {', '.join(have) or 'none'}."
        )
    _same_inputs(data, labeller)
    modalities = [replace(labeller.target, name=name, truth=False)]
    if uncertainty:
        modalities.append(Modality(name + UNCERTAINTY, Kind.IMAGE, 1, "uint8", (0, 255)))
    for video in videos:
        for modality in modalities:
            _check_free(video, labeller, modality, overwrite)
    made, able = 0, 0
    for video in videos:
        if all(read in video.modalities for read in labeller.reads):
            with data.writing(video.name) as writable:
                declared = [_declaration(writable, labeller, modality) for modality in modalities]
                for declaration in declared:
                    writable.declare_as(declaration)
                done, possible = _label_video(writable, labeller, modalities, on_frame)
            made, able = made + done, able + possible
    if not able:
        raise DataError(
            f"No frame has all that the model reads: {', '.join(labeller.reads)}.",
            hint="`edgekit status DATA` shows what is done; `edgekit extract` completes what is missing.",
        )
    return made


def next_free(data: Dataset, stem: str = "student") -> str:
    """`student_1`, or the first number that no modality has."""
    taken = {name for video in map(data.video, data.videos) for name in video.modalities}
    return next(name for name in (f"{stem}_{number}" for number in range(1, len(taken) + 2)) if name not in taken)


def made_by_models(data: Dataset) -> frozenset[str]:
    """Names of the modalities that `label` has written."""
    arrays = (item for video in map(data.video, data.videos) for item in video.arrays.items())
    return frozenset(name for name, array in arrays if array.declaration.expert in EXPERTS)


def _params(config: CheckpointConfig) -> dict[str, Any]:
    return {
        "checkpoint": config.weights_sha256[:16],
        "network": config.network["name"],
        "supervised": bool(config.provenance.get("supervised", False)),
    }


def _label_video(
    video: Video, labeller: Labeller, modalities: Sequence[Modality], on_frame: Callable[[], None]
) -> tuple[int, int]:
    """Frames made, and frames that could be."""
    possible = np.logical_and.reduce([video.done(name) for name in labeller.reads])
    missing = possible & ~np.logical_and.reduce([video.done(modality.name) for modality in modalities])
    unit = video.info.unit
    for first in range(0, video.frames, unit):
        indices = [int(index) for index in np.flatnonzero(missing[first : first + unit]) + first]
        said = {}
        for index in indices:
            sample: Sample = {name: video.read(name, index) for name in labeller.reads}
            sample |= {name + PRESENT: np.asarray(True) for name in labeller.reads}
            said[index] = _answers(labeller.probabilities(sample), video.size)
            on_frame()
        for run in _runs(indices):
            for place, modality in enumerate(modalities):
                video.write(modality.name, run[0], np.stack([said[index][place] for index in run]))
    return int(missing.sum()), int(possible.sum())


def _answers(probabilities: Tensor, size: tuple[int, int]) -> tuple[Array, Array]:
    """Ids and uncertainty, uint8 `(H, W, 1)`."""
    confidence, ids = upsample(probabilities, size)[0].max(dim=0)
    unsure = ((1 - confidence.float()).clamp(0, 1) * 255).round().to(torch.uint8)
    return ids.to(torch.uint8).numpy()[..., None], unsure.numpy()[..., None]


def _runs(indices: Sequence[int]) -> list[list[int]]:
    """Consecutive frames together: a shard is written once."""
    runs: list[list[int]] = []
    for index in indices:
        if runs and runs[-1][-1] + 1 == index:
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _declaration(video: Video, labeller: Labeller, modality: Modality) -> Declaration:
    from edgekit_experts.dataset import Declaration

    inputs = {read: video.arrays[read].declaration.hash for read in labeller.reads}
    return Declaration(modality, labeller.kind, labeller.params, inputs, labeller.weights)


def _same_inputs(data: Dataset, labeller: Labeller) -> None:
    """Raises DataError where the data set has not what the model reads, or something else of the same name."""
    for modality, found in zip(labeller.inputs, declarations(data, labeller.reads).values(), strict=True):
        same = (found.kind, found.channels, found.taxonomy) == (modality.kind, modality.channels, modality.taxonomy)
        if not same:
            raise DataError(
                f"Modality {found.name!r} of the data set is not the one that the model was trained on.",
                hint="Extract or import the data set with the configuration that the training data had.",
            )


def _check_free(video: Video, labeller: Labeller, modality: Modality, overwrite: bool) -> None:
    name = modality.name
    if name in RESERVED or name in labeller.reads:
        raise UsageError(
            f"What a model says cannot be called {name!r}: that is what models are made from or scored against.",
            hint="Give another --name, such as student_1.",
        )
    found = video.arrays.get(name)
    if found is None:
        return
    declaration = found.declaration
    if declaration.expert not in EXPERTS:
        raise UsageError(
            f"{video.name} has a modality {name!r} already, made by {declaration.expert}.",
            hint="Give another --name: only what `edgekit label` has written can be overwritten.",
        )
    if declaration.identity != labeller.weights and not overwrite:
        raise UsageError(
            f"{video.name} has labels {name!r} of another checkpoint, {declaration.identity or 'unknown'}.",
            hint="Give another --name, or --overwrite to replace them.",
        )
