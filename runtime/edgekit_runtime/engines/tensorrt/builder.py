"""From the ONNX form of a deploy graph to a TensorRT engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.engines.tensorrt import RTX, Library
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import TensorSpec

# TensorRT's names of element types -> NumPy's, as manifests have them.
DTYPES = {"UINT8": "uint8", "FLOAT": "float32", "HALF": "float16", "INT32": "int32"}
# Called with what the builder is at and how much of that is done; False stops it.
Report = Callable[[str], bool]


@dataclass(frozen=True)
class Plan:
    """A serialised engine, and what the builder has learnt about this GPU for the next (classic TensorRT)."""

    engine: bytes = field(repr=False)
    timings: bytes = field(default=b"", repr=False)


def build_plan(
    library: Library,
    onnx: bytes,
    precision: str,
    specs: Sequence[TensorSpec],
    *,
    capabilities: Sequence[tuple[int, int]] = (),
    timings: bytes = b"",
    report: Report = lambda phase: True,
) -> Plan:
    """Builds an engine for this machine's GPU or, with TensorRT for RTX, for GPUs of the compute `capabilities`, which
    need not be here. `specs` are the manifest's input and outputs.

    Raises EngineError: the parser refuses the graph, it is another one than the manifest says, the builder fails.
    """
    trt = library.module
    builder = trt.Builder(library.logger)
    if builder is None:
        raise EngineError(f"{library.name} cannot start: {library.reason()}")
    network = builder.create_network(_network_flags(library))
    parser = trt.OnnxParser(network, library.logger)
    if not parser.parse(onnx):
        raise EngineError(f"{library.name} cannot read the graph: {_complaints(parser)}")
    _check_network(network, specs)
    config = builder.create_builder_config()
    if not library.strongly_typed:
        _allow(trt, config, precision)
    if capabilities:
        _aim(library, config, capabilities)
    # Timings are of classic TensorRT; that for RTX times nothing, and calls of its timing cache are deprecated.
    times = library.engine != RTX
    if times:
        _recall(config, timings)
    if hasattr(trt, "IProgressMonitor"):  # from 8.6 on
        monitor = _monitor(trt, report)
        config.progress_monitor = monitor
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise EngineError(f"{library.name} cannot build the engine: {library.reason()}")
    learnt = config.get_timing_cache() if times else None
    return Plan(bytes(engine), bytes(learnt.serialize()) if learnt is not None else b"")


def _recall(config: Any, timings: bytes) -> None:
    """What was learnt before, where it is of this GPU and version; else nothing, to be learnt."""
    cache = config.create_timing_cache(timings)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _network_flags(library: Library) -> int:
    """STRONGLY_TYPED where there is nothing else; EXPLICIT_BATCH where there was something else, up to TensorRT 8."""
    flags = library.module.NetworkDefinitionCreationFlag
    wanted = "STRONGLY_TYPED" if library.strongly_typed else "EXPLICIT_BATCH"
    flag = getattr(flags, wanted, None)
    return 0 if flag is None else 1 << int(flag)


def _allow(trt: Any, config: Any, precision: str) -> None:
    """What the builder may compute in besides float32; it takes what is fastest. Q/DQ pairs say where INT8 holds."""
    if precision in ("int8", "fp16"):
        config.set_flag(trt.BuilderFlag.FP16)
    if precision == "int8":
        config.set_flag(trt.BuilderFlag.INT8)


def _aim(library: Library, config: Any, capabilities: Sequence[tuple[int, int]]) -> None:
    known = library.module.ComputeCapability
    config.num_compute_capabilities = len(capabilities)
    for index, (major, minor) in enumerate(capabilities):
        capability = getattr(known, f"SM{major}{minor}", None)
        if capability is None:
            there = ", ".join(name for name in dir(known) if name.startswith("SM"))
            raise EngineError(
                f"{library.name} builds nothing for compute capability {major}.{minor}", hint=f"It does for {there}."
            )
        if not config.set_compute_capability(capability, index):
            raise EngineError(f"{library.name} refuses compute capability {major}.{minor}: {library.reason()}")


def _check_network(network: Any, specs: Sequence[TensorSpec]) -> None:
    """Compares names, shapes and types with the manifest. Raises EngineError."""
    ports = [network.get_input(number) for number in range(network.num_inputs)]
    ports += [network.get_output(number) for number in range(network.num_outputs)]
    found = {port.name: (tuple(port.shape), DTYPES.get(port.dtype.name, port.dtype.name)) for port in ports}
    check_ports(found, specs)


def check_ports(found: Mapping[str, tuple[tuple[int, ...], str]], specs: Sequence[TensorSpec]) -> None:
    """Compares shapes and element types of inputs and outputs with the manifest's. Raises EngineError."""
    for spec in specs:
        if spec.name not in found:
            raise EngineError(f"the graph has no tensor named {spec.name!r}, which the manifest promises")
        if found[spec.name] != (spec.shape, spec.dtype):
            shape, dtype = found[spec.name]
            raise EngineError(
                f"{spec.name!r} is {dtype} {list(shape)}, the manifest says {spec.dtype} {list(spec.shape)}"
            )


def _complaints(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(" ".join(error.desc().split())[:200] for error in errors[:3]) or "no reason was given"


def _monitor(trt: Any, report: Report) -> Any:
    """Tells `report` of every step, such as `Timing tactics 3/30`."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]  # the module is only known when it is imported
        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            self.steps[name] = steps

        def phase_finish(self, name: str) -> None:
            self.steps.pop(name, None)

        def step_complete(self, name: str, step: int) -> bool:
            return report(f"{name} {step + 1}/{self.steps.get(name, step + 1)}")

    return Monitor()
