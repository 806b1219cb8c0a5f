"""A bundle that edgekit built, as an expert: yesterday's student labels today's video."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import closest
from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality
from edgekit_runtime.model import Model, load

Array = npt.NDArray[Any]

_OUTPUTS = (Kind.LABELS, Kind.DEPTH)


class BundleModel(Expert):
    """What a built bundle says of a frame: RGB frame to labels, uint8 (H, W, 1), or depth, float16 (H, W, 1).

    `path` is what `edgekit build` wrote, a .edgekit file or a folder; every file in it is verified before it is used.
    `output` is labels, in the bundle's own taxonomy, or depth, in its own unit, where it has any. The network answers
    at a size of its own; labels are brought to that of the frame by the nearest pixel, depth by interpolation.
    Runs in whatever engine the runtime takes here, one frame at a time on all cores. Method: this very pipeline's,
    arXiv 2510.14862.
    """

    deterministic = False
    makes = "labels, depth"
    weights_from = "your file"
    example: ClassVar[Mapping[str, Any]] = {"path": "model.edgekit"}

    def __init__(self, path: str, output: str = "labels") -> None:
        if output not in _OUTPUTS:
            raise ExpertError(f"bundle: unknown output {output!r}.", hint=closest(output, _OUTPUTS))
        self.path, self.output = Path(path).expanduser(), Kind(output)
        self._lock = threading.Lock()

    @property
    def identity(self) -> str:
        """Of its files as its manifest lists them, and of how engines are told to run them."""
        manifest = self._bundle.manifest
        files = {name: entry.sha256 for name, entry in manifest.files.items()}
        variants = [(v.engine, v.device, v.precision, v.model, dict(v.config)) for v in manifest.variants]
        return hashlib.sha256(json.dumps([files, variants], sort_keys=True).encode()).hexdigest()[:16]

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        found = [each.modality for each in self._bundle.manifest.outputs if each.modality]
        modality = next((each for each in found if each.kind is self.output), None)
        if modality is None:
            raise ExpertError(
                f"{self.path} has no {self.output.value}.", hint=f"It has {', '.join(each.kind for each in found)}."
            )
        return replace(modality, dtype="float16") if self.output is Kind.DEPTH else modality

    def compute(self, batch: Batch) -> Array:
        size = batch.frames.shape[2:0:-1]
        # The runtime's own network is for one thread at a time, and takes all cores for it.
        with self._lock:
            results = [self._model(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)) for frame in batch.frames]
        if self.output is Kind.LABELS:
            labels = [cv2.resize(_there(one.labels), size, interpolation=cv2.INTER_NEAREST) for one in results]
            return np.asarray(np.stack(labels)[..., None], np.uint8)
        depths = (_there(one.depth).astype(np.float32) for one in results)
        grown = np.stack([cv2.resize(depth, size, interpolation=cv2.INTER_LINEAR) for depth in depths])
        return np.asarray(np.clip(grown, -65504, 65504), np.float16)[..., None]

    @cached_property
    def _bundle(self) -> Bundle:
        return open_bundle(self.path)

    @cached_property
    def _model(self) -> Model:
        return load(self.path)


def _there(output: Array | None) -> Array:
    assert output is not None, "produces() looked for it in the manifest"
    return output
