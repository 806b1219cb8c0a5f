"""A student: an RGB-only network with its description, as distilled, evaluated and built."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from edgekit_runtime.errors import CheckpointError
from edgekit_student.checkpoint import CheckpointConfig, read_config, restore, save_checkpoint
from edgekit_student.networks import create_network


class Student(nn.Module):
    """RGB in, one tensor per output modality out.

    `forward` takes float RGB `(N, 3, H, W)`, 0..255, and returns for every modality of `config.outputs`, in that
    order, `(N, modality.features, h, w)` at the network's own resolution (1/`stride` of the input): logits
    for labels, the value itself for the rest. Normalisation with the data set's statistics is inside.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.config = config
        features = [modality.features for modality in config.outputs]
        self.network = create_network(config.network["name"], 3, sum(features))
        self.stride: int = self.network.stride  # type: ignore[assignment]
        self._features = features
        statistics = config.statistics["rgb"]
        self.register_buffer("mean", torch.tensor(statistics["mean"]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(statistics["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, rgb: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.split(self.network((rgb - self.mean) / self.std), self._features, dim=1))

    def parameter_count(self) -> int:
        """Parameters of the deployed form, without the training branches."""
        from copy import deepcopy

        from edgekit_student.networks import deployed

        return sum(parameter.numel() for parameter in deployed(deepcopy(self.network)).parameters())

    def save(self, folder: Path) -> None:
        save_checkpoint(folder, self.state_dict(), self.config)


def load_student(folder: Path, device: torch.device | str = "cpu") -> Student:
    """A student in eval mode. Raises CheckpointError when it is none, or its weights do not fit."""
    config = read_config(folder)
    if config.kind != "student":
        raise CheckpointError(
            f"{folder} holds a {config.kind} checkpoint, not a student.",
            hint="Distil one first: edgekit distill RUN DATA -o STUDENT_DIR",
        )
    student = Student(config)
    restore(student, folder)
    return student.to(device).eval()
