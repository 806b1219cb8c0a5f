"""How much of what the profile allows a form of the network has lost, found out while it is being made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.exportable import Exportable
from edgekit.judging import Arrays, class_maps, fidelity, tally, targets_of
from edgekit.material import Material
from edgekit_student.metrics import miou

# The deploy graph's outputs by name, `(h, w)`, of uint8 BGR `(H, W, 3)`.
Run = Callable[[npt.NDArray[np.uint8]], Arrays]


class Allowance:
    """Compares with `fp32` on the judged frames; without any, nothing is known to be lost."""

    def __init__(self, exporter: Exportable, material: Material, fp32: Run) -> None:
        self._profile, self._taxonomy = exporter.profile, exporter.taxonomy
        self.images = [frame.image for frame in material.judged]
        self._baseline = [fp32(image) for image in self.images]
        self._targets = targets_of(material.judged, class_maps(self._baseline)) if self._taxonomy else []
        self._best = self._miou(self._baseline) if self.images else 0.0

    def spent(self, run: Run) -> float:
        """0 where nothing is lost, 1 at the limit."""
        if not self.images:
            return 0.0
        answers = [run(image) for image in self.images]
        profile = self._profile
        parts = [100 * (self._best - self._miou(answers)) / max(profile.allowed_drop_points, 1e-6)]
        found = fidelity(answers, self._baseline)
        if found.agreement is not None:
            parts.append((1 - found.agreement) / max(1 - profile.min_agreement, 1e-6))
        if found.depth_error is not None:
            parts.append(100 * found.depth_error / max(profile.allowed_depth_error_percent, 1e-6))
        return max(parts)

    def _miou(self, answers: Sequence[Arrays]) -> float:
        return miou(tally(class_maps(answers), self._targets, self._taxonomy)) if self._taxonomy else 0.0


def running_openvino(exporter: Exportable, compiled: Any) -> Run:
    """`compiled` is an `openvino.CompiledModel`."""
    names = [output.name for output in exporter.outputs]

    def run(image: npt.NDArray[np.uint8]) -> Arrays:
        result = compiled(image[None])
        return {name: np.array(result[name][0]) for name in names}

    return run


def running_onnx(exporter: Exportable, model: Any) -> Run:
    """`model` is an `onnx.ModelProto`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in exporter.outputs]
    return lambda image: {
        name: value[0]
        for name, value in zip(names, session.run(names, {exporter.input.name: image[None]}), strict=True)
    }
