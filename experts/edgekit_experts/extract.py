"""The pipeline: decode once, compute everything that depends on a frame while it is in memory, write behind.

Several videos go abreast while there are as many. For each, one thread decodes, its share of `workers` computes and
encodes whole units, one writes. All queues are bounded: of each video its workers + 1 units are in memory. A frame
is done when it is on the disk; whatever ends the run (an error, Ctrl-C, a kill), the next one finds what is missing
and makes only that.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.config import Config
from edgekit_experts.dataset import Dataset, Video, VideoInfo, unit_frames
from edgekit_experts.evaluate import Outcome, Unit, evaluate, reach
from edgekit_experts.graph import Graph, build_graph
from edgekit_experts.units import UnitReader
from edgekit_experts.video import VideoReader
from edgekit_runtime.errors import EdgekitError, SourceError, UsageError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]
T = TypeVar("T")


@dataclass(frozen=True)
class ExtractOptions:
    """`only`: modalities to make, with what they are made from; all when empty. `frames`: (first, end), the end
    excluded or None for the video's. `workers`: threads that compute, 0 for one per core.
    """

    only: tuple[str, ...] = ()
    frames: tuple[int, int | None] = (0, None)
    workers: int = 0
    split: str = "train"

    def __post_init__(self) -> None:
        first, end = self.frames
        if first < 0 or (end is not None and end <= first):
            raise UsageError(f"Frames {first}:{end} are none.", hint="Write FIRST:END with FIRST < END.")
        if self.workers < 0:
            raise UsageError("The number of workers cannot be negative.", hint="0 means one per core.")


@dataclass(frozen=True)
class Progress:
    """After each unit: frames of this video that were gone through, of how many (as far as known)."""

    video: str
    frames: int
    total: int


@dataclass
class ExtractReport:
    """What one run did: `frames` gone through, `written` frames of modalities, in `seconds`."""

    videos: list[str] = field(default_factory=list)
    frames: int = 0
    written: int = 0
    seconds: float = 0.0

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def extract(
    readers: Sequence[VideoReader],
    out: Path,
    config: Config,
    options: ExtractOptions | None = None,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> ExtractReport:
    """Makes what is missing of every modality of the configuration, for every video.

    Everything is checked before the first frame is decoded. Raises EdgekitError; what was written stays.
    """
    options = options or ExtractOptions()
    names = [reader.name for reader in readers]
    if twice := {name for name in names if names.count(name) > 1}:
        raise UsageError(
            f"Two videos are named {min(twice)!r}.", hint="A data set knows videos by their name: rename one of them."
        )
    graphs = _graphs(readers, config, options.only)
    data = Dataset.create(out)
    for reader in readers:
        data.add_video(reader.name, _info(reader, options.split))
    report = ExtractReport()
    started = time.monotonic()
    cores = options.workers or _cores()
    abreast = max(1, min(len(readers), cores))
    shared = _Shared(report, on_progress, workers=cores // abreast)

    def one(reader: VideoReader, graph: Graph) -> None:
        if shared.stop.is_set():
            return
        try:
            with data.writing(reader.name) as video:
                _Run(reader, graph, video, options, shared).run()
        except BaseException as error:
            shared.end(error)

    with _one_thread_per_call(), ThreadPoolExecutor(abreast, "video") as pool:
        try:
            list(pool.map(one, readers, graphs))
        except BaseException as error:
            shared.end(error)
    if shared.error:
        raise shared.error
    report.videos = [reader.name for reader in readers]
    report.seconds = time.monotonic() - started
    return report


def _graphs(readers: Sequence[VideoReader], config: Config, only: tuple[str, ...]) -> list[Graph]:
    """One for each video; those whose sources bring the same along share it, and the networks in it."""
    known: dict[tuple[Modality, ...], Graph] = {}
    for reader in readers:
        if reader.streams not in known:
            known[reader.streams] = build_graph(config, reader.streams, only)
    return [known[reader.streams] for reader in readers]


class _Shared:
    """What all videos of one run have in common."""

    def __init__(self, report: ExtractReport, on_progress: Callable[[Progress], None], workers: int) -> None:
        self.workers = workers
        self.stop = threading.Event()
        self.error: BaseException | None = None
        self._report, self._on_progress = report, on_progress
        self._lock = threading.Lock()

    def end(self, error: BaseException) -> None:
        """Ends the other videos, too; the first error is the one to be told."""
        with self._lock:
            self.error = self.error or error
        self.stop.set()

    def add(self, progress: Progress, frames: int, written: int) -> None:
        with self._lock:
            self._report.frames += frames
            self._report.written += written
            self._on_progress(progress)


def _info(reader: VideoReader, split: str) -> VideoInfo:
    source = {"uri": reader.uri, "fingerprint": reader.fingerprint}
    return VideoInfo(reader.frames, reader.size, reader.fps, split, source, reader.counted, unit_frames(reader.size))


@contextmanager
def _one_thread_per_call() -> Iterator[None]:
    """OpenCV's own threads would fight with ours, and its flow depends on their number."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


