"""Live segmentation and depth from one verified bundle: capture, infer, display.

    from edgekit_runtime import load, open_source

    model = load("model.edgekit")
    for frame in open_source("camera:0"):
        result = model(frame)      # result.labels, result.depth, result.timing

Names are resolved on first use: importing this package costs next to nothing and opens no inference engine.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from edgekit_runtime.app import run
    from edgekit_runtime.bundle import Bundle, open_bundle
    from edgekit_runtime.colour import colourise
    from edgekit_runtime.errors import (
        BundleError,
        EdgekitError,
        EngineError,
        SinkError,
        SourceError,
        UsageError,
    )
    from edgekit_runtime.loop import Loop
    from edgekit_runtime.manifest import Manifest
    from edgekit_runtime.modality import Kind, Modality, Taxonomy
    from edgekit_runtime.model import Model, Result, Timing, load
    from edgekit_runtime.overlay import Overlay
    from edgekit_runtime.sinks import open_sink
    from edgekit_runtime.sinks.base import Sink
    from edgekit_runtime.sources import open_source
    from edgekit_runtime.sources.base import Frame, Source, SourceState
    from edgekit_runtime.stats import Stats

_MODULES = {
    "run": "app",
    "Bundle": "bundle",
    "open_bundle": "bundle",
    "colourise": "colour",
    "BundleError": "errors",
    "EdgekitError": "errors",
    "EngineError": "errors",
    "SinkError": "errors",
    "SourceError": "errors",
    "UsageError": "errors",
    "Loop": "loop",
    "Manifest": "manifest",
    "Kind": "modality",
    "Modality": "modality",
    "Taxonomy": "modality",
    "Model": "model",
    "Result": "model",
    "Timing": "model",
    "load": "model",
    "Overlay": "overlay",
    "open_sink": "sinks",
    "Sink": "sinks.base",
    "open_source": "sources",
    "Frame": "sources.base",
    "Source": "sources.base",
    "SourceState": "sources.base",
    "Stats": "stats",
}

__all__ = [
    "Bundle",
    "BundleError",
    "EdgekitError",
    "EngineError",
    "Frame",
    "Kind",
    "Loop",
    "Manifest",
    "Modality",
    "Model",
    "Overlay",
    "Result",
    "Sink",
    "SinkError",
    "Source",
    "SourceError",
    "SourceState",
    "Stats",
    "Taxonomy",
    "Timing",
    "UsageError",
    "__version__",
    "colourise",
    "load",
    "open_bundle",
    "open_sink",
    "open_source",
    "run",
]


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
