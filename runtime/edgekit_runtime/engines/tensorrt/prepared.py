"""Engines that were built on this device, in the user's cache folder, each with a record of what it was built for.

An engine is used where its record is equal in all: the model's hash, the GPU, the version of TensorRT, the precision.
Records that differ say why there is none.
"""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines.tensorrt import Library
from edgekit_runtime.engines.tensorrt.cuda import Gpu
from edgekit_runtime.errors import EngineError
from edgekit_runtime.files import cache_directory, digest_bytes, flush, whole
from edgekit_runtime.manifest import Variant

_RECORD_BYTES = 1 << 16


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
