"""The limits of this machine and how near each network comes: `python benchmarks/roofline.py [--json FILE]`.

Peaks are those of large 3×3 convolutions compiled by OpenVINO, the best of several shapes; bandwidth is that of copying
arrays that fit into no cache, on all cores. A network's operations are those of its convolutions and matrix products
(two for each multiply-accumulate); its bytes are what each of these layers reads and writes: weights, input, output, in
the precision of the form, as if nothing stayed in a cache. The roof is min(peak, operations a byte · bandwidth): where
layers find their input in a cache, a network may come above it.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import machine

machine.pin()

import numpy as np
import tables
from harness import digits, seconds_of

from edgekit_runtime.engines import switch_off

switch_off()

import openvino
from openvino import opset13 as ov

PRECISIONS = ("int8", "bf16", "fp32")
BYTES = {"int8": 1, "bf16": 2, "fp32": 4}
# Channels and side of the convolutions whose best is taken for the peak.
SHAPES = ((64, 128), (128, 64), (128, 128), (256, 32), (256, 64), (512, 32))
_COUNTED = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "MatMul", "ScaledDotProductAttention")
_LAYERS = 6
_SECONDS = 0.6
_COPIED = 256 << 20


@dataclass(frozen=True)
class Limits:
    """Giga-operations a second by precision, gigabytes a second."""

    peak_gops: dict[str, float]
    bandwidth_gbs: float


@dataclass(frozen=True)
class Work:
    """Of one inference: operations, and bytes where every layer reads and writes memory."""

    operations: float
    bytes: float

    @property
    def intensity(self) -> float:
        return self.operations / self.bytes


@dataclass(frozen=True)
class Place:
    """Where a network lies below the roof; `of_peak` and `of_roof` are shares, 0..1."""

    network: str
    precision: str
    gops: float
    megabytes: float
    intensity: float
    ms: float
    gops_per_s: float
    of_peak: float
    of_roof: float


def limits() -> Limits:
    peaks = {precision: max(_peak(precision, *shape) for shape in SHAPES) for precision in PRECISIONS}
    return Limits({name: digits(value) for name, value in peaks.items()}, digits(bandwidth()))


def higher(one: Limits, other: Limits) -> Limits:
    """The higher of each: what a machine could do at its best moment."""
    peaks = {name: max(one.peak_gops[name], other.peak_gops[name]) for name in one.peak_gops}
    return Limits(peaks, max(one.bandwidth_gbs, other.bandwidth_gbs))


def place(name: str, precision: str, work: Work, seconds: float, of: Limits) -> Place:
    rate = work.operations / seconds / 1e9
    peak = of.peak_gops[precision]
    roof = min(peak, work.intensity * of.bandwidth_gbs)
    return Place(
        name,
        precision,
        digits(work.operations / 1e9),
        digits(work.bytes / 1e6),
        digits(work.intensity, 3),
        digits(1e3 * seconds),
        digits(rate),
        digits(rate / peak, 3),
        digits(rate / roof, 3),
    )


def bandwidth() -> float:
    """Gigabytes a second that are read and written by copying, the best of ten."""
    count = machine.cores()
    source = np.ones(_COPIED, np.uint8)
    target = np.empty_like(source)
    parts = [slice(n * _COPIED // count, (n + 1) * _COPIED // count) for n in range(count)]
    with ThreadPoolExecutor(count) as pool:

        def copy() -> None:
            list(pool.map(lambda part: np.copyto(target[part], source[part]), parts))

        return 2 * _COPIED / min(seconds_of(copy) for _ in range(10)) / 1e9


def _peak(precision: str, channels: int, side: int) -> float:
    """Giga-operations a second of a few equal convolutions, the best run."""
    compiled = openvino.compile_model(_convolutions(precision, channels, side), "CPU", told(precision))
    request = compiled.create_infer_request()
    picture = np.zeros((1, channels, side, side), np.float32)
    operations = 2 * _LAYERS * 9 * channels**2 * side**2
    return operations / fastest(lambda: request.infer([picture])) / 1e9


def _convolutions(precision: str, channels: int, side: int) -> Any:
    rng = np.random.default_rng(0)
    given = ov.parameter([1, channels, side, side], np.float32, "picture")
    node = given
    for _ in range(_LAYERS):
        kernel = rng.normal(0, 0.02, (channels, channels, 3, 3)).astype(np.float32)
        if precision == "int8":
            node = _quantised(node, 0, 4, 256)
        weights: Any = ov.constant(kernel)
        if precision == "int8":
            weights = _quantised(weights, -0.08, 0.08, 255)
        node = ov.relu(ov.convolution(node, weights, [1, 1], [1, 1], [1, 1], [1, 1]))
    if precision == "int8":
        node = _quantised(node, 0, 4, 256)
    return openvino.Model([ov.reduce_mean(node, [2, 3], False)], [given])


def _quantised(node: Any, low: float, high: float, levels: int) -> Any:
    ends = (np.float32(low), np.float32(high))
    return ov.fake_quantize(node, *ends, *ends, levels)


def told(precision: str) -> dict[str, Any]:
    """What OpenVINO is told: one stream on all cores."""
    kind = "f32" if precision == "fp32" else "bf16"
    threads = machine.cores()
    return {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": kind, "INFERENCE_NUM_THREADS": threads}


def fastest(run: Callable[[], Any]) -> float:
    """Seconds of the best run in a while, several runs at least."""
    run()
    spent = []
    until = time.perf_counter() + _SECONDS
    while len(spent) < 3 or time.perf_counter() < until:
        spent.append(seconds_of(run))
    return min(spent)


def work_of(model: Any, precision: str) -> Work:
    """What an `openvino.Model` has to do."""
    operations = moved = 0.0
    for node in model.get_ordered_ops():
        if (count := _multiply_accumulates(node)) == 0:
            continue
        operations += 2 * count
        elements = sum(_elements(port.get_shape()) for port in node.inputs())
        moved += BYTES[precision] * (elements + _elements(node.output(0).get_shape()))
    return Work(operations, moved)


def _multiply_accumulates(node: Any) -> int:
    kind = node.get_type_name()
    output = tuple(node.output(0).get_shape())
    if kind not in _COUNTED:
        return 0
    given = [tuple(port.get_shape()) for port in node.inputs()]
    if kind == "ScaledDotProductAttention":
        query, key, value = given[:3]
        return _elements(query) * int(key[-2]) + _elements(query[:-1]) * int(key[-2]) * int(value[-1])
    if kind == "MatMul":
        inner = given[0][-2] if node.get_attributes()["transpose_a"] else given[0][-1]
        return _elements(output) * int(inner)
    # Each weight is used once for each pixel that comes out; of a transposed convolution, that goes in.
    pixels = given[0][2:] if kind == "ConvolutionBackpropData" else output[2:]
    return int(output[0]) * _elements(given[1]) * _elements(pixels)


def _elements(shape: Any) -> int:
    return int(np.prod([int(side) for side in shape]))


def students() -> list[tuple[str, str, Work, float]]:
    """(network, precision, work, seconds at best) of every student form."""
    import networks
    from networks import Form

    found = []
    image = networks.noise(networks.SIZE)[None]
    for name in ("edge-150k", "edge-430k", "edge-900k", "safeuav-430k"):
        model = networks.exporter(name).openvino()
        for precision in PRECISIONS:
            form = Form(name, precision=precision)  # type: ignore[arg-type]
            with networks.engines([form]) as opened:
                seconds = fastest(lambda engine=opened[form]: engine.infer(image))  # type: ignore[misc]
            found.append((name, precision, work_of(model, precision), seconds))
    return found


def depth() -> list[tuple[str, str, Work, float]]:
    """The same of DPT-large at 384×384, by its expert's own compilation."""
    import tempfile

    import networks
    import torch

    from edgekit_experts.learned.pretrained import PretrainedDepth

    with tempfile.TemporaryDirectory() as folder:
        expert = PretrainedDepth(str(networks.dpt(Path(folder))), device="cpu")
        model = openvino.convert_model(expert.load(), example_input=torch.zeros(1, 3, 384, 384))
    model.reshape([1, 3, 384, 384])
    found = []
    picture = np.zeros((1, 3, 384, 384), np.float32)
    for precision in ("bf16", "fp32"):
        request = openvino.compile_model(model, "CPU", told(precision)).create_infer_request()
        found.append(("dpt-large", precision, work_of(model, precision), fastest(lambda r=request: r.infer([picture]))))  # type: ignore[misc]
    return found


def measure() -> tuple[Limits, list[Place]]:
    """The limits before and after the networks, of which the higher count."""
    before = limits()
    networks = [*students(), *depth()]
    found = higher(before, limits())
    return found, [place(*each, found) for each in networks]


def as_document(found: Limits, places: list[Place]) -> dict[str, Any]:
    return {"limits": asdict(found), "networks": [asdict(each) for each in places]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="also write the figures there")
    options = parser.parse_args()
    found, places = measure()
    document = {"machine": machine.describe(), **as_document(found, places)}
    if options.json:
        options.json.write_text(json.dumps(document, indent=1), encoding="utf-8")
    print("\n".join(tables.roofline(document)))


if __name__ == "__main__":
    main()
