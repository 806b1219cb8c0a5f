"""`build --model`: networks of transformers, small random ones of the real architectures, saved to disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from tiny import tiny_dpt, tiny_segformer

from edgekit.candidates import make_candidate, make_form, opened
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.material import Material
from edgekit.network_input import network_rgb
from edgekit.offshelf import MODELS, of_checkpoint
from edgekit.profiles import Profile
from edgekit.targets import Precision, Target, unsupported
from edgekit_experts.taxonomies import CITYSCAPES
from edgekit_runtime import load
from edgekit_runtime.errors import BuildError, ExpertError, UsageError
from edgekit_student.student import load_student

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")

FRAME = (96, 160)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_dpt(tmp_path_factory.mktemp("models") / "my-dpt"))


@pytest.fixture(scope="module")
def segformer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(tiny_segformer(tmp_path_factory.mktemp("models") / "my-segformer"))


def _frame() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(noise, FRAME[::-1], interpolation=cv2.INTER_CUBIC)


def test_depth_from_a_folder_to_a_bundle_that_runs(
    edgekit: Callable[..., Any], dpt: Path, profile_file: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    asked = ("-p", profile_file, "--model", dpt, "--size", "64x64", "--data", data, "-o", out)
    answer = edgekit("build", *asked, "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    chosen = next(row for row in document["candidates"] if row["chosen"])
    assert (chosen["accuracy_metric"], chosen["agreement"]) == ("depth against fp32", None)
    assert chosen["depth_error"] <= 0.02
    assert Path(document["bundle"]).name == "my-dpt.edgekit"
    with load(document["bundle"]) as model:
        result = model(_frame())
        assert result.labels is None
        assert result.depth is not None
        assert model.manifest.outputs[0].modality.unit == "relative inverse depth"
        assert model.variant.depth_error == chosen["depth_error"]
        assert model.manifest.provenance["model"] == str(dpt)
    # The network's own answer, in PyTorch, of the picture at the size that the bundle takes.
    assert document["input_size"] == [64, 64]
    network = transformers.DPTForDepthEstimation.from_pretrained(dpt).eval()
    picture = torch.from_numpy(cv2.resize(_frame(), (64, 64)))[None]
    with torch.no_grad():
        expected = network((network_rgb(picture, None) / 255 - 0.5) / 0.5).predicted_depth[0].numpy()
    assert result.depth.shape == expected.shape
    assert np.abs(result.depth - expected).mean() < 0.03 * np.abs(expected).mean()


def test_weights_alone_in_int8_halve_a_large_network(
    dpt: Path, profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = Exporter(of_checkpoint(str(dpt), FRAME), profile)
    nothing = Material((), (), "nothing", {})
    with pytest.raises(BuildError, match="million weights there is nothing to gain"):
        make_form(exporter, "openvino", "int8-weights", nothing)
    monkeypatch.setattr("edgekit.quantise.FEW_WEIGHTS", 1000)
    half, compressed = (make_form(exporter, "openvino", each, nothing) for each in ("bf16", "int8-weights"))
    sizes = [len(form.files[form.model.replace(".xml", ".bin")]) for form in (half, compressed)]
    assert sizes[1] < 0.75 * sizes[0]
    targets = [
        make_candidate(form, Target("openvino"), each, profile)
        for form, each in ((half, "bf16"), (compressed, "int8-weights"))
    ]
    image = cv2.resize(_frame(), exporter.input_size[::-1])
    with opened(exporter, targets) as (engines, refused):
        assert not refused
        depth = {key: engine.infer(image[None])["depth"][0].copy() for key, engine in engines.items()}
    expected = exporter.reference(image)["depth"]
    for found in depth.values():
        assert np.abs(found - expected).mean() < 0.1 * np.abs(expected).mean()


@pytest.mark.parametrize("network", ["dpt", "segformer"])
def test_they_take_smaller_frames(network: str, profile: Profile, request: pytest.FixtureRequest) -> None:
    smaller = Exporter(of_checkpoint(str(request.getfixturevalue(network)), FRAME), profile).at((30, 60))
    assert smaller is not None
    assert smaller.network_size == smaller.input_size == (32, 64)
    floats = make_candidate(
        make_form(smaller, "onnxruntime", "fp32", Material((), (), "nothing", {})),
        Target("onnxruntime"),
        "fp32",
        profile,
    )
    image = cv2.resize(_frame(), (64, 32))
    with opened(smaller, [floats]) as (engines, _):
        ((name, found),) = engines[floats.key].infer(image[None]).items()
        assert np.mean(np.abs(found[0] - smaller.reference(image)[name]) < 0.01) > 0.98


def test_semantics_bring_their_taxonomy(segformer: Path, profile: Profile) -> None:
    source = of_checkpoint(str(segformer), FRAME)
    assert (source.stride, source.name) == (4, "my-segformer")
    exporter = Exporter(source, profile)
    assert exporter.taxonomy == CITYSCAPES
    image = cv2.resize(_frame(), exporter.input_size[::-1])
    found = exporter.reference(image)["labels"]
    network = transformers.SegformerForSemanticSegmentation.from_pretrained(segformer).eval()
    with torch.no_grad():
        logits = network((network_rgb(torch.from_numpy(image)[None], None) / 255 - 0.5) / 0.5).logits
    assert np.mean(found == logits[0].argmax(0).numpy()) > 0.999
    import openvino

    compiled = openvino.compile_model(exporter.openvino(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.mean(compiled(image[None])["labels"][0] == found) > 0.99


def test_the_network_sees_as_many_pixels_as_published_in_the_shape_of_the_frame(dpt: Path, segformer: Path) -> None:
    assert of_checkpoint(str(dpt), (544, 960)).input_size == (64, 96)  # 64x64, in the frame's shape, in steps of 32
    assert of_checkpoint(str(segformer), (96, 96)).input_size == (64, 64)
    assert of_checkpoint(str(dpt), FRAME, (96, 128)).input_size == (96, 128)
    with pytest.raises(UsageError, match="multiples of 32, not 100x64") as caught:
        of_checkpoint(str(dpt), FRAME, (64, 100))
    assert "96x64" in caught.value.hint


def test_short_names_are_checked_before_anything_is_asked_of_a_network() -> None:
    assert MODELS["dpt-large"] == "Intel/dpt-large"
    with pytest.raises(UsageError, match="no model 'segformer-b9'") as caught:
        of_checkpoint("segformer-b9", FRAME)
    assert "dpt-large" in caught.value.hint


def test_what_is_no_checkpoint_for_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExpertError, match="no checkpoint"):
        of_checkpoint(str(tmp_path / "nothing"), FRAME)
    config = transformers.BertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, vocab_size=11
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(BuildError, match=r"something else than depth or semantic segmentation \(BertModel\)"):
        of_checkpoint(str(tmp_path / "bert"), FRAME)


def test_options_that_contradict_each_other(edgekit: Callable[..., Any], tmp_path: Path) -> None:
    both = edgekit("build", "-p", "laptop-cpu", "--model", "dpt-large", "--student", tmp_path)
    assert (both.status, "name two networks" in both.err) == (2, True)
    alone = edgekit("build", "-p", "laptop-cpu", "--size", "64x64")
    assert (alone.status, "--size is of --model" in alone.err) == (2, True)
    odd = edgekit("build", "-p", "laptop-cpu", "--model", "dpt-large", "--size", "large")
    assert (odd.status, "'large' is not a size" in odd.err) == (2, True)


def test_half_precision_keeps_what_it_would_ruin_in_full(dpt: Path, segformer: Path, profile: Profile) -> None:
    exporter = Exporter(of_checkpoint(str(dpt), FRAME), profile)
    nothing = Material((), (), "nothing", {})
    precisions: tuple[Precision, ...] = ("bf16", "bf16-mixed")
    candidates = [
        make_candidate(make_form(exporter, "openvino", each, nothing), Target("openvino"), each, profile)
        for each in precisions
    ]
    if reason := unsupported(Target("openvino"), "bf16"):
        pytest.skip(reason)
    images = [cv2.resize(np.roll(_frame(), 40 * n, axis=1), exporter.input_size[::-1]) for n in range(4)]
    expected = [exporter.reference(image)["depth"] for image in images]
    error = {}
    with opened(exporter, candidates) as (engines, refused):
        assert not refused
        for key, engine in engines.items():
            found = [engine.infer(image[None])["depth"][0].copy() for image in images]
            error[key] = np.mean([np.abs(a - b).mean() for a, b in zip(found, expected, strict=True)])
    assert error["openvino bf16-mixed"] < 0.9 * error["openvino bf16"]
    # It is the arithmetic that differs, not the weights.
    plain, mixed = (set(each.files.values()) for each in candidates)
    assert len(plain & mixed) == 1


def test_convolutions_alone_gain_nothing_from_mixed_half_precision(student_folder: Path, profile: Profile) -> None:
    exporter = Exporter(of_student(load_student(student_folder)), profile)
    with pytest.raises(BuildError, match="networks with matrix products"):
        make_form(exporter, "openvino", "bf16-mixed", Material((), (), "nothing", {}))
