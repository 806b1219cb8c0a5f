"""TensorRT: NVIDIA's GPUs, by TensorRT for RTX on PCs and by JetPack's TensorRT on Jetson.

Engines fit one version of TensorRT and one kind of GPU. A bundle carries the graph as ONNX and, for RTX, engines that
were built ahead of time; the rest is built by `edgekit-run prepare`, which takes minutes on a Jetson.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from edgekit_runtime.engines import check_ports
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import TensorSpec

RTX, CLASSIC = "tensorrt-rtx", "tensorrt"
# Engine name in a manifest -> Python module.
MODULES = {RTX: "tensorrt_rtx_bindings", CLASSIC: "tensorrt"}
_TITLES = {RTX: "TensorRT for RTX", CLASSIC: "TensorRT"}
_HINTS = {
    RTX: "pip install 'edgekit-runtime[rtx]'",
    CLASSIC: "JetPack brings it for the system's Python: make the environment with "
    "`python3 -m venv --system-site-packages`.",
}


@dataclass(frozen=True)
class Library:
    """One TensorRT, either behind the same face: `engine` is its name in manifests, `module` its Python module,
    `logger` hears what it says.
    """

    engine: str
    module: Any = field(repr=False)
    logger: Any = field(repr=False)

    @property
    def version(self) -> str:
        return str(self.module.__version__)

    @property
    def name(self) -> str:
        """For display: `TensorRT for RTX 1.7.1.116`."""
        return f"{_TITLES[self.engine]} {self.version}"

    @property
    def strongly_typed(self) -> bool:
        """Whether precision is that of the graph alone: for RTX, and from 11 on. Before, flags allow the builder to
        compute in half precision and INT8.
        """
        return not hasattr(self.module.BuilderFlag, "FP16")

    def reason(self) -> str:
        """What TensorRT last complained of: its calls answer with None and say why to the logger."""
        return self.logger.complaint or "no reason was given"


def load_library(engine: str) -> Library:
    """`tensorrt-rtx` or `tensorrt`. Raises EngineError where it is absent or broken."""
    try:
        module = import_module(MODULES[engine])
    except (ImportError, OSError) as error:  # OSError: a library of its own cannot be loaded
        words = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise EngineError(f"{_TITLES[engine]} cannot be used here: {words}", hint=_HINTS[engine]) from error
    return Library(engine, module, _logger(module))


def _logger(module: Any) -> Any:
    """Keeps the last complaint instead of printing it."""

    class Listener(module.ILogger):  # type: ignore[misc]  # the module is only known when it is imported
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.complaint = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (module.ILogger.Severity.ERROR, module.ILogger.Severity.INTERNAL_ERROR):
                self.complaint = " ".join(message.split())[:300]

    return Listener()


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
    shapes = {port.name: tuple(port.shape) for port in ports}
    check_ports(specs, shapes, {port.name: DTYPES.get(port.dtype.name, port.dtype.name) for port in ports})


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
