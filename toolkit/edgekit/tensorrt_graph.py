"""The ONNX graph as TensorRT wants it, made of the one that every other engine reads.

What its parser and builder ask for, found out with TensorRT for RTX 1.7:

- Bytes are for inputs and outputs only. They become floats before anything else is done to them, and ids become bytes
  in the very last step (`bytes_at_the_ends`).
- Q/DQ pairs are signed, with zero at zero (`signed_pairs`), and there is no int32 DequantizeLinear at a bias, which
  ONNX Runtime's quantiser writes and the parser refuses.
- Networks are strongly typed there and from TensorRT 11 on: half precision is in the graph (`halve`), no flag asks
  for it.
- ArgMax becomes a TopK layer, which sorts: for class maps it is known to take longer than the network before it
  (onnx-tensorrt issues 669 and 671: 50 ms for 45 classes at 1920x1080). Two reductions and a comparison say the same
  (`argmax_by_reduction`); they read the logits twice. Without a GPU neither could be timed here. TensorRT 8 and 10 on
  Jetson keep ArgMax: without strong types they may compute the two sides of the comparison in two precisions, and
  then no class would be the greatest.

All functions change the model in place.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from edgekit_runtime.errors import BuildError

# TensorRT 8.5, of JetPack 5, reads up to 17; half precision scales of Q/DQ pairs need 19.
JETSON_OPSET = 17
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceL1", "ReduceL2", "ReduceProd")
# Attributes that came later, at whose defaults the operators do what they did before.
_NEWER = {("Resize", "antialias"), ("Resize", "keep_aspect_ratio_policy"), ("Cast", "saturate")}
_NEWER |= {(kind, "noop_with_empty_axes") for kind in _REDUCTIONS}


def bytes_at_the_ends(model: Any) -> None:
    """Casts the picture first and the class ids last; what was done to bytes in between is done to floats and int32."""
    from onnx import TensorProto, helper

    graph = model.graph
    image = graph.input[0].name
    floats = f"{image}_float"
    _bytes_as_floats(graph, image, floats)
    graph.node.insert(0, helper.make_node("Cast", [image], [floats], to=TensorProto.FLOAT))
    for output in graph.output:
        if output.type.tensor_type.elem_type != TensorProto.UINT8:
            continue
        ids = f"{output.name}_int32"
        cast = _cast_before(graph, output.name)
        cast.attribute[0].i = TensorProto.INT32
        _rename(graph, output.name, ids)
        graph.node.append(helper.make_node("Cast", [ids], [output.name], to=TensorProto.UINT8))


def _bytes_as_floats(graph: Any, image: str, floats: str) -> None:
    """Follows the bytes to where they are converted, and takes that conversion out."""
    from onnx import TensorProto, numpy_helper

    constants = {constant.name: constant for constant in graph.initializer}
    as_bytes = {image}
    for node in list(graph.node):
        if not as_bytes & set(node.input):
            continue
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            for reader in graph.node:
                _replace(reader.input, node.output[0], floats if node.input[0] == image else node.input[0])
            graph.node.remove(node)
            continue
        as_bytes |= set(node.output)
        for name in node.input:
            if name in constants and constants[name].data_type == TensorProto.UINT8:
                values = numpy_helper.to_array(constants[name]).astype(np.float32)
                constants[name].CopyFrom(numpy_helper.from_array(values, name))
        _replace(node.input, image, floats)


def _cast_before(graph: Any, output: str) -> Any:
    """The conversion to bytes that an output comes from, with nothing but changes of shape between."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers[output]
    while node.op_type != "Cast":
        node = makers[node.input[0]]
    return node


