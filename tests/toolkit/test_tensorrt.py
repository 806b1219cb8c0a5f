"""TensorRT in a build: the graph as its parser wants it, engines ahead of time, and nothing claimed that was not seen.

All of it is real but for the GPU: TensorRT for RTX parses and builds, ONNX Runtime answers from the same graphs.
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from edgekit import tensorrt_graph as graphs
from edgekit.build import Built, build_student
from edgekit.deployable import of_student
from edgekit.export import DeployGraph, Exporter
from edgekit.material import Material
from edgekit.network_input import CentredInput, network_rgb
from edgekit.profiles import Profile, load_profile
from edgekit.quantise import quantise
from edgekit.targets import Target, absent
from edgekit.tensorrt import tensorrt_form
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime import EngineError, load
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import installed
from edgekit_runtime.engines.tensorrt import RTX, build_plan, load_library
from edgekit_runtime.errors import BuildError, BundleError, ProfileError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.student import Student, load_student

needs_rtx = pytest.mark.skipif(not installed(RTX), reason="TensorRT for RTX is not installed: pip install edgekit[rtx]")

SMALL = 'input_size = "160x96"\ncalibration_frames = 8\njudged_frames = 8\nfallbacks = ["onnxruntime"]\n'
LABELS = Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES)
DEPTH = Modality("depth", Kind.DEPTH, dtype="float32", unit="m")


def profile_of(name: str, folder: Path, more: str = "") -> Profile:
    path = folder / f"small-{name}.toml"
    path.write_text(f'inherits = "{name}"\n{SMALL}{more}', encoding="utf-8")
    return load_profile(path)


@pytest.fixture(scope="module")
def rtx_profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    return profile_of("nvidia-rtx", tmp_path_factory.mktemp("profiles"))


@pytest.fixture(scope="module")
def built_for_rtx(
    student_folder: Path, rtx_profile: Profile, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    return build_student(student_folder, rtx_profile, tmp_path_factory.mktemp("rtx"), data)


@pytest.fixture(scope="module")
def frames(flight_frames: tuple[np.ndarray, np.ndarray]) -> list[np.ndarray]:
    return [np.ascontiguousarray(rgb[..., ::-1]) for rgb in flight_frames[0][:6]]


@pytest.fixture(scope="module")
def exporter(student_folder: Path, rtx_profile: Profile) -> Exporter:
    return Exporter(of_student(load_student(student_folder)), rtx_profile)


def new_student(network: str, *outputs: Modality) -> Student:
    torch.manual_seed(1)
    statistics = {
        "rgb": {"mean": [120.4, 90.0, 60.2], "std": [50.0, 40.0, 70.0]},
        "depth": {"mean": [40.0], "std": [25.0]},
    }
    config = CheckpointConfig(
        "student", {"name": network}, (Modality("rgb", Kind.IMAGE, 3),), outputs, statistics, (96, 160)
    )
    return Student(config).eval()


def answers(model: onnx.ModelProto, image: np.ndarray) -> dict[str, np.ndarray]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image[None]}), strict=True))


def material_of(frames: list[np.ndarray]) -> Material:
    """Frames to calibrate with, and none to judge by."""
    return Material(tuple(frames), (), "a test", {})


def parsed(model: onnx.ModelProto, exporter: Exporter) -> bytes:
    """The engine for an RTX 30; raises EngineError with what the parser says."""
    specs = (exporter.input, *exporter.outputs)
    return build_plan(load_library(RTX), model.SerializeToString(), "int8", specs, capabilities=[(8, 6)]).engine


# The graph.


@pytest.mark.parametrize("network", ["edge-150k", "edge-150k-s2", "safeuav-430k"])
@pytest.mark.parametrize("size", [(96, 160), (101, 163)])
def test_on_gpus_the_mean_is_subtracted_and_the_rest_folded_in(network: str, size: tuple[int, int]) -> None:
    """Exactly the network, borders included: its own zero padding means the mean colour then."""
    student = new_student(network, LABELS)
    graph = DeployGraph(of_student(student), size, size, 4, CentredInput.fold).eval()
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, *size, 3), np.uint8))
    with torch.no_grad():
        expected = student(network_rgb(image, None))[0]
        found = graph.channels(image)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("network", "network_size", "engine", "half"),
    [
        ("edge-150k", "input", "tensorrt-rtx", False),
        ("edge-150k", "input", "tensorrt", True),
        ("edge-150k-s2", "input", "tensorrt-rtx", True),
        ("edge-150k-s2", (48, 80), "tensorrt", False),
    ],
)
def test_the_graph_for_tensorrt_answers_as_pytorch(
    network: str, network_size: object, engine: str, half: bool, rtx_profile: Profile, frames: list[np.ndarray]
) -> None:
    """Labels and depth, folded or not, in float32 and with float16 inside."""
    profile = rtx_profile.model_copy(update={"network_size": network_size})
    exporter = Exporter(of_student(new_student(network, LABELS, DEPTH)), profile)
    model = exporter.for_gpus.onnx()
    graphs.bytes_at_the_ends(model)
    if engine == RTX:
        graphs.argmax_by_reduction(model)
    if half:
        graphs.halve(model)
    if engine != RTX:
        assert graphs.lower_opset(model)
        assert model.opset_import[0].version == 17
    onnx.checker.check_model(model, full_check=True)
    first, last = model.graph.node[0], model.graph.node[-1]
    assert (first.op_type, list(first.input)) == ("Cast", ["image"])
    assert last.op_type == "Cast"
    types = {constant.data_type for constant in model.graph.initializer if len(constant.dims) == 4}
    assert types == {TensorProto.FLOAT16 if half else TensorProto.FLOAT}
    found, expected = answers(model, frames[0]), exporter.reference(frames[0])
    assert found["labels"].dtype == np.uint8
    assert np.mean(found["labels"][0] == expected["labels"]) > (0.97 if half else 0.999)
    np.testing.assert_allclose(found["depth"][0], expected["depth"], rtol=0.02, atol=0.5 if half else 0.01)


def test_the_first_of_equal_channels_is_the_class() -> None:
    """As ArgMax has it; the reductions are exact, whatever the logits."""
    logits = np.random.default_rng(0).integers(-3, 3, (1, 8, 500)).astype(np.float32)
    node = onnx.helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0)
    make = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [node], "g", [make("logits", TensorProto.FLOAT, logits.shape)], [make("ids", TensorProto.INT64, (1, 500))]
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    graphs.argmax_by_reduction(model)
    assert "ArgMax" not in {node.op_type for node in model.graph.node}
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"logits": logits})[0], logits.argmax(axis=1))


def test_a_graph_that_the_older_opset_has_no_operator_for_stays_as_it_is(exporter: Exporter) -> None:
    model = exporter.for_gpus.onnx()
    model.graph.node[-2].op_type = "Gelu"
    before = model.SerializeToString()
    assert not graphs.lower_opset(model)
    assert model.SerializeToString() == before


# What the parser refuses, and what it takes.


@needs_rtx
def test_tensorrt_takes_our_int8_and_refuses_a_quantised_bias(
    exporter: Exporter, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """ONNX Runtime's own quantiser writes biases as int32 with a DequantizeLinear."""
    ours = tensorrt_form(exporter, RTX, "int8", material_of(frames))
    assert ours.files["tensorrt-rtx/int8/model.engine"]
    assert not _int32_biases(onnx.load_model_from_string(ours.files[ours.model]))
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.frames = iter([{"image": frame[None]} for frame in frames])

        def get_next(self) -> Any:
            return next(self.frames, None)

    model = exporter.for_gpus.onnx()
    graphs.bytes_at_the_ends(model)
    onnx.save(model, tmp_path / "float.onnx")
    options = {"ActivationSymmetric": True, "WeightSymmetric": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_static(
            tmp_path / "float.onnx", tmp_path / "theirs.onnx", Reader(), quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"], activation_type=QuantType.QInt8, weight_type=QuantType.QInt8,
            extra_options=options,
        )  # fmt: skip
    theirs = onnx.load(tmp_path / "theirs.onnx")
    assert _int32_biases(theirs)
    with pytest.raises(EngineError, match="cannot read the graph"):
        parsed(theirs, exporter)
    for node in _int32_biases(theirs):
        _as_float(theirs.graph, node)
    assert parsed(theirs, exporter), "nothing but the biases was in the way"


def _int32_biases(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    constants = {constant.name: constant for constant in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type == "DequantizeLinear" and node.input[0] in constants]
    return [node for node in nodes if constants[node.input[0]].data_type == TensorProto.INT32]


def _as_float(graph: onnx.GraphProto, node: onnx.NodeProto) -> None:
    constants = {constant.name: numpy_helper.to_array(constant) for constant in graph.initializer}
    bias = (constants[node.input[0]] * constants[node.input[1]]).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(bias, node.output[0]))
    graph.node.remove(node)


@needs_rtx
def test_tensorrt_refuses_bytes_in_the_middle_of_a_graph(exporter: Exporter) -> None:
    """The graph that other engines read joins bytes and reshapes bytes."""
    with pytest.raises(EngineError, match="cannot"):
        parsed(exporter.onnx(), exporter)


@needs_rtx
@pytest.mark.filterwarnings("ignore")
def test_transformers_are_taken_too(rtx_profile: Profile, frames: list[np.ndarray], tmp_path: Path) -> None:
    """Attention, layer normalisation, GELU and all, in half precision."""
    pytest.importorskip("transformers")
    from tiny import tiny_segformer

    from edgekit.offshelf import of_checkpoint

    exporter = Exporter(of_checkpoint(str(tiny_segformer(tmp_path / "segformer")), (96, 160), (96, 160)), rtx_profile)
    form = tensorrt_form(exporter, RTX, "fp16", material_of([]))
    assert form.files[str(form.config["engine"])]
    found = answers(onnx.load_model_from_string(form.files[form.model]), frames[0])
    assert np.mean(found["labels"][0] == exporter.reference(frames[0])["labels"]) > 0.97


@needs_rtx
@pytest.mark.parametrize("opset", [13, 20])
def test_onnx_files_of_others_are_taken_too(
    opset: int, rtx_profile: Profile, frames: list[np.ndarray], tmp_path: Path
) -> None:
    """In the opset that they come in; their constants may be nodes."""
    from edgekit.model_source import find_model

    make, random = onnx.helper.make_node, np.random.default_rng(0)
    kernel = numpy_helper.from_array(random.normal(size=(8, 3, 4, 4)).astype(np.float32), "")
    nodes = [make("Constant", [], ["kernel"], value=kernel), make("Conv", ["x", "kernel"], ["logits"], strides=[4, 4])]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes,
        "own",
        [value("x", TensorProto.FLOAT, [1, 3, 96, 160])],
        [value("logits", TensorProto.FLOAT, [1, 8, 24, 40])],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=8),
        tmp_path / "own.onnx",
    )
    signature = '[input]\nmean = [110, 115, 100]\nstd = [50, 50, 50]\n[labels]\ntaxonomy = "dronescapes"\n'
    (tmp_path / "own.toml").write_text(signature, encoding="utf-8")
    exporter = find_model(str(tmp_path / "own.onnx"), rtx_profile, None, None)
    for engine in ("tensorrt-rtx", "tensorrt"):
        form = tensorrt_form(exporter, engine, "fp16", material_of([]))
        found = answers(onnx.load_model_from_string(form.files[form.model]), frames[0])
        assert np.mean(found["labels"][0] == exporter.reference(frames[0])["labels"]) > 0.97


