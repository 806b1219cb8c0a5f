"""What a bundle is built for: an engine and what it runs on; which precisions they have, and whether they are here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edgekit_runtime.engines import installed, switch_off
from edgekit_runtime.errors import EngineError

EngineName = Literal["openvino", "onnxruntime", "tensorrt-rtx", "tensorrt"]
Precision = Literal["int8", "mixed", "int8-weights", "fp16", "bf16", "bf16-mixed", "fp32"]
Hint = Literal["latency", "throughput"]

CPU, GPU = "CPU", "GPU"
# Engines that run on nothing but NVIDIA's GPUs.
TENSORRT = ("tensorrt-rtx", "tensorrt")
# ONNX Runtime's execution providers, by what people call them.
PROVIDERS = {CPU: "CPUExecutionProvider", "XNNPACK": "XnnpackExecutionProvider", "CoreML": "CoreMLExecutionProvider"}


@dataclass(frozen=True)
class Target:
    """An engine and a device of it, written `openvino GPU`; the CPU need not be named, nor TensorRT's only device."""

    engine: EngineName
    device: str = CPU

    def __str__(self) -> str:
        return self.engine if self.device == CPU or self.engine in TENSORRT else f"{self.engine} {self.device}"

    @property
    def precisions(self) -> tuple[Precision, ...]:
        """What there is a form for."""
        return PRECISIONS[self]

    @property
    def stand_in(self) -> Target:
        """What runs the same files on any machine: for what can be verified without the device."""
        return Target("onnxruntime" if self.engine in TENSORRT else self.engine)


PRECISIONS: Mapping[Target, tuple[Precision, ...]] = {
    # mixed: INT8 but for the layers that it ruins; int8-weights: weights in INT8, arithmetic in half precision;
    # bf16-mixed: what reads the picture in float32, the rest in bfloat16.
    Target("openvino"): ("int8", "mixed", "int8-weights", "bf16", "bf16-mixed", "fp32"),
    Target("openvino", "GPU"): ("int8", "mixed", "int8-weights", "fp16", "fp32"),
    Target("openvino", "NPU"): ("int8", "mixed", "fp16"),
    Target("onnxruntime"): ("int8", "fp32"),
    Target("onnxruntime", "XNNPACK"): ("int8", "fp32"),
    # Core ML computes in half precision by itself where that is faster; it has no use for Q/DQ pairs.
    Target("onnxruntime", "CoreML"): ("fp32",),
    Target("tensorrt-rtx", GPU): ("int8", "fp16", "fp32"),
    Target("tensorrt", GPU): ("int8", "fp16", "fp32"),
}


def target_of(text: object) -> object:
    """A target from how it is written, for pydantic's BeforeValidator; raises ValueError for what there is not."""
    if isinstance(text, Target):
        return text
    for target in PRECISIONS:
        if text in (str(target), f"{target.engine} {target.device}"):
            return target
    raise ValueError(f"there are {', '.join(str(target) for target in PRECISIONS)}")


def absent(target: Target) -> str:
    """Why this machine cannot run it; empty when it can."""
    if not installed(target.engine):
        return f"{target.engine} is not installed"
    if target.engine in TENSORRT:
        return _no_gpu()
    switch_off()
    if target.engine == "openvino":
        import openvino

        found = {name.partition(".")[0] for name in openvino.Core().available_devices}
        return "" if target.device in found else f"OpenVINO finds no {target.device} here"
    import onnxruntime

    there = PROVIDERS[target.device] in onnxruntime.get_available_providers()
    return "" if there else f"this ONNX Runtime has no {target.device}"


def _no_gpu() -> str:
    from edgekit_runtime.engines.tensorrt.cuda import find_gpu

    try:
        find_gpu()
    except EngineError as error:
        return str(error.args[0])
    return ""


def unbuildable(target: Target) -> str:
    """Why nothing can be made for it here, whatever this machine can run; empty when something can.

    Classic TensorRT builds its engines on the device: here it needs just what stands in for it.
    """
    engine = "onnxruntime" if target.engine == "tensorrt" else target.engine
    return "" if installed(engine) else f"{engine} is not installed"


def unsupported(target: Target, precision: Precision) -> str:
    """Why this machine would not really run that precision; empty when it does."""
    if target == Target("openvino") and precision in ("bf16", "bf16-mixed"):
        switch_off()
        import openvino

        if "BF16" not in openvino.Core().get_property(CPU, "OPTIMIZATION_CAPABILITIES"):
            return "this CPU has no bfloat16"
    return ""


def settings(target: Target, precision: Precision, *, threads: int, hint: Hint, spinning: bool) -> dict[str, Any]:
    """What the engine is told: `config` of a variant."""
    if target.engine in TENSORRT:
        return {}
    if target.engine == "onnxruntime":
        names = dict.fromkeys((target.device, CPU))
        told: dict[str, Any] = {"providers": [PROVIDERS[name] for name in names], "spinning": spinning}
        return {**told, "intra_op_threads": threads} if threads else told
    told = {"PERFORMANCE_HINT": hint.upper()}
    # What is not INT8 in an INT8 graph is half precision where the device has it; OpenVINO ignores the hint elsewhere.
    half = "bf16" if target.device == CPU else "f16"
    told["INFERENCE_PRECISION_HINT"] = "f32" if precision == "fp32" else half
    if threads and target.device == CPU:
        told["INFERENCE_NUM_THREADS"] = threads
    return told
