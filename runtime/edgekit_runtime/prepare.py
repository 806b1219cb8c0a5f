"""`edgekit-run prepare`: builds on the device what a bundle cannot carry, the engines of TensorRT, and keeps them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engines import installed, open_engine
from edgekit_runtime.errors import EngineError
from edgekit_runtime.handoff import in_background
from edgekit_runtime.manifest import Variant

if TYPE_CHECKING:
    from edgekit_runtime.engines.tensorrt import Library
    from edgekit_runtime.engines.tensorrt.builder import Plan
    from edgekit_runtime.engines.tensorrt.cuda import Gpu

PREPARED = ("tensorrt", "tensorrt-rtx")
_TICK_S = 0.5
# Of a builder that is told to stop: it does so at its next step, or is left alone.
_PATIENCE_S = 5.0
# Called about twice a second with what the builder is at, and the seconds that it has taken.
Watch = Callable[[str, float], None]


@dataclass(frozen=True)
class Prepared:
    """An engine that is ready: for which variant and GPU, where it lies, and whether it was there before.

    `path` is empty for one that lies in the bundle.
    """

    variant: Variant
    gpu: str
    path: str
    seconds: float
    was_there: bool


def prepare(path: str | Path, *, key: Path | None = None, watch: Watch = lambda phase, seconds: None) -> list[Prepared]:
    """Makes the TensorRT variants of a bundle ready on this device and runs each once.

    Raises BundleError, and EngineError: the bundle has none, TensorRT or a GPU is absent, an engine cannot be built.
    """
    bundle = open_bundle(path, key=key)
    variants = [variant for variant in bundle.manifest.variants if variant.engine in PREPARED]
    if not variants:
        there = ", ".join(dict.fromkeys(variant.engine for variant in bundle.manifest.variants))
        raise EngineError(f"{bundle.path} has nothing to prepare: it is for {there}.", hint="Run it as it is.")
    here = [variant for variant in variants if installed(variant.engine)] or variants[:1]
    from edgekit_runtime.engines.tensorrt.cuda import find_gpu

    gpu = find_gpu()
    done = []
    for variant in here:
        prepared = prepare_variant(bundle, variant, gpu, watch)
        _run_once(bundle, variant)
        done.append(prepared)
    return done


def prepare_variant(bundle: Bundle, variant: Variant, gpu: Gpu, watch: Watch = lambda phase, seconds: None) -> Prepared:
    """Builds the engine of one variant for a GPU, unless one that fits is there. Raises EngineError."""
    from edgekit_runtime.engines.tensorrt import load_library
    from edgekit_runtime.engines.tensorrt import prepared as kept
    from edgekit_runtime.engines.tensorrt.engine import shipped_misfit

    library = load_library(variant.engine)
    if "engine" in variant.config and not shipped_misfit(variant, library, gpu):
        return Prepared(variant, str(gpu), "", 0.0, True)
    key = kept.Key.of(bundle, variant, library, gpu)
    try:
        kept.read_prepared(key)
    except EngineError:
        pass
    else:
        return Prepared(variant, str(gpu), str(key.path(".engine")), 0.0, True)
    started = time.monotonic()
    timings = kept.timings_path(library, gpu)
    plan = _build(bundle, variant, library, gpu, kept.read_blob(timings), watch)
    if plan.timings:
        kept.write_blob(timings, plan.timings)
    path = kept.store_prepared(key, plan.engine)
    return Prepared(variant, str(gpu), str(path), time.monotonic() - started, False)


def _build(bundle: Bundle, variant: Variant, library: Library, gpu: Gpu, timings: bytes, watch: Watch) -> Plan:
    """In a thread of its own, so that Ctrl-C is heard in native code that takes minutes."""
    from edgekit_runtime.engines.tensorrt import RTX
    from edgekit_runtime.engines.tensorrt.builder import build_plan

    onnx = bundle.read(variant.model)
    stop = threading.Event()
    phase = [""]

    def report(text: str) -> bool:
        phase[0] = text
        return not stop.is_set()

    specs = (bundle.manifest.input, *bundle.manifest.outputs)
    aims = [gpu.capability] if library.engine == RTX else []
    build = partial(
        build_plan, library, onnx, variant.precision, specs, capabilities=aims, timings=timings, report=report
    )
    started = time.monotonic()
    future = in_background("tensorrt-builder", build)
    try:
        while True:
            try:
                return future.result(_TICK_S)
            except NotYet:
                watch(phase[0], time.monotonic() - started)
    except KeyboardInterrupt:
        stop.set()
        with suppress(NotYet):
            future.exception(_PATIENCE_S)
        raise


def _run_once(bundle: Bundle, variant: Variant) -> None:
    """Opens what was prepared and runs a black frame, for which TensorRT for RTX compiles and keeps its kernels."""
    import numpy as np

    engine = open_engine(bundle, variant)
    try:
        engine.infer(np.zeros(bundle.manifest.input.shape, np.uint8))
    finally:
        engine.close()
