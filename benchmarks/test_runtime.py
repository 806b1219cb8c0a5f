"""The live loop at 540×960 with the bundle that edgekit comes with: `pytest benchmarks/test_runtime.py`.

`EDGEKIT_SOAK_S=1200` makes the soak last the twenty minutes that it is meant to; without it half a minute, which shows
that it works and no more. Figures that are not durations are in `extra_info` (`--benchmark-json FILE`) and are printed.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from peer import Peer, PeerMissingError

import edgekit
from edgekit_runtime import Frame, Loop, Model, Sink, Source, SourceState, load, open_source
from edgekit_runtime.sinks.base import NullSink
from edgekit_runtime.sources.pattern import Pattern

BUNDLE = Path(edgekit.__file__).parent / "default" / "default.edgekit"
SOAK_S = float(os.environ.get("EDGEKIT_SOAK_S", "30"))
FPS = 30
LIVE_S = 20
STALL_S = 5.0
VRE_FRAMES = 5


@pytest.fixture(autouse=True, scope="module")
def warm_cache() -> None:
    """What OpenVINO compiles is kept from here on, as it is after anybody's first run."""
    load(BUNDLE).close()


@pytest.fixture
def model() -> Iterator[Model]:
    with load(BUNDLE) as opened:
        yield opened