def test_quantised_pairs_are_signed_and_keep_their_range(exporter: Exporter, frames: list[np.ndarray]) -> None:
    model = exporter.for_gpus.onnx()
    graphs.bytes_at_the_ends(model)
    unsigned = quantise(model, frames)
    before = {c.name: numpy_helper.to_array(c) for c in unsigned.graph.initializer}
    graphs.signed_pairs(unsigned)
    after = {c.name: numpy_helper.to_array(c) for c in unsigned.graph.initializer}
    zeros = {node.input[2]: node.input[1] for node in unsigned.graph.node if node.op_type == "QuantizeLinear"}
    assert {after[zero].dtype for zero in zeros} == {np.dtype(np.int8)}
    was_unsigned = [zero for zero in zeros if before[zero].dtype == np.uint8]
    assert was_unsigned
    for zero in was_unsigned:
        np.testing.assert_allclose(after[zeros[zero]] * 127, before[zeros[zero]] * 255, rtol=1e-6)
    constants = {c.name: c for c in unsigned.graph.initializer}
    constants[was_unsigned[0]].CopyFrom(numpy_helper.from_array(np.int8(3), was_unsigned[0]))
    with pytest.raises(BuildError, match="quantised asymmetrically"):
        graphs.signed_pairs(unsigned)


