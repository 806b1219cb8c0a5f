"""The pipeline of one machine: decoding, computing and writing at the same time.

One thread decodes, `workers` compute and encode whole units, one writes. All queues are bounded: workers + 1 units
are in memory, however long the video.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import cv2

from edgekit_experts.pipeline.evaluate import Outcome
from edgekit_experts.pipeline.units import UnitReader
from edgekit_experts.pipeline.work import VideoWork
from edgekit_experts.video import VideoReader
from edgekit_runtime.errors import EdgekitError

DECODING, COMPUTING, WRITING = "decoding", "computing", "writing"


@dataclass
class Spent:
    """Where the time of a run goes, in seconds: how long the pipeline waited for each of its stages, and how long
    each modality's expert computed (in all threads together).
    """

    waiting: dict[str, float] = field(default_factory=dict)
    computing: dict[str, float] = field(default_factory=dict)

    def add(self, other: Spent) -> None:
        _add(self.waiting, other.waiting)
        _add(self.computing, other.computing)

    @property
    def bottleneck(self) -> str:
        """The stage that the others wait for: decoding, writing, or the modality that takes longest to compute.

        Empty at first.
        """
        if not self.waiting:
            return ""
        stage = max(self.waiting, key=lambda name: self.waiting[name])
        if stage != COMPUTING or not self.computing:
            return stage
        return max(self.computing, key=lambda name: self.computing[name])


OnUnit = Callable[[Outcome, int, Spent], None]
"""(unit, frames of modalities that were written, what was spent since the unit before)"""


def run_pipeline(
    reader: VideoReader,
    work: VideoWork,
    span: tuple[int, int | None],
    workers: int,
    stop: threading.Event,
    on_unit: OnUnit,
) -> int | None:
    """Makes what is missing in the frames of `span`, an end excluded or None for the video's.

    Returns the number of frames of the video if its end was reached. Whatever ends it early (an error, `stop`,
    Ctrl-C), what the experts have finished is written first.
    """
    return _Pipeline(reader, work, workers, stop, on_unit).run(span)


@contextmanager
def one_thread_per_call() -> Iterator[None]:
    """OpenCV's own threads would fight with ours, and its flow depends on their number."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Pipeline:
    def __init__(
        self, reader: VideoReader, work: VideoWork, workers: int, stop: threading.Event, on_unit: OnUnit
    ) -> None:
        self._reader, self._work, self._workers = reader, work, workers
        self._stop, self._on_unit = stop, on_unit
        self._pending: deque[Future[Outcome]] = deque()
        self._writing: Future[None] | None = None
        self._spent = Spent()

    def run(self, span: tuple[int, int | None]) -> int | None:
        units = UnitReader(
            self._reader, self._work.video.info.unit, self._work.around, self._work.missing, span[0], span[1]
        )
        with (
            ThreadPoolExecutor(self._workers, "expert") as pool,
            ThreadPoolExecutor(1, "writer") as writer,
        ):
            try:
                decoded = iter(units)
                while True:
                    with self._waiting_for(DECODING):
                        unit = next(decoded, None)
                    if unit is None:
                        break
                    if self._stop.is_set():
                        raise EdgekitError("Another video of this run ended it.")
                    self._pending.append(pool.submit(self._work.evaluate, unit))
                    del unit
                    while len(self._pending) > self._workers:
                        self._write_next(writer)
                while self._pending:
                    self._write_next(writer)
                if self._writing:
                    self._writing.result()
            except BaseException:
                self._save_what_is_ready()
                raise
        return units.ended

    def _write_next(self, writer: ThreadPoolExecutor) -> None:
        with self._waiting_for(COMPUTING):
            outcome = self._pending.popleft().result()
        if self._writing:
            with self._waiting_for(WRITING):
                self._writing.result()
        spent, self._spent = self._spent, Spent()
        _add(spent.computing, outcome.seconds)
        self._writing = writer.submit(self._write, outcome, spent)

    def _write(self, outcome: Outcome, spent: Spent) -> None:
        self._on_unit(outcome, self._work.write(outcome), spent)

    def _save_what_is_ready(self) -> None:
        """On the way out: workers end after their batch, and what they finished is written, if it can be."""
        self._stop.set()
        with suppress(EdgekitError):
            if self._writing:
                self._writing.result()
            for future in self._pending:
                if not future.cancel():
                    self._write(future.result(), Spent())

    @contextmanager
    def _waiting_for(self, stage: str) -> Iterator[None]:
        began = time.monotonic()
        yield
        _add(self._spent.waiting, {stage: time.monotonic() - began})


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, seconds in more.items():
        total[name] = total.get(name, 0.0) + seconds
