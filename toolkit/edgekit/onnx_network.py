"""A network in an ONNX file with its signature: read, checked, and what it says itself of a picture."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.deployable import Size
from edgekit.model_signature import ModelSignature
from edgekit.operations import STANDARD, named, refusal, unknown_operations
from edgekit_experts.dataset.names import plain_name
from edgekit_runtime.errors import BuildError
from edgekit_runtime.modality import Modality

if TYPE_CHECKING:
    import onnx

# What the deploy graph adds to a network means the same in all opsets from here on.
OLDEST_OPSET = 11
# What a network may take, by ONNX Runtime's names.
_INPUTS = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(uint8)": np.uint8}


@dataclass(frozen=True)
class Answer:
    """`values` `(1, C, h, w)`; `channels_last` says that the network itself has them as `(1, h, w, C)`."""

    values: npt.NDArray[Any]
    channels_last: bool


@dataclass(frozen=True)
class OnnxNetwork:
    """`model` (an `onnx.ModelProto`) takes `input_name`, one picture in the layout of the signature.

    `fixed_size` is (height, width) where the file takes no other; `outputs` are those of the network that are wanted,
    by name, and what they mean, by the names that they have in a bundle.
    """

    name: str
    model: onnx.ModelProto = field(repr=False)
    signature: ModelSignature
    input_name: str
    fixed_size: Size | None
    outputs: Mapping[str, tuple[str, Modality]]
    provenance: Mapping[str, Any]
    doubts: tuple[str, ...] = ()

    @property
    def input_size(self) -> Size | None:
        """What the network is made for, None where it takes any size."""
        return self.fixed_size or self.signature.input.size

    def prepared(self, image: npt.NDArray[np.uint8], size: Size) -> npt.NDArray[np.float32]:
        """What the network takes, of uint8 BGR `(H, W, 3)`: at `size`, normalised, in its layout."""
        picture: npt.NDArray[np.float32] = image.astype(np.float32)
        if image.shape[:2] != size:
            picture = np.asarray(cv2.resize(picture, size[::-1], interpolation=cv2.INTER_LINEAR), np.float32)
        declared = self.signature.input
        if declared.colour == "rgb":
            picture = picture[..., ::-1]
        mean, std = (np.array(values, np.float32) for values in (declared.mean, declared.std))
        picture = np.asarray((picture - mean) / std, np.float32)
        return np.ascontiguousarray(picture if declared.layout == "nhwc" else picture.transpose(2, 0, 1))[None]

    def said(self, image: npt.NDArray[np.uint8], size: Size) -> dict[str, Answer]:
        """The outputs by the names that they have in a bundle, as ONNX Runtime computes the file as it is.

        Raises BuildError where it cannot, and where they are not what the signature says.
        """
        names = [name for name, _ in self.outputs.values()]
        with named(self.name, "ONNX Runtime"):
            dtype = _INPUTS[self._session.get_inputs()[0].type]
            values = self._session.run(names, {self.input_name: self.prepared(image, size).astype(dtype)})
        return {name: self._answer(name, np.asarray(value)) for name, value in zip(self.outputs, values, strict=True)}

    def _answer(self, name: str, value: npt.NDArray[Any]) -> Answer:
        output, modality = self.outputs[name]
        shape = value.shape
        last = value.ndim == 4 and shape[1] != modality.features and shape[3] in (1, modality.features)
        planar = value.transpose(0, 3, 1, 2) if last else value
        if value.ndim == 2:
            planar = value[None, None]
        elif value.ndim == 3:
            planar = value[:, None]
        if planar.ndim == 4 and planar.shape[0] == 1 and planar.shape[1] in (1, modality.features):
            return Answer(planar, last)
        wanted = f"{modality.features} classes, or class ids" if modality.taxonomy else "one channel"
        raise BuildError(
            f"{self.name}: its output {output!r} is {list(shape)} where {name} should have {wanted}.",
            hint=f"Name the right output or {'taxonomy' if modality.taxonomy else 'kind'} in the signature.",
        )

    @cached_property
    def _session(self) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        return onnxruntime.InferenceSession(self.model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def read_onnx(path: Path, signature: ModelSignature) -> OnnxNetwork:
    """Raises BuildError: no such file, damaged, with operations that nobody knows, or not as its signature says."""
    import onnx

    try:
        model = onnx.load(str(path))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise BuildError(f"There is no network at {path}.", hint="Check the path given with --model.") from error
    except Exception as error:  # protobuf's errors and those of external weights share no base class
        raise BuildError(f"{path} cannot be read as ONNX: it is damaged, or something else.") from error
    if strange := unknown_operations(model):
        raise refusal(str(path), "ONNX", strange)
    try:
        onnx.checker.check_model(model)
        model = _recent(model)
    except Exception as error:  # the checker's and the converter's errors share no base class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BuildError(f"{path} is no valid ONNX network: {lines[0]}") from error
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    if len(inputs) != 1:
        raise BuildError(f"{path} has {len(inputs)} inputs; one picture is what it would get.")
    kind = inputs[0].type.tensor_type.elem_type
    if kind not in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.UINT8):
        named_kind = onnx.TensorProto.DataType.Name(kind).lower()
        raise BuildError(f"{path} takes {named_kind}; pictures are float, float16 or uint8.")
    return OnnxNetwork(
        name=plain_name(path.stem),
        model=model,
        signature=signature,
        input_name=inputs[0].name,
        fixed_size=_fixed_size(path, inputs[0], signature),
        outputs=_wanted(path, [value.name for value in model.graph.output], signature),
        provenance={"model": path.name, "checkpoint": {path.name: digest}, "signature": signature.told()},
    )


def _recent(model: Any) -> Any:
    """The model in an opset that the deploy graph can be made of."""
    import onnx

    opset = next((entry.version for entry in model.opset_import if entry.domain in STANDARD), 1)
    return model if opset >= OLDEST_OPSET else onnx.version_converter.convert_version(model, OLDEST_OPSET)


def _fixed_size(path: Path, value: Any, signature: ModelSignature) -> Size | None:
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]  # 0 where it is open
    declared = signature.input
    places = {"nchw": (1, 2, 3), "nhwc": (3, 1, 2)}[declared.layout]
    if len(shape) != 4 or shape[0] > 1 or shape[places[0]] not in (0, 3):
        raise BuildError(
            f"{path}: the input {value.name!r} is {shape}, no picture of three channels in the layout "
            f"{declared.layout}.",
            hint="Say layout under [input] of the signature.",
        )
    height, width = shape[places[1]], shape[places[2]]
    if not height or not width:
        return None
    if declared.size not in (None, (height, width)):
        raise BuildError(
            f"{path} takes pictures of {width}x{height} only.", hint="Leave size out of the signature and --size."
        )
    return height, width


def _wanted(path: Path, there: list[str], signature: ModelSignature) -> dict[str, tuple[str, Modality]]:
    found = {}
    for name, (output, modality) in signature.outputs.items():
        given = there[output] if isinstance(output, int) and output < len(there) else output
        if given not in there:
            raise BuildError(f"{path} has no output {output!r}.", hint=f"It has: {', '.join(there)}.")
        found[name] = str(given), modality
    return found
