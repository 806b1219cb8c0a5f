"""An ONNX network as deploy graph: what is done to its picture and to its answers becomes a part of the file.

The operations that are added mean the same in every opset from `OLDEST_OPSET` on, so that the network keeps its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.deployable import Size
from edgekit.export import INPUT, Arrays, rounded_up, strip, working_size
from edgekit.model_signature import DepthSignature
from edgekit.onnx_front import LINEAR, Nodes, prepare
from edgekit.onnx_network import Answer, OnnxNetwork
from edgekit.operations import named
from edgekit.profiles import Profile
from edgekit_runtime.manifest import TensorSpec
from edgekit_runtime.modality import Taxonomy

if TYPE_CHECKING:
    import onnx

# Names of the network's own tensors begin so: `image`, `labels` and `depth` are the deploy graph's.
_OWN = "network/"
# Sides of frames for networks that take any size: what nearly every network halves without a rest.
_MULTIPLE = 32


@dataclass(frozen=True)
class OnnxExporter:
    """The deploy graph of one ONNX network for one profile, in the forms that engines read: see `export.Exporter`."""

    source: OnnxNetwork
    profile: Profile

    @property
    def original(self) -> str:
        return "ONNX Runtime"

    @property
    def for_gpus(self) -> OnnxExporter:
        return self

    @property
    def fine_tuning(self) -> None:
        """Files of others have no weights that PyTorch could train."""

    def fine_tuned(self, frames: object) -> None:
        """None: see `fine_tuning`."""

    @property
    def input_size(self) -> Size:
        """(height, width) of the frames that the graph takes."""
        if self.profile.network_size != "student":
            return self.profile.input_size
        return self.source.input_size or rounded_up(self.profile.input_size, _MULTIPLE)

    def at(self, size: Size) -> OnnxExporter | None:
        """The same for frames of that size, rounded up; None where the file takes no other."""
        if self.source.fixed_size:
            return None
        return replace(self, profile=self.profile.at(rounded_up(size, _MULTIPLE)))

    @property
    def network_size(self) -> Size:
        """(height, width) that the network itself works at; the graph resizes when it is not `input_size`.

        Raises BuildError where the profile wants another size than the only one that the network takes.
        """
        return working_size(self.source.name, self.profile, self.input_size, self.source.fixed_size)

    @property
    def input(self) -> TensorSpec:
        return TensorSpec(INPUT, (1, *self.input_size, 3), "uint8")

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The classes of the labels that come out, if any do."""
        return next((each.taxonomy for _, each in self.source.outputs.values() if each.taxonomy), None)

    @cached_property
    def outputs(self) -> tuple[TensorSpec, ...]:
        def spec(name: str) -> TensorSpec:
            (_, _, height, width), up = self._black[name].values.shape, self._up(name)
            dtype = "uint8" if name == "labels" else "float32"
            return TensorSpec(name, (1, height * up, width * up), dtype, self.source.outputs[name][1])

        return tuple(map(spec, self.source.outputs))

    def reference(self, image: npt.NDArray[np.uint8]) -> Arrays:
        """What the file says, as it is, of uint8 BGR `(H, W, 3)` that NumPy prepares: the graph's outputs by name,
        uint8 and float32 `(h, w)`.
        """
        said = self.source.said(image, self.network_size)
        return {spec.name: self._read(spec, said[spec.name].values) for spec in self.outputs}

    def openvino(self) -> Any:
        """A fresh `openvino.Model` in float32. Raises BuildError that names what OpenVINO does not know."""
        from edgekit_runtime.engines import switch_off

        switch_off()
        import openvino

        with named(self.source.name, "OpenVINO"):
            return openvino.Core().read_model(self.onnx().SerializeToString())

    def onnx(self) -> onnx.ModelProto:
        """A fresh `onnx.ModelProto` in float32, in the opset of the network."""
        from onnx import compose, helper

        model = compose.add_prefix(self.source.model, _OWN)
        graph = model.graph
        picture = f"{_OWN}{self.source.input_name}"
        front = prepare(model, picture, self.source.signature.input, self.input_size, self.network_size)
        back = Nodes("back/")
        for spec in self.outputs:
            self._finish(back, spec, f"{_OWN}{self.source.outputs[spec.name][0]}")
        nodes = [*front.nodes, *graph.node, *back.nodes]
        inputs = [value for value in graph.input if value.name != picture]  # old files list their weights there, too
        for part in (graph.node, graph.input, graph.output):
            del part[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*front.constants, *back.constants])
        for spec, to in ((self.input, graph.input), *((spec, graph.output) for spec in self.outputs)):
            kind = helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype))
            to.append(helper.make_tensor_value_info(spec.name, kind, spec.shape))
        graph.input.extend(inputs)
        strip(model)
        return model

    @property
    def _depth(self) -> DepthSignature:
        declared = self.source.signature.depth
        assert declared is not None
        return declared

    @cached_property
    def _black(self) -> dict[str, Answer]:
        """What the network answers to a black picture: only an inference tells the shapes."""
        return self.source.said(np.zeros((*self.input_size, 3), np.uint8), self.network_size)

    def _are_logits(self, name: str) -> bool:
        return name == "labels" and self._black[name].values.shape[1] > 1

    def _up(self, name: str) -> int:
        """By how much logits are enlarged."""
        stride = round(self.network_size[0] / self._black[name].values.shape[2])
        return max(1, stride // self.profile.label_stride) if self._are_logits(name) else 1

    def _read(self, spec: TensorSpec, value: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The arithmetic of `_finish`, in NumPy."""
        height, width = spec.shape[1:]
        if spec.name == "depth":
            declared = self._depth
            depth = value.reshape(height, width).astype(np.float32) * declared.scale + declared.offset
            return np.asarray(np.clip(depth, *declared.range) if declared.range else depth, np.float32)
        if not self._are_logits(spec.name):
            return value.reshape(height, width).astype(np.uint8)
        logits = list(value[0].astype(np.float32))
        if logits[0].shape != (height, width):
            logits = [cv2.resize(each, (width, height), interpolation=cv2.INTER_LINEAR) for each in logits]
        return np.asarray(np.stack(logits).argmax(axis=0), np.uint8)

    def _finish(self, back: Nodes, spec: TensorSpec, answer: str) -> None:
        """From what the network answers to an output of the deploy graph."""
        from onnx import TensorProto

        shape = back.constant(np.array(spec.shape, np.int64))
        if spec.name == "depth":
            values = back.add("Cast", [back.add("Reshape", [answer, shape])], to=TensorProto.FLOAT)
            back.add("Identity", [self._in_unit(back, values)], spec.name)
            return
        if self._are_logits(spec.name):
            said = self._black[spec.name]
            classes = said.values.shape[1]
            if said.channels_last:
                answer = back.add("Transpose", [answer], perm=[0, 3, 1, 2])
            if self._up(spec.name) > 1:
                size = back.constant(np.array([1, classes, *spec.shape[1:]], np.int64))
                answer = back.add("Resize", [answer, "", "", size], **LINEAR)
            # ArgMax is far faster over a flattened tensor: see `export`.
            flat = back.add("Reshape", [answer, back.constant(np.array([1, classes, -1], np.int64))])
            answer = back.add("ArgMax", [flat], axis=1, keepdims=0)
        back.add("Reshape", [back.add("Cast", [answer], to=TensorProto.UINT8), shape], spec.name)

    def _in_unit(self, back: Nodes, values: str) -> str:
        declared = self._depth
        for operation, number, neutral in (("Mul", declared.scale, 1.0), ("Add", declared.offset, 0.0)):
            if number != neutral:
                values = back.add(operation, [values, back.constant(np.array(number, np.float32))])
        if declared.range:
            values = back.add("Clip", [values, *(back.constant(np.array(each, np.float32)) for each in declared.range)])
        return values
