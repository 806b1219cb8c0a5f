"""A video cut into work units: each frame decoded once, each unit with the frames around it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.pipeline.evaluate import Unit
from edgekit_experts.video.reader import Frame, VideoReader

Array = npt.NDArray[Any]

Wanted = Callable[[int, int], Mapping[str, frozenset[int]]]
"""(start, stop) -> the frames in between that are missing, by modality; empty where nothing is."""


class UnitReader:
    """Iterates over the units of a video between frames `start` and `stop` in which something is missing.

    `stop` is None to read to the end, wherever that is; after that, `ended` is the number of frames. What is
    in memory is one unit and its surroundings, however long the video.
    """

    def __init__(
        self,
        reader: VideoReader,
        unit: int,
        around: tuple[int, int],
        wanted: Wanted,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        self._reader = reader
        self._size = unit
        self._before, self._after = around
        self._wanted = wanted
        self._start, self._stop = start, stop
        self.ended: int | None = None

    def __iter__(self) -> Iterator[Unit]:
        numbers = self._numbers()
        plan = next(numbers, None)
        if plan is None:
            return
        begin = max(0, plan[0] * self._size - self._before)
        buffer: dict[int, Frame] = {}
        last = -1
        for frame in self._reader.read(begin):
            last = frame.index
            # Units may follow each other closely enough to share frames: one frame can complete only one.
            while plan and last >= plan[0] * self._size + self._size + self._after:
                yield self._assemble(*plan, buffer, last)
                plan = next(numbers, None)
            if plan is None:
                return
            low = plan[0] * self._size - self._before
            for index in [index for index in buffer if index < low]:
                del buffer[index]
            if last >= low:
                buffer[last] = frame
        if last < 0 and begin > 0:
            # The end lies before the place where we began, and only reading from the start tells where.
            last = max((frame.index for frame in self._reader.read()), default=-1)
        self.ended = last + 1
        while plan and plan[0] * self._size < self.ended:
            yield self._assemble(*plan, buffer, self.ended)
            plan = next(numbers, None)

    def _numbers(self) -> Iterator[tuple[int, Mapping[str, frozenset[int]]]]:
        """Units with something to do. Without an end there is always a next one."""
        number = self._start // self._size
        while self._stop is None or number * self._size < self._stop:
            first = max(self._start, number * self._size)
            last = (number + 1) * self._size
            wanted = self._wanted(first, last if self._stop is None else min(self._stop, last))
            if wanted:
                yield number, wanted
            number += 1

    def _assemble(
        self, number: int, wanted: Mapping[str, frozenset[int]], buffer: Mapping[int, Frame], known: int
    ) -> Unit:
        """`known` frames of the video exist; a unit at its end is shorter."""
        start, stop = number * self._size, min((number + 1) * self._size, known)
        first, last = max(0, start - self._before), min(stop + self._after, known)
        frames = [buffer[index] for index in range(first, last)]
        present = {name: frozenset(i for i in indices if i < stop) for name, indices in wanted.items()}
        rgb: Array = np.stack([frame.rgb for frame in frames])
        streams = [frame.streams for frame in frames]
        faults = {frame.index: frame.fault for frame in frames if frame.fault}
        return Unit(number, start, stop, first, rgb, streams, present, faults, self._reader.name, self._reader.fps)
