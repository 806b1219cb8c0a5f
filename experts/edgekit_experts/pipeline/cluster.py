"""The pipeline on a Ray cluster: ranges of frames go to whichever machine is free, through Ray Data.

Each worker is a process that keeps its experts, with their networks, from one range to the next, and runs the same
pipeline as one machine does. It writes what it makes where all see it (a shared folder, or a store behind a URL), so
that nothing but counts travels back. Ranges share no file: one that is done twice, because a machine died, gives the
same bytes.

Reference: https://docs.ray.io/en/latest/data/transforming-data.html#stateful-transforms
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from edgekit_experts.config import Config
from edgekit_experts.dataset import Dataset
from edgekit_experts.graph import Graph, build_graph
from edgekit_experts.pipeline.evaluate import Outcome
from edgekit_experts.pipeline.local import Spent, one_thread_per_call, run_pipeline
from edgekit_experts.pipeline.run import Run
from edgekit_experts.pipeline.work import VideoWork
from edgekit_experts.video import VideoReader
from edgekit_runtime.errors import EdgekitError, ExpertError
from edgekit_runtime.modality import Modality

RANGE_UNITS = 4
_TO_THE_END = -1

Row = dict[str, Any]


def extract_on_ray(run: Run, out: Path | str, config: Config) -> None:
    """Makes what is missing of all videos. Raises EdgekitError; what was written stays.

    Takes the cluster that `RAY_ADDRESS` names or that runs on this machine, else starts one here, on loopback.
    """
    with ExitStack() as stack:
        works = [stack.enter_context(run.writing(number)) for number in range(len(run.readers))]
        ranges = [row for number, work in enumerate(works) for row in _ranges(run, number, work)]
        ended: dict[int, tuple[int, int]] = {}
        if ranges:
            ray = stack.enter_context(_cluster(run.options.workers))
            for row in _rows(ray, ranges, run, out, config):
                if row["error"]:
                    raise EdgekitError(row["error"], hint=row["hint"])
                # As text: columns of tables whose keys differ would be filled up with nothing.
                spent = Spent(*json.loads(row["spent"]))
                run.unit_done(row["video"], row["stop"], row["frames"], row["written"], spent)
                if row["ended"] >= 0:
                    ended[row["video"]] = row["ended"], row["shortfall"]
        for number in range(len(works)):
            run.video_done(number, *ended.get(number, (None, 0)))


def _ranges(run: Run, number: int, work: VideoWork) -> Iterator[Row]:
    """Ranges of frames in which something is missing; the last one goes to wherever the video ends.

    Where only decoding tells how many frames there are, the whole video is one range.
    """
    first, end = run.span(number)
    step = RANGE_UNITS * work.video.info.unit
    last = end if end is not None else run.readers[number].exact_frames()
    if last is None:
        yield {"video": number, "start": first, "stop": _TO_THE_END}
        return
    for start in range(first // step * step, last, step):
        stop = min(start + step, last)
        if work.missing(max(first, start), stop):
            final = end is None and stop == last
            yield {"video": number, "start": max(first, start), "stop": _TO_THE_END if final else stop}


def _rows(ray: Any, ranges: Sequence[Row], run: Run, out: Path | str, config: Config) -> Iterator[Row]:
    """What became of each range, as it is done."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = context.print_on_execution_start = False
    workers = run.options.workers or max(1, int(ray.cluster_resources().get("CPU", 1)))
    done = ray.data.from_items(list(ranges), override_num_blocks=len(ranges)).map_batches(
        _Worker,
        fn_constructor_args=(out, list(run.readers), config, run.options.only),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(workers, len(ranges))),
        num_cpus=1,
        num_gpus=run.options.gpus or None,
    )
    try:
        yield from done.iter_rows()
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise EdgekitError(
            f"The cluster gave up: {lines[-1] if lines else type(error).__name__}",
            hint="What was finished is kept: give the same command again.",
        ) from error


class _Worker:
    """Lives in a process of the cluster; answers one range at a time."""

    def __init__(self, out: Path | str, readers: list[VideoReader], config: Config, only: tuple[str, ...]) -> None:
        self._out, self._readers = out, readers
        self._config, self._only = config, only
        self._graphs: dict[tuple[Modality, ...], Graph] = {}

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        row = {name: int(values[0]) for name, values in batch.items()}
        try:
            answer = self._answer(row["video"], row["start"], row["stop"])
        except EdgekitError as error:
            answer = {**_NOTHING, "error": str(error.args[0]), "hint": error.hint or ""}
        return {name: [value] for name, value in {**answer, "video": row["video"]}.items()}

    def _answer(self, number: int, start: int, stop: int) -> Row:
        reader = self._readers[number]
        total = Spent()
        frames = written = reached = 0

        def on_unit(outcome: Outcome, count: int, spent: Spent) -> None:
            nonlocal frames, written, reached
            frames += len(frozenset[int]().union(*outcome.unit.wanted.values()))
            written += count
            reached = outcome.unit.stop
            total.add(spent)

        with one_thread_per_call():
            span, broken_off = (start, None if stop == _TO_THE_END else stop), threading.Event()
            ended = run_pipeline(reader, self._work(number, broken_off), span, 1, broken_off, on_unit)
        return {
            "stop": reached,
            "frames": frames,
            "written": written,
            "ended": -1 if ended is None else ended,
            "shortfall": reader.shortfall,
            "spent": json.dumps([total.waiting, total.computing]),
            "error": "",
            "hint": "",
        }

    def _work(self, number: int, stop: threading.Event) -> VideoWork:
        # Opened for each range: what another worker had left half done may be finished by now.
        # Sources of a cluster are no data set: their streams tell all that graphs depend on.
        streams = self._readers[number].streams
        if streams not in self._graphs:
            self._graphs[streams] = build_graph(self._config, streams, self._only)
        video = Dataset.open(self._out).video(self._readers[number].name)
        return VideoWork(self._graphs[streams], video, stop)


# What Ray writes to the terminal from C++, and what it would send home.
_QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}

_NOTHING: Row = {
    "stop": 0,
    "frames": 0,
    "written": 0,
    "ended": -1,
    "shortfall": 0,
    "spent": "[{}, {}]",
}


@contextmanager
def _cluster(workers: int) -> Iterator[Any]:
    """Ray, connected. A cluster that was started here ends with the run."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError as error:
        raise ExpertError("The engine ray needs the package ray.", hint="pip install 'edgekit[cluster]'") from error
    if ray.is_initialized():
        yield ray
        return
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    quiet: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    here: dict[str, Any] = {"num_cpus": workers or None, "include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    try:
        ray.init(address="auto", **quiet)
    except ConnectionError:
        ray.init(address="local", **here, **quiet)
    try:
        yield ray
    finally:
        ray.shutdown()
