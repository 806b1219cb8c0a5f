"""Latency of built bundles at 544×960: `pytest benchmarks/test_build.py --benchmark-json FILE`.

Weights are random (latency does not depend on them); the frames are noise, and nothing is judged.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.candidates import make_candidate, make_form, opened
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.material import Material
from edgekit.profiles import load_profile
from edgekit.targets import EngineName, Precision, Target
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.engines.base import Engine
from edgekit_runtime.modality import Kind, Modality
from edgekit_runtime.telemetry import switch_off
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.student import Student

SIZE = (544, 960)
FORMS: list[tuple[str, EngineName, Precision, int]] = [
    ("edge-430k", "openvino", "int8", 4),
    ("edge-430k", "openvino", "int8", 2),
    ("edge-430k", "openvino", "bf16", 4),
    ("edge-430k", "openvino", "fp32", 4),
    ("edge-430k", "onnxruntime", "int8", 4),
    ("edge-900k", "openvino", "int8", 4),
    ("safeuav-430k", "openvino", "int8", 4),
]


def _exporter(network: str, label_stride: int) -> Exporter:
    torch.manual_seed(0)
    config = CheckpointConfig(
        kind="student",
        network={"name": network},
        inputs=(Modality("rgb", Kind.IMAGE, 3),),
        outputs=(Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES),),
        statistics={"rgb": {"mean": [110.0, 115.0, 100.0], "std": [50.0, 52.0, 55.0]}},
        input_size=SIZE,
    )
    profile = load_profile("laptop-cpu").model_copy(update={"label_stride": label_stride})
    return Exporter(of_student(Student(config).eval()), profile)


@pytest.fixture(params=FORMS, ids=lambda form: f"{form[0]}-{form[1]}-{form[2]}-stride{form[3]}")
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    network, library, precision, label_stride = request.param
    switch_off()
    exporter = _exporter(network, label_stride)
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (*SIZE, 3), np.uint8) for _ in range(4)]
    form = make_form(exporter, library, precision, Material(tuple(frames), (), "noise", {}))
    candidate = make_candidate(form, Target(library), precision, exporter.profile)
    with opened(exporter, [candidate]) as (engines, refused):
        assert not refused
        yield engines[candidate.key]


def test_frame_to_class_map(engine: Engine, benchmark: Any) -> None:
    image = np.random.default_rng(1).integers(0, 256, (1, *SIZE, 3), np.uint8)
    benchmark.pedantic(engine.infer, args=(image,), warmup_rounds=20, rounds=200)


def test_help(benchmark: Any) -> None:
    command = [sys.executable, "-m", "edgekit", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, capture_output=True, check=True), warmup_rounds=1, rounds=5)
