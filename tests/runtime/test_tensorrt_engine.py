"""TensorRT: engines are prepared explicitly, kept by what they were built for, and refused, with the reason, otherwise.

TensorRT for RTX builds real engines here, for a GPU that is not here. None can be run without one, so what runs them is
tested against a stand-in: a CUDA driver in C, loaded as the real one is, and a TensorRT that computes with NumPy.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from bundles import ONNXRUNTIME, expected_labels, make_bundle

from edgekit_runtime import EngineError, load
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.cli import main
from edgekit_runtime.engines import installed
from edgekit_runtime.engines.tensorrt import RTX, Library, build_plan, cuda, load_library
from edgekit_runtime.engines.tensorrt.cuda import Device, Gpu
from edgekit_runtime.engines.tensorrt.engine import TensorRtEngine, find_plan, open_variant
from edgekit_runtime.manifest import Variant
from edgekit_runtime.prepare import prepare, prepare_variant
from edgekit_runtime.sources.pattern import Pattern

VARIANT = Variant(RTX, "GPU", "fp32", "model.onnx")
AMPERE, ADA = Gpu("NVIDIA RTX A2000", (8, 6)), Gpu("NVIDIA RTX 4060", (8, 9))
IMAGE = Pattern(96, 64).draw(5)

needs_rtx = pytest.mark.skipif(not installed(RTX), reason="TensorRT for RTX is not installed: pip install edgekit[rtx]")


def no_driver() -> bool:
    try:
        ctypes.CDLL(cuda.DRIVER)
    except OSError:
        return True
    return False


without_driver = pytest.mark.skipif(not no_driver(), reason="this machine has an NVIDIA driver")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of its own for each test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edgekit" / "tensorrt"


@pytest.fixture
def rtx_bundle(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "rtx", 64, 96, variants=(VARIANT, ONNXRUNTIME))


# Without a GPU.


@without_driver
@needs_rtx
def test_without_a_gpu_the_next_variant_runs_and_the_reason_is_kept(rtx_bundle: Path):
    with load(rtx_bundle) as model:
        assert model.variant == ONNXRUNTIME
        assert model.skipped[0].reason == "there is no NVIDIA driver here (libcuda.so.1)"


def test_without_tensorrt_the_next_variant_runs_too(rtx_bundle: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with load(rtx_bundle) as model:
        assert model.skipped[0].reason == "The tensorrt-rtx engine is not installed."


def test_jetpacks_tensorrt_that_the_environment_does_not_see_is_explained(tmp_path: Path):
    if installed("tensorrt"):
        pytest.skip("this machine has TensorRT")
    bundle = make_bundle(tmp_path / "b", 64, 96, variants=(dataclasses.replace(VARIANT, engine="tensorrt"),))
    with pytest.raises(EngineError, match="The tensorrt engine is not installed") as caught:
        load(bundle)
    assert "--system-site-packages" in caught.value.hint


@without_driver
@needs_rtx
def test_prepare_says_that_there_is_no_gpu(rtx_bundle: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["prepare", str(rtx_bundle)]) == 1
    assert "there is no NVIDIA driver here" in capsys.readouterr().err


def test_prepare_says_when_there_is_nothing_to_prepare(bundle: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["prepare", str(bundle)]) == 1
    assert "has nothing to prepare: it is for openvino, onnxruntime" in capsys.readouterr().err


def test_prepare_is_told_of_in_the_help(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["prepare", "--help"])
    assert caught.value.code == 0
    assert "TensorRT engines" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "edgekit-run prepare BUNDLE" in capsys.readouterr().out


# Engines that are built here, for GPUs that are not.


@needs_rtx
def test_an_engine_is_prepared_once_and_then_found(rtx_bundle: Path, cache: Path):
    bundle = open_bundle(rtx_bundle)
    library = load_library(RTX)
    with pytest.raises(EngineError, match=f"no engine is prepared for it: run `edgekit-run prepare {rtx_bundle}`"):
        find_plan(bundle, VARIANT, library, AMPERE)
    phases: list[str] = []
    first = prepare_variant(bundle, VARIANT, AMPERE, lambda phase, seconds: phases.append(phase))
    assert not first.was_there
    assert Path(first.path).is_relative_to(cache)
    plan = find_plan(bundle, VARIANT, library, AMPERE)
    assert plan == Path(first.path).read_bytes()
    assert len(plan) > 1000
    second = prepare_variant(bundle, VARIANT, AMPERE)
    assert (second.was_there, second.path) == (True, first.path)
    assert sorted(path.suffix for path in cache.rglob("*") if path.is_file()) == [".engine", ".json"]


@needs_rtx
def test_the_builder_tells_what_it_is_at_and_stops_when_told(rtx_bundle: Path):
    bundle = open_bundle(rtx_bundle)
    specs = (bundle.manifest.input, *bundle.manifest.outputs)
    onnx, library = bundle.read("model.onnx"), load_library(RTX)
    said: list[str] = []

    def listen(phase: str) -> bool:
        said.append(phase)
        return True

    assert build_plan(library, onnx, "fp32", specs, capabilities=[(8, 6)], report=listen).engine
    assert any(text.startswith("Building engine ") for text in said)
    with pytest.raises(EngineError, match="cannot build the engine"):
        build_plan(library, onnx, "fp32", specs, capabilities=[(8, 6)], report=lambda phase: False)


@needs_rtx
def test_a_stale_engine_is_refused_with_the_reason(rtx_bundle: Path, tmp_path: Path):
    bundle = open_bundle(rtx_bundle)
    library = load_library(RTX)
    prepare_variant(bundle, VARIANT, AMPERE)
    with pytest.raises(EngineError, match=r"was built for NVIDIA RTX A2000.* 8\.6; this is NVIDIA RTX 4060.* 8\.9"):
        find_plan(bundle, VARIANT, library, ADA)
    newer = Library(RTX, SimpleNamespace(__version__="9.9.9"), None)
    with pytest.raises(EngineError, match=r"was built by TensorRT for RTX 1\..*; this is TensorRT for RTX 9\.9\.9"):
        find_plan(bundle, VARIANT, newer, AMPERE)
    # The same network, built again: at another size, its file is another one.
    again = open_bundle(make_bundle(tmp_path / "again", 128, 96, variants=(VARIANT,)))
    with pytest.raises(EngineError, match="is of another build of blobs: run `edgekit-run prepare"):
        find_plan(again, VARIANT, library, AMPERE)
    half = dataclasses.replace(VARIANT, precision="fp16")
    with pytest.raises(EngineError, match="no engine is prepared"):
        find_plan(bundle, half, library, AMPERE)


@needs_rtx
@pytest.mark.parametrize("damage", ["engine", "record"])
def test_a_damaged_engine_is_refused_and_prepared_anew(rtx_bundle: Path, damage: str):
    bundle = open_bundle(rtx_bundle)
    path = Path(prepare_variant(bundle, VARIANT, AMPERE).path)
    if damage == "engine":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
        reason = "the prepared engine is damaged"
    else:
        path.with_suffix(".json").write_text("{", encoding="utf-8")
        reason = "no engine is prepared"
    with pytest.raises(EngineError, match=reason):
        find_plan(bundle, VARIANT, load_library(RTX), AMPERE)
    assert not prepare_variant(bundle, VARIANT, AMPERE).was_there
    assert find_plan(bundle, VARIANT, load_library(RTX), AMPERE)


@needs_rtx
def test_an_engine_in_the_bundle_is_used_only_where_it_fits(tmp_path: Path):
    """By version and compute capability; else one is prepared, from the graph that lies beside it."""
    library = load_library(RTX)
    told = {"engine": "model.onnx", "tensorrt": library.version, "compute_capabilities": ["8.6"]}
    fits = dataclasses.replace(VARIANT, config=told)
    bundle = open_bundle(make_bundle(tmp_path / "b", 64, 96, variants=(fits,)))
    assert find_plan(bundle, fits, library, AMPERE) == bundle.read("model.onnx")
    assert prepare_variant(bundle, fits, AMPERE).was_there
    with pytest.raises(EngineError, match=r"was built for compute capabilities 8\.6; this is NVIDIA RTX 4060"):
        find_plan(bundle, fits, library, ADA)
    old = dataclasses.replace(VARIANT, config={**told, "tensorrt": "1.0.0"})
    with pytest.raises(EngineError, match=r"was built by version 1\.0\.0; this is TensorRT for RTX"):
        find_plan(bundle, old, library, AMPERE)
    assert not prepare_variant(bundle, old, AMPERE).was_there
    assert find_plan(bundle, old, library, AMPERE) != bundle.read("model.onnx")


@needs_rtx
def test_a_gpu_that_tensorrt_builds_nothing_for_is_named(rtx_bundle: Path):
    with pytest.raises(EngineError, match=r"builds nothing for compute capability 5\.2") as caught:
        prepare_variant(open_bundle(rtx_bundle), VARIANT, Gpu("NVIDIA GTX 970", (5, 2)))
    assert "SM86" in caught.value.hint


@needs_rtx
def test_a_graph_that_is_not_what_the_manifest_says_is_refused(tmp_path: Path):
    bundle = open_bundle(make_bundle(tmp_path / "b", 64, 96, variants=(VARIANT,)))
    specs = (dataclasses.replace(bundle.manifest.input, shape=(1, 32, 96, 3)), *bundle.manifest.outputs)
    with pytest.raises(EngineError, match=r"'image' is uint8 \[1, 64, 96, 3\], the manifest says uint8 \[1, 32"):
        build_plan(load_library(RTX), bundle.read("model.onnx"), "fp32", specs, capabilities=[(8, 6)])


@needs_rtx
def test_garbage_is_refused_by_the_parser_and_named(rtx_bundle: Path):
    bundle = open_bundle(rtx_bundle)
    with pytest.raises(EngineError, match=r"TensorRT for RTX .* cannot read the graph: "):
        build_plan(load_library(RTX), b"garbage" * 100, "fp32", (bundle.manifest.input,), capabilities=[(8, 6)])


@needs_rtx
def test_precision_is_of_the_graph_where_there_are_no_flags_for_it():
    """As in TensorRT 11; before, the builder has to be allowed FP16 and INT8."""
    library = load_library(RTX)
    assert library.strongly_typed
    assert not hasattr(library.module.BuilderFlag, "INT8")
    classic = SimpleNamespace(BuilderFlag=SimpleNamespace(FP16=1, INT8=2), __version__="10.3.0")
    assert not Library("tensorrt", classic, None).strongly_typed


class _Classic:
    """A stand-in for JetPack's TensorRT, with its flags and its timing cache: notes what it is asked for."""

    __version__ = "8.5.2.2"
    BuilderFlag = SimpleNamespace(FP16="FP16", INT8="INT8")
    NetworkDefinitionCreationFlag = SimpleNamespace(EXPLICIT_BATCH=0)

    def __init__(self) -> None:
        self.flags: list[str] = []
        self.recalled: list[bytes] = []
        self.network_flags = -1

    def Builder(self, logger: object) -> SimpleNamespace:  # noqa: N802
        def serialized(network: object, config: object) -> bytes:
            return b"an engine"

        return SimpleNamespace(
            create_network=self._network, create_builder_config=lambda: self, build_serialized_network=serialized
        )

    def OnnxParser(self, network: object, logger: object) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(parse=lambda onnx: True)

    def _network(self, flags: int) -> SimpleNamespace:
        self.network_flags = flags
        uint8 = SimpleNamespace(name="UINT8")
        image = SimpleNamespace(name="image", shape=(1, 64, 96, 3), dtype=uint8)
        labels = SimpleNamespace(name="labels", shape=(1, 16, 24), dtype=uint8)
        return SimpleNamespace(
            num_inputs=1, num_outputs=1, get_input=lambda number: image, get_output=lambda number: labels
        )

    def set_flag(self, flag: str) -> None:
        self.flags.append(flag)

    def create_timing_cache(self, timings: bytes) -> SimpleNamespace:
        return SimpleNamespace(timings=timings)

    def set_timing_cache(self, cache: SimpleNamespace, ignore_mismatch: bool) -> bool:
        self.recalled.append(cache.timings)
        return cache.timings != b"of another GPU"

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: b"learnt")


