"""TensorRT: NVIDIA's GPUs, by TensorRT for RTX on PCs and by JetPack's TensorRT on Jetson.

Engines fit one version of TensorRT and one kind of GPU. A bundle carries the ONNX form of the graph and, for RTX,
engines that were built ahead of time; what is missing or does not fit is built by `edgekit-run prepare`, never by the
way: on a Jetson it takes minutes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

from edgekit_runtime.errors import EngineError

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