# The bundle.


@needs_rtx
def test_a_bundle_for_rtx_has_an_engine_that_nobody_claims_to_have_timed(built_for_rtx: Built) -> None:
    if not absent(Target("tensorrt-rtx", "GPU")):
        pytest.skip("this machine has such a GPU")
    rows = {row["precision"]: row for row in built_for_rtx.candidates if row["engine"] == RTX}
    assert rows.keys() == {"int8", "fp16", "fp32"}
    assert {row["p50_ms"] for row in rows.values()} == {None}
    assert all("NVIDIA" in row["not_measured"] for row in rows.values())
    assert rows["fp32"]["agreement"] > 0.995
    assert rows["fp16"]["agreement"] > 0.97
    assert 0 < rows["int8"]["accuracy"] < 1
    first = built_for_rtx.manifest.variants[0]
    assert (first.engine, first.device, first.p50_ms) == (RTX, "GPU", None)
    assert first.precision == next(row["precision"] for row in rows.values() if not row["rejected"])
    assert first.config["tensorrt"] == load_library(RTX).version
    assert first.config["compute_capabilities"] == ["8.6", "8.9", "12.0"]
    assert {first.model, first.config["engine"]} <= built_for_rtx.manifest.files.keys()
    assert "tensorrt_rtx_cu13_libs" in built_for_rtx.manifest.provenance["tools"]