class _Run:
    """One video."""

    def __init__(
        self,
        reader: VideoReader,
        graph: Graph,
        video: Video,
        options: ExtractOptions,
        shared: _Shared,
    ) -> None:
        self._reader, self._graph, self._video, self._shared = reader, graph, video, shared
        self._workers = shared.workers
        for node in graph.nodes:
            video.declare_as(node.declaration)
        self._arrays = {node.name: video.arrays[node.name] for node in graph.nodes}
        self._done = {node.name: video.done(node.name) for node in graph.nodes}
        self._first, self._end = options.frames
        if video.info.counted:
            self._end = min(video.frames, self._end if self._end is not None else video.frames)
        self._stop = shared.stop
        self._frames = 0

    def run(self) -> None:
        with (
            ThreadPoolExecutor(self._workers, "expert") as pool,
            ThreadPoolExecutor(1, "writer") as writer,
        ):
            pending: deque[Future[Outcome]] = deque()
            writing: Future[None] | None = None

            def write_next() -> None:
                nonlocal writing
                outcome = pending.popleft().result()
                if writing:
                    writing.result()
                writing = writer.submit(self._write, outcome)

            try:
                around = reach(self._graph, self._graph.wanted)
                units = UnitReader(self._reader, self._video.info.unit, around, self._missing, self._first, self._end)
                for unit in units:
                    if self._stop.is_set():
                        raise EdgekitError("Another video of this run ended it.")
                    pending.append(pool.submit(self._evaluate, unit))
                    del unit
                    while len(pending) > self._workers:
                        write_next()
                while pending:
                    write_next()
                if writing:
                    writing.result()
            except BaseException:
                self._save_what_is_ready(pending, writing)
                raise
        if units.ended == 0:
            raise SourceError(f"{self._reader.uri} has no frames.", hint="Give another video.")
        if units.ended is not None:
            self._video.count(units.ended)
        if self._first >= self._video.frames:
            raise UsageError(
                f"{self._video.name} has {self._video.frames} frames; none from {self._first} on.",
                hint="Frames are numbered from 0.",
            )

    def _save_what_is_ready(self, pending: deque[Future[Outcome]], writing: Future[None] | None) -> None:
        """On the way out: workers end after their batch, and what they finished is written, if it can be."""
        self._stop.set()
        with suppress(EdgekitError):
            if writing:
                writing.result()
            for future in pending:
                if not future.cancel():
                    self._write(future.result())

    def _missing(self, start: int, stop: int) -> dict[str, frozenset[int]]:
        missing = {name: _not_done(done, start, stop) for name, done in self._done.items()}
        return {name: frames for name, frames in missing.items() if frames}

    def _evaluate(self, unit: Unit) -> Outcome:
        encode = {name: array.encode for name, array in self._arrays.items()}
        return evaluate(self._graph, unit, encode, self._stored, self._stop)

    def _stored(self, name: str, frame: int) -> Array | None:
        if frame >= len(self._done[name]) or not self._done[name][frame]:
            return None
        array = self._arrays[name]
        out = np.empty(array.shape[1:], array.dtype)
        return out if array.read(frame, out) else None

    def _write(self, outcome: Outcome) -> None:
        unit = outcome.unit
        if unit.stop > self._video.frames:
            # The header promised fewer frames than there are.
            self._video.count(unit.stop, to_the_end=False)
        written = 0
        for name in outcome.encoded.keys() | outcome.failed.keys():
            encoded, failed = outcome.encoded.get(name, {}), outcome.failed.get(name, {})
            self._arrays[name].put(unit.number, _places(encoded, unit), _places(failed, unit))
            written += len(encoded)
        frames = len(frozenset().union(*unit.wanted.values()))
        self._frames += frames
        total = min(self._video.frames, self._end or self._video.frames) - self._first
        self._shared.add(Progress(self._video.name, self._frames, max(total, self._frames)), frames, written)


def _cores() -> int:
    """Cores that this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _not_done(done: Array, start: int, stop: int) -> frozenset[int]:
    """Frames beyond what is known of the video are missing, too: they may exist."""
    known = np.flatnonzero(~done[start:stop]) + start
    return frozenset(known.tolist()) | frozenset(range(max(start, len(done)), stop))


def _places(by_frame: Mapping[int, T], unit: Unit) -> dict[int, T]:
    return {frame - unit.start: value for frame, value in by_frame.items()}
