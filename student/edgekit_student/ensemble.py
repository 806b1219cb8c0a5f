"""Many masks, one answer: how the members of an ensemble are put together, how far they disagree, which to keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.batches import collate
from edgekit_student.metrics import Confusion, confusion, miou
from edgekit_student.networks import device_of
from edgekit_student.phg_mae import PHGMAE
from edgekit_student.samples import PRESENT, ModalityDataset, Sample
from edgekit_student.settings import Ensemble

# On so many frames, evenly spaced, masks show how far they agree.
AGREEMENT_FRAMES = 8


@dataclass(frozen=True)
class EnsemblePrediction:
    """What the members say together, at network resolution, `(N, features, h, w)` each.

    `outputs` by modality name: class probabilities (or, by vote, the share of the members that say a class) for
    labels, stored units for the rest. `uncertainty` `(N, 1, h, w)`, 0..1, is how far the members disagree on the
    classes of the target: the mutual information between a pixel's class and the member that is asked, entropy of
    the mean less mean of the entropies (Houlsby et al., arXiv 1112.5745), as a share of log(classes). One member
    alone never disagrees; members that are all unsure in the same way do not either.
    """

    outputs: dict[str, Tensor]
    uncertainty: Tensor


@torch.no_grad()
def predict(
    model: PHGMAE,
    sample: Mapping[str, Tensor],
    masks: Tensor,
    *,
    outputs: Sequence[str] = (),
    mirror: bool = False,
    aggregate: str = "mean",
) -> EnsemblePrediction:
    """The answer of an ensemble with a member for each of `masks` `(members, inputs)`; with `mirror`, twice as many.

    `outputs` are the names of the modalities to predict, by default the target alone. Of labels, `aggregate` takes
    the "mean" of the members' probabilities or their "vote"; of the rest always the mean, normals of unit length.
    The answer is on the CPU, wherever the model is. Raises UsageError for names that the model does not predict.
    """
    described = {modality.name: modality for modality in model.config.outputs}
    names = list(outputs) or [model.target.name]
    for name in names:
        if name not in described:
            raise UsageError(f"The PHG-MAE does not predict {name!r}.", hint=f"It predicts {', '.join(described)}.")
    target = model.target.name
    wanted = list(dict.fromkeys([*names, target]))
    # Members come and go one by one: only sums of them are kept.
    totals: dict[str, Tensor] = {}
    mean: Tensor | float = 0.0
    entropies: Tensor | float = 0.0
    count = 0
    for member in model.members(sample, masks, outputs=wanted, mirror=mirror):
        count += 1
        mean = mean + member[target]
        entropies = entropies + _entropy(member[target])
        for name in names:
            part = _ballot(member[name]) if aggregate == "vote" and described[name].taxonomy else member[name]
            totals[name] = totals[name] + part if name in totals else part
    disagreement = _entropy(torch.as_tensor(mean) / count) - torch.as_tensor(entropies) / count
    scale = float(np.log(max(2, model.target.features)))
    return EnsemblePrediction(
        {name: _unit(described[name], totals[name] / count).cpu() for name in names},
        (disagreement / scale).clamp(0, 1).cpu(),
    )


def _ballot(probabilities: Tensor) -> Tensor:
    """One vote for each pixel's most probable class; ties go to the lowest."""
    votes = F.one_hot(probabilities.argmax(dim=1), probabilities.shape[1])
    return votes.permute(0, 3, 1, 2).to(probabilities.dtype)


def _entropy(probabilities: Tensor) -> Tensor:
    each: Tensor = torch.special.entr(probabilities.float())
    return each.sum(dim=1, keepdim=True)


def _unit(modality: Modality, values: Tensor) -> Tensor:
    return F.normalize(values, dim=1) if modality.kind is Kind.NORMALS else values


@dataclass(frozen=True)
class Members:
    """The masks of an ensemble: `chosen` `(members, inputs)` for every frame, or fresh ones for each where None.

    `agreement` is, for each chosen mask, the mIoU (0..1) of its classes with those of all candidates together.
    """

    model: PHGMAE
    count: int
    generator: torch.Generator
    chosen: Tensor | None = None
    agreement: tuple[float, ...] = ()

    def masks(self, present: Tensor | None = None) -> Tensor:
        """The masks `(members, inputs)` for a frame of which the inputs `present` `(inputs,)` are there."""
        if self.chosen is None:
            return self.model.masks(self.count, self.generator, present=present)
        return self.chosen if present is None else restricted(self.chosen, present & self.model.everything()[0])

    def describe(self) -> dict[str, Any]:
        """What provenance keeps: the inputs that each chosen mask shows, best first; nothing if none were chosen."""
        if self.chosen is None:
            return {}
        names = [modality.name for modality in self.model.config.inputs]
        return {
            "masks": [[name for name, seen in zip(names, mask, strict=True) if seen] for mask in self.chosen.tolist()],
            "agreement": [round(value, 5) for value in self.agreement],
        }


def restricted(masks: Tensor, present: Tensor) -> Tensor:
    """`masks` `(members, inputs)` without what is not `present`; those that would see nothing see all that is."""
    left = masks & present
    return torch.where(left.any(dim=1, keepdim=True), left, present)


def choose_members(model: PHGMAE, samples: ModalityDataset, ensemble: Ensemble, seed: int) -> Members:
    """The members that `ensemble` asks for; with `select`, those of its random masks that agree best with all.

    Agreement is mIoU with the classes that all candidates together find most probable, on a few frames of `samples`,
    without regard to what people labelled. Masks that were drawn twice count once, so there may be fewer than asked.
    """
    generator = torch.Generator().manual_seed(seed)
    if ensemble.select is None:
        return Members(model, ensemble.members, generator)
    candidates = torch.unique(model.masks(ensemble.members, generator), dim=0)
    agreement = _agreement(model, samples, candidates)
    order = np.argsort(-agreement, kind="stable")[: ensemble.select]
    chosen = candidates[torch.from_numpy(order.copy())]
    return Members(model, len(chosen), generator, chosen, tuple(agreement[order].tolist()))


def _agreement(model: PHGMAE, samples: ModalityDataset, candidates: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    taxonomy = model.target.taxonomy
    assert taxonomy is not None
    tables: list[Confusion] = [np.zeros((len(taxonomy), len(taxonomy) + 1), np.int64) for _ in candidates]
    name = model.target.name
    for index in np.unique(np.linspace(0, len(samples) - 1, AGREEMENT_FRAMES).astype(int)):
        batch, present = read_inputs(model, samples[int(index)])
        masks = restricted(candidates, present & model.everything()[0])
        members = [member[name] for member in model.members(batch, masks, outputs=[name])]
        consensus = _classes(torch.stack(members).mean(dim=0))
        for number, member in enumerate(members):
            tables[number] = tables[number] + confusion(_classes(member), consensus, len(taxonomy), taxonomy.ignore)
    return np.array([miou(table) for table in tables])


def read_inputs(model: PHGMAE, sample: Sample) -> tuple[dict[str, Tensor], Tensor]:
    """What the model reads of one frame, as a batch of one where the model is, and which inputs there are, bool
    `(inputs,)`.
    """
    names = [modality.name for modality in model.config.inputs]
    batch = collate([{name: sample[name] for name in names}])
    there = torch.tensor([bool(sample[name + PRESENT]) for name in names])
    return {name: tensor.to(device_of(model)) for name, tensor in batch.items()}, there


def _classes(probabilities: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    ids: np.ndarray[Any, np.dtype[np.uint8]] = probabilities[0].argmax(dim=0).to(torch.uint8).cpu().numpy()
    return ids