@needs_rtx
def test_the_engine_is_whole_and_of_this_version(built_for_rtx: Built) -> None:
    """By its header, whose layout is TensorRT's own affair; more cannot be read of it without a GPU."""
    name = built_for_rtx.manifest.variants[0].config["engine"]
    plan = open_bundle(built_for_rtx.bundle).read(name)
    assert plan[:4] == b"vtrt"
    assert struct.unpack_from("<Q", plan, 16)[0] == len(plan)
    assert ".".join(map(str, plan[24:28])) == load_library(RTX).version


@needs_rtx
def test_where_there_is_no_gpu_the_bundle_runs_on_the_cpu_and_says_why(
    built_for_rtx: Built, frames: list[np.ndarray]
) -> None:
    if not absent(Target("tensorrt-rtx", "GPU")):
        pytest.skip("this machine has such a GPU")
    with load(built_for_rtx.bundle) as model:
        assert model.variant.engine == "onnxruntime"
        assert "NVIDIA" in model.skipped[0].reason
        assert model(frames[0]).labels is not None


@needs_rtx
def test_a_damaged_engine_never_reaches_tensorrt(built_for_rtx: Built, tmp_path: Path) -> None:
    import zipfile

    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(built_for_rtx.bundle) as archive:
        archive.extractall(folder)
    engine = folder / built_for_rtx.manifest.variants[0].config["engine"]
    data = bytearray(engine.read_bytes())
    data[-100] ^= 1
    engine.write_bytes(data)
    with pytest.raises(BundleError, match=r"model\.engine is not what the manifest says \(SHA-256 differs\)"):
        load(folder)