@pytest.mark.parametrize(("precision", "flags"), [("int8", ["FP16", "INT8"]), ("fp16", ["FP16"]), ("fp32", [])])
def test_jetpacks_tensorrt_is_allowed_what_the_precision_says(rtx_bundle: Path, precision: str, flags: list[str]):
    manifest, classic = open_bundle(rtx_bundle).manifest, _Classic()
    library = Library("tensorrt", classic, None)
    plan = build_plan(library, b"onnx", precision, (manifest.input, *manifest.outputs))
    assert (plan.engine, plan.timings) == (b"an engine", b"learnt")
    assert (classic.flags, classic.network_flags) == (flags, 1)


def test_timings_are_kept_for_the_next_build_and_those_of_another_gpu_are_dropped(
    rtx_bundle: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    bundle, classic = open_bundle(rtx_bundle), _Classic()
    library = Library("tensorrt", classic, None)
    monkeypatch.setattr("edgekit_runtime.engines.tensorrt.load_library", lambda engine: library)
    orin = Gpu("Orin", (8, 7))
    variant = dataclasses.replace(VARIANT, engine="tensorrt")
    assert Path(prepare_variant(bundle, variant, orin).path).read_bytes() == b"an engine"
    half = dataclasses.replace(variant, precision="fp16")
    prepare_variant(bundle, half, orin)
    assert classic.recalled == [b"", b"learnt"]
    (kept,) = cache.glob("*.timings")
    kept.write_bytes(b"of another GPU")
    prepare_variant(bundle, dataclasses.replace(variant, precision="int8"), orin)
    assert classic.recalled[2:] == [b"of another GPU", b""]


# What runs an engine, against stand-ins.


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler for the stand-in of the CUDA driver")
    path = tmp_path_factory.mktemp("driver") / "libcuda.so"
    source = Path(__file__).with_name("cuda_driver.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", str(path), str(source)], check=True)
    return path


