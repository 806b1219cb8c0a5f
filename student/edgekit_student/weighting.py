"""How much the loss of each output counts: as the settings say, or as its uncertainty turns out to be."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Modality
from edgekit_student.losses import LOSSES
from edgekit_student.settings import TrainSettings


def fixed_weights(outputs: Sequence[Modality], target: str, settings: TrainSettings) -> dict[str, float]:
    """The weight of each output by name: 1 for the target and 0.3 for the others, unless the settings say."""
    return {m.name: settings.loss_weights.get(m.name, 1.0 if m.name == target else 0.3) for m in outputs}


def check_losses(outputs: Sequence[Modality], target: str, settings: TrainSettings) -> None:
    """Raises UsageError when losses or weights are for what is no output, or do not fit its kind."""
    known = {modality.name: modality for modality in outputs}
    check_named(settings.losses, "losses", known)
    check_named(settings.loss_weights, "loss_weights", known)
    for name, loss in settings.losses.items():
        kind = known[name].kind
        if loss not in LOSSES[kind]:
            raise UsageError(
                f"The loss {loss!r} does not fit {name!r}, which is of kind {kind.value}.",
                hint=f"Losses of {kind.value}: {', '.join(LOSSES[kind])}.",
            )
    weights = fixed_weights(outputs, target, settings)
    if settings.weighting == "learned" and (silent := [name for name, weight in weights.items() if not weight]):
        raise UsageError(
            f"weighting = 'learned' begins with the weights there are, and that of {', '.join(silent)} is 0.",
            hint="Give a small weight, or leave the modality out of `outputs`.",
        )


def check_named(names: Iterable[str], key: str, outputs: Collection[str]) -> None:
    """Raises UsageError for a name in the setting `key` that is no output's."""
    for name in names:
        if name not in outputs:
            raise UsageError(f"{key} names {name!r}, which is no output.", hint=f"Outputs: {', '.join(outputs)}.")


class LearnedWeights(nn.Module):
    """Weights that follow the uncertainty of each output (Kendall et al., arXiv 1705.07115).

    A loss L with log-variance s costs exp(-s) * L + s / 2, whose least, over s, is where exp(-s) is 1 / (2 L). What
    is learnt is how far each s is from -log of its fixed weight: it begins with the fixed weights, to which weight
    decay also draws it.
    """

    def __init__(self, fixed: Mapping[str, float]) -> None:
        super().__init__()
        self._fixed = dict(fixed)
        self.shifts = nn.Parameter(torch.zeros(len(fixed)))

    def forward(self, losses: Mapping[str, Tensor], counted: Mapping[str, Tensor]) -> Tensor:
        """The sum of the scalar losses by name; those without a pixel that was `counted` (bool) leave no trace."""
        total = self.shifts.new_zeros(())
        for (name, fixed), shift in zip(self._fixed.items(), self.shifts, strict=True):
            total = total + torch.where(counted[name], fixed * torch.exp(-shift) * losses[name] + shift / 2, 0.0)
        return total

    def values(self) -> dict[str, float]:
        """The weights as they are now."""
        factors = torch.exp(-self.shifts.detach()).tolist()
        return {
            name: round(fixed * factor, 5) for (name, fixed), factor in zip(self._fixed.items(), factors, strict=True)
        }
