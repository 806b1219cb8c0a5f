"""One video's part in a run: which of its frames are missing, how they are made, and where they go."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset import Video
from edgekit_experts.graph import Graph
from edgekit_experts.pipeline.evaluate import Outcome, Unit, evaluate, reach
from edgekit_runtime.errors import DataError

Array = npt.NDArray[Any]
T = TypeVar("T")


class VideoWork:
    """A video whose modalities were declared as `graph` has them.

    Different units may be evaluated at once; they share no file, and `stop` ends them after their present batch.
    Raises DataError where the data set says otherwise than the graph.
    """

    def __init__(self, graph: Graph, video: Video, stop: threading.Event) -> None:
        self.graph = graph
        self.video = video
        self.around = reach(graph, graph.wanted)
        self._stop = stop
        self._arrays = {node.name: video.arrays[node.name] for node in graph.nodes if node.name in video.arrays}
        for node in graph.nodes:
            if node.name not in self._arrays or self._arrays[node.name].declaration.hash != node.declaration.hash:
                raise DataError(
                    f"{node.name} of {video.name} is declared otherwise in the data set than by this process.",
                    hint="All machines need the same experts, tables and weights, and one run at a time.",
                )
        self._done = {node.name: video.done(node.name) for node in graph.nodes}

    def missing(self, start: int, stop: int) -> dict[str, frozenset[int]]:
        """Frames from `start` to `stop` that are still to be made, by modality; those beyond what is known of the
        video count, too: they may exist.
        """
        missing = {name: _not_done(done, start, stop) for name, done in self._done.items()}
        return {name: frames for name, frames in missing.items() if frames}

    def evaluate(self, unit: Unit) -> Outcome:
        """What the experts say of a unit, encoded."""
        encode = {name: array.encode for name, array in self._arrays.items()}
        return evaluate(self.graph, unit, encode, self._stored, self._stop)

    def write(self, outcome: Outcome) -> int:
        """Puts a unit on the disk; returns the number of frames of modalities."""
        unit = outcome.unit
        written = 0
        for name in sorted(outcome.encoded.keys() | outcome.failed.keys()):
            encoded, failed = outcome.encoded.get(name, {}), outcome.failed.get(name, {})
            self._arrays[name].put(unit.number, _places(encoded, unit), _places(failed, unit))
            written += len(encoded)
        return written

    def _stored(self, name: str, frame: int) -> Array | None:
        if frame >= len(self._done[name]) or not self._done[name][frame]:
            return None
        array = self._arrays[name]
        out = np.empty(array.shape[1:], array.dtype)
        return out if array.read(frame, out) else None


def _not_done(done: Array, start: int, stop: int) -> frozenset[int]:
    known = np.flatnonzero(~done[start:stop]) + start
    return frozenset(known.tolist()) | frozenset(range(max(start, len(done)), stop))


def _places(by_frame: Mapping[int, T], unit: Unit) -> dict[int, T]:
    return {frame - unit.start: value for frame, value in by_frame.items()}
