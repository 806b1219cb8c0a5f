"""OpenVINO: Intel CPUs, integrated GPUs and NPUs; Arm CPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines import Array, Image, Pending, check_ports, check_settings, said, switch_off
from edgekit_runtime.errors import EngineError
from edgekit_runtime.files import cache_directory
from edgekit_runtime.manifest import Variant

switch_off()

import openvino  # noqa: E402  (after the switch, which only works before this import)

# A manifest comes from elsewhere: it may tune the engine, not point it at files or plug-ins.
ALLOWED_PROPERTIES = frozenset(
    {
        "CPU_DENORMALS_OPTIMIZATION",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE",
        "ENABLE_CPU_PINNING",
        "ENABLE_CPU_RESERVATION",
        "ENABLE_HYPER_THREADING",
        "EXECUTION_MODE_HINT",
        "INFERENCE_NUM_THREADS",
        "INFERENCE_PRECISION_HINT",
        "MODEL_PRIORITY",
        "NUM_STREAMS",
        "PERFORMANCE_HINT",
        "PERFORMANCE_HINT_NUM_REQUESTS",
        "SCHEDULING_CORE_TYPE",
    }
)


class OpenVinoEngine:
    """One compiled model with as many inference requests as its hint is best served by, taken in turns; frames are read
    in place, without a copy.
    """

    def __init__(self, compiled: openvino.CompiledModel, variant: Variant, bundle: Bundle) -> None:
        self.name = f"OpenVINO {openvino.__version__.split('-')[0]}"
        self.device = ", ".join(compiled.get_property("EXECUTION_DEVICES"))
        check_ports((bundle.manifest.input, *bundle.manifest.outputs), _shapes(compiled), {})
        throughput = variant.config.get("PERFORMANCE_HINT") == "THROUGHPUT"
        self.requests = int(compiled.get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")) if throughput else 1
        names = [output.name for output in bundle.manifest.outputs]
        self._input = bundle.manifest.input.name
        self._turns = [_Turn(compiled.create_infer_request(), names) for _ in range(self.requests)]
        self._next = 0

    def start(self, image: Image) -> Pending:
        if not self._turns:
            raise EngineError("The OpenVINO engine was closed.")
        turn = self._turns[self._next]
        self._next = (self._next + 1) % len(self._turns)
        try:
            turn.request.set_tensor(self._input, openvino.Tensor(image, shared_memory=True))
            turn.request.start_async()
        except RuntimeError as error:
            raise self._failure(error) from error

        def wait() -> Mapping[str, Array]:
            try:
                turn.request.wait()
            except RuntimeError as error:
                raise self._failure(error) from error
            return turn.outputs

        return wait

    def infer(self, image: Image) -> Mapping[str, Array]:
        return self.start(image)()

    def close(self) -> None:
        self._turns = []

    def _failure(self, error: RuntimeError) -> EngineError:
        return EngineError(f"OpenVINO failed on {self.device}: {said(error, -1)}")


class _Turn:
    """An inference request, and its outputs by name."""

    def __init__(self, request: openvino.InferRequest, names: Sequence[str]) -> None:
        self.request = request
        self.outputs: dict[str, Array] = {name: request.get_tensor(name).data for name in names}


def open_variant(bundle: Bundle, variant: Variant) -> OpenVinoEngine:
    """Opens an OpenVINO IR from memory: `model` names the .xml, the .bin beside it holds the weights.

    The compiled form is cached in the user's cache directory where that can be written, which makes the next
    start fast. Raises EngineError.
    """
    weights = PurePosixPath(variant.model).with_suffix(".bin").as_posix()
    check_settings(variant, ALLOWED_PROPERTIES)
    model_bytes, weight_bytes = bundle.read(variant.model), bundle.read(weights)
    core = openvino.Core()
    cache = cache_directory("openvino")
    try:
        model = core.read_model(model=model_bytes, weights=weight_bytes)
        properties: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", **variant.config}
        if cache is not None:
            try:
                cached = core.compile_model(model, variant.device, {**properties, "CACHE_DIR": str(cache)})
                return OpenVinoEngine(cached, variant, bundle)
            except RuntimeError:
                pass  # a damaged cache or a full disk must not stop what works without a cache
        return OpenVinoEngine(core.compile_model(model, variant.device, properties), variant, bundle)
    except (RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"OpenVINO cannot open it on {variant.device}: {said(error, -1)}") from error


def _shapes(compiled: openvino.CompiledModel) -> dict[str, tuple[int, ...]]:
    return {
        name: tuple(int(n) for n in port.shape)
        for port in (*compiled.inputs, *compiled.outputs)
        for name in port.get_names()
    }
