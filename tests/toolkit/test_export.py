"""The deploy graph: camera bytes to class ids, the same as the student in PyTorch for every network and size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.deployable import of_student
from edgekit.export import DeployGraph, Exporter, class_map
from edgekit.network_input import network_rgb
from edgekit.profiles import Profile
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import BuildError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import CheckpointConfig
from edgekit_student.networks import NETWORKS
from edgekit_student.student import Student, load_student

IMAGE = Modality("rgb", Kind.IMAGE, 3)
LABELS = Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES)
DEPTH = Modality("depth", Kind.DEPTH, dtype="float32", unit="m")
NORMALS = Modality("normals", Kind.NORMALS, channels=3, dtype="float32")


def _student(network: str, *outputs: Modality, size: tuple[int, int] = (96, 160)) -> Student:
    torch.manual_seed(1)
    statistics = {
        "rgb": {"mean": [120.4, 90.0, 60.2], "std": [50.0, 40.0, 70.0]},
        "depth": {"mean": [40.0], "std": [25.0], "log_mean": [3.5], "log_std": [0.6]},
    }
    return Student(CheckpointConfig("student", {"name": network}, (IMAGE,), outputs, statistics, size)).eval()


def _image(*size: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)


@pytest.mark.parametrize("network", [name for name in NETWORKS if not name.endswith("4m")])
@pytest.mark.parametrize("size", [(96, 160), (101, 163), (64, 97)])
def test_the_graph_is_the_network_with_its_normalisation_folded_in(network: str, size: tuple[int, int]) -> None:
    """Borders included: the picture is padded with the mean colour, where training padded zeros after normalising."""
    student = _student(network, LABELS)
    graph = DeployGraph(of_student(student), size, size, label_stride=4).eval()
    image = torch.from_numpy(_image(*size))[None]
    with torch.no_grad():
        expected = student(network_rgb(image, None))[0]
        found = graph.channels(image)
    # The border colour is a whole number, the mean is not: half a grey level at most, in the border.
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("label_stride", [4, 2, 1])
def test_finer_logits_give_finer_class_maps(label_stride: int) -> None:
    """Class ids are put in their places after ArgMax, or before up-sampling: the same ids as the student's."""
    student = _student("edge-150k-s2", LABELS, DEPTH)
    graph = DeployGraph(of_student(student), (96, 160), (96, 160), label_stride).eval()
    image = torch.from_numpy(_image(96, 160))[None]
    with torch.no_grad():
        labels, depth = graph(image)
        logits, raw = student(network_rgb(image, None))
    up = max(1, 2 // label_stride)
    assert labels.shape == (1, 48 * up, 80 * up)
    assert depth.shape == (1, 48, 80)
    assert (labels == class_map(logits, up)).float().mean() > 0.99
    assert len(labels.unique()) > 1
    torch.testing.assert_close(depth, (raw[:, 0] * 0.6 + 3.5).exp(), rtol=0.02, atol=1.0)


def test_depth_comes_in_its_unit(profile: Profile) -> None:
    student = _student("edge-150k", LABELS, DEPTH)
    exporter = Exporter(of_student(student), profile)
    image = _image(96, 160)
    with torch.no_grad():
        labels, depth = exporter.graph(torch.from_numpy(image)[None])
        raw = student(network_rgb(torch.from_numpy(image)[None], None))[1]
    assert [output.name for output in exporter.outputs] == ["labels", "depth"]
    assert [output.dtype for output in exporter.outputs] == ["uint8", "float32"]
    torch.testing.assert_close(depth, (raw[:, 0] * 0.6 + 3.5).exp(), rtol=0.02, atol=1.0)
    reference = exporter.reference(image)
    assert np.mean(labels[0].numpy() == reference["labels"]) > 0.99
    np.testing.assert_allclose(depth[0].numpy(), reference["depth"], rtol=0.02, atol=1.0)


def test_a_network_that_answers_with_neither_labels_nor_depth_is_refused(profile: Profile) -> None:
    with pytest.raises(BuildError, match=r"neither labels nor depth: normals \(normals\)"):
        _ = Exporter(of_student(_student("edge-150k", NORMALS)), profile).graph


@pytest.mark.parametrize(
    ("trained", "network_size", "expected_input", "expected_network"),
    [
        ((96, 160), "student", (96, 160), (96, 160)),
        ((100, 165), "student", (96, 160), (96, 160)),  # close enough: the profile's size
        ((54, 97), "student", (64, 112), (64, 112)),  # another size: what the student knows, in whole steps of 16
        ((54, 97), "input", (96, 160), (96, 160)),
        ((96, 160), (48, 80), (96, 160), (48, 80)),
    ],
)
def test_sizes_follow_the_profile_and_the_training(
    trained: tuple[int, int],
    network_size: object,
    expected_input: tuple[int, int],
    expected_network: tuple[int, int],
    profile: Profile,
) -> None:
    wanted = profile.model_copy(update={"network_size": network_size})
    exporter = Exporter(of_student(_student("edge-150k", LABELS, size=trained)), wanted)
    assert (exporter.input_size, exporter.network_size) == (expected_input, expected_network)
    assert exporter.outputs[0].shape == (1, expected_network[0] // 4, expected_network[1] // 4)


@pytest.mark.parametrize(("stride", "shape"), [(1, (96, 160)), (2, (48, 80)), (4, (24, 40)), (8, (24, 40))])
def test_class_maps_come_at_the_stride_asked_for(stride: int, shape: tuple[int, int], profile: Profile) -> None:
    exporter = Exporter(of_student(_student("edge-150k", LABELS)), profile.model_copy(update={"label_stride": stride}))
    assert exporter.outputs[0].shape == (1, *shape)
    assert exporter.reference(_image(96, 160))["labels"].shape == shape


@pytest.mark.parametrize("network_size", ["input", (48, 80)])
def test_openvino_and_onnx_answer_as_pytorch(network_size: object, student_folder: Path, profile: Profile) -> None:
    switch_off()
    import onnxruntime
    import openvino

    exporter = Exporter(
        of_student(load_student(student_folder)), profile.model_copy(update={"network_size": network_size})
    )
    image = _image(96, 160)
    expected = exporter.reference(image)["labels"]
    compiled = openvino.compile_model(exporter.openvino(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert np.mean(compiled(image[None])["labels"][0] == expected) > 0.995
    session = onnxruntime.InferenceSession(exporter.onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    (labels,) = session.run(["labels"], {"image": image[None]})
    assert labels.dtype == np.uint8
    assert np.mean(labels[0] == expected) > 0.995


def test_the_onnx_graph_states_its_opset_and_carries_no_trace_of_this_machine(
    student_folder: Path, profile: Profile
) -> None:
    model = Exporter(of_student(load_student(student_folder)), profile).onnx()
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 20)]
    assert str(Path(__file__).parents[2]).encode() not in model.SerializeToString()


def test_quantised_pictures_are_exact(student_folder: Path, profile: Profile) -> None:
    """Bytes go into the first convolution as they are: the picture's quantiser is the identity, 0..255 in 256 steps."""
    from edgekit.quantise import quantise

    exporter = Exporter(of_student(load_student(student_folder)), profile)
    dark = [_image(96, 160) // 2 for _ in range(4)]
    model = quantise(exporter.openvino(), dark)
    first = next(op for op in model.get_ordered_ops() if op.get_type_name() == "FakeQuantize" and _reads_image(op))
    ranges = [float(first.input_value(port).get_node().get_data().flatten()[0]) for port in (1, 2, 3, 4)]
    assert ranges == [0.0, 255.0, 0.0, 255.0]


def _reads_image(operation: object) -> bool:
    node = operation
    while node.get_type_name() in ("FakeQuantize", "Concat", "Convert", "Transpose"):  # type: ignore[attr-defined]
        sources = [value.get_node() for value in node.input_values()]  # type: ignore[attr-defined]
        node = next((n for n in sources if n.get_type_name() not in ("Constant",)), sources[0])
    return bool(node.get_type_name() == "Parameter")  # type: ignore[attr-defined]


def test_int8_without_a_frame_to_calibrate_with_is_refused(student_folder: Path, profile: Profile) -> None:
    from edgekit.quantise import quantise

    with pytest.raises(BuildError, match="no frame to calibrate"):
        quantise(Exporter(of_student(load_student(student_folder)), profile).openvino(), [])
