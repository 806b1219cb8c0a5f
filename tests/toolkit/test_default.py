"""What edgekit comes with: a student, and a bundle built from it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.locate import DEFAULT_BUNDLE, DEFAULT_STUDENT, find_bundle
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_experts.world import Flight
from edgekit_runtime import Frame, load
from edgekit_runtime.bundle import open_bundle
from edgekit_student.student import load_student

ROOT = Path(__file__).parents[2]


def test_the_bundle_is_small_whole_and_for_both_engines(tmp_path: Path) -> None:
    assert find_bundle(tmp_path) == DEFAULT_BUNDLE
    assert DEFAULT_BUNDLE.stat().st_size < 2 << 20
    manifest = open_bundle(DEFAULT_BUNDLE).manifest
    assert {variant.engine for variant in manifest.variants} == {"openvino", "onnxruntime"}
    assert manifest.outputs[0].modality.taxonomy == DRONESCAPES


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_the_bundle_says_what_the_student_says(engine: str) -> None:
    rgb = Flight(5, size=(368, 640)).render(40).rgb
    student = load_student(DEFAULT_STUDENT)
    with torch.no_grad():
        logits = student(torch.from_numpy(rgb).permute(2, 0, 1)[None].float())[0]
    expected = logits.argmax(dim=1)[0].numpy()
    with load(DEFAULT_BUNDLE, engine=engine) as model:
        labels = model(Frame(np.ascontiguousarray(rgb[..., ::-1]), 0, 0.0, 0.0)).labels
    assert labels is not None
    assert labels.shape == expected.shape
    assert (labels == expected).mean() > 0.95


def test_nothing_of_the_machine_it_was_made_on_is_told() -> None:
    text = (DEFAULT_STUDENT / "config.json").read_text(encoding="utf-8")
    with zipfile.ZipFile(DEFAULT_BUNDLE) as archive:
        text += archive.read("manifest.json").decode()
    assert "/tmp" not in text
    assert "/home" not in text


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT],
        check=True,
        capture_output=True,
        timeout=120,
    )
    (path,) = folder.glob("edgekit-*.whl")
    return path


def test_the_wheel_holds_all_that_commands_read(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        "edgekit/default/default.edgekit",
        "edgekit/default/README.md",
        "edgekit/default/student/config.json",
        "edgekit/default/student/model.safetensors",
        "edgekit/device_profiles/laptop-cpu.toml",
        "edgekit_experts/configs/default.toml",
        "edgekit_experts/tables/ade20k-to-dronescapes.toml",
        "edgekit_experts/taxonomies/ade20k.toml",
    }
    assert wanted <= names
    assert not any(name.startswith(("tests/", "benchmarks/", "recipes/")) for name in names)
