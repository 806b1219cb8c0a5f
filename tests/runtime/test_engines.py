"""Engines: the same answers from each, the first that runs here is taken, and why others were not is kept."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
from bundles import ONNXRUNTIME, OPENVINO, expected_labels, make_bundle, manifest_for, openvino_files, write_folder

from edgekit_runtime import EngineError, Frame, UsageError, load
from edgekit_runtime.model import Flight
from edgekit_runtime.sources.pattern import Pattern

IMAGE = Pattern(96, 64).draw(5)


@pytest.mark.parametrize("variant", [OPENVINO, ONNXRUNTIME])
def test_engine_says_what_the_network_computes(tmp_path: Path, variant):
    with load(make_bundle(tmp_path / "b", 64, 96, variants=(variant,))) as model:
        labels = model(IMAGE).labels
    assert labels.dtype == np.uint8
    # A reduced precision (bf16, where the CPU has it) may turn a near tie.
    assert (labels == expected_labels(IMAGE)).mean() > 0.98


def test_first_variant_is_preferred(bundle: Path):
    with load(bundle) as model:
        assert model.variant.engine == "openvino"
        assert model.skipped == ()
        assert model.engine.startswith("OpenVINO 20")


def test_an_engine_can_be_demanded(bundle: Path):
    with load(bundle, engine="onnxruntime") as model:
        assert model.variant.engine == "onnxruntime"
    with pytest.raises(EngineError, match="no variant for tensorrt"):
        load(bundle, engine="tensorrt")


def test_absent_engine_is_passed_over_and_says_so(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with load(bundle) as model:
        assert model.variant.engine == "onnxruntime"
        assert [skip.reason for skip in model.skipped] == ["The openvino engine is not installed."]


def test_no_engine_at_all_names_the_extra_to_install(bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match=r"openvino fp32: .* onnxruntime fp32: ") as caught:
        load(bundle)
    assert caught.value.hint == "pip install 'edgekit-runtime[openvino]'"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"engine": "tflite"}, "no engine named 'tflite'"),
        ({"device": "NPU"}, "cannot open it on NPU"),
        ({"config": {"CACHE_DIR": "/etc"}}, "CACHE_DIR, which a bundle may not"),
        ({"config": {"INFERENCE_NUM_THREADS": "many"}}, "cannot open it on CPU"),
    ],
)
def test_a_variant_that_cannot_run_here_is_passed_over(tmp_path: Path, change: dict, reason: str):
    variants = (dataclasses.replace(OPENVINO, **change), ONNXRUNTIME)
    with load(make_bundle(tmp_path / "b", 64, 96, variants=variants)) as model:
        assert model.variant == ONNXRUNTIME
        assert reason in model.skipped[0].reason


def test_settings_of_onnx_runtime_are_limited_too(tmp_path: Path):
    variant = dataclasses.replace(ONNXRUNTIME, config={"custom_ops_library": "/tmp/evil.so"})
    with pytest.raises(EngineError, match="custom_ops_library, which a bundle may not"):
        load(make_bundle(tmp_path / "b", 64, 96, variants=(variant,)))


def test_onnx_runtime_need_not_wait_busily(tmp_path: Path):
    variant = dataclasses.replace(ONNXRUNTIME, config={**ONNXRUNTIME.config, "spinning": False})
    with load(make_bundle(tmp_path / "b", 64, 96, variants=(variant,))) as model:
        assert (model(IMAGE).labels == expected_labels(IMAGE)).mean() > 0.98
        assert model.engine.endswith("on CPU"), "the execution providers that are really used"


def test_a_bundle_for_throughput_works_on_several_frames_at_once_and_keeps_their_order(tmp_path: Path):
    several = dataclasses.replace(OPENVINO, config={"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 3})
    pattern = Pattern(192, 128)  # resized, each frame into memory of its own
    frames = [Frame(pattern.draw(number), number, 0.0, 0.0) for number in range(20)]
    with load(make_bundle(tmp_path / "b", 64, 96, variants=(several,))) as model:
        assert model.requests >= 2
        alone = [model(frame).labels for frame in frames]
        flight = Flight(model, model.requests)
        results = []
        for frame in frames:
            flight.begin(frame)
            if flight.full:
                results.append(flight.finish())
        assert len(flight) == model.requests - 1, "so many are on their way"
        while flight:
            results.append(flight.finish())
    assert [result.frame.index for result in results] == list(range(20))
    for result, labels in zip(results, alone, strict=True):
        np.testing.assert_array_equal(result.labels, labels)


def test_one_frame_at_a_time_unless_it_is_asked_for_throughput(bundle: Path):
    for engine in ("openvino", "onnxruntime"):
        with load(bundle, engine=engine) as model:
            assert model.requests == 1


def test_garbage_with_a_true_checksum_is_an_engine_error(tmp_path: Path):
    files = {"model.xml": b"<net>garbage", "model.bin": b"\0" * 100}
    folder = write_folder(tmp_path / "b", files, manifest_for(files, (OPENVINO,), 64, 96).to_json())
    with pytest.raises(EngineError, match="OpenVINO cannot open it"):
        load(folder)


def test_a_model_of_another_size_than_promised_is_an_engine_error(tmp_path: Path):
    files = openvino_files(64, 96)
    folder = write_folder(tmp_path / "b", files, manifest_for(files, (OPENVINO,), 128, 96).to_json())
    with pytest.raises(EngineError, match=r"'image' is uint8 \[1, 64, 96, 3\], the manifest says uint8 \[1, 128"):
        load(folder)


@pytest.mark.parametrize("cache", ["/dev/null/nowhere", "/proc"])
def test_a_cache_that_cannot_be_written_does_no_harm(small_bundle: Path, cache: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", cache)
    with load(small_bundle) as model:
        assert model(IMAGE).labels.shape == (16, 24)


def test_results_belong_to_the_caller(small_bundle: Path):
    with load(small_bundle) as model:
        first = model(IMAGE)
        labels, depth = first.labels.copy(), first.depth.copy()
        model(255 - IMAGE)
        np.testing.assert_array_equal(first.labels, labels)
        np.testing.assert_array_equal(first.depth, depth)
        np.testing.assert_allclose(depth, IMAGE.mean(axis=2), atol=1)


def test_frames_of_any_size_and_layout_are_taken(small_bundle: Path):
    with load(small_bundle) as model:
        plain = model(IMAGE).labels
        strided = np.zeros((64, 200, 3), np.uint8)[:, :96]
        strided[:] = IMAGE
        np.testing.assert_array_equal(model(strided).labels, plain)
        read_only = IMAGE.copy()
        read_only.flags.writeable = False
        np.testing.assert_array_equal(model(read_only).labels, plain)
        twice = IMAGE.repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(model(twice).labels, plain)
        assert model(np.zeros((1080, 1920, 3), np.uint8)).labels.max() == 0


@pytest.mark.parametrize("shape", [(64, 96), (64, 96, 4), (0, 96, 3), (1, 64, 96, 3)])
def test_what_is_no_frame_is_a_usage_error(small_bundle: Path, shape: tuple[int, ...]):
    with load(small_bundle) as model, pytest.raises(UsageError, match="uint8"):
        model(np.zeros(shape, np.uint8))
    with load(small_bundle) as model, pytest.raises(UsageError, match="float64"):
        model(np.zeros((64, 96, 3)))
