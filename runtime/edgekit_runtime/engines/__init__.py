"""Inference engines behind one small interface; a back-end is imported only when a variant asks for it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import TensorSpec, Variant

__all__ = [
    "Array",
    "Engine",
    "Image",
    "Opened",
    "Pending",
    "Skipped",
    "installed",
    "open_engine",
    "open_first",
    "switch_off",
]


Image = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
# Waits for what was started, and returns the outputs by name.
Pending = Callable[[], Mapping[str, Array]]


class Engine(Protocol):
    """What the runtime asks of one: an opened variant of the deploy graph, used by one thread at a time."""

    @property
    def name(self) -> str:
        """Library and version, for display: `OpenVINO 2026.4.1`."""

    @property
    def device(self) -> str:
        """What it runs on, for display: `CPU`, `GPU.0`."""

    @property
    def requests(self) -> int:
        """How many frames it works on at once: 1, but where it was asked for throughput."""

    def start(self, image: Image) -> Pending:
        """Begins with an image as `infer` takes it, which must stay as it is until the answer was waited for.

        At most `requests` may be begun and not waited for; answers hold until as many more were begun. Raises
        EngineError, as the waiting does.
        """

    def infer(self, image: Image) -> Mapping[str, Array]:
        """Runs uint8 `[1, H, W, 3]` BGR, C-contiguous, of exactly the manifest's size.

        Returns the outputs by their names in the manifest; the arrays are the engine's own memory and hold only
        until the next call. Raises EngineError.
        """

    def close(self) -> None: ...


@dataclass(frozen=True)
class _Adapter:
    """A module with an `open_variant` function, the library that it needs, and what brings that."""

    module: str
    library: str
    hint: str


_TENSORRT = "edgekit_runtime.engines.tensorrt.engine"
# By engine name in the manifest.
_ADAPTERS = {
    "openvino": _Adapter("edgekit_runtime.engines.openvino", "openvino", "pip install 'edgekit-runtime[openvino]'"),
    "onnxruntime": _Adapter(
        "edgekit_runtime.engines.onnxruntime", "onnxruntime", "pip install 'edgekit-runtime[onnxruntime]'"
    ),
    "tensorrt-rtx": _Adapter(_TENSORRT, "tensorrt_rtx_bindings", "pip install 'edgekit-runtime[rtx]'"),
    "tensorrt": _Adapter(
        _TENSORRT,
        "tensorrt",
        "JetPack brings TensorRT for the system's Python: `python3 -m venv --system-site-packages` lets it in.",
    ),
}


@dataclass(frozen=True)
class Skipped:
    """A variant that was passed over, and why."""

    variant: Variant
    reason: str


@dataclass(frozen=True)
class Opened:
    """The engine that runs, the variant that it runs, and what was passed over before it."""

    engine: Engine
    variant: Variant
    skipped: tuple[Skipped, ...] = ()


def installed(engine: str) -> bool:
    """Whether the library of an engine is here; False for an engine that this runtime does not know."""
    return engine in _ADAPTERS and find_spec(_ADAPTERS[engine].library) is not None


def open_engine(bundle: Bundle, variant: Variant) -> Engine:
    """Opens one variant. Raises EngineError when its library is absent or refuses the model or its settings."""
    if variant.engine not in _ADAPTERS:
        raise EngineError(
            f"This edgekit-runtime has no engine named {variant.engine!r} (it has {', '.join(_ADAPTERS)}).",
            hint="Update edgekit-runtime, or build the bundle for one of these engines.",
        )
    adapter = _ADAPTERS[variant.engine]
    if not installed(variant.engine):
        raise EngineError(f"The {variant.engine} engine is not installed.", hint=adapter.hint)
    switch_off()  # before the import of OpenVINO, which reports itself otherwise
    engine: Engine = import_module(adapter.module).open_variant(bundle, variant)
    return engine


def open_first(bundle: Bundle, engine: str | None = None, passed_over: Sequence[Skipped] = ()) -> Opened:
    """Opens the first variant, in the bundle's order of preference, whose engine is installed and accepts it.

    With `engine`, only variants for that engine count; those in `passed_over` have been tried. Raises EngineError that
    says for each variant why not.
    """
    variants: Sequence[Variant] = bundle.manifest.variants
    if engine is not None:
        variants = [variant for variant in variants if variant.engine == engine]
        if not variants:
            there = ", ".join(sorted({variant.engine for variant in bundle.manifest.variants}))
            raise EngineError(f"{bundle.path} has no variant for {engine}.", hint=f"It has: {there}.")
    skipped = list(passed_over)
    hint = ""
    for variant in variants:
        if any(variant is skip.variant for skip in passed_over):
            continue
        try:
            return Opened(open_engine(bundle, variant), variant, tuple(skipped))
        except EngineError as error:
            skipped.append(Skipped(variant, str(error.args[0])))
            hint = hint or error.hint
    reasons = " ".join(f"{skip.variant.engine} {skip.variant.precision}: {skip.reason}" for skip in skipped)
    raise EngineError(f"No variant of {bundle.path} runs here. {reasons}", hint=hint)


def check_settings(variant: Variant, allowed: Collection[str]) -> None:
    """A manifest comes from elsewhere: it may tune the engine, and nothing more. Raises EngineError."""
    unknown = sorted(variant.config.keys() - set(allowed))
    if unknown:
        raise EngineError(f"the manifest sets {', '.join(unknown)}, which a bundle may not")


def check_ports(specs: Sequence[TensorSpec], shapes: Mapping[str, tuple[int, ...]], dtypes: Mapping[str, str]) -> None:
    """Compares shapes, and element types that are known, of a model's inputs and outputs by name with the manifest's.

    What the manifest does not name is ignored. Raises EngineError.
    """
    for spec in specs:
        if spec.name not in shapes:
            raise EngineError(f"the graph has no tensor named {spec.name!r}, which the manifest promises")
        shape, dtype = shapes[spec.name], dtypes.get(spec.name, spec.dtype)
        if (shape, dtype) != (spec.shape, spec.dtype):
            raise EngineError(
                f"{spec.name!r} is {dtype} {list(shape)}, the manifest says {spec.dtype} {list(spec.shape)}"
            )


def said(error: BaseException, line: int) -> str:
    """One line of what a library said that is not empty: the first of some, the last of others is the reason."""
    lines = [text.strip() for text in str(error).splitlines() if text.strip()]
    return lines[line][:300] if lines else type(error).__name__


def switch_off() -> None:
    """No telemetry: call before the first import of openvino or nncf; afterwards neither opens a connection.

    Both report their very import through `openvino_telemetry`, and nothing where that is absent. None in `sys.modules`
    is Python's own way to say so.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
