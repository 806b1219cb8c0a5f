"""Any network in a file, with its pre- and post-processing declared."""

from __future__ import annotations

import hashlib
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Batch, Expert
from edgekit_experts.learned.compiled import Compiled, Precision, read_network
from edgekit_experts.taxonomies import find_taxonomy
from edgekit_experts.validation import size_of
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_KINDS = ("depth", "edges", "image", "labels", "mask", "normals", "flow")
_ACTIVATIONS = ("", "sigmoid")
_COUNTED = (Kind.IMAGE, Kind.NORMALS, Kind.FLOW)  # kinds that mean nothing with another number of channels
_STORED = {"depth": "float16", "normals": "float16", "flow": "float16"}


class Model(Expert):
    """What an ONNX, OpenVINO or TFLite file says about a frame, in the kind of modality that `kind` names.

    In: the RGB frame (`colour = "bgr"` turns it round), brought to the network's size (`size` = "WIDTHxHEIGHT"
    where the file leaves it open), as (x - `mean`) / `std` per channel, x from 0 to 255, in the layout that the
    file has. Out: the output number `output`, through `activation` ("" or "sigmoid"), times `scale` plus `offset`,
    brought back to the size of the frame, stored as

    - depth: float16 in `unit`, such as "m" or "relative inverse depth";
    - edges: uint8, 255 where the value is 1; mask: 1 where it is above 0.5;
    - image: uint8, the value, of the first `channels`;
    - normals: float16, made unit length; flow: float16 pixels of the frame;
    - labels: uint8, the class with the largest value (or the value itself, where the network has one channel of
      class ids), in `taxonomy` (a name or a file).

    Runs compiled by OpenVINO; `precision` is "f32" or "bf16".
    """

    deterministic = False
    makes = "any"
    weights_from = "your file"
    example: ClassVar[Mapping[str, Any]] = {"path": "net.onnx", "kind": "depth"}

    def __init__(
        self,
        path: str,
        kind: str,
        size: str | Sequence[int] = (),
        mean: Sequence[float] = (0.0, 0.0, 0.0),
        std: Sequence[float] = (255.0, 255.0, 255.0),
        colour: Literal["rgb", "bgr"] = "rgb",
        output: int = 0,
        activation: str = "",
        scale: float = 1.0,
        offset: float = 0.0,
        unit: str = "",
        channels: int = 3,
        taxonomy: str = "",
        precision: Precision = "f32",
    ) -> None:
        for what, value, known in (
            ("kind", kind, _KINDS),
            ("activation", activation, _ACTIVATIONS),
            ("colour", colour, ("rgb", "bgr")),
            ("precision", precision, ("f32", "bf16")),
        ):
            if value not in known:
                raise ExpertError(f"model: {what} {value!r} is unknown.", hint=closest(value, known))
        if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
            raise ExpertError("model: mean and std are three numbers each, those of std above 0.")
        if (kind == "labels") != bool(taxonomy):
            raise ExpertError("model: labels, and only labels, need a taxonomy.", hint='taxonomy = "cityscapes"')
        try:
            height_width: Any = size_of(size)
        except ValueError as error:
            raise ExpertError(f"model: size = {size!r}: {error}.") from error
        if height_width and (len(height_width) != 2 or min(height_width) < 1):
            raise ExpertError(f"model: {size!r} is no size.", hint='Write "WIDTHxHEIGHT".')
        self._path = Path(path).expanduser()
        self._kind, self._size, self._colour = Kind(kind), tuple(int(side) for side in height_width), colour
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self._output, self._activation = output, activation
        self._scale, self._offset, self._unit = scale, offset, unit
        self._taxonomy = find_taxonomy(taxonomy) if taxonomy else None
        self._channels = channels
        self._precision = precision
        self._network: Compiled | None = None
        self._lock = threading.Lock()
        self._planar = True

    @property
    def identity(self) -> str:
        return hashlib.sha256(self._path.read_bytes()).hexdigest()[:16]

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        model = read_network(self._path)
        if len(model.inputs) != 1 or not -1 < self._output < len(model.outputs):
            raise ExpertError(
                f"{self._path} cannot be used: it has {len(model.inputs)} input(s), where one is needed, outputs 0 to "
                f"{len(model.outputs) - 1}, where output number {self._output} is asked for."
            )
        channels = {Kind.NORMALS: 3, Kind.FLOW: 2, Kind.IMAGE: self._channels}.get(self._kind, 1)
        given = self._answered_channels(model)
        if given and self._kind in _COUNTED and given != channels:
            raise ExpertError(
                f"{self._path} answers with {given} channel(s); {self._kind.value} has {channels}.",
                hint="Say what it makes: kind, and for images channels.",
            )
        limits = {Kind.EDGES: (0, 255), Kind.MASK: (0, 1), Kind.IMAGE: (0, 255), Kind.NORMALS: (-1, 1)}.get(self._kind)
        unit = "px" if self._kind is Kind.FLOW else self._unit
        dtype = _STORED.get(self._kind.value, "uint8")
        return Modality(self._path.stem, self._kind, channels, dtype, limits, unit, self._taxonomy)

    def _answered_channels(self, model: Any) -> int:
        """Of the output that is asked for; 0 where only an inference tells."""
        if model.inputs[0].partial_shape.is_dynamic or model.outputs[self._output].partial_shape.is_dynamic:
            return 0
        _, size = self._input_form(model)
        answer = np.zeros(tuple(model.outputs[self._output].shape), np.uint8)
        return int(_picture(answer, size).shape[2])

    def compute(self, batch: Batch) -> Array:
        network = self._compiled()
        return np.stack([self._one(network, frame) for frame in batch.frames])

    def _compiled(self) -> Compiled:
        with self._lock:
            if self._network is None:
                model = read_network(self._path)
                self._planar, self._size = self._input_form(model)
                shape = (1, 3, *self._size) if self._planar else (1, *self._size, 3)
                if model.inputs[0].partial_shape.is_dynamic:
                    model.reshape(list(shape))
                self._network = Compiled(model, self._precision)
            return self._network

    def _input_form(self, model: Any) -> tuple[bool, tuple[int, ...]]:
        """Whether channels come first, and (height, width)."""
        shape = [-1 if side.is_dynamic else side.get_length() for side in model.inputs[0].partial_shape]
        if len(shape) != 4 or 3 not in (shape[1], shape[3]):
            raise ExpertError(f"{self._path}: the input {shape} is no picture of three channels.")
        planar = shape[1] == 3
        own = tuple(shape[2:] if planar else shape[1:3])
        size = tuple(asked if side < 0 else side for asked, side in zip(self._size or own, own, strict=True))
        if min(size) < 1:
            raise ExpertError(f"{self._path} takes pictures of any size.", hint='Say which: size = "WIDTHxHEIGHT".')
        if self._size and size != self._size:
            raise ExpertError(f"{self._path} takes pictures of {size[1]}x{size[0]} only.", hint="Leave size out.")
        return planar, size

    def _one(self, network: Compiled, frame: Array) -> Array:
        height, width = frame.shape[:2]
        picture = cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_AREA)
        if self._colour == "bgr":
            picture = picture[..., ::-1]
        values = (picture.astype(np.float32) - self._mean) / self._std
        tensor = np.ascontiguousarray(values.transpose(2, 0, 1) if self._planar else values)[None]
        answer = _picture(network(tensor)[self._output].astype(np.float32), self._size)
        if self._activation == "sigmoid":
            answer = 1 / (1 + np.exp(-answer))
        answer = answer * np.float32(self._scale) + np.float32(self._offset)
        return self._stored(answer, (height, width))

    def _stored(self, answer: Array, size: tuple[int, int]) -> Array:
        """`(h, w, C)` float32 as the modality has it, `(H, W, channels)`."""
        if self._kind is Kind.LABELS and answer.shape[2] == 1:
            return _resized(answer, size, cv2.INTER_NEAREST).astype(np.uint8)
        grown = _resized(answer, size, cv2.INTER_LINEAR)
        if self._kind is Kind.LABELS:
            return np.asarray(grown.argmax(axis=2)[..., None], np.uint8)
        if self._kind is Kind.EDGES:
            return np.asarray(np.clip(255 * grown[..., :1], 0, 255), np.uint8)
        if self._kind is Kind.MASK:
            return np.asarray(grown[..., :1] > 0.5, np.uint8)
        if self._kind is Kind.NORMALS:
            length = np.linalg.norm(grown[..., :3], axis=2, keepdims=True)
            return np.asarray(grown[..., :3] / np.maximum(length, 1e-6), np.float16)
        if self._kind is Kind.FLOW:
            step = np.array([size[1] / answer.shape[1], size[0] / answer.shape[0]], np.float32)
            return np.asarray(grown[..., :2] * step, np.float16)
        if self._kind is Kind.DEPTH:
            return np.asarray(np.clip(grown[..., :1], -65504, 65504), np.float16)
        return np.asarray(np.clip(grown[..., : self._channels], 0, 255), np.uint8)


def _picture(answer: Array, size: tuple[int, ...]) -> Array:
    """`(h, w, C)` from whatever a network answers for one picture: with or without batch, channels first or last."""
    answer = answer[0] if answer.ndim == 4 or (answer.ndim == 3 and answer.shape[0] == 1) else answer
    if answer.ndim == 2:
        return answer[..., None]
    if answer.ndim != 3:
        raise ExpertError(f"The network's answer of shape {answer.shape} is no picture.")
    ratio = size[1] / size[0]

    def unlike(height: int, width: int) -> float:
        return abs(math.log(width / height / ratio))

    # The layout in which the picture has more nearly the shape of the one that went in.
    first, last = unlike(*answer.shape[1:]), unlike(*answer.shape[:2])
    return np.ascontiguousarray(answer.transpose(1, 2, 0)) if first <= last else answer


def _resized(picture: Array, size: tuple[int, int], interpolation: int) -> Array:
    if picture.shape[:2] == size:
        return picture
    height, width = size
    parts = [
        cv2.resize(np.ascontiguousarray(picture[..., c : c + 4]), (width, height), interpolation=interpolation)
        for c in range(0, picture.shape[2], 4)
    ]
    return np.concatenate([part.reshape(height, width, -1) for part in parts], axis=2)
