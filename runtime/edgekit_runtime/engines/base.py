"""What the runtime asks of an inference engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import TensorSpec, Variant

Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
# Waits for what was started, and returns the outputs by name.
Pending = Callable[[], Mapping[str, Array]]


class Engine(Protocol):
    """One opened variant of the deploy graph, used by one thread at a time."""

    @property
    def name(self) -> str:
        """Library and version, for display: `OpenVINO 2026.4.1`."""

    @property
    def device(self) -> str:
        """What it runs on, for display: `CPU`, `GPU.0`."""

    @property
    def requests(self) -> int:
        """How many frames it works on at once: 1, but where it was asked for throughput."""

    def start(self, image: Image) -> Pending:
        """Begins with an image as `infer` takes it, which must stay as it is until the answer was waited for.

        At most `requests` may be begun and not waited for; answers hold until as many more were begun. Raises
        EngineError, as the waiting does.
        """

    def infer(self, image: Image) -> Mapping[str, Array]:
        """Runs uint8 `[1, H, W, 3]` BGR, C-contiguous, of exactly the manifest's size.

        Returns the outputs by their names in the manifest; the arrays are the engine's own memory and hold only
        until the next call. Raises EngineError.
        """

    def close(self) -> None: ...


def check_shapes(bundle: Bundle, variant: Variant, found: Mapping[str, tuple[int, ...]]) -> None:
    """Compares input and outputs of the opened model with the manifest. Raises EngineError.

    `found` has the model's shapes by tensor name; what the manifest does not name is ignored.
    """
    spec: TensorSpec
    for spec in (bundle.manifest.input, *bundle.manifest.outputs):
        if spec.name not in found:
            raise EngineError(f"{variant.model} has no tensor named {spec.name!r}, which the manifest promises.")
        if found[spec.name] != spec.shape:
            raise EngineError(
                f"{variant.model}: {spec.name!r} is {list(found[spec.name])}, the manifest says {list(spec.shape)}."
            )
