"""`edgekit-run prepare`: engines of TensorRT, built on the device and kept in the user's cache folder.

One is used where its record is equal in all: the model's hash, the GPU, the version of TensorRT, the precision.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Callable
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.bundle import Bundle, open_bundle
from edgekit_runtime.engines import installed, open_engine
from edgekit_runtime.errors import EngineError
from edgekit_runtime.files import cache_directory, digest_bytes, flush, whole
from edgekit_runtime.handoff import in_background
from edgekit_runtime.manifest import Variant

if TYPE_CHECKING:
    from edgekit_runtime.engines.tensorrt import Library, Plan
    from edgekit_runtime.engines.tensorrt.cuda import Gpu

PREPARED = ("tensorrt", "tensorrt-rtx")
_RECORD_BYTES = 1 << 16
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
    from edgekit_runtime.engines.tensorrt.engine import shipped_misfit

    library = load_library(variant.engine)
    if "engine" in variant.config and not shipped_misfit(variant, library, gpu):
        return Prepared(variant, str(gpu), "", 0.0, True)
    key = Key.of(bundle, variant, library, gpu)
    try:
        read_prepared(key)
    except EngineError:
        pass
    else:
        return Prepared(variant, str(gpu), str(key.path(".engine")), 0.0, True)
    started = time.monotonic()
    timings = timings_path(library, gpu)
    plan = _build(bundle, variant, library, gpu, read_blob(timings), watch)
    if plan.timings:
        write_blob(timings, plan.timings)
    path = store_prepared(key, plan.engine)
    return Prepared(variant, str(gpu), str(path), time.monotonic() - started, False)


def _build(bundle: Bundle, variant: Variant, library: Library, gpu: Gpu, timings: bytes, watch: Watch) -> Plan:
    """In a thread of its own, so that Ctrl-C is heard in native code that takes minutes."""
    from edgekit_runtime.engines.tensorrt import RTX, build_plan

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


@dataclass(frozen=True)
class Key:
    """What an engine was built for; `model` is the SHA-256 of the ONNX file, `network` what people call it."""

    network: str
    model: str
    precision: str
    gpu: str
    tensorrt: str

    @classmethod
    def of(cls, bundle: Bundle, variant: Variant, library: Library, gpu: Gpu) -> Key:
        model = bundle.manifest.files[variant.model].sha256
        return cls(bundle.manifest.name, model, variant.precision, str(gpu), library.name)

    def difference(self, other: Key) -> str:
        """What makes an engine of `other` useless here, in words; empty when nothing does."""
        if other.gpu != self.gpu:
            return f"was built for {other.gpu}; this is {self.gpu}"
        if other.tensorrt != self.tensorrt:
            return f"was built by {other.tensorrt}; this is {self.tensorrt}"
        if other.model != self.model:
            return f"is of another build of {self.network}"
        return ""

    @property
    def _stem(self) -> str:
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:24]

    def path(self, suffix: str) -> Path | None:
        """Where a file about this engine lies or will; None where there is no cache folder."""
        folder = cache_directory(f"tensorrt/{_plain(self.network)}-{_plain(self.precision)}")
        return folder / f"{self._stem}{suffix}" if folder else None


def read_prepared(key: Key) -> bytes:
    """The engine for a key. Raises EngineError that says why there is none, without what to do about it."""
    record = key.path(".json")
    if record is None:
        raise EngineError("there is no cache folder that could hold a prepared engine")
    try:
        table = _read_record(record)
        engine = record.with_suffix(".engine").read_bytes()
    except (OSError, ValueError):
        raise EngineError(_why_none(key, record.parent)) from None
    if digest_bytes(engine).sha256 != table.get("sha256"):
        raise EngineError("the prepared engine is damaged (SHA-256 differs)")
    return engine


def store_prepared(key: Key, engine: bytes) -> Path:
    """Writes an engine, whole or not at all, its record last. Raises EngineError where it cannot be written."""
    record = key.path(".json")
    if record is None:
        raise EngineError("The user's cache folder cannot be written.", hint="XDG_CACHE_HOME names another one.")
    path = record.with_suffix(".engine")
    try:
        record.unlink(missing_ok=True)  # it is of what is about to be replaced
        with whole(path) as partial:
            partial.write_bytes(engine)
            flush(partial)
        with whole(record) as partial:
            table = {**asdict(key), "sha256": digest_bytes(engine).sha256}
            partial.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise EngineError(f"{path} cannot be written: {error.strerror or error}.", hint="Free some space.") from error
    return path


def timings_path(library: Library, gpu: Gpu) -> Path | None:
    """Where it lies what a builder has learnt about a GPU: it serves every network; None without a cache folder."""
    folder = cache_directory("tensorrt")
    return folder / f"{_plain(str(gpu))}-{_plain(library.name)}.timings" if folder else None


def read_blob(path: Path | None) -> bytes:
    """Something that only saves time: empty where it is not there."""
    if path is not None:
        with suppress(OSError):
            return path.read_bytes()
    return b""


def write_blob(path: Path | None, data: bytes) -> None:
    """Keeps something that only saves time, where that can be written."""
    if path is not None:
        with suppress(OSError), whole(path) as partial:
            partial.write_bytes(data)


def _why_none(key: Key, folder: Path) -> str:
    others = []
    for record in sorted(folder.glob("*.json")):
        with suppress(OSError, ValueError, TypeError):
            table = _read_record(record)
            table.pop("sha256")
            others.append(key.difference(Key(**table)))
    reasons = [reason for reason in others if reason]
    return f"the engine that is prepared {reasons[0]}" if reasons else "no engine is prepared for it"


def _read_record(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        table = json.loads(file.read(_RECORD_BYTES))
    if not isinstance(table, dict):
        raise ValueError(path)
    return table


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", text).strip(".") or "_"
