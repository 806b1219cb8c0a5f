"""`edgekit distill`: a teacher (see `teaching`) and an RGB-only student that is fitted to what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.augment import FOLLOWING, augment, pasted
from edgekit_student.batches import Batch, batch_indices, collate, drawn_by_class
from edgekit_student.checkpoint import CheckpointConfig, borrow
from edgekit_student.encoding import Encoded, averaged, encode
from edgekit_student.fit import Progress
from edgekit_student.holdout import split_frames
from edgekit_student.losses import class_weights, loss_size, modality_loss, pixel_certainty, soft_cross_entropy
from edgekit_student.metrics import Confusion, confusion, doubts, miou
from edgekit_student.networks import check_network
from edgekit_student.phg_mae import upsample
from edgekit_student.pictures import chosen, look_at_student
from edgekit_student.ranks import leads
from edgekit_student.samples import CACHE_BYTES, PRESENT, FrameRef, ModalityDataset, Sample, describe
from edgekit_student.settings import DistillSettings
from edgekit_student.student import Student
from edgekit_student.teaching import Lessons, OnTeaching, Teacher, class_ids, class_probabilities
from edgekit_student.temporal import at_grid, correspondence, temporal_loss
from edgekit_student.tensorboard import Look
from edgekit_student.train import check_folder
from edgekit_student.watch import fit_watched
from edgekit_student.weighting import check_named

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

# No modality has a colon in its name: what is taught never takes the place of what is stored.
TAUGHT = "taught:"
COMPARED_FRAMES = 16
FLOW, SEEN = "flow:following", "seen:following"


def distill(
    teacher: Teacher,
    data: Dataset,
    folder: Path,
    settings: DistillSettings,
    *,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    on_teaching: OnTeaching = lambda done, total: None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> Student:
    """Asks the teacher about the `train` split, fits a student to its answers, writes the student to `folder`.

    How well it learnt stands in `config.provenance["learnt"]` of what comes back: `miou` (0..1) against the teacher
    on `frames` of the frames that it taught, and `doubts` in words, if there are any.

    `on_teaching(done, total)` counts the frames that an ensemble has labelled. Raises DataError when the data set
    lacks a modality that the teacher reads.
    """
    check_folder(folder)
    check_network(settings.network)
    heads = _heads(teacher.outputs)
    check_named(settings.loss_weights, "loss_weights", [modality.name for modality in teacher.outputs])
    beside = [settings.certainty] if settings.certainty else []
    names = list(dict.fromkeys(["rgb", *teacher.reads, *beside]))
    samples = ModalityDataset(
        data, names, split="train", missing=settings.missing, one_of=[["rgb"], teacher.reads], cache_bytes=CACHE_BYTES
    )
    rgb = samples.modalities["rgb"]
    if beside and samples.modalities[settings.certainty].features != 1:
        raise UsageError(
            f"The certainty {settings.certainty!r} does not have one value a pixel.",
            hint="Name what the expert vote_agreement makes, or a mask.",
        )
    seed = settings.optimisation.seed
    lessons = teacher.lessons(samples, seed, on_teaching)
    weights = class_weights(lessons.frequencies, settings.class_balance)
    statistics = teacher.statistics(samples)
    config = CheckpointConfig(
        kind="student",
        network={"name": settings.network},
        inputs=(rgb,),
        outputs=tuple(heads.values()),
        statistics={
            **{head.name: dict(statistics[name]) for name, head in heads.items() if name in statistics},
            "rgb": samples.statistics()["rgb"],
        },
        input_size=samples.frame_size,
        provenance={
            **describe(data),
            "parent": teacher.parent,
            "supervised": teacher.supervised,
            "frames": len(samples),
            "seed": seed,
            "config": settings.model_dump(mode="json"),
            **lessons.provenance,
        },
    )
    torch.manual_seed(seed)
    student = Student(config)
    if settings.start:
        config.provenance["start"] = borrow(student, Path(settings.start), config)
    target = teacher.outputs[0].name
    modalities = {"rgb": rgb, **{TAUGHT + name: form for name, form in lessons.forms.items()}}
    modalities |= {name: samples.modalities[name] for name in beside}
    if settings.temporal:
        modalities[FOLLOWING] = replace(rgb, name=FOLLOWING)
    augmentation = settings.augmentation.model_copy(update={"crop": settings.augmentation.crop or samples.frame_size})

    split = split_frames(samples.frames, settings.optimisation)

    def whole(index: int) -> Sample:
        stored = samples[index]
        sample = {name: stored[name] for name in ("rgb", *beside)}
        return sample | {TAUGHT + key: array for key, array in lessons.taught[index].items()}

    def classes(view: Sample) -> Any:
        return class_ids(lessons.forms[target], view[TAUGHT + target])

    after = _following(samples.frames, split.kept) if settings.temporal else {}

    def with_following(index: int) -> Sample:
        """The frame and the one after it, or itself again where there is none."""
        if not settings.temporal:
            return whole(index)
        there = index in after
        picture = samples[after.get(index, index)]["rgb"]
        return whole(index) | {FOLLOWING: picture, FOLLOWING + PRESENT: np.asarray(there)}

    areas = _areas(lessons, target, split.kept) if settings.by_class else np.empty((0, 0))

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        places = batch_indices(len(split.kept), step, settings.optimisation.batch, seed)
        if settings.by_class:
            places = drawn_by_class(places, areas, settings.by_class, rng)
        picks = [split.kept[place] for place in places]
        views = [augment(with_following(i), modalities, augmentation, rng) for i in picks]
        views = pasted(views, classes, augmentation.paste, rng)
        return collate([_with_flow(view) for view in views] if settings.temporal else views)

    def loss(module: nn.Module, sample: Batch, step: int) -> Tensor:
        pictures = [sample[name].permute(0, 3, 1, 2).float() for name in ("rgb", FOLLOWING) if name in sample]
        count = len(pictures[0])
        answers = module(torch.cat(pictures))
        size = loss_size(pictures[0], student.stride)
        total = torch.zeros((), device=sample["rgb"].device)
        for (name, head), both in zip(heads.items(), answers, strict=True):
            answer = both[:count]
            taught, present = sample[TAUGHT + name], sample[TAUGHT + name + PRESENT].view(-1, 1, 1, 1)
            if head.kind is Kind.LABELS:
                said = class_probabilities(head, lessons.forms[name], taught)
                certainty = sample[settings.certainty] if beside and name == target else None
                weight = _weight(Encoded(said.values, said.valid & present), size, certainty)
                balance = weights if name == target else None
                probabilities = upsample(said.values, size)
                part = soft_cross_entropy(upsample(answer, size), probabilities, weight, settings.temperature, balance)
            else:
                values = encode(head, taught, statistics)
                values = Encoded(values.values, values.valid & present)
                part = modality_loss(head, answer, averaged(values, (answer.shape[-2], answer.shape[-1])))
            default = 1.0 if head.kind is Kind.LABELS else 0.3
            total = total + settings.loss_weights.get(name, default) * part
            if FLOW in sample and name == target:
                flow, seen = at_grid(sample[FLOW], sample[SEEN], (both.shape[-2], both.shape[-1]))
                now, later = both.float().softmax(dim=1).split(count)
                total = total + settings.temporal * temporal_loss(now, later, flow, seen)
        return total

    def look() -> Look:
        picks = chosen(split.held_out or split.kept)
        return look_at_student(student, [(samples[i]["rgb"], classes(whole(i))) for i in picks])

    watched = fit_watched(
        student,
        batch,
        loss,
        lambda index: collate([whole(index)]),
        split,
        look,
        settings.optimisation,
        folder,
        device=device,
        resume=resume,
        tensorboard=tensorboard,
        on_progress=on_progress,
    )
    learnt = _compare(student, samples, lessons, target)
    student.config = replace(config, provenance={**config.provenance, **watched, "learnt": learnt})
    if leads():
        student.save(folder)
    return student


def _areas(lessons: Lessons, target: str, kept: Sequence[int]) -> npt.NDArray[np.float64]:
    """`(frames, classes)`: how much of each frame is of which class, as it was taught."""
    classes = len(lessons.frequencies)
    ids = (class_ids(lessons.forms[target], lessons.taught[index][target]) for index in kept)
    return np.stack([np.bincount(each.ravel(), minlength=256)[:classes] / each.size for each in ids])


def _following(frames: Sequence[FrameRef], kept: Sequence[int]) -> dict[int, int]:
    """For each of the frames that are `kept` the place of the next one of its video, where that is kept, too."""
    places = {frames[index]: index for index in kept}
    return {
        index: places[after]
        for frame, index in places.items()
        if (after := FrameRef(frame.video, frame.index + 1)) in places
    }


def _with_flow(view: Sample) -> Sample:
    """Measured on what the student sees: pictures that were cut, recoloured and pasted into."""
    flow, seen = correspondence(view["rgb"], view[FOLLOWING])
    return view | {FLOW: flow, SEEN: seen & view[FOLLOWING + PRESENT]}


def _heads(outputs: tuple[Modality, ...]) -> Mapping[str, Modality]:
    """What a student calls each of its teacher's outputs: the target is `labels`, whatever it was called there."""
    target, *others = outputs
    for other in others:
        if other.name in ("labels", "rgb"):
            raise UsageError(
                f"A student of {target.name!r} cannot have a head {other.name!r} beside its labels.",
                hint="Leave it out of `outputs`, or teach it alone: edgekit distill expert:NAME",
            )
    return {
        target.name: replace(target, name="labels", truth=False),
        **{other.name: replace(other, truth=False) for other in others},
    }


