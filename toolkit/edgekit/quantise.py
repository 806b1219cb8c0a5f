"""Post-training quantisation to INT8 by NNCF, for OpenVINO and ONNX graphs alike.

Weights per channel, activations per tensor (NNCF's performance preset); the ranges come from calibration frames. The
picture itself is quantised exactly: bytes stay bytes.

What else NNCF does is better or worse from network to network, so it is tried in several ways. Points of mIoU lost by
the student that comes with edgekit and by that of CamVid in benchmarks/checkpoints: fast bias correction 0.2 and 0.6,
without bias correction 2.5 and 0.0, with the extremes of all frames as ranges 0.3 and 0.4, exact bias correction 0.9
and 0.3. Where none of them is good enough, the weights may be fine-tuned for INT8 first (`fine_tune`), if asked for.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from edgekit.export import INPUT
from edgekit.fine_tune import Frames
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import BuildError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgekit.exportable import Exportable

# What is tried, in this order, until one loses little enough.
WAYS = ("fast bias correction", "no bias correction", "extreme ranges", "exact bias correction")
# One more way, for those who ask for it: the weights are fine-tuned for INT8 first.
TUNED = "fine-tuned"
# Times what is allowed; no way of quantising mends that.
HOPELESS = 20
# Each is tried by compiling and judging the whole network: seconds for a student, hours for a large transformer.
MOST_QUANTISERS = 64
# Below, weights are no burden: those of students lie in the caches.
FEW_WEIGHTS = 10_000_000


class Quantised(NamedTuple):
    """An INT8 model, the name of the way in which it was made, and how much of what is allowed it has lost."""

    model: Any
    way: str
    spent: float


def quantise_network(
    exporter: Exportable,
    form: Callable[[Exportable], Any],
    frames: Frames,
    ways: Sequence[str],
    spent: Callable[[Any], float],
) -> Quantised:
    """What `form` makes of a network, as `quantise_within`; where that is not within what is allowed, of the network
    fine-tuned, if that is wanted and loses less.

    `ways` may be the one that this has found for another engine or size; then no other is tried.
    """
    found = [] if TUNED in ways else [quantise_within(lambda: form(exporter), frames, ways, spent)]
    if found and (found[0].spent <= 1 or len(ways) == 1):
        return found[0]
    if (tuned := exporter.fine_tuned(frames)) is not None:
        again = quantise_within(lambda: form(tuned), frames, WAYS, spent)
        found.append(again._replace(way=TUNED))
    return min(found, key=lambda each: each.spent)


def quantise_within(
    fresh: Callable[[], Any], frames: Frames, ways: Sequence[str], spent: Callable[[Any], float]
) -> Quantised:
    """What `fresh` makes, quantised in the first of `ways` that stays within what is allowed, else in the one that is
    nearest to it.

    `spent` says of a quantised model how much of what is allowed it has lost, 1 at the limit. Large networks, which
    take minutes each time, and those that lose far too much are quantised in one way only. Raises BuildError as
    `quantise` does.
    """
    found: list[Quantised] = []
    for way in ways:
        model = quantise(fresh(), frames, way)
        found.append(Quantised(model, way, spent(model)))
        if not 1 < found[-1].spent < HOPELESS or _quantisers(model) > MOST_QUANTISERS:
            break
    return min(found, key=lambda each: each.spent)


def quantise(model: Any, frames: Frames, way: str = WAYS[0]) -> Any:
    """An INT8 form of an `openvino.Model` or `onnx.ModelProto`, in one of `WAYS`; `frames` are uint8 BGR `(H, W, 3)`.

    Raises BuildError without calibration frames, and when NNCF cannot quantise the graph.
    """
    if not frames:
        raise BuildError(
            "There is no frame to calibrate INT8 with.",
            hint="Give a data set with rgb frames (--data DATA), or leave int8 out of the profile's precisions.",
        )
    switch_off()
    import nncf

    is_onnx = type(model).__module__.startswith("onnx")
    wrap = (lambda frame: {INPUT: frame[None]}) if is_onnx else (lambda frame: frame[None])
    with _quiet():
        try:
            quantised = nncf.quantize(
                model,
                nncf.Dataset(frames, wrap),
                subset_size=len(frames),
                preset=nncf.QuantizationPreset.PERFORMANCE,
                **_settings(way),
            )
        except (RuntimeError, nncf.errors.UnsupportedModelError, nncf.errors.ValidationError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise BuildError(f"NNCF cannot quantise the deploy graph: {reason}") from error
    if not is_onnx:
        _pin_input_range(quantised)
    return quantised


def quantise_partly(model: Any, whole: Any, frames: Frames, judged: Frames, spent: Callable[[Any], float]) -> Any:
    """An `openvino.Model` in INT8 but for the layers that this ruins, left in float; `whole` has all of them in INT8.

    `spent` says of a compiled model how much of what is allowed it has lost on the `judged` frames, 1 at the limit.
    Layers go back one by one, those first that matter most. Method: NNCF's accuracy-aware quantisation. Raises
    BuildError where plain INT8 is within the limit, where there are so many layers that trying each takes hours, and
    where NNCF fails.
    """
    import openvino

    if spent(openvino.compile_model(whole, "CPU")) <= 1:
        raise BuildError("int8 loses little enough")
    quantisers = _quantisers(whole)
    if quantisers > MOST_QUANTISERS:
        raise BuildError(f"with {quantisers} places to quantise, finding those that int8 ruins takes too long")
    import nncf

    with _quiet():
        try:
            partly = nncf.quantize_with_accuracy_control(
                model,
                calibration_dataset=nncf.Dataset(frames, lambda frame: frame[None]),
                validation_dataset=nncf.Dataset(judged, lambda frame: frame[None]),
                # NNCF also divides by what float32 has: it must not be zero.
                validation_fn=lambda compiled, data: (10 - spent(compiled), None),
                max_drop=1.0,
                drop_type=nncf.DropType.ABSOLUTE,
                subset_size=len(frames),
                preset=nncf.QuantizationPreset.PERFORMANCE,
            )
        except (RuntimeError, nncf.errors.UnsupportedModelError, nncf.errors.ValidationError) as error:
            reason = str(error).strip().splitlines()[-1]
            raise BuildError(f"NNCF cannot quantise the deploy graph in part: {reason}") from error
    _pin_input_range(partly)
    return partly


def compress_weights(model: Any) -> Any:
    """An `openvino.Model` with INT8 weights (symmetric, a scale a channel) that computes in floats; needs no frames.

    Half the size of half precision, and for large transformers a little faster (docs/results.md). Raises BuildError
    where there are few weights.
    """
    import nncf

    constants = (operation for operation in model.get_ops() if operation.get_type_name() == "Constant")
    weights = sum(math.prod(operation.get_output_shape(0)) for operation in constants)
    if weights < FEW_WEIGHTS:
        raise BuildError(f"with {weights / 1e6:.1f} million weights there is nothing to gain")
    with _quiet():
        return nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_SYM)


def _settings(way: str) -> dict[str, Any]:
    """Of `nncf.quantize`."""
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    extremes = RangeEstimatorParametersSet.MINMAX
    return {
        "fast bias correction": {},
        "no bias correction": {"advanced_parameters": AdvancedQuantizationParameters(disable_bias_correction=True)},
        "extreme ranges": {
            "advanced_parameters": AdvancedQuantizationParameters(activations_range_estimator_params=extremes)
        },
        "exact bias correction": {"fast_bias_correction": False},
    }[way]


def _quantisers(model: Any) -> int:
    if hasattr(model, "graph"):
        return sum(node.op_type == "QuantizeLinear" for node in model.graph.node)
    return sum(operation.get_type_name() == "FakeQuantize" for operation in model.get_ops())


def _pin_input_range(model: Any) -> None:
    """Sets the range of the picture's quantiser to 0..255, which makes it the identity that engines remove.

    Calibration sees the brightest pixel of some frames, which is often a little below 255.
    """
    from openvino import opset13 as ov

    seen = list(model.inputs[0].get_node().output(0).get_target_inputs())
    while seen:
        node = seen.pop().get_node()
        if node.get_type_name() == "FakeQuantize":
            for port, value in ((1, 0.0), (2, 255.0), (3, 0.0), (4, 255.0)):
                shape = node.input_value(port).get_shape()
                node.input(port).replace_source_output(ov.constant(np.full(shape, value, np.float32)).output(0))
        elif node.get_type_name() in ("Concat", "Convert", "Transpose"):
            seen.extend(node.output(0).get_target_inputs())


@contextmanager
def _quiet() -> Iterator[None]:
    """NNCF draws bars on stdout and logs through a logger of its own; neither belongs into a document."""
    import contextlib
    import io
    import warnings

    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            with contextlib.redirect_stderr(io.StringIO()):
                yield
    finally:
        logger.setLevel(before)