def argmax_by_reduction(model: Any) -> None:
    """Replaces every ArgMax over axis 1: the lowest index among the channels that are as great as the greatest.

    Those of which shape inference does not know the number of channels stay.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    dimensions = _shapes(model)
    opset = next(entry.version for entry in model.opset_import if entry.domain == "")
    for position, node in reversed(list(enumerate(graph.node))):
        if node.op_type != "ArgMax" or _attribute(node, "axis", 0) != 1:
            continue
        logits, name = node.input[0], node.output[0]
        shape = dimensions.get(logits, ())
        if len(shape) < 2 or not shape[1]:
            continue
        classes, keeps = shape[1], _attribute(node, "keepdims", 1)
        numbers = np.arange(classes, dtype=np.float32).reshape(1, classes, *[1] * (len(shape) - 2))
        # Numbers of classes are exact in half precision up to 2048.
        constants = {"numbers": numbers, "beyond": np.float32(classes)}
        axis: dict[str, Any] = {"axes": [1]}
        if opset >= 18:  # from there on axes of reductions are an input
            constants["axis"], axis = np.array([1], np.int64), {}
        over = [f"{name}_axis"] if not axis else []
        graph.initializer.extend(numpy_helper.from_array(np.asarray(v), f"{name}_{k}") for k, v in constants.items())
        steps = [
            helper.make_node("ReduceMax", [logits, *over], [f"{name}_max"], keepdims=1, **axis),
            helper.make_node("Equal", [logits, f"{name}_max"], [f"{name}_is"]),
            helper.make_node("Where", [f"{name}_is", f"{name}_numbers", f"{name}_beyond"], [f"{name}_at"]),
            helper.make_node("ReduceMin", [f"{name}_at", *over], [f"{name}_first"], keepdims=keeps, **axis),
            helper.make_node("Cast", [f"{name}_first"], [name], to=TensorProto.INT64),
        ]
        graph.node.remove(node)
        for step in reversed(steps):
            graph.node.insert(position, step)


def halve(model: Any) -> None:
    """Makes every float32 in the graph a float16, but what comes out of it and the factors by which it resizes."""
    from onnx import TensorProto, helper, numpy_helper

    graph = model.graph
    kept = {name for node in graph.node if node.op_type == "Resize" for name in node.input[1:] if name}
    tensors = [constant for constant in graph.initializer if constant.name not in kept]
    tensors += [node.attribute[0].t for node in graph.node if node.op_type == "Constant" and node.output[0] not in kept]
    for tensor in tensors:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            finite = np.clip(values, np.finfo(np.float16).min, np.finfo(np.float16).max)
            tensor.CopyFrom(numpy_helper.from_array(finite.astype(np.float16), tensor.name))
    for node in graph.node:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.FLOAT:
            node.attribute[0].i = TensorProto.FLOAT16
    for output in graph.output:
        if output.type.tensor_type.elem_type == TensorProto.FLOAT:
            _rename(graph, output.name, f"{output.name}_half")
            graph.node.append(helper.make_node("Cast", [f"{output.name}_half"], [output.name], to=TensorProto.FLOAT))


def signed_pairs(model: Any) -> None:
    """Makes the Q/DQ pairs of what is never negative, which NNCF writes as 0 to 255, signed ones of the same range.

    Half of their steps are lost: TensorRT computes with signed bytes only. Raises BuildError for a zero elsewhere.
    """
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    scales = {}
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and len(node.input) > 2:
            zero = constants[node.input[2]]
            values = numpy_helper.to_array(zero)
            if values.any():
                raise BuildError(f"{node.name} is quantised asymmetrically, which TensorRT cannot compute with")
            if values.dtype == np.uint8:
                scales[node.input[1]] = node.input[2]
    for scale, zero in scales.items():
        wider = numpy_helper.to_array(constants[scale]) * np.float32(255 / 127)
        constants[scale].CopyFrom(numpy_helper.from_array(wider.astype(np.float32), scale))
        signed = numpy_helper.to_array(constants[zero]).astype(np.int8)
        constants[zero].CopyFrom(numpy_helper.from_array(signed, zero))
    del model.graph.value_info[:]  # the types noted there are those of before


def lower_opset(model: Any) -> bool:
    """Writes the graph in opset `JETSON_OPSET`, where all of its operators can be; says whether they could.

    What changed between that and ours, for operators that networks are made of: axes of reductions were attributes,
    and resizing had fewer of them. onnx's own converter knows too few operators.
    """
    import onnx
    from onnx import helper, numpy_helper

    older = copy.deepcopy(model)
    constants = {constant.name: constant for constant in older.graph.initializer}
    for node in older.graph.node:
        if node.op_type in _REDUCTIONS and len(node.input) == 2 and node.input[1] in constants:
            axes = numpy_helper.to_array(constants[node.input[1]])
            del node.input[1]
            node.attribute.append(helper.make_attribute("axes", axes.tolist()))
        for attribute in [a for a in node.attribute if (node.op_type, a.name) in _NEWER]:
            if attribute.i or attribute.s not in (b"", b"stretch"):
                return False
            node.attribute.remove(attribute)
    for entry in older.opset_import:
        if entry.domain == "":
            entry.version = JETSON_OPSET
    try:
        onnx.checker.check_model(older, full_check=True)
    except Exception:  # of several kinds, all of which mean the same here
        return False
    model.CopyFrom(older)
    return True


def _shapes(model: Any) -> dict[str, tuple[int, ...]]:
    from onnx import shape_inference

    found = shape_inference.infer_shapes(model).graph
    return {
        value.name: tuple(side.dim_value for side in value.type.tensor_type.shape.dim)
        for value in (*found.input, *found.value_info, *found.output)
    }


def _attribute(node: Any, name: str, default: int) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == name), default)


def _replace(names: Any, old: str, new: str) -> None:
    for position, name in enumerate(names):
        if name == old:
            names[position] = new


def _rename(graph: Any, old: str, new: str) -> None:
    for node in graph.node:
        _replace(node.input, old, new)
        _replace(node.output, old, new)
