"""`edgekit train`: PHG-MAE on the modalities of a data set, none of which a human made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit_experts.files import not_writable
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.augment import augment, pasted
from edgekit_student.batches import Batch, batch_indices, collate
from edgekit_student.checkpoint import CONFIG, CheckpointConfig, borrow
from edgekit_student.encoding import Encoded, averaged, encode
from edgekit_student.fit import Progress
from edgekit_student.holdout import split_frames
from edgekit_student.losses import class_weights, loss_size, modality_loss, pixel_certainty
from edgekit_student.masking import check_masking
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.pictures import chosen, look_at_phg_mae
from edgekit_student.ranks import leads
from edgekit_student.samples import (
    CACHE_BYTES,
    PRESENT,
    ModalityDataset,
    automatic_modalities,
    declarations,
    describe,
)
from edgekit_student.settings import TrainSettings
from edgekit_student.tensorboard import Look
from edgekit_student.watch import fit_watched
from edgekit_student.weighting import LearnedWeights, check_losses, fixed_weights

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset


def train(
    data: Dataset,
    run: Path,
    settings: TrainSettings,
    *,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> PHGMAE:
    """Trains on the `train` split of `data` and writes the checkpoint to `run`; curves to `run/tensorboard`.

    Raises DataError when the modalities asked for are not there, UsageError when `run` holds a finished training
    already.
    """
    check_folder(run)
    inputs, outputs, target = choose_modalities(data, settings)
    check_masking(settings.masking, inputs)
    names = list(dict.fromkeys([*inputs, *outputs, *([settings.certainty] if settings.certainty else [])]))
    seen = [name for name in inputs if name not in settings.masking.never_visible]
    samples = ModalityDataset(
        data, names, split="train", missing=settings.missing, one_of=[seen, outputs], cache_bytes=CACHE_BYTES
    )
    config = CheckpointConfig(
        kind="phg-mae",
        network={"name": settings.network, "target": target, "masking": settings.masking.model_dump(mode="json")},
        inputs=tuple(samples.modalities[name] for name in inputs),
        outputs=tuple(samples.modalities[name] for name in outputs),
        statistics=samples.statistics(),
        input_size=settings.augmentation.crop or samples.frame_size,
        provenance={
            **describe(data),
            "frames": len(samples),
            "seed": settings.optimisation.seed,
            "config": settings.model_dump(mode="json"),
        },
    )
    check_losses(config.outputs, target, settings)
    torch.manual_seed(settings.optimisation.seed)
    model = PHGMAE(config)
    if settings.start:
        config.provenance["start"] = borrow(model, Path(settings.start), config)
    if settings.weighting == "learned":
        model.weighting = LearnedWeights(fixed_weights(config.outputs, target, settings))
    weights = class_weights(samples.frequencies(target), settings.class_balance) if target else None
    # Videos may differ in size, the samples of a batch may not.
    augmentation = settings.augmentation.model_copy(update={"crop": config.input_size})
    seed, count = settings.optimisation.seed, settings.optimisation.batch

    split = split_frames(samples.frames, settings.optimisation)

    def batch(step: int) -> Batch:
        rng = np.random.default_rng((seed, step))
        picks = [split.kept[i] for i in batch_indices(len(split.kept), step, count, seed)]
        views = [augment(samples[i], samples.modalities, augmentation, rng) for i in picks]
        if target:
            views = pasted(views, lambda view: view[target][..., 0], augmentation.paste, rng)
        return collate(views)

    def loss(module: nn.Module, sample: Batch, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + step)
        present = torch.stack([sample[name + PRESENT] for name in inputs], dim=1).cpu()
        progress = step / (settings.optimisation.steps * settings.optimisation.accumulate)
        masks = model.masks(len(present), generator, present=present, progress=progress)
        height, width = sample[inputs[0]].shape[1:3]  # of a crop, or of a whole frame that is held out
        predictions = module(sample, masks, model.patches(len(present), (height, width), generator))
        return reconstruction_loss(model, predictions, sample, settings, weights)

    def parts(predictions: Mapping[str, Tensor], sample: Batch) -> dict[str, float]:
        losses, _ = modality_losses(model, predictions, sample, settings, weights)
        return {name: value.item() for name, value in losses.items()}

    def look() -> Look:
        return look_at_phg_mae(model, [samples[i] for i in chosen(split.held_out or split.kept)], parts)

    watched = fit_watched(
        model,
        batch,
        loss,
        lambda index: collate([samples[index]]),
        split,
        look,
        settings.optimisation,
        run,
        device=device,
        resume=resume,
        tensorboard=tensorboard,
        on_progress=on_progress,
    )
    config.provenance.update(watched)
    if model.weighting is not None:
        config.provenance["loss_weights"] = model.weighting.values()
        model.weighting = None
    if leads():
        model.save(run)
    return model


def reconstruction_loss(
    model: PHGMAE,
    predictions: Mapping[str, Tensor],
    sample: Batch,
    settings: TrainSettings,
    class_weights: Tensor | None,
) -> Tensor:
    """The sum over output modalities, weighted as the settings say or as was learnt."""
    losses, counted = modality_losses(model, predictions, sample, settings, class_weights)
    if model.weighting is not None:
        return model.weighting(losses, counted)  # type: ignore[no-any-return]
    weights = fixed_weights(model.config.outputs, model.config.network["target"], settings)
    total = torch.zeros((), device=next(iter(predictions.values())).device)
    for name, value in losses.items():
        total = total + weights[name] * value
    return total


def modality_losses(
    model: PHGMAE,
    predictions: Mapping[str, Tensor],
    sample: Batch,
    settings: TrainSettings,
    class_weights: Tensor | None,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The loss of each output modality by name, and whether a pixel was counted: labels at half the frame's resolution,
    the others at the network's.

    Only labels are worth the finer grid: their edges decide what students learn. Nothing finer pays: CamVid's vote
    loses nothing at 1/2, and the loss at full resolution took as long as the network itself. `class_weights` are
    those of the target. A modality that a sample lacks costs nothing there.
    """
    learnt = model.config.network["target"]
    losses: dict[str, Tensor] = {}
    counted: dict[str, Tensor] = {}
    for modality in model.config.outputs:
        output = predictions[modality.name]
        target = encode(modality, sample[modality.name], model.config.statistics)
        target = Encoded(target.values, target.valid & sample[modality.name + PRESENT].view(-1, 1, 1, 1))
        size = loss_size(target.values, model.stride) if modality.kind is Kind.LABELS else _size(output)
        target = averaged(target, size)
        certainty = None
        if settings.certainty and modality.name == learnt:
            certainty = F.adaptive_avg_pool2d(pixel_certainty(sample[settings.certainty]), size)
        balance = class_weights if modality.name == learnt else None
        counted[modality.name] = target.valid.any()
        losses[modality.name] = modality_loss(
            modality,
            upsample(output, size),
            target,
            balance,
            certainty,
            loss=settings.losses.get(modality.name),
            statistics=model.config.statistics,
        )
    return losses, counted


