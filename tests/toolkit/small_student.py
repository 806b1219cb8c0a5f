"""A small student with random weights."""

from __future__ import annotations

import torch

from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.student import Student

SIZE = (96, 160)


def new_student(network: str = "edge-150k", size: tuple[int, int] = SIZE) -> Student:
    torch.manual_seed(0)
    config = CheckpointConfig(
        kind="student",
        network={"name": network},
        inputs=(Modality("rgb", Kind.IMAGE, 3),),
        outputs=(Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES),),
        statistics={"rgb": {"mean": [110.0, 115.0, 100.0], "std": [50.0, 52.0, 55.0]}},
        input_size=size,
    )
    return Student(config)
