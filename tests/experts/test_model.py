"""Networks in files: small ones made on the spot, and a real one in TFLite where it is there."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit_experts.expert import Batch
from edgekit_experts.learned.model import Model
from edgekit_experts.registry import find_expert
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind


def write_network(path: Path, shape: list[object], weights: np.ndarray, *, flat: bool = False) -> Path:
    """A 1×1 convolution of `weights` `(outputs, 3)` over a planar picture; `flat` drops the batch axis."""
    kernel = helper.make_tensor("w", TensorProto.FLOAT, [*weights.shape, 1, 1], weights.astype(np.float32).ravel())
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"])]
    name, rank = "y", 4
    if flat:
        axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
        nodes.append(helper.make_node("Squeeze", ["y", "axes"], ["z"]))
        name, rank = "z", 3
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank)],
        [kernel, axes] if flat else [kernel],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.fixture
def frames() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (2, 40, 60, 3), np.uint8)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in noise])


def answer(expert: Model, frames: np.ndarray) -> np.ndarray:
    modality = expert.produces({})
    computed = expert.compute(Batch(frames, {}, 0))
    assert computed.shape == (len(frames), *frames.shape[1:3], modality.channels)
    assert computed.dtype.name == modality.dtype
    return computed


def test_pre_and_post_processing_are_what_was_declared(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_network(tmp_path / "green.onnx", [1, 3, 40, 60], np.array([[0, 1, 0]]))
    mean, std = [10, 20, 30], [50, 60, 70]
    expert = Model(str(path), "depth", mean=mean, std=std, scale=-2, offset=5, unit="m")
    expected = -2 * (frames[..., 1:2].astype(np.float64) - 20) / 60 + 5
    np.testing.assert_allclose(answer(expert, frames), expected, atol=0.01)
    blue = write_network(tmp_path / "first.onnx", [1, 3, 40, 60], np.array([[1, 0, 0]]))
    turned = answer(Model(str(blue), "depth", colour="bgr"), frames)
    np.testing.assert_allclose(turned, frames[..., 2:] / 255, atol=0.001)


def test_classes_are_those_with_the_largest_value(tmp_path: Path, frames: np.ndarray) -> None:
    taxonomy = tmp_path / "colours.toml"
    taxonomy.write_text('name = "colours"\nclasses = ["red", "green", "blue"]\n', encoding="utf-8")
    path = write_network(tmp_path / "net.onnx", [1, 3, 40, 60], np.eye(3))
    labels = answer(Model(str(path), "labels", taxonomy=str(taxonomy)), frames)
    np.testing.assert_array_equal(labels[..., 0], frames.argmax(axis=3))


@pytest.mark.parametrize(("kind", "channels"), [("flow", 2), ("normals", 3), ("image", 3)])
def test_a_network_with_another_number_of_channels_is_refused_before_a_frame_is_read(
    tmp_path: Path, kind: str, channels: int
) -> None:
    path = write_network(tmp_path / "one.onnx", [1, 3, 40, 60], np.array([[1, 0, 0]]))
    with pytest.raises(ExpertError, match=rf"answers with 1 channel\(s\); {kind} has {channels}"):
        Model(str(path), kind).produces({})
    Model(str(path), "depth").produces({})


def test_the_first_answers_may_be_asked_for_by_many_threads_at_once(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.onnx", [1, 3, 40, 60], np.eye(3))
    code = f"""
import threading
import numpy as np
from edgekit_experts.expert import Batch
from edgekit_experts.learned.model import Model
expert = Model({str(path)!r}, "image")
expert.produces({{}})
frames = np.zeros((1, 40, 60, 3), np.uint8)
start = threading.Barrier(8)
def ask():
    start.wait()
    expert.compute(Batch(frames, {{}}, 0))
threads = [threading.Thread(target=ask) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    # In processes of their own: only the first inference of a process is delicate.
    for _ in range(3):
        subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("edges", lambda rgb: rgb[..., :1]),
        ("mask", lambda rgb: (rgb[..., :1] > 127.5).astype(np.uint8)),
        ("image", lambda rgb: rgb // 255),
    ],
)
def test_each_kind_is_stored_in_its_own_way(tmp_path: Path, frames: np.ndarray, kind: str, expected: object) -> None:
    path = write_network(tmp_path / "net.onnx", [1, 3, 40, 60], np.eye(3), flat=True)
    computed = answer(Model(str(path), kind), frames)
    assert np.abs(computed.astype(int) - expected(frames)).max() <= 1  # type: ignore[operator]