def _size(values: Tensor) -> tuple[int, int]:
    return int(values.shape[-2]), int(values.shape[-1])


def choose_modalities(data: Dataset, settings: TrainSettings) -> tuple[list[str], list[str], str]:
    """Names of inputs and outputs and of the target, filled in where the settings are silent.

    By default every automatic modality but the target is an input (a target that is seen is only copied), and
    inputs and target are outputs. Where `outputs` names no labels, and `target` neither, the target is empty: such an
    autoencoder is what other trainings begin with.
    """
    automatic = automatic_modalities(data, split="train")
    if not automatic:
        raise DataError(
            "The split 'train' of the data set has no modality to learn from.",
            hint="Run `edgekit extract` or `edgekit import` first; `edgekit status DATA` shows what is there.",
        )
    target = settings.target or _default_target(data, automatic, settings)
    inputs = list(settings.inputs) or [name for name in automatic if name != target]
    outputs = list(settings.outputs) or [*inputs, target]
    if target and target not in outputs:
        outputs.append(target)
    certainty = [settings.certainty] if settings.certainty else []
    declared = declarations(data, [*inputs, *outputs, *certainty], split="train")
    if certainty and declared[settings.certainty].features != 1:
        raise UsageError(
            f"The certainty {settings.certainty!r} does not have one value a pixel.",
            hint="Name what the expert vote_agreement makes, or a mask.",
        )
    if target and declared[target].kind is not Kind.LABELS:
        labels = ", ".join(name for name, modality in automatic.items() if modality.kind is Kind.LABELS)
        raise UsageError(
            f"The target {target!r} is of kind {declared[target].kind.value}, not labels.",
            hint=f"Labels here: {labels or 'none'}.",
        )
    return inputs, outputs, target


def _default_target(data: Dataset, automatic: dict[str, Modality], settings: TrainSettings) -> str:
    predicted = declarations(data, settings.outputs, split="train").values()
    if predicted and not any(modality.kind is Kind.LABELS for modality in predicted):
        if needless := [name for name in ("certainty", "paste") if _asks(settings, name)]:
            raise UsageError(
                f"Without a target there is nothing that {' and '.join(needless)} could be about.",
                hint="Name the `target`, or labels among the `outputs`; or take it out.",
            )
        return ""
    labels = [name for name, modality in automatic.items() if modality.kind is Kind.LABELS]
    if "vote" in labels:
        return "vote"
    if len(labels) == 1:
        return labels[0]
    if not labels:
        raise UsageError(
            "The data set has no labels that a student could learn.",
            hint="Extract with a semantic expert, or import what networks have said. To train on pictures alone, for"
            " `--start`, name the `outputs` in train.toml.",
        )
    raise UsageError(
        f"Which labels should be learnt? The data set has {', '.join(labels)}.",
        hint="Name one: --target NAME, or `target` in train.toml.",
    )


def _asks(settings: TrainSettings, name: str) -> bool:
    return bool(settings.certainty if name == "certainty" else settings.augmentation.paste)


def check_folder(run: Path) -> None:
    """Raises UsageError, before hours of work, when `run` cannot be written or holds a finished checkpoint, which no
    slip may overwrite.
    """
    if reason := not_writable(run):
        raise UsageError(f"{run} cannot be written: {reason}.", hint="Choose another -o.")
    if (run / CONFIG).exists():
        raise UsageError(
            f"{run} holds a finished training.",
            hint="Choose another -o, or remove that folder first.",
        )
