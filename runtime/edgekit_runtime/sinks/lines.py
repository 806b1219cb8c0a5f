"""`json:PATH` or `json:PATH?masks=1`: one line of JSON a frame, for scripts.

    {"index": 12, "timestamp_s": 0.48, "unix_s": 1790000000.123, "inference_ms": 1.61,
     "areas": {"road": 0.31, "car": 0.04},
     "depth": {"min": 1.9, "median": 14.2, "max": 80.1, "unit": "m"},
     "masks": [{"class": "road", "size": [136, 240], "counts": [1804, 12, ...]}],
     "beside": [{"bundle": "dpt-large", "index": 4, "depth": {...}}]}

Areas are shares of the picture; masks are COCO's uncompressed run lengths, at the size of the class map.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_runtime.beside import depth_modality
from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.model import Beside, Result
from edgekit_runtime.sinks.base import Sink, SinkContext

_FLUSH_S = 1.0


class LineSink(Sink):
    """Appends; whole lines are on the disk about once a second and at the end."""

    def __init__(self, path: Path, context: SinkContext, *, masks: bool = False) -> None:
        self._path, self._context, self._masks = path, context, masks
        self._flushed = time.monotonic()
        # What turns time.monotonic() into the time of day, once: a clock that is set must not make time jump.
        self._offset = time.time() - time.monotonic()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a", encoding="utf-8")
            self._whole = path.stat().st_size
        except OSError as error:
            raise self._error(error) from error

    def write(self, picture: Picture, result: Result) -> None:
        line: dict[str, Any] = {
            "index": result.frame.index,
            "timestamp_s": round(result.frame.timestamp_s, 4),
            "unix_s": round(result.frame.captured + self._offset, 3),
            "inference_ms": round(result.timing.inference_ms, 3),
        }
        names = [name for name, _ in self._context.legend]
        line |= self._said(result, names, self._context.depth_unit)
        if result.beside:
            line["beside"] = [self._beside(each) for each in result.beside]
        try:
            self._file.write(json.dumps(line, separators=(",", ":")) + "\n")
            if time.monotonic() - self._flushed > _FLUSH_S:
                self._flushed = time.monotonic()
                self._flush()
        except OSError as error:
            self._cut()
            raise self._error(error) from error

    def close(self) -> None:
        if self._file.closed:
            return
        try:
            self._flush()
            os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            self._cut()
            raise self._error(error) from error

    def _flush(self) -> None:
        self._file.flush()
        self._whole = os.fstat(self._file.fileno()).st_size

    def _cut(self) -> None:
        """Closes with the last whole line: of those that no longer fit, half a one may be there."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            os.truncate(self._path, self._whole)

    def _said(self, result: Result, names: Sequence[str], unit: str | None) -> dict[str, Any]:
        said: dict[str, Any] = {}
        if result.labels is not None:
            said |= self._classes(result.labels, names)
        if result.depth is not None:
            said["depth"] = _depth(result.depth, unit)
        return said

    def _beside(self, beside: Beside) -> dict[str, Any]:
        taxonomy, depth = beside.manifest.taxonomy, depth_modality(beside.manifest)
        said = self._said(beside.result, taxonomy.classes if taxonomy else (), depth.unit if depth else None)
        return {"bundle": beside.manifest.name, "index": beside.result.frame.index, **said}

    def _classes(self, labels: npt.NDArray[np.uint8], names: Sequence[str]) -> dict[str, Any]:
        counts = np.bincount(labels.ravel(), minlength=256)[: len(names)]
        present = [int(number) for number in np.flatnonzero(counts)]
        found: dict[str, Any] = {
            "areas": {names[number]: round(float(counts[number] / labels.size), 5) for number in present}
        }
        if self._masks:
            size = list(labels.shape)
            found["masks"] = [
                {"class": names[number], "size": size, "counts": run_lengths(labels == number)} for number in present
            ]
        return found

    def _error(self, error: OSError) -> SinkError:
        return SinkError(
            f"{self._path} cannot be written: {error.strerror or error}.", hint="What was written before is whole."
        )


def _depth(depth: npt.NDArray[Any], unit: str | None) -> dict[str, Any]:
    valid = depth[np.isfinite(depth)]
    if not valid.size:
        return {"min": None, "median": None, "max": None, "unit": unit}
    low, middle, high = (float(value) for value in (valid.min(), np.median(valid), valid.max()))
    return {"min": round(low, 4), "median": round(middle, 4), "max": round(high, 4), "unit": unit}


def run_lengths(mask: npt.NDArray[np.bool_]) -> list[int]:
    """COCO's uncompressed run lengths of `(h, w)`: column by column, those that are False first."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff(np.concatenate([[0], edges, [flat.size]]))
    return [*([0] if flat.size and flat[0] else []), *(int(count) for count in counts)]


def parse(argument: str) -> tuple[Path, bool]:
    """(path, masks) of `PATH[?masks=1]`. Raises UsageError."""
    path, _, query = argument.partition("?")
    if not path or query not in ("", "masks=1", "masks=0"):
        raise UsageError(f"json:{argument} is not a file.", hint="Write json:out.jsonl or json:out.jsonl?masks=1")
    return Path(path).expanduser(), query == "masks=1"


def open_json(argument: str, context: SinkContext) -> Sink:
    path, masks = parse(argument)
    return LineSink(path, context, masks=masks)