@pytest.fixture
def gpu(driver: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """A GPU that is none; `standin_held` of the answer counts what was not given back."""
    monkeypatch.setattr(cuda, "DRIVER", str(driver))
    return ctypes.CDLL(str(driver))


class _Tensors:
    """The part of ICudaEngine and IExecutionContext that is used, over the network of `bundles`, with NumPy."""

    num_io_tensors = 2
    _shapes = {"image": (1, 64, 96, 3), "labels": (1, 16, 24)}  # noqa: RUF012

    def __init__(self, labels: str = "UINT8") -> None:
        self.addresses: dict[str, int] = {}
        self.labels = labels

    def get_tensor_name(self, number: int) -> str:
        return ("image", "labels")[number]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name="UINT8" if name == "image" else self.labels)

    def create_runtime_config(self) -> SimpleNamespace:
        kernels = SimpleNamespace(deserialize=lambda kept: kept == b"kernels", serialize=lambda: b"kernels")
        return SimpleNamespace(create_runtime_cache=lambda: kernels, set_runtime_cache=lambda cache: True)

    def create_execution_context(self, config: object = None) -> _Tensors:
        return self

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        at = {name: np.ctypeslib.as_array((ctypes.c_uint8 * int(np.prod(shape))).from_address(self.addresses[name]))
              for name, shape in self._shapes.items()}  # fmt: skip
        at["labels"][:] = expected_labels(at["image"].reshape(64, 96, 3)).ravel()
        return stream != 0


