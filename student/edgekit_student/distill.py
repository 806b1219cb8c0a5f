"""`edgekit distill`: the ensemble of a PHG-MAE teaches an RGB-only student."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.augment import augment, pasted
from edgekit_student.batches import Batch, batch_indices, collate
from edgekit_student.checkpoint import CheckpointConfig, borrow
from edgekit_student.fit import Progress, fit
from edgekit_student.holdout import EarlyStop, split_frames
from edgekit_student.losses import class_weights, soft_cross_entropy
from edgekit_student.metrics import Confusion, confusion, doubts, miou
from edgekit_student.networks import check_network
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.pictures import chosen, look_at_student
from edgekit_student.ranks import leads
from edgekit_student.samples import CACHE_BYTES, PRESENT, Array, ModalityDataset, Sample, describe
from edgekit_student.settings import DistillSettings, Ensemble
from edgekit_student.student import Student
from edgekit_student.tensorboard import FOLDER, Look, recorded
from edgekit_student.train import check_folder

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

TEACHER = "teacher"
COMPARED_FRAMES = 16


def distill(
    teacher: PHGMAE,
    data: Dataset,
    folder: Path,
    settings: DistillSettings,
    *,
    parent: str,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    on_teaching: Callable[[int, int], None] = lambda done, total: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Student:
    """Labels the `train` split with the ensemble, fits a student to it, writes the student to `folder`.

    How well it learnt stands in `config.provenance["learnt"]` of what comes back: `miou` (0..1) against the ensemble
    on `frames` of the frames that taught it, and `doubts` in words, if there are any.

    `on_teaching(done, total)` counts the frames that the ensemble has labelled. Raises DataError when the data set
    lacks a modality that the teacher reads.
    """
    check_folder(folder)
    check_network(settings.network)
    inputs = [modality.name for modality in teacher.config.inputs]
    names = list(dict.fromkeys(["rgb", *inputs]))
    samples = ModalityDataset(
        data, names, split="train", missing=settings.missing, one_of=[["rgb"], inputs], cache_bytes=CACHE_BYTES
    )
    fitting(teacher, samples)
    taught = []
    for done, probabilities in enumerate(teach(teacher, samples, settings.ensemble, settings.optimisation.seed), 1):
        taught.append(probabilities)
        on_teaching(done, len(samples))
    frequencies = torch.from_numpy(np.sum([each.mean(axis=(0, 1), dtype=np.float64) for each in taught], axis=0))
    weights = class_weights(frequencies, settings.class_balance)
    # Students answer with the classes themselves, whatever the teacher's target was called.
    labels = replace(teacher.target, name="labels", truth=False)
    rgb = samples.modalities["rgb"]
    config = CheckpointConfig(
        kind="student",
        network={"name": settings.network},
        inputs=(rgb,),
        outputs=(labels,),
        statistics={"rgb": samples.statistics()["rgb"]},
        input_size=samples.frame_size,
        provenance={
            **describe(data),
            "parent": parent,
            "frames": len(samples),
            "seed": settings.optimisation.seed,
            "config": settings.model_dump(mode="json"),
        },
    )
    torch.manual_seed(settings.optimisation.seed)
    student = Student(config)
    if settings.start:
        config.provenance["start"] = borrow(student, Path(settings.start))
    seed = settings.optimisation.seed
    modalities = {
        "rgb": rgb,
        TEACHER: Modality(TEACHER, Kind.IMAGE, channels=labels.features, unit="probability × 255"),
    }

    augmentation = settings.augmentation.model_copy(update={"crop": settings.augmentation.crop or samples.frame_size})

    split = split_frames(samples.frames, settings.optimisation)

    def one(index: int, rng: np.random.Generator) -> Sample:
        sample = {"rgb": samples[index]["rgb"], TEACHER: taught[index]}
        return augment(sample, modalities, augmentation, rng)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        picks = [split.kept[i] for i in batch_indices(len(split.kept), step, settings.optimisation.batch, seed)]
        views = [one(i, rng) for i in picks]
        return collate(pasted(views, lambda view: view[TEACHER].argmax(axis=-1), augmentation.paste, rng))

    def loss(module: nn.Module, sample: Batch, step: int) -> Tensor:
        (logits,) = module(sample["rgb"].permute(0, 3, 1, 2).float())
        height, width = sample["rgb"].shape[1:3]
        factor = max(1, student.stride // 2)
        size = (-(-height // factor), -(-width // factor))
        probabilities = upsample(sample[TEACHER].permute(0, 3, 1, 2).float(), size)
        probabilities = probabilities / probabilities.sum(dim=1, keepdim=True).clamp_min(1.0)
        # Pixels of which the ensemble is sure count most.
        confidence = probabilities.amax(dim=1, keepdim=True)
        return soft_cross_entropy(upsample(logits, size), probabilities, confidence, settings.temperature, weights)

    def look() -> Look:
        picks = chosen(split.held_out or split.kept)
        return look_at_student(student, [(samples[i]["rgb"], taught[i]) for i in picks])

    def held_out(index: int) -> Batch:
        picked = split.held_out[index]
        return collate([{"rgb": samples[picked]["rgb"], TEACHER: taught[picked]}])

    early_stop = EarlyStop(held_out, len(split.held_out), settings.optimisation) if split.held_out else None
    with recorded(
        folder / FOLDER if tensorboard else None, on_progress, look, settings.optimisation.validate_every
    ) as report:
        fit(
            student,
            batch,
            loss,
            settings.optimisation,
            folder,
            device=device,
            resume=resume,
            early_stop=early_stop,
            on_progress=report,
        )
    if early_stop:
        config.provenance["early_stop"] = early_stop.told()
    learnt = _compare(student, samples, taught)
    student.config = replace(config, provenance={**config.provenance, "learnt": learnt})
    if leads():
        student.save(folder)
    return student


@torch.inference_mode()
def _compare(student: Student, samples: ModalityDataset, taught: list[Array]) -> dict[str, Any]:
    """The student's classes beside the ensemble's, on a few of the frames that it learnt from."""
    taxonomy = student.config.outputs[0].taxonomy
    assert taxonomy is not None
    picks = np.unique(np.linspace(0, len(samples) - 1, COMPARED_FRAMES).astype(int))
    table: Confusion = np.zeros((len(taxonomy), len(taxonomy) + 1), np.int64)
    for index in picks:
        target = taught[index].argmax(axis=-1)
        (logits,) = student(torch.from_numpy(samples[index]["rgb"]).permute(2, 0, 1).unsqueeze(0).float())
        found = upsample(logits, target.shape).argmax(dim=1)[0].numpy()
        table = table + confusion(found, target, len(taxonomy), taxonomy.ignore)
    return {
        "frames": len(picks),
        "miou": round(miou(table), 5),
        "doubts": list(doubts(table, taxonomy.classes, "the ensemble that taught it")),
    }


def teach(teacher: PHGMAE, samples: ModalityDataset, ensemble: Ensemble, seed: int) -> Iterator[Array]:
    """Ensemble class probabilities of each sample, `(h, w, classes)` uint8 in 1/255, at the teacher's resolution."""
    names = [modality.name for modality in teacher.config.inputs]
    generator = torch.Generator().manual_seed(seed)
    for sample in samples:
        batch = collate([{name: sample[name] for name in names}])
        present = torch.tensor([bool(sample[name + PRESENT]) for name in names])
        masks = teacher.masks(ensemble.members, generator, present=present)
        probabilities = teacher.predict(batch, masks, mirror=ensemble.mirror)
        yield (probabilities[0] * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def fitting(teacher: PHGMAE, samples: ModalityDataset) -> None:
    """Raises DataError when a modality of the data set is not what the teacher was trained on."""
    for modality in teacher.config.inputs:
        found = samples.modalities[modality.name]
        if (found.kind, found.channels, found.taxonomy) != (
            modality.kind,
            modality.channels,
            modality.taxonomy,
        ):
            raise DataError(
                f"Modality {modality.name!r} of the data set is not the one that the PHG-MAE was trained on.",
                hint="Extract or import the data set with the configuration that the training data had.",
            )
