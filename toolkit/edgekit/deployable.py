"""What can be built: a network with all that its deploy graph needs to know, wherever it comes from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekit_runtime.modality import Modality
from edgekit_student.encoding import Statistics
from edgekit_student.networks import deployed
from edgekit_student.student import Student

Size = tuple[int, int]


@dataclass(frozen=True)
class Deployable:
    """`network` takes normalised RGB `(1, 3, h, w)`, (x - mean) / std with x from 0 to 255, and gives
    `(1, features, h/stride, w/stride)`: those of `outputs` in their order, logits for labels.

    `mean` and `std` are `(1, 3, 1, 1)`, `statistics` decode what is standardised (`encoding.decode`). `input_size`
    (height, width) is what the network works best at, the only one that it takes if `fixed`, None where it takes any;
    sides are multiples of `multiple`.
    `provenance` goes into the manifest, `doubts` say in words what speaks against what it has learnt.
    """

    name: str
    network: nn.Module
    mean: Tensor
    std: Tensor
    outputs: tuple[Modality, ...]
    stride: int
    input_size: Size | None
    multiple: int = 16
    fixed: bool = False
    statistics: Statistics = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    def answers(self, rgb: Tensor) -> tuple[Tensor, ...]:
        """What the network says of float RGB `(1, 3, h, w)`, 0..255: one tensor for each of `outputs`."""
        channels = self.network((rgb - self.mean) / self.std)
        return tuple(torch.split(channels, [modality.features for modality in self.outputs], dim=1))

    def inference_network(self) -> nn.Module:
        """A copy without what only training needs."""
        return deployed(copy.deepcopy(self.network))


def of_student(student: Student, **provenance: Any) -> Deployable:
    """A student as it was distilled; `provenance` is more than the student knows itself, such as its files."""
    config = student.config
    told = config.provenance
    kept = {key: told[key] for key in ("data_hash", "seed", "parent", "supervised") if key in told}
    return Deployable(
        name=config.network["name"],
        network=student.network,
        mean=student.mean,
        std=student.std,
        outputs=config.outputs,
        stride=student.stride,
        input_size=config.input_size,
        statistics=config.statistics,
        provenance={**provenance, "student": kept},
        doubts=tuple(told.get("learnt", {}).get("doubts", [])),
    )