def test_an_open_size_has_to_be_said_and_answers_come_back_at_the_size_of_the_frame(
    tmp_path: Path, frames: np.ndarray
) -> None:
    path = write_network(tmp_path / "open.onnx", [1, 3, None, None], np.array([[0, 1, 0]]))
    with pytest.raises(ExpertError, match="any size"):
        answer(Model(str(path), "depth"), frames)
    half = answer(Model(str(path), "depth", size="30x20"), frames)
    assert np.abs(half.astype(np.float64) - frames[..., 1:2] / 255).mean() < 0.03
    fixed = write_network(tmp_path / "fixed.onnx", [1, 3, 8, 8], np.array([[0, 1, 0]]))
    with pytest.raises(ExpertError, match="8x8 only"):
        answer(Model(str(fixed), "depth", size=[20, 30]), frames)


def test_threads_share_one_network(tmp_path: Path, frames: np.ndarray) -> None:
    path = write_network(tmp_path / "net.onnx", [1, 3, 40, 60], np.array([[0, 1, 0]]))
    expert = Model(str(path), "depth")
    expert.produces({})
    alone = [expert.compute(Batch(frames[n : n + 1], {}, n)) for n in range(2)]
    wrong: list[int] = []

    def work(n: int) -> None:
        answers = (expert.compute(Batch(frames[n : n + 1], {}, n)) for _ in range(50))
        wrong.extend(n for each in answers if not np.array_equal(each, alone[n]))

    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_other_weights_make_other_frames(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.onnx", [1, 3, 8, 8], np.array([[0, 1, 0]]))
    before = Model(str(path), "depth").identity
    write_network(path, [1, 3, 8, 8], np.array([[0, 2, 0]]))
    assert Model(str(path), "depth").identity != before


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "dept"}, "kind 'dept'"),
        ({"kind": "labels"}, "need a taxonomy"),
        ({"kind": "depth", "taxonomy": "camvid"}, "need a taxonomy"),
        ({"kind": "depth", "std": [0, 1, 1]}, "std"),
        ({"kind": "depth", "size": [8]}, "is no size"),
        ({"kind": "depth", "size": "8*8"}, "WIDTHxHEIGHT"),
        ({"kind": "depth", "output": 1}, "output number 1"),
        ({"kind": "depth", "path": "none.onnx"}, "no network at none.onnx"),
        ({"kind": "depth", "path": "{broken}"}, "cannot be read as a network"),
        ({"kind": "depth", "path": "{text}"}, "format"),
    ],
)
def test_a_declaration_that_does_not_fit_is_refused(
    tmp_path: Path, parameters: dict[str, object], message: str
) -> None:
    path = write_network(tmp_path / "net.onnx", [1, 3, 8, 8], np.array([[0, 1, 0]]))
    (tmp_path / "broken.onnx").write_bytes(path.read_bytes()[:60])
    (tmp_path / "text.txt").write_text("no network", encoding="utf-8")
    given = {"path": str(path), **parameters}
    given["path"] = str(given["path"]).format(broken=tmp_path / "broken.onnx", text=tmp_path / "text.txt")
    with pytest.raises(ExpertError, match=message):
        Model(**given).produces({})  # type: ignore[arg-type]


def test_a_real_network_in_tflite_sees_depth(real: Path) -> None:
    registered = find_expert("model")
    path = real / "models" / "mobile_pydnet_pruned35.tflite"
    expert, _ = registered.build({"path": str(path), "kind": "depth", "scale": -1.0, "unit": "relative inverse depth"})
    modality = expert.produces({})
    assert modality.kind is Kind.DEPTH
    assert modality.near_is_high
    picture = cv2.cvtColor(cv2.imread(str(sorted((real / "camvid" / "val" / "rgb").glob("*"))[20])), cv2.COLOR_BGR2RGB)
    depth = expert.compute(Batch(picture[None], {}, 0))[0, ..., 0].astype(np.float32)
    stored = cv2.imread(
        str(sorted((real / "camvid" / "val" / "experts" / "depth_pydnet").glob("*.png"))[20]), cv2.IMREAD_GRAYSCALE
    )
    ours = cv2.resize(depth, stored.shape[::-1], interpolation=cv2.INTER_AREA)
    assert np.corrcoef(ours.ravel(), stored.ravel().astype(np.float32))[0, 1] > 0.99
    height = len(depth)
    assert np.median(depth[-height // 8 :]) > 2 * np.median(depth[height // 3 : height // 2])  # the road is near


def test_a_network_in_tflite_answers_the_same_however_often_it_is_compiled(
    real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (1, 192, 640, 3), np.uint8)
    path = str(real / "models" / "mobile_pydnet_pruned35.tflite")
    answers = []
    for number in range(6):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / str(number)))
        answers.append(Model(path, "depth").compute(Batch(picture, {}, 0)))
    for each in answers[1:]:
        np.testing.assert_array_equal(each, answers[0])