def _stand_in(engine: _Tensors | None) -> Library:
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    module = SimpleNamespace(Runtime=lambda logger: runtime, __version__="1.0.0")
    return Library(RTX, module, SimpleNamespace(complaint="the plan is of another planet"))


def test_the_driver_is_asked_what_gpu_there_is(gpu: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch):
    assert cuda.find_gpu() == Gpu("Stand-in RTX", (8, 6))
    monkeypatch.setenv("EDGEKIT_NO_GPU", "1")
    with pytest.raises(EngineError, match="there is no NVIDIA GPU here"):
        cuda.find_gpu()


def test_frames_go_to_the_gpu_and_answers_come_back_in_whichever_thread(
    gpu: ctypes.CDLL, tmp_path: Path, rtx_bundle: Path
):
    bundle, kernels = open_bundle(rtx_bundle), tmp_path / "kernels"
    engine = TensorRtEngine(_stand_in(_Tensors()), b"plan", Device(), AMPERE, bundle, kernels)
    assert (engine.name, engine.device) == ("TensorRT for RTX 1.0.0", "NVIDIA RTX A2000")
    found: list[np.ndarray] = []
    thread = threading.Thread(target=lambda: found.append(engine.infer(IMAGE[None])["labels"].copy()))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(found[0][0], expected_labels(IMAGE))
    other = np.ascontiguousarray(IMAGE[::-1])
    np.testing.assert_array_equal(engine.infer(other[None])["labels"][0], expected_labels(other))
    assert kernels.read_bytes() == b"kernels", "compiled kernels are kept for the next start"
    engine.close()
    engine.close()
    assert gpu.standin_held() == 0
    with pytest.raises(EngineError, match="was closed"):
        engine.infer(IMAGE[None])


