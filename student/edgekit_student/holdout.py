"""Frames that a training keeps apart to see when it no longer gets better.

They come from the `train` split and from what experts said of it: no human label, and nothing of `val`, decides when
a training ends.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekit_runtime.errors import UsageError
from edgekit_student.batches import Batch
from edgekit_student.samples import FrameRef
from edgekit_student.settings import Optimisation

# Few and long: only the ends of a stretch have neighbours that the training sees.
_STRETCHES = 4


@dataclass(frozen=True)
class Split:
    """Indices of the frames that are trained on, and of those that are held out, both in their order."""

    kept: tuple[int, ...]
    held_out: tuple[int, ...]


def split_frames(frames: Sequence[FrameRef], settings: Optimisation) -> Split:
    """Holds out `settings.holdout` of the frames, none when `settings.patience` is 0.

    Whole stretches of consecutive frames of one video, about four of them, chosen by the seed: single frames have
    neighbours that look the same. Raises UsageError when nothing would be left on one side.
    """
    count = len(frames)
    if not settings.patience:
        return Split(tuple(range(count)), ())
    wanted = max(1, round(settings.holdout * count))
    if wanted >= count:
        raise UsageError(
            f"Of {count} frame{'s' * (count != 1)}, none can be held out to see when to stop.",
            hint="Train without optimisation.patience, lower optimisation.holdout, or take more frames.",
        )
    stretches = _stretches(frames, math.ceil(wanted / _STRETCHES))
    held: set[int] = set()
    for index in np.random.default_rng(settings.seed).permutation(len(stretches)):
        held.update(stretches[index][: wanted - len(held)])
    return Split(tuple(i for i in range(count) if i not in held), tuple(sorted(held)))


def _stretches(frames: Sequence[FrameRef], length: int) -> list[list[int]]:
    """All frames, cut into stretches of at most `length`, each of one video."""
    stretches: list[list[int]] = []
    for index, frame in enumerate(frames):
        if index and frame.video == frames[index - 1].video and len(stretches[-1]) < length:
            stretches[-1].append(index)
        else:
            stretches.append([index])
    return stretches


@dataclass
class EarlyStop:
    """Ends a training after `patience` validations without a better one, and keeps the best averaged weights.

    `batches(index)`, for `index` from 0 to `count`, is what is held out; `history` are steps and losses.
    """

    batches: Callable[[int], Batch]
    count: int
    settings: Optimisation
    history: list[tuple[int, float]] = field(default_factory=list)
    best: Mapping[str, Tensor] = field(default_factory=dict)

    def due(self, step: int) -> bool:
        """Whether to validate after `step` steps: every `validate_every`, and after the last."""
        return step % self.settings.validate_every == 0 or step == self.settings.steps

    @torch.no_grad()
    def measure(self, model: nn.Module, loss: Callable[[nn.Module, Batch, int], Tensor], device: torch.device) -> float:
        """Mean loss of a model in eval mode, in float32, with the same masks each time."""
        model.eval()
        total = 0.0
        for index in range(self.count):
            batch = {name: tensor.to(device) for name, tensor in self.batches(index).items()}
            total += loss(model, batch, index).item()
        return total / self.count

    def record(self, step: int, value: float, average: Mapping[str, Tensor]) -> None:
        """Takes note of a validation; keeps a copy of `average` when it is the best so far."""
        self.history.append((step, value))
        if self._best() == (step, value):
            self.best = {name: tensor.detach().clone() for name, tensor in average.items()}

    @property
    def exhausted(self) -> bool:
        """Whether the last `patience` validations have brought nothing better."""
        waited = [step for step, _ in self.history if step > self._best()[0]]
        return len(waited) >= self.settings.patience

    def resume(self, history: Sequence[Sequence[Any]], best: Mapping[str, Tensor]) -> None:
        self.history = [(int(step), float(value)) for step, value in history]
        self.best = best

    def told(self) -> dict[str, Any]:
        """What provenance keeps: losses by step (None where not finite), the best, and whether it ended early."""
        return {
            "frames": self.count,
            "history": [[step, round(value, 6) if math.isfinite(value) else None] for step, value in self.history],
            "best_step": self._best()[0],
            "stopped_at": self.history[-1][0] if self.history else 0,
        }

    def _best(self) -> tuple[int, float]:
        finite = [entry for entry in self.history if math.isfinite(entry[1])]
        return min(finite, key=lambda entry: entry[1], default=(0, math.inf))
