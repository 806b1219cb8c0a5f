"""Small real bundles: one tiny segmentation network as OpenVINO IR and as ONNX, packed with a true manifest.

The network reads uint8 BGR, compares four weighted sums of the channels (averaged over blocks of four by four)
and answers with the winner's number: 0 dark, 1 blue, 2 green, 3 red. So what it must say can be computed by hand.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit_runtime.files import digest_bytes
from edgekit_runtime.manifest import MANIFEST, Manifest, Smaller, TensorSpec, Variant
from edgekit_runtime.modality import Kind, Modality, Taxonomy

TAXONOMY = Taxonomy("blobs", ("dark", "blue", "green", "red"), ((40, 40, 40), (0, 0, 255), (0, 255, 0), (255, 0, 0)))
LABELS = Modality("labels", Kind.LABELS, taxonomy=TAXONOMY)
DEPTH = Modality("depth", Kind.DEPTH, dtype="float32", range=(0.0, 255.0), unit="relative")
STRIDE = 4
FRAGILE_ABOVE = 249
_WEIGHTS = np.array([[0, 0, 0], [2, -1, -1], [-1, 2, -1], [-1, -1, 2]], np.float32)  # one row a class, over B, G, R
_BIAS = np.array([20, 0, 0, 0], np.float32)


def expected_labels(image: np.ndarray) -> np.ndarray:
    """What the network must say about uint8 (H, W, 3) BGR: uint8 (H / 4, W / 4)."""
    height, width = image.shape[:2]
    blocks = image.astype(np.float32).reshape(height // STRIDE, STRIDE, width // STRIDE, STRIDE, 3)
    return (blocks.mean(axis=(1, 3)) @ _WEIGHTS.T + _BIAS).argmax(axis=-1).astype(np.uint8)


def _kernel() -> np.ndarray:
    kernel = np.repeat(np.repeat(_WEIGHTS[:, :, None, None], STRIDE, 2), STRIDE, 3) / STRIDE**2
    return np.ascontiguousarray(kernel)


def openvino_files(height: int, width: int, *, depth: bool = False) -> dict[str, bytes]:
    """The network as OpenVINO IR: model.xml and model.bin."""
    import openvino as ov
    from openvino import opset13 as ops

    image = ops.parameter([1, height, width, 3], np.uint8, name="image")
    floats = ops.transpose(ops.convert(image, "f32"), ops.constant(np.array([0, 3, 1, 2])))
    scores = ops.convolution(floats, ops.constant(_kernel()), [STRIDE, STRIDE], [0, 0], [0, 0], [1, 1])
    scores = ops.add(scores, ops.constant(_BIAS.reshape(1, 4, 1, 1)))
    best = ops.topk(scores, ops.constant(np.array(1)), 1, "max", "none", index_element_type="i32").output(1)
    labels = ops.convert(ops.squeeze(best, ops.constant(np.array([1]))), "u8")
    labels.output(0).get_tensor().set_names({"labels"})
    results = [ops.result(labels)]
    if depth:
        mean = ops.reduce_mean(floats, ops.constant(np.array([1])))
        mean.output(0).get_tensor().set_names({"depth"})
        results.append(ops.result(mean))
    image.output(0).get_tensor().set_names({"image"})
    model = ov.Model(results, [image], "blobs")
    with tempfile.TemporaryDirectory() as folder:
        ov.save_model(model, Path(folder) / "model.xml", compress_to_fp16=False)
        return {name: (Path(folder) / name).read_bytes() for name in ("model.xml", "model.bin")}


def onnx_files(height: int, width: int, *, fragile: bool = False) -> dict[str, bytes]:
    """The same network as ONNX: model.onnx. A `fragile` one fails at values above `FRAGILE_ABOVE`."""
    from onnx import TensorProto, helper, numpy_helper

    def constant(name: str, value: np.ndarray):
        return numpy_helper.from_array(value, name)

    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel", "bias"], ["scores"], strides=[STRIDE, STRIDE]),
        helper.make_node("ReduceMax", ["floats"], ["brightest"], keepdims=0),
        helper.make_node("Cast", ["brightest"], ["place"], to=TensorProto.INT64),
        helper.make_node("Gather", ["table", "place"], ["nothing"]),
        helper.make_node("Add", ["scores", "nothing"], ["sound"]),
        helper.make_node("ArgMax", ["sound"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    table = np.zeros(FRAGILE_ABOVE + 1 if fragile else 256, np.float32)
    weights = [constant("kernel", _kernel()), constant("bias", _BIAS), constant("table", table)]
    shape = [1, height // STRIDE, width // STRIDE]
    graph = helper.make_graph(
        nodes,
        "blobs",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return {"model.onnx": model.SerializeToString()}


def slow_onnx_files(height: int, width: int, products: int) -> dict[str, bytes]:
    """A network that multiplies large matrices before it says that all is dark: model.onnx."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["image"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["floats"], ["brightest"], keepdims=0),
        helper.make_node("Expand", ["brightest", "size"], ["product0"]),
        *(
            helper.make_node("MatMul", [f"product{number}", f"product{number}"], [f"product{number + 1}"])
            for number in range(products)
        ),
        helper.make_node("ReduceMax", [f"product{products}"], ["largest"], keepdims=0),
        helper.make_node("Greater", ["zero", "largest"], ["never"]),
        helper.make_node("Cast", ["never"], ["dark"], to=TensorProto.UINT8),
        helper.make_node("Expand", ["dark", "shape"], ["labels"]),
    ]
    shape = [1, height // STRIDE, width // STRIDE]
    graph = helper.make_graph(
        nodes,
        "slow",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)],
        [
            numpy_helper.from_array(np.array([1500, 1500]), "size"),
            numpy_helper.from_array(np.array(shape), "shape"),
            numpy_helper.from_array(np.float32(0), "zero"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return {"model.onnx": model.SerializeToString()}


OPENVINO = Variant("openvino", "CPU", "fp32", "model.xml", {"INFERENCE_NUM_THREADS": 2})
ONNXRUNTIME = Variant("onnxruntime", "CPU", "fp32", "model.onnx", {"intra_op_threads": 2})


def manifest_for(
    files: Mapping[str, bytes],
    variants: tuple[Variant, ...],
    height: int,
    width: int,
    *,
    depth: bool = False,
    name: str = "blobs",
    taxonomy: Taxonomy = TAXONOMY,
) -> Manifest:
    labels = Modality("labels", Kind.LABELS, taxonomy=taxonomy)
    outputs = [TensorSpec("labels", (1, height // STRIDE, width // STRIDE), "uint8", labels)]
    if depth:
        outputs.append(TensorSpec("depth", (1, height, width), "float32", DEPTH))
    return Manifest(
        name=name,
        profile="test",
        created="2026-01-01T00:00:00Z",
        input=TensorSpec("image", (1, height, width, 3), "uint8"),
        outputs=tuple(outputs),
        variants=variants,
        files={name: digest_bytes(data) for name, data in files.items()},
    )


def write_zip(path: Path, files: Mapping[str, bytes], manifest: str) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(MANIFEST, manifest)
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def write_folder(path: Path, files: Mapping[str, bytes], manifest: str) -> Path:
    path.mkdir(parents=True)
    (path / MANIFEST).write_text(manifest, encoding="utf-8")
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_bundle(
    path: Path,
    height: int = 540,
    width: int = 960,
    *,
    variants: tuple[Variant, ...] = (OPENVINO, ONNXRUNTIME),
    depth: bool = False,
    fragile: bool = False,
    name: str = "blobs",
    taxonomy: Taxonomy = TAXONOMY,
    smaller: tuple[tuple[int, int], ...] = (),
) -> Path:
    """A whole bundle; a folder unless `path` ends in .edgekit. `smaller` are (height, width) of further inputs."""

    def network(height: int, width: int) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        if any(variant.model == OPENVINO.model for variant in variants):
            files |= openvino_files(height, width, depth=depth)
        if any(variant.model == ONNXRUNTIME.model for variant in variants):
            files |= onnx_files(height, width, fragile=fragile)
        return files

    files, further = network(height, width), []
    for size in smaller:
        folder = "{1}x{0}".format(*size)
        files |= {f"{folder}/{file}": data for file, data in network(*size).items()}
        further.append(
            Smaller(
                (1, *size, 3),
                ((1, size[0] // STRIDE, size[1] // STRIDE), *([(1, *size)] if depth else [])),
                tuple(replace(variant, model=f"{folder}/{variant.model}") for variant in variants),
            )
        )
    manifest = manifest_for(files, variants, height, width, depth=depth, name=name, taxonomy=taxonomy)
    write = write_zip if path.suffix == ".edgekit" else write_folder
    return write(path, files, replace(manifest, smaller=tuple(further)).to_json())
