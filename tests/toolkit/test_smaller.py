"""Smaller inputs: the network once more for each, made and judged as what ships, beside it in the bundle."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import validate
from rich.console import Console

from edgekit.build import Built, build_student
from edgekit.commands.outcome import document, show
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.manifest_schema import manifest_schema
from edgekit.material import gather
from edgekit.profiles import Profile, load_profile
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime import load
from edgekit_student.student import load_student

# 96×160 is the profile's input; 64×96 is what this is rounded up to.
ASKED, SMALL = (60, 90), (64, 96)


@pytest.fixture(scope="module")
def small_profile(profile: Profile) -> Profile:
    update = {"smaller_inputs": (ASKED,), "precisions": ("int8", "fp32"), "allowed_drop_points": 30.0}
    return profile.model_copy(update=update)


@pytest.fixture(scope="module")
def built(student_folder: Path, small_profile: Profile, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_student(student_folder, small_profile, tmp_path_factory.mktemp("built"), data)


def test_each_is_in_the_bundle_in_the_form_that_ships(built: Built) -> None:
    manifest = built.manifest
    shipped = [(variant.engine, variant.precision) for variant in manifest.variants]
    assert [engine for engine, _ in shipped] == ["openvino", "onnxruntime"]
    assert [each.input for each in manifest.smaller] == [(1, 64, 96, 3)]
    assert [each.outputs for each in manifest.smaller] == [((1, 16, 24),)]
    for each in manifest.smaller:
        assert [(variant.engine, variant.precision) for variant in each.variants] == shipped
        for variant in each.variants:
            assert variant.model.startswith(f"{each.input[2]}x{each.input[1]}/")
            assert variant.p50_ms is not None
            assert variant.p50_ms > 0
            assert variant.miou is not None
            assert 0 < variant.miou < 1
    validate(json.loads(manifest.to_json()), manifest_schema())


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_each_runs_and_agrees_with_pytorch_at_its_size(
    engine: str, built: Built, student_folder: Path, profile: Profile, data: Path
) -> None:
    exporter = Exporter(of_student(load_student(student_folder)), profile)
    frames = gather(data, DRONESCAPES, (96, 160), 4, 4)
    reference = exporter.at(ASKED)
    assert reference is not None
    with load(built.bundle, engine=engine) as model:
        open_smaller = model.smaller()
        assert open_smaller is not None
    with open_smaller() as smaller:
        assert smaller.manifest.input_size == reference.input_size == SMALL
        for frame in frames.at(SMALL).judged:
            labels = smaller(frame.image).labels
            assert labels is not None
            assert np.mean(labels == reference.reference(frame.image)["labels"]) > 0.9
        assert smaller.smaller() is None


def test_the_build_shows_their_figures(
    edgekit: Callable[..., Any], built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Console(width=100, file=io.StringIO(), color_system=None)
    monkeypatch.setattr("edgekit.commands.outcome.console", page)
    show(built)
    variants = built.manifest.smaller[0].variants
    line = f"Smaller input 96x64: openvino {variants[0].precision}, {variants[0].p50_ms:.2f} ms, mIoU "
    assert line in page.file.getvalue()
    assert line in built.report.read_text(encoding="utf-8")
    assert re.search(r"^smaller +96x64, openvino CPU", edgekit("bundle", "show", built.bundle).out, re.MULTILINE)
    rows = document(built)["smaller"]
    assert [row["input_size"] for row in rows] == [[64, 96]] * 2
    assert rows[1] == {
        "input_size": [64, 96],
        "engine": "onnxruntime",
        "precision": variants[1].precision,
        "p50_ms": variants[1].p50_ms,
        "miou": variants[1].miou,
    }


def test_what_does_not_pass_the_gate_is_left_out_and_said(
    student_folder: Path, small_profile: Profile, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.smaller.gate.verdict", lambda row, profile: "loses too much")
    said: list[str] = []
    one_form = small_profile.model_copy(update={"precisions": ("fp32",), "fallbacks": ()})
    monkeypatch.setattr("edgekit.gate.require", lambda rows, profile: rows[0])
    built = build_student(student_folder, one_form, tmp_path, data, said.append)
    assert built.manifest.smaller == ()
    assert "No smaller input 90x60 for openvino fp32: it loses too much." in said


def test_one_that_the_network_would_not_see_smaller_is_left_out_and_said(
    student_folder: Path, profile: Profile, data: Path, tmp_path: Path
) -> None:
    """The student was trained at 160x96, where this profile's frames are larger."""
    larger = {"input_size": (192, 320), "smaller_inputs": ((96, 160),), "precisions": ("fp32",), "fallbacks": ()}
    said: list[str] = []
    built = build_student(student_folder, profile.model_copy(update=larger), tmp_path, data, said.append)
    assert (built.manifest.input_size, built.manifest.smaller) == ((96, 160), ())
    assert "No smaller input 160x96: the network would see 160x96 anyway." in said


def test_the_raspberry_pi_has_some_and_the_laptop_none() -> None:
    assert load_profile("raspberry-pi-5").smaller_inputs == ((256, 480), (176, 320))
    assert load_profile("laptop-cpu").smaller_inputs == ()
