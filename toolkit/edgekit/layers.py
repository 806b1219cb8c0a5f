"""Where the time of a compiled network goes, layer by layer, as OpenVINO itself tells."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines import switch_off
from edgekit_runtime.manifest import Variant

RUNS = 20
# `brgconv_avx512_amx_I8`, `brgconv_avx512_bf16`, `jit_uni_f32`: implementation, then what it computes in.
_IMPLEMENTATION = re.compile(r"(.*?)_?((?:BF|FP|F|I|U)\d+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Layer:
    """One operation that is executed: `ms` is its mean, `precision` what it computes in (I8, BF16, FP32 ...)."""

    name: str
    kind: str
    implementation: str
    precision: str
    ms: float


def layers_of(bundle: Bundle, variant: Variant, image: npt.NDArray[np.uint8]) -> list[Layer]:
    """The layers of a variant in the order in which they run; none for engines other than OpenVINO.

    `image` is uint8 `(1, H, W, 3)`. Raises RuntimeError where the device does not run the variant.
    """
    if variant.engine != "openvino":
        return []
    switch_off()
    import openvino

    core = openvino.Core()
    weights = PurePosixPath(variant.model).with_suffix(".bin").as_posix()
    model = core.read_model(model=bundle.read(variant.model), weights=bundle.read(weights))
    request = core.compile_model(model, variant.device, {**variant.config, "PERF_COUNT": True}).create_infer_request()
    spent: dict[str, float] = {}
    for run in range(RUNS + 1):
        request.infer({bundle.manifest.input.name: image})
        if run:  # the first sets things up
            for info in request.profiling_info:
                spent[info.node_name] = spent.get(info.node_name, 0.0) + info.real_time.total_seconds() * 1e3
    found = []
    for info in request.profiling_info:
        if str(info.status).endswith("EXECUTED"):
            match = _IMPLEMENTATION.fullmatch(info.exec_type)
            implementation, precision = match.groups() if match else (info.exec_type, "")
            precision = re.sub(r"^F(?=\d)", "FP", precision.upper())
            found.append(Layer(info.node_name, info.node_type, implementation, precision, spent[info.node_name] / RUNS))
    return found