def edgekit_run(*arguments: str | Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "edgekit_runtime", str(BUNDLE), *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def note(benchmark: Any, **figures: float) -> None:
    benchmark.extra_info.update({name: round(value, 3) for name, value in figures.items()})
    print(f"\n{benchmark.name}: {benchmark.extra_info}")


def test_file_to_student_to_overlay_to_null(benchmark: Any, video: Path) -> None:
    """Goal: 120 frames a second."""
    runs = []
    benchmark.pedantic(lambda: runs.append(edgekit_run("--source", video, "--sink", "null")), warmup_rounds=1, rounds=5)
    note(benchmark, fps=statistics.median(run["fps"] for run in runs), frames=runs[0]["frames"])


def test_beside_the_streaming_loop_of_the_papers_tool(benchmark: Any, video: Path) -> None:
    """Goal: 30 times VRE's frames a second, from the same file in the same run: file, network, colours. In turns."""
    ours, theirs = [], []

    def turn() -> None:
        ours.append(edgekit_run("--source", video, "--sink", "null")["fps"])
        theirs.append(1 / statistics.median(peer.seconds() for _ in range(VRE_FRAMES)))

    try:
        with Peer("vre", "vre_stream.py", video) as peer:
            benchmark.pedantic(turn, rounds=5)
    except PeerMissingError as error:
        pytest.skip(f"the papers' tool: {error}")
    times = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    note(benchmark, fps=statistics.median(ours), vre_fps=statistics.median(theirs), times=statistics.median(times))


class Prepared(Source):
    """Frames that are there already: what is left is the loop."""

    def __init__(self, count: int) -> None:
        super().__init__("prepared")
        pattern = Pattern(960, 540)
        self._images = [pattern.draw(number) for number in range(8)]
        self._count, self._next = count, 0

    @property
    def state(self) -> SourceState:
        return SourceState.ENDED if self._next == self._count else SourceState.RUNNING

    def read(self, timeout_s: float) -> Frame | None:
        if self._next == self._count:
            return None
        number, self._next = self._next, self._next + 1
        return Frame(self._images[number % 8], number, number / FPS, time.monotonic())

    def close(self) -> None:
        return


@pytest.mark.parametrize("drawn", [True, False], ids=["test-pattern", "frames-that-are-there"])
def test_own_cost_of_a_frame(benchmark: Any, model: Model, drawn: bool) -> None:
    """Goal: 0.4 ms over what the engine takes alone, with the source `test:`. Bringing frames to size is counted."""
    frames = 500
    images = [at_size(model, number) for number in range(8)]

    def alone_ms() -> float:
        began = time.perf_counter()
        for number in range(frames):
            model._engine.infer(images[number % 8])
        return (time.perf_counter() - began) * 1e3 / frames

    def with_loop_ms() -> float:
        source = open_source(f"test:?fps=0&frames={frames}") if drawn else Prepared(frames)
        began = time.perf_counter()
        Loop(model, source, [NullSink()]).run()
        return (time.perf_counter() - began) * 1e3 / frames

    alone, whole = [], []  # in turns, as a machine is not always equally fast
    for _ in range(7):
        alone.append(alone_ms())
        whole.append(with_loop_ms())
    benchmark.pedantic(with_loop_ms, rounds=3)
    note(
        benchmark,
        own_ms=statistics.median(whole) - statistics.median(alone),
        engine_ms=statistics.median(alone),
        frame_ms=statistics.median(whole),
    )


def at_size(model: Model, number: int) -> np.ndarray:
    """A frame of the pattern as the engine takes it."""
    height, width = model.manifest.input_size
    return Pattern(width, height).draw(number)[None]


def processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def test_processor_time_of_the_loop_at_30_fps(benchmark: Any, model: Model) -> None:
    """Goal: 10 % of one core beside inference, which is paced alike and does nothing else."""
    frames = LIVE_S * FPS
    image = at_size(model, 0)

    def alone() -> float:
        before, begin = processor_s(), time.monotonic()
        for number in range(frames):
            time.sleep(max(begin + number / FPS - time.monotonic(), 0))
            model._engine.infer(image)
        return processor_s() - before

    def with_loop() -> float:
        before = processor_s()
        with open_source(f"test:?fps={FPS}&frames={frames}") as source:
            Loop(model, source, [NullSink()]).run()
        return processor_s() - before

    engine_s = alone()
    whole_s = benchmark.pedantic(with_loop, rounds=1)
    note(benchmark, percent_of_a_core=100 * (whole_s - engine_s) / LIVE_S, engine_percent=100 * engine_s / LIVE_S)


def test_age_at_the_sink(benchmark: Any) -> None:
    """Goal: p99 of 25 ms from capture to the sink's return, with the overlay, from a live source of 30 fps."""
    arguments = ("--source", f"test:?fps={FPS}&frames={LIVE_S * FPS}", "--sink", "null")
    figures = benchmark.pedantic(edgekit_run, args=arguments, rounds=1)
    note(benchmark, **{name: figures[name] for name in ("age_p50_ms", "age_p99_ms", "dropped")})


class Stalling(Sink):
    """Sleeps once, then notes when each frame came and how old it was."""

    def __init__(self) -> None:
        self._count = 0
        self.woke = 0.0
        self.ages: list[tuple[float, float]] = []

    def write(self, picture: Any, result: Any) -> None:
        self._count += 1
        if self._count == FPS:
            time.sleep(STALL_S)
            self.woke = time.monotonic()
        elif self.woke:
            now = time.monotonic()
            self.ages.append((now - self.woke, now - result.frame.captured))


def test_age_after_a_stall_of_the_sink(benchmark: Any, model: Model) -> None:
    """Goal: fresh again, younger than 25 ms, within 100 ms."""
    sink = Stalling()
    with open_source(f"test:?fps={FPS}&frames={int(FPS * (STALL_S + 3))}") as source:
        benchmark.pedantic(Loop(model, source, [sink]).run, rounds=1)
    stale = [at for at, age in sink.ages if age > 0.025]
    fresh = next(at for at, _ in sink.ages if not stale or at > stale[-1])
    note(benchmark, fresh_again_ms=fresh * 1e3, oldest_ms=max(age for _, age in sink.ages) * 1e3)


def test_start_to_the_first_result(benchmark: Any) -> None:
    """Goal: 1 s from the start of the process to the first picture's bytes, with a warm cache."""

    def first_picture() -> None:
        command = [sys.executable, "-m", "edgekit_runtime", str(BUNDLE), "--source", "test:", "--sink", "stdout"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
            assert process.stdout is not None
            process.stdout.read(1)
            process.stdout.close()

    benchmark.pedantic(first_picture, warmup_rounds=1, rounds=7)


@pytest.mark.timeout(2 * SOAK_S + 120)
def test_soak(benchmark: Any, tmp_path: Path) -> None:
    """Goal: 250 MB, a slope that cannot be told from 0, as many threads and descriptors at the end as at the start.

    The slope is that of the process's own memory (RssAnon): how many pages of libraries and models are resident beside
    it is up to the kernel, which drops and brings them back as others need memory.
    """
    sinks = ["--sink", "null", "--sink", "web:0", "--sink", f"json:{tmp_path}/out.jsonl"]
    command = [sys.executable, "-m", "edgekit_runtime", str(BUNDLE), "--source", f"test:?fps={FPS}", *sinks]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        time.sleep(max(5, SOAK_S / 10))  # until everything has been used once
        samples = benchmark.pedantic(watch, args=(process.pid, SOAK_S), rounds=1)
        process.terminate()
        assert process.wait(5) == 0
    seconds, rss, own, threads, descriptors = (np.array(column, float) for column in zip(*samples, strict=True))
    assert len(set(threads)) == 1, sorted(set(threads))
    assert len(set(descriptors)) == 1, sorted(set(descriptors))
    slope, error = trend(seconds, own)
    note(benchmark, rss_mb=float(rss.max()), slope_mb_an_hour=slope * 3600, uncertain_by=2 * error * 3600)
    assert rss.max() <= 250


def watch(pid: int, duration_s: float) -> list[tuple[float, float, float, int, int]]:
    """Seconds, MB in memory, those that are its own, threads and open files of a process, once a second."""
    proc, begin, samples = Path("/proc") / str(pid), time.monotonic(), []
    while (now := time.monotonic() - begin) < duration_s:
        told = dict(line.split(":", 1) for line in (proc / "status").read_text(encoding="utf-8").splitlines())
        resident, own = (int(told[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "RssAnon"))
        counts = len(list((proc / "task").iterdir())), len(list((proc / "fd").iterdir()))
        samples.append((now, resident, own, *counts))
        time.sleep(1)
    return samples


def trend(seconds: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Slope and its standard error. Of the means of ten stretches: neighbouring samples are no independent ones."""
    x, y = (np.array([part.mean() for part in np.array_split(each, 10)]) for each in (seconds, values))
    (slope, _), covariance = np.polyfit(x, y, 1, cov=True)
    return float(slope), float(np.sqrt(covariance[0, 0]))
