"""What a build asks of a network, whether it comes from PyTorch (`export`) or from an ONNX file (`stitch`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit.deployable import Size
from edgekit.fine_tune import FineTuning
from edgekit.profiles import Profile
from edgekit_runtime.manifest import TensorSpec
from edgekit_runtime.modality import Taxonomy


class Source(Protocol):
    """`provenance` goes into the manifest; `doubts` say in words what speaks against what the network has learnt."""

    @property
    def name(self) -> str: ...

    @property
    def provenance(self) -> Mapping[str, Any]: ...

    @property
    def doubts(self) -> tuple[str, ...]: ...


class Exportable(Protocol):
    """The deploy graph of one network for one profile, in the forms that engines read.

    `input_size` is that of the frames that it takes, `network_size` that at which the network works, (height, width)
    both; `original` is the library that `reference` asks.
    """

    @property
    def source(self) -> Source: ...

    @property
    def profile(self) -> Profile: ...

    @property
    def original(self) -> str: ...

    @property
    def input_size(self) -> Size: ...

    @property
    def network_size(self) -> Size: ...

    @property
    def input(self) -> TensorSpec: ...

    @property
    def outputs(self) -> tuple[TensorSpec, ...]: ...

    @property
    def taxonomy(self) -> Taxonomy | None: ...

    @property
    def for_gpus(self) -> Exportable:
        """The same, with what is done to the picture in the way that GPUs have fastest."""

    def at(self, size: Size) -> Exportable | None:
        """The same for frames of about that size, None where the network takes no other."""

    @property
    def fine_tuning(self) -> FineTuning | None:
        """What is wanted where INT8 loses too much; None where nothing is."""

    def fine_tuned(self, frames: Sequence[npt.NDArray[np.uint8]]) -> Exportable | None:
        """The same network with weights that lose less in INT8, learnt on uint8 BGR `(H, W, 3)` at `input_size` when
        first asked; None where that is not wanted.
        """

    def reference(self, image: npt.NDArray[np.uint8]) -> dict[str, npt.NDArray[Any]]:
        """What the network says without any of our graph, of uint8 BGR `(H, W, 3)` at `input_size`: the outputs by
        name, uint8 and float32 `(h, w)`.
        """

    def openvino(self) -> Any:
        """A fresh `openvino.Model` in float32. Raises BuildError that names what OpenVINO does not know."""

    def onnx(self) -> Any:
        """A fresh `onnx.ModelProto` in float32. Raises BuildError that names what ONNX does not know."""
