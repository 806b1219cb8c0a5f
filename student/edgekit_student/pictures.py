"""Pictures of what a network in training says of a few frames, beside what it should say."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from edgekit_runtime.colour import Picture, colourise
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.batches import Batch, collate
from edgekit_student.encoding import Statistics, decode
from edgekit_student.networks import device_of
from edgekit_student.phg_mae import PHGMAE, upsample
from edgekit_student.samples import PRESENT, Array, Sample
from edgekit_student.student import Student
from edgekit_student.tensorboard import Look

FRAMES = 3


def chosen(indices: Sequence[int]) -> list[int]:
    """A few indices, spread evenly."""
    return [indices[i] for i in np.unique(np.linspace(0, len(indices) - 1, FRAMES).astype(int))]


def look_at_phg_mae(
    model: PHGMAE, samples: Sequence[Sample], parts: Callable[[Mapping[str, Tensor], Batch], Mapping[str, float]]
) -> Look:
    """For each frame the RGB it sees and, by output modality, target and prediction side by side.

    Every input that is there is visible. `parts(predictions, batch)` says what each modality contributes to the loss;
    its mean over the frames is shown too.
    """
    pictures: dict[str, Picture] = {}
    losses: dict[str, list[float]] = {}
    with _evaluating(model) as device:
        for place, sample in enumerate(samples):
            batch = {name: tensor.to(device) for name, tensor in collate([sample]).items()}
            present = torch.stack([batch[m.name + PRESENT] for m in model.config.inputs], dim=1).bool().cpu()
            predictions = model(batch, present & model.everything())
            for name, value in parts(predictions, batch).items():
                losses.setdefault(f"frames_loss/{name}", []).append(value)
            if "rgb" in sample:
                pictures[f"frame_{place}/input"] = sample["rgb"]
            for modality in model.config.outputs:
                said = _stored(modality, predictions[modality.name], sample, model.config.statistics)
                both = (colourise(modality, array) for array in (sample[modality.name], said))
                pictures[f"frame_{place}/{modality.name}"] = np.concatenate(list(both), axis=1)
    return Look(pictures, {name: float(np.mean(values)) for name, values in losses.items()})


def look_at_student(student: Student, frames: Sequence[tuple[Array, Array]]) -> Look:
    """For each frame, RGB `(H, W, 3)` and the classes that were taught, `(h, w)`: input, target, prediction."""
    labels = student.config.outputs[0]
    pictures = {}
    with _evaluating(student) as device:
        for place, (rgb, taught) in enumerate(frames):
            height, width = rgb.shape[:2]
            logits = student(torch.from_numpy(rgb).permute(2, 0, 1).unsqueeze(0).float().to(device))[0]
            said = upsample(logits.float().cpu(), (height, width)).argmax(dim=1)[0].numpy().astype(np.uint8)
            target = cv2.resize(taught, (width, height), interpolation=cv2.INTER_NEAREST)
            pictures[f"frame_{place}"] = np.concatenate(
                [rgb, colourise(labels, target), colourise(labels, said)], axis=1
            )
    return Look(pictures)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[torch.device]:
    """In eval mode and without gradients: a look leaves no trace in the training."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield device_of(model)
    finally:
        model.train(training)


def _stored(modality: Modality, output: Tensor, sample: Sample, statistics: Statistics) -> Array:
    """A prediction `(1, features, h, w)` as it would be stored, `(H, W, C)`."""
    height, width = sample[modality.name].shape[:2]
    values = decode(modality, upsample(output.float(), (height, width)), statistics)[0].cpu()
    if modality.taxonomy:
        return values.argmax(dim=0, keepdim=True).permute(1, 2, 0).numpy().astype(np.uint8)
    array = values.permute(1, 2, 0).numpy()
    if modality.kind is Kind.MASK:
        return array > 0.5
    if modality.dtype == "uint8":
        return array.clip(0, 255).round().astype(np.uint8)
    return array
