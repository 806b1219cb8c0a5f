"""bfloat16 where it pays, as autocast has it in training: matrix products and large convolutions. The rest is float32.

In a transformer, what is added up along the residual stream is rounded dozens of times in bfloat16, and little time is
saved by it. DPT-large's depth is off by 0.65 % this way and by 1.65 % in bfloat16 throughout, for a tenth more time
(docs/results.md).
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections import deque
from collections.abc import Iterator
from math import prod

from edgekit_runtime.errors import BuildError

_CONVOLUTIONS = ("Convolution", "ConvolutionBackpropData", "GroupConvolution", "GroupConvolutionBackpropData")
# What carries no arithmetic, or what OpenVINO folds into the weights.
_PASSIVE = ("Const", "Parameter", "Result", "Convert")
# Convolutions below this share of all of them are too small to be worth a rounding; the last ones before an answer are
# seen in it directly.
_SMALL, _LAST = 0.05, 2


def keep_float32(graph: bytes) -> bytes:
    """An OpenVINO graph (its XML) that, under the hint bf16, computes only matrix products and large convolutions so.

    The layers that stay in float32 carry OpenVINO's attribute `precise`. Raises BuildError for a graph without
    matrix products: what has convolutions alone gains nothing that the plain hint does not give.
    """
    root = ElementTree.fromstring(graph)  # noqa: S314
    layers = {layer.get("id", ""): layer for layer in root.iter("layer")}
    if not any(layer.get("type") == "MatMul" for layer in layers.values()):
        raise BuildError("it is for networks with matrix products")
    work = {key: _multiply_accumulates(layer) for key, layer in layers.items() if layer.get("type") in _CONVOLUTIONS}
    large = {key for key, macs in work.items() if macs >= _SMALL * sum(work.values())}
    products = {key for key, layer in layers.items() if layer.get("type") == "MatMul"}
    half = (large | products) - set(_last_before_the_answers(root, layers))
    for key, layer in layers.items():
        if key not in half and layer.get("type") not in _PASSIVE:
            info = layer.find("rt_info")
            if info is None:
                info = ElementTree.SubElement(layer, "rt_info")
                layer.remove(info)
                layer.insert(1 if layer.find("data") is not None else 0, info)
            ElementTree.SubElement(info, "attribute", name="precise", version="0")
    written: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return written


def _multiply_accumulates(convolution: ElementTree.Element) -> int:
    """From the shapes of its ports; of a transposed one each input pixel meets each weight once."""
    frames, weights = (_shape(port) for port in convolution.findall("input/port")[:2])
    (answer,) = (_shape(port) for port in convolution.findall("output/port"))
    transposed = "Backprop" in convolution.get("type", "")
    return prod(weights) * prod((frames if transposed else answer)[2:])


def _shape(port: ElementTree.Element) -> list[int]:
    return [int(dim.text or 0) for dim in port.findall("dim")]


def _last_before_the_answers(root: ElementTree.Element, layers: dict[str, ElementTree.Element]) -> Iterator[str]:
    """The convolutions and matrix products that are nearest to each answer, walking back from it."""
    feeds: dict[str, list[str]] = {}
    for edge in root.iter("edge"):
        feeds.setdefault(edge.get("to-layer", ""), []).append(edge.get("from-layer", ""))
    for end in (key for key, layer in layers.items() if layer.get("type") == "Result"):
        queue, seen, found = deque([end]), {end}, 0
        while queue and found < _LAST:
            key = queue.popleft()
            if layers[key].get("type") in (*_CONVOLUTIONS, "MatMul"):
                found += 1
                yield key
            for before in feeds.get(key, []):
                if before not in seen:
                    seen.add(before)
                    queue.append(before)
