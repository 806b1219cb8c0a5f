"""Live segmentation and depth from one verified bundle: capture, infer, display.

    from edgekit_runtime import load, open_source

    model = load("model.edgekit")
    for frame in open_source("camera:0"):
        result = model(frame)      # result.labels, result.depth, result.timing

Names are resolved on first use: importing this package costs next to nothing and opens no inference engine.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False  # as that of typing, which takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from edgekit_runtime.app import run
    from edgekit_runtime.bundle import Bundle, open_bundle
    from edgekit_runtime.colour import colourise
    from edgekit_runtime.errors import BundleError, EdgekitError, EngineError, SinkError, SourceError, UsageError
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

# Module -> what is taken from it.
_NAMES = {
    "app": ("run",),
    "bundle": ("Bundle", "open_bundle"),
    "colour": ("colourise",),
    "errors": ("BundleError", "EdgekitError", "EngineError", "SinkError", "SourceError", "UsageError"),
    "loop": ("Loop",),
    "manifest": ("Manifest",),
    "modality": ("Kind", "Modality", "Taxonomy"),
    "model": ("Model", "Result", "Timing", "load"),
    "overlay": ("Overlay",),
    "sinks": ("open_sink",),
    "sinks.base": ("Sink",),
    "sources": ("open_source",),
    "sources.base": ("Frame", "Source", "SourceState"),
    "stats": ("Stats",),
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
    from importlib import import_module

    module = next((module for module, names in _NAMES.items() if name in names), None)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