@pytest.mark.parametrize(
    ("engine", "reason"),
    [(None, "refuses the engine: the plan is of another planet"), (_Tensors("INT32"), "'labels' is int32")],
)
def test_an_engine_that_does_not_open_gives_everything_back(
    gpu: ctypes.CDLL, rtx_bundle: Path, engine: _Tensors | None, reason: str
):
    with pytest.raises(EngineError, match=reason):
        TensorRtEngine(_stand_in(engine), b"plan", Device(), AMPERE, open_bundle(rtx_bundle), None)
    assert gpu.standin_held() == 0


@needs_rtx
@without_driver
def test_prepare_builds_for_the_gpu_that_is_there_and_then_tries_it(
    gpu: ctypes.CDLL, rtx_bundle: Path, cache: Path, capsys: pytest.CaptureFixture[str]
):
    """The engine is a real one; opening it needs a real GPU, which TensorRT says."""
    assert main(["prepare", str(rtx_bundle)]) == 1
    (record,) = cache.rglob("*.json")
    assert json.loads(record.read_text(encoding="utf-8"))["gpu"] == "Stand-in RTX, compute capability 8.6"
    assert "TensorRT for RTX" in capsys.readouterr().err
    with pytest.raises(EngineError, match="refuses the engine"):
        open_variant(open_bundle(rtx_bundle), VARIANT)
    assert gpu.standin_held() == 0
    with load(rtx_bundle) as model:
        assert model.variant == ONNXRUNTIME


def test_a_bundle_may_not_tell_tensorrt_more_than_where_its_engine_is(rtx_bundle: Path):
    variant = dataclasses.replace(VARIANT, config={"plugin": "/tmp/evil.so"})
    with pytest.raises(EngineError, match="plugin, which a bundle may not"):
        open_variant(open_bundle(rtx_bundle), variant)


def test_preparing_a_bundle_of_another_maker_is_refused(rtx_bundle: Path, tmp_path: Path):
    """`--key` holds here, too: before the graph is parsed."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from edgekit_runtime import BundleError

    key = tmp_path / "key.pub"
    public = Ed25519PrivateKey.generate().public_key()
    key.write_bytes(public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(BundleError, match="sign"):
        prepare(rtx_bundle, key=key)