def _weight(said: Encoded, size: tuple[int, int], certainty: Tensor | None) -> Tensor:
    """How much each pixel `(N, 1, *size)` counts: those most of which the teacher is sure, and the data set too."""
    # A pixel beside one that nobody has labelled has part of its probabilities only.
    whole = upsample(said.valid.float(), size) > 0.999
    weight = upsample(said.values, size).amax(dim=1, keepdim=True) * whole
    if certainty is None:
        return weight
    return weight * upsample(pixel_certainty(certainty), size)


@torch.inference_mode()
def _compare(student: Student, samples: ModalityDataset, lessons: Lessons, target: str) -> dict[str, Any]:
    """The student's classes beside its teacher's, on a few of the frames that it learnt from."""
    taxonomy = student.config.outputs[0].taxonomy
    assert taxonomy is not None
    picks = np.unique(np.linspace(0, len(samples) - 1, COMPARED_FRAMES).astype(int))
    table: Confusion = np.zeros((len(taxonomy), len(taxonomy) + 1), np.int64)
    for index in picks:
        said = class_ids(lessons.forms[target], lessons.taught[int(index)][target])
        logits = student(torch.from_numpy(samples[int(index)]["rgb"]).permute(2, 0, 1).unsqueeze(0).float())[0]
        found = upsample(logits, (said.shape[0], said.shape[1])).argmax(dim=1)[0].numpy()
        table = table + confusion(found, said, len(taxonomy), taxonomy.ignore)
    return {
        "frames": len(picks),
        "miou": round(miou(table), 5),
        "doubts": list(doubts(table, taxonomy.classes, "what taught it")),
    }
