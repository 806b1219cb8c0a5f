"""One work unit through the graph: everything that depends on its frames, computed while they are in memory."""

from __future__ import annotations

import inspect
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch
from edgekit_experts.graph import Graph, Node

Array = npt.NDArray[Any]

BATCH_FRAMES = 8

Stored = Callable[[str, int], Array | None]
"""(modality, frame) -> the frame as it was stored, None where it has to be made."""


@dataclass(frozen=True)
class Unit:
    """Frames to answer for, `start` to `stop` (excluded), and those around them that experts look at.

    `rgb` is uint8 (N, H, W, 3), the frames from number `first` on, and `streams` what came with each of them;
    they reach less far around at the ends of the video only. `wanted` holds, for each modality, the frames of
    this unit that are still missing; `faults`, why a frame has no picture. `video` and `fps` are of the video.
    """

    number: int
    start: int
    stop: int
    first: int
    rgb: Array
    streams: Sequence[Mapping[str, Array | None]]
    wanted: Mapping[str, frozenset[int]]
    faults: Mapping[int, str] = field(default_factory=dict)
    video: str = ""
    fps: float = 25.0


@dataclass
class Outcome:
    """What became of a unit: encoded frames and messages of failures, by modality and frame number.

    A frame that is in neither is a hole: its source has nothing for it. `seconds` is what each modality took.
    """

    unit: Unit
    encoded: dict[str, dict[int, bytes]] = field(default_factory=dict)
    failed: dict[str, dict[int, str]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class _Result:
    """Frames that a node has answered for in this batch; `failed` and holes (None) have no array."""

    arrays: dict[int, Array | None] = field(default_factory=dict)
    failed: dict[int, str] = field(default_factory=dict)
    seconds: float = 0.0


def evaluate(
    graph: Graph,
    unit: Unit,
    encode: Mapping[str, Callable[[Array], bytes]],
    stored: Stored,
    stop: threading.Event,
) -> Outcome:
    """Computes what is wanted, in batches of a few frames, and encodes it at once.

    A frame on which an expert raises is recorded as failed, with what depends on it; all others go on. After
    `stop` is set, what is finished is returned.
    """
    outcome = Outcome(unit)
    for first, last in _batches(unit):
        if stop.is_set():
            break
        wanted = {name: {i for i in frames if first <= i < last} for name, frames in unit.wanted.items()}
        for name, result in _Evaluation(graph, unit, wanted, stored).run():
            outcome.seconds[name] = outcome.seconds.get(name, 0.0) + result.seconds
            for index in sorted(wanted.get(name, ())):
                if index in result.failed:
                    outcome.failed.setdefault(name, {})[index] = result.failed[index]
                    continue
                array = result.arrays[index]
                if array is None:
                    continue
                try:
                    outcome.encoded.setdefault(name, {})[index] = encode[name](array)
                except ValueError as error:
                    outcome.failed.setdefault(name, {})[index] = str(error)
    return outcome


def reach(graph: Graph, names: frozenset[str]) -> tuple[int, int]:
    """How many frames before and after a frame these nodes look at, through all that they are made from."""
    before = after = 0
    around: dict[str, tuple[int, int]] = {}
    for node in reversed(graph.nodes):
        if node.name not in names and node.name not in around:
            continue
        own = around.get(node.name, (0, 0))
        extent = own[0] + node.expert.context[0], own[1] + node.expert.context[1]
        before, after = max(before, extent[0]), max(after, extent[1])
        for name, stream in node.inputs.items():
            if not stream:
                known = around.get(name, (0, 0))
                around[name] = max(known[0], extent[0]), max(known[1], extent[1])
    return before, after


def _batches(unit: Unit) -> Iterator[tuple[int, int]]:
    for first in range(unit.start, unit.stop, BATCH_FRAMES):
        yield first, min(unit.stop, first + BATCH_FRAMES)


class _Evaluation:
    """One batch: first which frames of each node are needed, then each node once, inputs before consumers."""

    def __init__(self, graph: Graph, unit: Unit, wanted: Mapping[str, set[int]], stored: Stored) -> None:
        self._graph = graph
        self._wanted = wanted
        self._unit = unit
        self._low, self._high = unit.first, unit.first + len(unit.rgb) - 1
        self._stored = stored
        self._results: dict[str, _Result] = {}

    def run(self) -> Iterator[tuple[str, _Result]]:
        """Results of all nodes that the wanted ones need, each as soon as it is there."""
        plan = self._plan()
        last_use = {name: node.name for node in self._graph.nodes if node.name in plan for name in _node_inputs(node)}
        for node in self._graph.nodes:
            if node.name not in plan:
                continue
            began = time.monotonic()
            result = self._resolve(node, plan[node.name])
            result.seconds = time.monotonic() - began
            self._results[node.name] = result
            yield node.name, result
            for name, consumer in last_use.items():
                if consumer == node.name:
                    self._results.pop(name, None)

    def _plan(self) -> dict[str, set[int]]:
        """Frames needed of each node: the wanted ones, and those that consumers look at which are not stored."""
        plan = {name: set(frames) for name, frames in self._wanted.items() if frames}
        for node in reversed(self._graph.nodes):
            missing = self._to_compute(node, plan.get(node.name, set()))
            for name in _node_inputs(node) if missing else ():
                plan.setdefault(name, set()).update(self._around(node, missing))
        return plan

    def _to_compute(self, node: Node, frames: set[int]) -> set[int]:
        wanted = self._wanted.get(node.name, set())
        result = self._results.setdefault(node.name, _Result())
        for index in frames - wanted:
            array = self._stored(node.name, index)
            if array is not None:
                result.arrays[index] = array
        return {index for index in frames if index not in result.arrays}

    def _around(self, node: Node, frames: set[int]) -> set[int]:
        before, after = node.expert.context
        return {self._clamped(i + d) for i in frames for d in range(-before, after + 1)}

    def _clamped(self, index: int) -> int:
        return min(max(index, self._low), self._high)

    def _resolve(self, node: Node, frames: set[int]) -> _Result:
        result = self._results[node.name]
        ready = []
        for index in sorted(frames - result.arrays.keys()):
            obstacle = self._obstacle(node, index)
            if obstacle is None:
                ready.append(index)
            elif obstacle == "":
                result.arrays[index] = None
            else:
                result.failed[index] = obstacle
        for run in _runs(ready):
            self._compute(node, run, result)
        return result

    def _obstacle(self, node: Node, index: int) -> str | None:
        """None where all inputs are there; "" where one is a hole; else the message of what failed."""
        hole = False
        for around in sorted(self._around(node, {index})):
            if fault := self._unit.faults.get(around):
                return fault if around == index else f"looks at frame {around}: {fault}"
            for name, stream in node.inputs.items():
                if stream:
                    hole |= self._stream(name, around) is None
                    continue
                inputs = self._results[name]
                if around in inputs.failed:
                    return f"needs {name}, which failed" + ("" if around == index else f" at frame {around}")
                hole |= inputs.arrays.get(around) is None
        return "" if hole else None

    def _compute(self, node: Node, run: range, result: _Result) -> None:
        try:
            computed = self._call(node, run)
        except Exception as error:
            if len(run) > 1:
                for index in run:
                    self._compute(node, range(index, index + 1), result)
            else:
                result.failed[run.start] = f"{type(error).__name__}: {error}{_where(error, node)}"
            return
        result.arrays.update(zip(run, computed, strict=True))

    def _call(self, node: Node, run: range) -> Array:
        before, after = node.expert.context
        indices = [self._clamped(index) for index in range(run.start - before, run.stop + after)]
        inputs = {
            name: np.stack([self._input(name, stream, index) for index in indices])
            for name, stream in node.inputs.items()
        }
        rows = np.array(indices) - self._unit.first
        inside = rows[-1] - rows[0] + 1 == len(rows)
        frames = self._unit.rgb[rows[0] : rows[-1] + 1] if inside else self._unit.rgb[rows]
        computed = node.expert.compute(Batch(frames, inputs, run.start, self._unit.video, self._unit.fps))
        if len(computed) != len(run):
            raise ValueError(f"{len(computed)} frames came back for {len(run)}")
        if computed.dtype != np.dtype(node.modality.dtype):
            raise ValueError(f"{computed.dtype} came back; the modality is declared as {node.modality.dtype}")
        return computed

    def _input(self, name: str, stream: bool, index: int) -> Array:
        array = self._stream(name, index) if stream else self._results[name].arrays[index]
        assert array is not None, "_obstacle() let a hole pass"
        return array

    def _stream(self, name: str, index: int) -> Array | None:
        return self._unit.streams[index - self._unit.first].get(name)


def _where(error: Exception, node: Node) -> str:
    """The line of an expert of one's own in which it threw: nobody else can tell."""
    if type(node.expert).__module__.startswith("edgekit_experts."):
        return ""
    file = inspect.unwrap(type(node.expert).compute).__code__.co_filename
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    return f" ({Path(file).name}, line {lines[-1]})" if lines else ""


def _node_inputs(node: Node) -> list[str]:
    return [name for name, stream in node.inputs.items() if not stream]


def _runs(indices: Sequence[int]) -> Iterator[range]:
    """Consecutive numbers as ranges."""
    start = 0
    for place in range(1, len(indices) + 1):
        if place == len(indices) or indices[place] != indices[place - 1] + 1:
            yield range(indices[start], indices[place - 1] + 1)
            start = place