@needs_rtx
def test_gpus_to_build_for_are_of_the_profile(student_folder: Path, rtx_profile: Profile, tmp_path: Path) -> None:
    source = of_student(load_student(student_folder))
    old = rtx_profile.model_copy(update={"compute_capabilities": ("5.2",)})
    with pytest.raises(BuildError, match=r"builds nothing for compute capability 5\.2"):
        tensorrt_form(Exporter(source, old), RTX, "fp32", material_of([]))
    none = rtx_profile.model_copy(update={"compute_capabilities": ()})
    with pytest.raises(BuildError, match="names no GPUs to build for"):
        tensorrt_form(Exporter(source, none), RTX, "fp32", material_of([]))
    with pytest.raises(ProfileError, match=r"line 6: compute_capabilities"):
        profile_of("nvidia-rtx", tmp_path, 'compute_capabilities = ["sm86"]\n')


def test_equal_inputs_give_equal_graphs(exporter: Exporter) -> None:
    """The engine is TensorRT's affair; what it is built from is the same every time."""
    again, nothing = Exporter(exporter.source, exporter.profile), material_of([])
    first, second = (tensorrt_form(each, "tensorrt", "fp16", nothing) for each in (exporter, again))
    assert first.files == second.files


def test_without_tensorrt_the_build_says_what_to_install(
    student_folder: Path, rtx_profile: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(BuildError, match="tensorrt-rtx is not installed") as caught:
        build_student(student_folder, rtx_profile, tmp_path, None)
    assert caught.value.hint == "pip install 'edgekit[rtx]'"


@pytest.mark.parametrize("name", ["jetson-orin-nano", "jetson-agx-orin", "jetson-xavier"])
def test_profiles_of_jetson_say_what_to_do_there(name: str) -> None:
    profile = load_profile(name)
    assert profile.target == Target("tensorrt", "GPU")
    assert "nvpmodel" in profile.power
    assert "edgekit-run prepare" in profile.power
    assert {"nvidia gpu", "tensorrt"} <= set(profile.doctor)
    assert profile.missing()


def test_a_bundle_for_jetson_carries_the_graph_and_no_engine(
    edgekit: Callable[..., Any], student_folder: Path, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "jetson.toml"
    own.write_text(f'inherits = "jetson-orin-nano"\n{SMALL}precisions = ["int8", "fp32"]\n', encoding="utf-8")
    answer = edgekit("build", "-p", own, "--student", student_folder, "--data", data, "-o", tmp_path / "out")
    assert answer.status == 0, answer.err
    assert "edgekit-run prepare" in " ".join(answer.err.split())
    (path,) = (tmp_path / "out").glob("*.edgekit")
    manifest = open_bundle(path).manifest
    first, second = manifest.variants
    assert (first.engine, first.config, first.p50_ms) == ("tensorrt", {}, None)
    assert second.engine == "onnxruntime"
    assert not any(name.endswith(".engine") for name in manifest.files)
    rows = {row["precision"]: row for row in manifest.candidates if row["engine"] == "tensorrt"}
    assert all(row["not_measured"].startswith("this machine is") for row in rows.values())
    assert rows["fp32"]["agreement"] > 0.995
    model = onnx.load(io.BytesIO(open_bundle(path).read(first.model)))
    assert model.opset_import[0].version == 17
    with load(path) as running:
        assert running.variant.engine == "onnxruntime"
        assert "tensorrt" in running.skipped[0].reason
