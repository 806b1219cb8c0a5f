"""What comes with the video, stored as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]


class Given(Expert):
    """A stream of the source, unchanged: the truth of the synthetic world, pictures that lie beside the frames.

    `of` names the stream; kind, shape, range, unit and taxonomy are its own. No method: what came is what is stored.
    """

    makes = "any"
    example: ClassVar[Mapping[str, Any]] = {"of": "labels"}

    def __init__(self, of: str) -> None:
        self.of = of

    @property
    def requires(self) -> tuple[str, ...]:
        return (self.of,)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return inputs[self.of]

    def compute(self, batch: Batch) -> Array:
        return batch.inputs[self.of]
