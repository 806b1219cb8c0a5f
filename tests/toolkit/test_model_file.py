"""`build --model` of ONNX files and torch modules: what their signature declares is what comes out of the bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import helper
from safetensors.torch import save_file

from edgekit.export import INPUT
from edgekit.model_signature import read_signature
from edgekit.model_source import find_model
from edgekit.profiles import Profile
from edgekit_runtime import load
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import BuildError, ExpertError, UsageError

FRAME = (96, 160)
MODULE = '''
import torch
from torch import nn

class Net(nn.Module):
    """Two heads, one of a coarser grid."""

    def __init__(self, classes=8):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 16, 3, stride=2, padding=1)
        self.second = nn.Conv2d(16, 16, 3, stride=2, padding=1)
        self.labels = nn.Conv2d(16, classes, 1)
        self.far = nn.Conv2d(16, 1, 3, stride=2, padding=1)

    def forward(self, x):
        x = self.second(self.first(x).relu()).relu()
        return {"logits": self.labels(x), "depth": self.far(x)}

class Last(Net):
    def forward(self, x):
        return super().forward(x.permute(0, 3, 1, 2))["logits"].permute(0, 2, 3, 1)

class Branch(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)["logits"]

class Strange(Net):
    def forward(self, x):
        return torch.special.bessel_j0(super().forward(x)["logits"])

class Pair(Net):
    def forward(self, x):
        said = super().forward(x)
        return {"of": "two"}, said["logits"], said["depth"]

class Words(Net):
    def forward(self, x):
        return ["yes", "no"]

def eight():
    return Net(8)

three = 3
'''
INPUT_TABLE = """
[input]
size = "160x96"
colour = "bgr"
mean = [103.5, 116.3, 123.7]
std = [57.4, 57.1, 58.4]
"""
LABELS_TABLE = '[labels]\noutput = "logits"\ntaxonomy = "dronescapes"\n'
DEPTH_TABLE = '[depth]\noutput = "depth"\nunit = "m"\nscale = 10\noffset = 2\nrange = [0, 3]\n'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`net.py`, the same network as `net.onnx`, and their signature `net.toml`."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "net.py").write_text(MODULE, encoding="utf-8")
    (folder / "net.toml").write_text(INPUT_TABLE + LABELS_TABLE + DEPTH_TABLE, encoding="utf-8")
    write_onnx(folder / "net.onnx")
    return folder


def the_module(name: str = "Net") -> torch.nn.Module:
    namespace: dict[str, Any] = {}
    exec(MODULE, namespace)
    return namespace[name]().eval()


def write_onnx(path: Path, opset: int = 17, size: tuple[object, object] = FRAME, layout: str = "nchw") -> None:
    """The weights of `Net` in nodes that are written by hand: any opset, open sizes, and channels last."""
    weights = {name: value.numpy() for name, value in the_module().state_dict().items()}
    nodes, picture = [], "x"
    if layout == "nhwc":
        nodes, picture = [helper.make_node("Transpose", ["x"], ["planar"], perm=[0, 3, 1, 2])], "planar"
    three = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes += [
        helper.make_node("Conv", [picture, "first.weight", "first.bias"], ["a"], **three),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second.weight", "second.bias"], ["c"], **three),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "labels.weight", "labels.bias"], ["planar_logits"]),
        helper.make_node("Conv", ["d", "far.weight", "far.bias"], ["depth"], **three),
        helper.make_node("Transpose", ["planar_logits"], ["logits"], perm=[0, 2, 3, 1])
        if layout == "nhwc"
        else helper.make_node("Identity", ["planar_logits"], ["logits"]),
    ]
    shape = [1, 3, *size] if layout == "nchw" else [1, *size, 3]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", "c", "h", "w"])
            for name in ("logits", "depth")
        ],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, str(path))


def a_picture(size: tuple[int, int] = FRAME) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    return cv2.resize(noise, size[::-1], interpolation=cv2.INTER_CUBIC)


def expected(image: np.ndarray) -> dict[str, np.ndarray]:
    """The network in PyTorch, fed as the signature says."""
    mean, std = np.float32([103.5, 116.3, 123.7]), np.float32([57.4, 57.1, 58.4])
    picture = torch.from_numpy(((image.astype(np.float32) - mean) / std).transpose(2, 0, 1))[None]
    with torch.no_grad():
        said = the_module()(picture)
    depth = (said["depth"][0, 0] * 10 + 2).clamp(0, 3)
    return {"labels": said["logits"][0].argmax(0).numpy(), "depth": depth.numpy()}


def compiled(exporter: Any, image: np.ndarray, how: str) -> dict[str, np.ndarray]:
    switch_off()
    if how == "openvino":
        import openvino

        result = openvino.compile_model(exporter.openvino(), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image[None])
        return {spec.name: result[spec.name][0] for spec in exporter.outputs}
    import onnxruntime

    session = onnxruntime.InferenceSession(exporter.onnx().SerializeToString(), providers=["CPUExecutionProvider"])
    names = [spec.name for spec in exporter.outputs]
    return {name: value[0] for name, value in zip(names, session.run(names, {INPUT: image[None]}), strict=True)}


@pytest.mark.parametrize("how", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("form", ["as it is", "open size", "channels last", "old opset"])
def test_an_onnx_file_answers_in_a_bundle_as_it_does_in_pytorch(
    form: str, how: str, profile: Profile, tmp_path: Path
) -> None:
    layout = "nhwc" if form == "channels last" else "nchw"
    size = ("h", "w") if form == "open size" else FRAME
    write_onnx(tmp_path / "net.onnx", 9 if form == "old opset" else 17, size, layout)
    table = f'{INPUT_TABLE}layout = "{layout}"\n'
    (tmp_path / "net.toml").write_text(table + LABELS_TABLE + DEPTH_TABLE, encoding="utf-8")
    exporter = find_model(str(tmp_path / "net.onnx"), profile, None, None)
    assert [(spec.name, spec.shape, spec.dtype) for spec in exporter.outputs] == [
        ("labels", (1, 24, 40), "uint8"),
        ("depth", (1, 12, 20), "float32"),
    ]
    wanted = expected(a_picture())
    assert len(np.unique(wanted["labels"])) > 2
    assert 0 < np.mean((wanted["depth"] > 0) & (wanted["depth"] < 3)) < 1, "the range cuts some off"
    for found in (exporter.reference(a_picture()), compiled(exporter, a_picture(), how)):
        assert np.mean(found["labels"] == wanted["labels"]) > 0.995
        # The border's colour is in whole numbers: see `onnx_front`.
        np.testing.assert_allclose(found["depth"], wanted["depth"], atol=0.01)


def test_the_normalisation_goes_into_the_first_convolution_where_it_can(folder: Path, profile: Profile) -> None:
    def operations(**more: object) -> set[str]:
        exporter = find_model(str(folder / "net.onnx"), profile.model_copy(update=more), None, None)
        return {node.op_type for node in exporter.onnx().graph.node if node.output[0].startswith("front/")}

    assert "Sub" not in operations()
    assert {"Sub", "Resize"} <= operations(network_size="input", input_size=(192, 320))


def test_frames_of_another_size_are_resized_in_the_graph(folder: Path, profile: Profile) -> None:
    wide = profile.model_copy(update={"network_size": "input", "input_size": (192, 320)})
    exporter = find_model(str(folder / "net.onnx"), wide, None, None)
    assert (exporter.input_size, exporter.network_size) == ((192, 320), FRAME)
    image = a_picture((192, 320))
    found, wanted = compiled(exporter, image, "openvino"), exporter.reference(image)
    assert np.mean(found["labels"] == wanted["labels"]) > 0.99
    only = profile.model_copy(update={"network_size": (64, 64)})
    with pytest.raises(BuildError, match="takes pictures of 160x96 only"):
        _ = find_model(str(folder / "net.onnx"), only, None, None).network_size


@pytest.mark.parametrize("stride", [4, 1])
def test_coarse_logits_are_enlarged_in_an_onnx_graph_too(stride: int, folder: Path, profile: Profile) -> None:
    fine = profile.model_copy(update={"label_stride": stride})
    exporter = find_model(str(folder / "net.onnx"), fine, None, None)
    shape = (96 // stride, 160 // stride)
    assert exporter.outputs[0].shape == (1, *shape)
    found, wanted = compiled(exporter, a_picture(), "onnxruntime"), exporter.reference(a_picture())
    assert wanted["labels"].shape == shape
    assert np.mean(found["labels"] == wanted["labels"]) > 0.98


def test_an_onnx_file_becomes_a_bundle_that_passed_the_gate(
    edgekit: Callable[..., Any], folder: Path, data: Path, tmp_path: Path
) -> None:
    lax = tmp_path / "lax.toml"
    lax.write_text(
        'inherits = "laptop-cpu"\ninput_size = "160x96"\ncalibration_frames = 8\njudged_frames = 4\n'
        'precisions = ["int8", "fp32"]\nallowed_drop_points = 20\nallowed_depth_error_percent = 50\n',
        encoding="utf-8",
    )
    answer = edgekit("build", "-p", lax, "--model", folder / "net.onnx", "--data", data, "-o", tmp_path, "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert Path(document["bundle"]).name == "net.edgekit"
    rows = {(row["engine"], row["precision"]): row for row in document["candidates"]}
    assert rows["openvino", "fp32"]["agreement"] > 0.995
    assert rows["onnxruntime", "int8"]["accuracy"] > 0
    with load(document["bundle"]) as model:
        result = model(a_picture())
        assert (result.labels.shape, result.depth.shape) == ((24, 40), (12, 20))
        provenance = model.manifest.provenance
        assert provenance["model"] == "net.onnx"
        assert provenance["signature"]["input"]["colour"] == "bgr"
        assert str(folder) not in model.manifest.to_json()
    assert "ONNX Runtime" in Path(document["report"]).read_text(encoding="utf-8")


def test_an_onnx_file_of_open_size_takes_smaller_frames_and_one_of_fixed_size_does_not(
    folder: Path, profile: Profile, tmp_path: Path
) -> None:
    assert find_model(str(folder / "net.onnx"), profile, None, None).at((64, 96)) is None
    write_onnx(tmp_path / "net.onnx", size=("h", "w"))
    (tmp_path / "net.toml").write_bytes((folder / "net.toml").read_bytes())
    smaller = find_model(str(tmp_path / "net.onnx"), profile, None, None).at((60, 96))
    assert smaller is not None
    assert smaller.input_size == smaller.network_size == (64, 96)
    found, wanted = compiled(smaller, a_picture((64, 96)), "onnxruntime"), expected(a_picture((64, 96)))
    assert np.mean(found["labels"] == wanted["labels"]) > 0.98


@pytest.mark.parametrize("name", ["Net", "eight"])
def test_a_torch_module_answers_in_a_bundle_as_it_does_in_pytorch(name: str, folder: Path, profile: Profile) -> None:
    exporter = find_model(f"{folder / 'net.py'}:{name}", profile, None, None)
    wanted = expected(a_picture())
    for found in (exporter.reference(a_picture()), compiled(exporter, a_picture(), "openvino")):
        assert np.mean(found["labels"] == wanted["labels"]) > 0.995
        enlarged = cv2.resize(wanted["depth"], (40, 24), interpolation=cv2.INTER_LINEAR)
        assert np.abs(found["depth"] - enlarged)[1:-1, 1:-1].mean() < 0.1


def test_a_torch_module_with_channels_last_and_weights_of_its_own(
    folder: Path, profile: Profile, tmp_path: Path
) -> None:
    module = the_module()
    with torch.no_grad():
        module.labels.bias[3] += 100
    save_file(module.state_dict(), str(tmp_path / "net.safetensors"))
    signature = tmp_path / "net.toml"
    labels = LABELS_TABLE.replace('"logits"', "0")
    signature.write_text(f'weights = "net.safetensors"\n{INPUT_TABLE}layout = "nhwc"\n{labels}', encoding="utf-8")
    exporter = find_model(f"{folder / 'net.py'}:Last", profile, None, signature)
    assert set(np.unique(compiled(exporter, a_picture(), "openvino")["labels"])) == {3}
    assert set(exporter.source.provenance["checkpoint"]) == {"net.py", "net.safetensors"}
    fewer = {name: value for name, value in module.state_dict().items() if not name.startswith("far")}
    save_file(fewer, str(tmp_path / "net.safetensors"))
    with pytest.raises(BuildError, match=r"do not fit .*net.py:Last: no far.weight"):
        find_model(f"{folder / 'net.py'}:Last", profile, None, signature)
    (tmp_path / "net.safetensors").write_bytes(b"not weights")
    with pytest.raises(BuildError, match="is no safetensors file"):
        find_model(f"{folder / 'net.py'}:Last", profile, None, signature)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Nte", "has no 'Nte'"),
        ("three", "is no torch module, and nothing that makes one"),
    ],
)
def test_what_is_no_module_is_refused(name: str, message: str, folder: Path, profile: Profile) -> None:
    with pytest.raises((BuildError, ExpertError), match=message):
        find_model(f"{folder / 'net.py'}:{name}", profile, None, None)


@pytest.mark.parametrize(
    ("name", "output", "message", "hint"),
    [
        (
            "Branch",
            "'logits'",
            r"answers with a tensor \[1, 8, 24, 40\]; there is no tensor as output 'logits'",
            "= 0.",
        ),
        ("Net", "'logit'", r"dict \(logits: a tensor \[.*\], depth: a", 'output = "logits" or output = "depth".'),
        ("Pair", "0", r"tuple \(0: dict, 1: a tensor .*, 2: a tensor .*\); there", "[labels] or [depth] of the sig"),
        ("Pair", "0", "no tensor as output 0", "output = 1 or output = 2."),
        ("Pair", "2", r"with \[1, 1, 12, 20\] where labels should have 8 classes", "output = 1 or output = 2."),
        ("Words", "0", r"list \(0: str, 1: str\); there is no tensor", "whose forward returns the tensor itself"),
    ],
)
def test_which_of_several_answers_is_meant_can_be_said(
    name: str, output: str, message: str, hint: str, folder: Path, profile: Profile, tmp_path: Path
) -> None:
    def labels_from(output: str) -> Path:
        signature = tmp_path / "own.toml"
        table = f"{INPUT_TABLE}[labels]\noutput = {output}\ntaxonomy = 'dronescapes'\n"
        signature.write_text(table, encoding="utf-8")
        return signature

    with pytest.raises(BuildError, match=message) as caught:
        find_model(f"{folder / 'net.py'}:{name}", profile, None, labels_from(output))
    assert hint in caught.value.hint
    assert find_model(f"{folder / 'net.py'}:Pair", profile, None, labels_from("1")).outputs


def test_operations_that_an_engine_does_not_know_are_named(folder: Path, profile: Profile, tmp_path: Path) -> None:
    signature = tmp_path / "logits.toml"
    signature.write_text(INPUT_TABLE + LABELS_TABLE.replace('"logits"', "0"), encoding="utf-8")
    strange = find_model(f"{folder / 'net.py'}:Strange", profile, None, signature)
    with pytest.raises(BuildError, match=r"operations that OpenVINO does not know: aten\.special_bessel_j0\.default"):
        strange.openvino()
    branch = find_model(f"{folder / 'net.py'}:Branch", profile, None, signature)
    with pytest.raises(BuildError, match=r"torch\.export cannot take Branch: Could not guard"):
        branch.openvino()


@pytest.mark.parametrize(("domain", "name"), [("", "Frobnicate"), ("my.domain", "Widen")])
def test_operations_that_onnx_does_not_know_are_named(domain: str, name: str, profile: Profile, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    write_onnx(path)
    model = onnx.load(str(path))
    model.graph.node[1].op_type, model.graph.node[1].domain = name, domain
    onnx.save(model, str(path))
    (tmp_path / "net.toml").write_text(INPUT_TABLE + LABELS_TABLE, encoding="utf-8")
    with pytest.raises(
        BuildError, match=rf"operations that ONNX does not know: {'my.domain.' if domain else ''}{name}"
    ):
        find_model(str(path), profile, None, None)


def test_a_file_that_is_not_what_its_signature_says_is_refused(folder: Path, profile: Profile, tmp_path: Path) -> None:
    def refused(text: str, match: str, path: Path = folder / "net.onnx") -> None:
        (tmp_path / "own.toml").write_text(text, encoding="utf-8")
        with pytest.raises(BuildError, match=match):
            _ = find_model(str(path), profile, None, tmp_path / "own.toml").outputs

    refused(INPUT_TABLE + LABELS_TABLE.replace("logits", "logit"), "has no output 'logit'")
    refused(
        INPUT_TABLE + LABELS_TABLE.replace("dronescapes", "camvid"), r"\[1, 8, 24, 40\] where labels should have 11"
    )
    refused(INPUT_TABLE.replace("160x96", "96x96") + LABELS_TABLE, "takes pictures of 160x96 only")
    refused(INPUT_TABLE + 'layout = "nhwc"\n' + LABELS_TABLE, r"\[1, 3, 96, 160\], no picture of three channels")
    (tmp_path / "cut.onnx").write_bytes((folder / "net.onnx").read_bytes()[:-500])
    refused(LABELS_TABLE, "cannot be read as ONNX", tmp_path / "cut.onnx")
    refused(LABELS_TABLE, "There is no network at", tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("[input]\ncolor = 'bgr'\n[depth]\nunit = 'm'\n", "line 2: there is no setting 'input.color'", "'colour'"),
        ("[input]\nstd = [1, 0, 1]\n[depth]\nunit = 'm'\n", "line 2: input.std.1 must be more than 0, not 0", ""),
        ("[depth]\nunit = 'feet'\n", "line 2: depth.unit", ""),
        ("[depth]\nscale = 2\n", "line 1: 'depth.unit' is missing", ""),
        ("[depth]\nunit = 'm'\nrange = [5, 1]\n", "the first of the range must be below the second", ""),
        ("[labels]\noutput = 0\n", "labels need either a taxonomy or a list of classes", ""),
        ("[labels]\ntaxonomy = 'camvit'\n", "line 2: There is no taxonomy 'camvit'", "'camvid'"),
        ("[labels]\nclasses = ['a', 'a']\n", "names a class twice", ""),
        ("[label]\nclasses = ['a']\n", "line 1: there is no setting 'label'", "'labels'"),
        ("[input]\nsize = '160x96'\n", "neither .labels. nor .depth. says", ""),
        ("[input]\nsize = '160'\n[depth]\nunit = 'm'\n", "line 2: input.size", ""),
        ("[depth]\nunit = 'm'\noutput = true\n", "line 3: depth.output = True: an output is named, or numbered", ""),
        ("[input\n", "not valid TOML", ""),
    ],
)
def test_a_wrong_signature_is_named_with_its_line(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "net.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BuildError, match=rf"net\.toml.*{message}") as caught:
        read_signature(path)
    assert hint in caught.value.hint


def test_the_signature_of_the_docs_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "build.md").read_text(encoding="utf-8")
    (block,) = (text for text in re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL) if "[labels]" in text)
    (tmp_path / "net.toml").write_text(block, encoding="utf-8")
    signature = read_signature(tmp_path / "net.toml")
    assert signature.input.size == (352, 640)
    assert [output for output, _ in signature.outputs.values()] == ["logits", "depth"]


def test_where_there_is_no_signature_it_is_asked_for(
    edgekit: Callable[..., Any], profile: Profile, tmp_path: Path
) -> None:
    write_onnx(tmp_path / "alone.onnx")
    with pytest.raises(UsageError, match=r"Nothing says what .*alone\.onnx takes") as caught:
        find_model(str(tmp_path / "alone.onnx"), profile, None, None)
    assert "alone.toml" in caught.value.hint
    with pytest.raises(UsageError, match="brings its own signature"):
        find_model("dpt-large", profile, None, tmp_path / "net.toml")
    answer = edgekit("build", "-p", "laptop-cpu", "--signature", tmp_path / "net.toml")
    assert (answer.status, "--signature is of --model" in answer.err) == (2, True)
