"""Raw video into a data set: decode once, compute everything that depends on a frame while it is in memory, write
behind.

A frame is done when it is on the disk; whatever ends the run (an error, Ctrl-C, a kill), the next one finds what is
missing and makes only that. On one machine several videos go abreast while there are as many; on a cluster, ranges
of frames of all of them.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from edgekit_experts.config import Config
from edgekit_experts.dataset import Dataset, Video, VideoInfo, unit_frames
from edgekit_experts.graph import Graph, build_graph
from edgekit_experts.pipeline.evaluate import Outcome
from edgekit_experts.pipeline.local import Spent, one_thread_per_call, run_pipeline
from edgekit_experts.pipeline.work import VideoWork
from edgekit_experts.video import VideoReader
from edgekit_runtime.errors import SourceError, UsageError

Engine = Literal["local", "ray"]


@dataclass(frozen=True)
class ExtractOptions:
    """`only`: modalities to make, with what they are made from; all when empty. `frames`: (first, end), the end
    excluded or None for the video's. `split` is that of new videos, empty where all are in the data set. `workers`:
    threads that compute, or processes of a Ray cluster; 0 for one per core. `gpus`: what a process of a cluster needs
    of them; a share where several go on one.
    """

    only: tuple[str, ...] = ()
    frames: tuple[int, int | None] = (0, None)
    workers: int = 0
    split: str = "train"
    engine: Engine = "local"
    gpus: float = 0.0

    def __post_init__(self) -> None:
        first, end = self.frames
        if first < 0 or (end is not None and end <= first):
            raise UsageError(f"Frames {first}:{end} are none.", hint="Write FIRST:END with FIRST < END.")
        if self.workers < 0:
            raise UsageError("The number of workers cannot be negative.", hint="0 means one per core.")
        if self.engine not in ("local", "ray"):
            raise UsageError(f"There is no engine {self.engine!r}.", hint="Engines: local, ray.")
        if self.gpus < 0 or (self.gpus and self.engine == "local"):
            raise UsageError("GPUs are given to the workers of a cluster only.", hint="Leave --gpus out.")


@dataclass(frozen=True)
class Progress:
    """After each unit: frames of this video that were gone through, of how many in which something was missing (as far
    as known), and the stage that the run waits for.
    """

    video: str
    frames: int
    total: int
    bottleneck: str = ""


@dataclass
class ExtractReport:
    """What one run did: `frames` gone through, `written` frames of modalities, in `seconds`, of which `spent` tells
    more. `notes` are for people: what they might not expect.
    """

    videos: list[str] = field(default_factory=list)
    frames: int = 0
    written: int = 0
    seconds: float = 0.0
    spent: Spent = field(default_factory=Spent)
    notes: list[str] = field(default_factory=list)

    @property
    def fps(self) -> float:
        return self.frames / self.seconds if self.seconds > 0 else 0.0


def extract(
    readers: Sequence[VideoReader],
    out: Path | str,
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
    report = ExtractReport(videos=names)
    started = time.monotonic()
    with data.nothing_left_empty():
        for reader in readers:
            if options.split:
                data.add_video(reader.name, _info(reader, options.split))
        run = Run(data, readers, graphs, options, report, on_progress)
        if options.engine == "ray":
            from edgekit_experts.pipeline.cluster import extract_on_ray

            extract_on_ray(run, out, config)
        else:
            _extract_here(run)
    report.seconds = time.monotonic() - started
    return report


def _graphs(readers: Sequence[VideoReader], config: Config, only: tuple[str, ...]) -> list[Graph]:
    """One for each video; those whose sources bring the same along share it, and the networks in it."""
    known: dict[tuple[Any, ...], Graph] = {}
    graphs = []
    for reader in readers:
        key = reader.streams, tuple(sorted(reader.declared.items()))
        if key not in known:
            known[key] = build_graph(config, reader.streams, only, reader.declared)
        graphs.append(known[key])
    return graphs


def _info(reader: VideoReader, split: str) -> VideoInfo:
    source = {"uri": reader.uri, "fingerprint": reader.fingerprint}
    return VideoInfo(reader.frames, reader.size, reader.fps, split, source, reader.counted, unit_frames(reader.size))


class Run:
    """What all videos of one run have in common; it keeps the books, from whatever thread they are told."""

    def __init__(
        self,
        data: Dataset,
        readers: Sequence[VideoReader],
        graphs: Sequence[Graph],
        options: ExtractOptions,
        report: ExtractReport,
        on_progress: Callable[[Progress], None],
    ) -> None:
        self.readers, self.graphs, self.options = readers, graphs, options
        self.stop = threading.Event()
        self._data, self._report, self._on_progress = data, report, on_progress
        self._videos: dict[int, Video] = {}
        self._gone = [0] * len(readers)
        self._totals = [0] * len(readers)
        self._lock = threading.Lock()

    @contextmanager
    def writing(self, number: int) -> Iterator[VideoWork]:
        """A video for this run alone, declared as the graph has it."""
        with self._data.writing(self.readers[number].name) as video:
            for node in self.graphs[number].nodes:
                video.declare_as(node.declaration)
            self._videos[number] = video
            work = VideoWork(self.graphs[number], video, self.stop)
            first, end = self.span(number)
            for node in self.graphs[number].nodes:
                if count := int(video.stale(node.name)[first:end].sum()):
                    self._report.notes.append(
                        f"{count} frames of {node.name} in {video.name} were made otherwise than they would be now: "
                        "they are made again."
                    )
            missing = work.missing(first, end if end is not None else video.frames)
            self._totals[number] = len(frozenset[int]().union(*missing.values()))
            yield work

    def span(self, number: int) -> tuple[int, int | None]:
        """Frames of a video that were asked for; its end where that is known."""
        first, end = self.options.frames
        video = self._videos[number]
        return first, min(video.frames, end or video.frames) if video.info.counted else end

    def unit_done(self, number: int, stop: int, frames: int, written: int, spent: Spent) -> None:
        """Of this video, `frames` more were gone through, up to `stop`; `written` frames of modalities."""
        with self._lock:
            video = self._videos[number]
            if stop > video.frames:
                # The header promised fewer frames than there are.
                video.count(stop, to_the_end=False)
            self._report.frames += frames
            self._report.written += written
            self._report.spent.add(spent)
            self._gone[number] += frames
            total = self._totals[number] = max(self._totals[number], self._gone[number])
            self._on_progress(Progress(video.name, self._gone[number], total, self._report.spent.bottleneck))

    def video_done(self, number: int, ended: int | None, shortfall: int) -> None:
        """A video was gone through; `ended` is its number of frames, if its end was reached. Raises SourceError
        where it has none, UsageError where all that were asked for lie behind its end.
        """
        video = self._videos[number]
        if ended == 0:
            raise SourceError(f"{self.readers[number].uri} has no frames.", hint="Give another video.")
        if ended is not None:
            video.count(ended)
            if shortfall:
                self._report.notes.append(
                    f"{self.readers[number].uri} is cut short: it has {ended} of the {ended + shortfall} frames that "
                    "its header promises."
                )
        if self.options.frames[0] >= video.frames:
            raise UsageError(
                f"{video.name} has {video.frames} frames; none from {self.options.frames[0]} on.",
                hint="Frames are numbered from 0.",
            )


def _extract_here(run: Run) -> None:
    """Several videos at once, each with its share of the workers; the first error ends them all."""
    cores = run.options.workers or _cores()
    abreast = max(1, min(len(run.readers), cores))
    errors: list[BaseException] = []

    def one(number: int) -> None:
        if run.stop.is_set():
            return
        reader = run.readers[number]

        def on_unit(outcome: Outcome, written: int, spent: Spent) -> None:
            frames = len(frozenset[int]().union(*outcome.unit.wanted.values()))
            run.unit_done(number, outcome.unit.stop, frames, written, spent)

        try:
            with run.writing(number) as work:
                ended = run_pipeline(reader, work, run.span(number), cores // abreast, run.stop, on_unit)
                run.video_done(number, ended, reader.shortfall)
        except BaseException as error:
            errors.append(error)
            run.stop.set()

    with one_thread_per_call(), ThreadPoolExecutor(abreast, "video") as pool:
        try:
            list(pool.map(one, range(len(run.readers))))
        except BaseException as error:
            errors.append(error)
            run.stop.set()
    if errors:
        raise errors[0]


def _cores() -> int:
    """Cores that this process may use, which in a container are fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
