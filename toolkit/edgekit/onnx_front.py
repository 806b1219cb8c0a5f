"""From the camera's bytes to what an ONNX network takes, as nodes of its own graph."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgekit.deployable import Size
from edgekit.export import INPUT
from edgekit.model_signature import InputSignature
from edgekit.operations import nodes

if TYPE_CHECKING:
    import onnx

LINEAR = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}


class Nodes:
    """Nodes and constants that are added to a graph, in their order; their tensors are called `<prefix><number>`."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._count = 0
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operation: str, inputs: Sequence[str], output: str = "", **attributes: Any) -> str:
        """Appends a node; returns the name of its output, a new one where none is given."""
        from onnx import helper

        output = output or self._name()
        self.nodes.append(helper.make_node(operation, inputs, [output], name=output, **attributes))
        return output

    def constant(self, values: npt.NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def _name(self) -> str:
        self._count += 1
        return f"{self._prefix}{self._count}"


def prepare(model: onnx.ModelProto, picture: str, declared: InputSignature, frame: Size, network: Size) -> Nodes:
    """Nodes from `INPUT`, uint8 BGR `[1, H, W, 3]` of the size `frame`, to the network's input `picture`.

    Where a plain convolution is all that reads the picture, it gets the normalisation into its weights, in place.
    """
    from onnx import TensorProto

    front = Nodes("front/")
    border = _fold(model, picture, declared) if frame == network else None
    image = _bordered(front, border, declared, frame) if border else INPUT
    values = front.add("Cast", [front.add("Transpose", [image], perm=[0, 3, 1, 2])], to=TensorProto.FLOAT)
    if border is None:
        values = _normalised(front, values, declared, None if frame == network else network)
    if declared.layout == "nhwc":
        values = front.add("Transpose", [values], perm=[0, 2, 3, 1])
    kind = next(value.type.tensor_type.elem_type for value in model.graph.input if value.name == picture)
    front.add("Cast", [values], picture, to=kind)
    return front


def _normalised(front: Nodes, values: str, declared: InputSignature, size: Size | None) -> str:
    """Size, order of the channels and normalisation as operations of their own: always right."""
    if size:
        values = front.add("Resize", [values, "", "", front.constant(np.array([1, 3, *size], np.int64))], **LINEAR)
    if declared.colour == "rgb":
        values = front.add("Gather", [values, front.constant(np.array([2, 1, 0], np.int64))], axis=1)
    mean = front.constant(np.array(declared.mean, np.float32).reshape(1, 3, 1, 1))
    scale = front.constant(1 / np.array(declared.std, np.float32).reshape(1, 3, 1, 1))
    return front.add("Mul", [front.add("Sub", [values, mean]), scale])


def _fold(model: onnx.ModelProto, picture: str, declared: InputSignature) -> tuple[int, int, int, int] | None:
    """Gives the first convolution weights for bytes in BGR order and takes its padding away; returns that padding (top,
    left, bottom, right). None, and nothing changed, where something else reads the picture, too.
    """
    from onnx import helper, numpy_helper

    readers = [node for node in nodes(model.graph) if picture in node.input]
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    if len(readers) != 1 or readers[0].op_type != "Conv" or not set(readers[0].input[1:]) <= constants.keys():
        return None
    first = readers[0]
    told = {attribute.name: helper.get_attribute_value(attribute) for attribute in first.attribute}
    weight, *rest = (numpy_helper.to_array(constants[name]) for name in first.input[1:])
    plain = told.get("group", 1) == 1 and told.get("auto_pad", b"NOTSET") == b"NOTSET"
    if (
        not plain
        or declared.layout != "nchw"
        or weight.dtype != np.float32
        or not all(0 <= m <= 255 for m in declared.mean)
    ):
        return None
    scaled = weight / np.array(declared.std, np.float32).reshape(1, 3, 1, 1)
    bias = rest[0] if rest else np.zeros(len(weight), np.float32)
    bias = bias - (scaled * np.array(declared.mean, np.float32).reshape(1, 3, 1, 1)).sum(axis=(1, 2, 3))
    folded = np.ascontiguousarray(scaled[:, ::-1] if declared.colour == "rgb" else scaled)
    names = "front/weight", "front/bias"
    model.graph.initializer.extend(map(numpy_helper.from_array, (folded, bias.astype(np.float32)), names))
    before = set(first.input[1:])
    first.input[:] = [picture, *names]
    _remove(first.attribute, {"pads"})
    _remove(model.graph.initializer, before - {name for node in nodes(model.graph) for name in node.input})
    top, left, bottom, right = told.get("pads", (0, 0, 0, 0))
    return top, left, bottom, right


def _remove(fields: Any, names: Collection[str]) -> None:
    """Of a repeated field of protobuf, those of these names."""
    kept = [field for field in fields if field.name not in names]
    del fields[:]
    fields.extend(kept)


def _bordered(front: Nodes, border: tuple[int, int, int, int], declared: InputSignature, frame: Size) -> str:
    """The picture with a border in the mean colour, which is what zero padding after the normalisation shows."""
    top, left, bottom, right = border
    height, width = frame
    mean = declared.mean[::-1] if declared.colour == "rgb" else declared.mean
    colour = np.array(mean).round().astype(np.uint8)

    def joined(image: str, before: int, after: int, axis: int, other: int) -> str:
        def strip(count: int) -> list[str]:
            shape = (1, count, other, 3) if axis == 1 else (1, other, count, 3)
            return [front.constant(np.broadcast_to(colour, shape))] if count else []

        parts = [*strip(before), image, *strip(after)]
        return front.add("Concat", parts, axis=axis) if len(parts) > 1 else image

    image = joined(INPUT, top, bottom, 1, width)
    return joined(image, left, right, 2, height + top + bottom)
