"""The whole program but its command line: bundle and source open side by side, the loop runs, all is closed.

`edgekit-run` and `edgekit run` both call `run`.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

from edgekit_runtime.beside import depth_modality
from edgekit_runtime.bundle import peek_manifest
from edgekit_runtime.errors import EdgekitError, SinkError, UsageError
from edgekit_runtime.events import announce, warn
from edgekit_runtime.files import whole
from edgekit_runtime.handoff import in_background
from edgekit_runtime.hot_swap import hot_swap
from edgekit_runtime.loop import Loop
from edgekit_runtime.model import Model, load
from edgekit_runtime.overlay import Overlay, View
from edgekit_runtime.service import watched
from edgekit_runtime.sinks import check_sinks, default_sink, open_sink
from edgekit_runtime.sinks.base import Sink, SinkContext
from edgekit_runtime.smoothing import Smoothing
from edgekit_runtime.sources import open_source
from edgekit_runtime.sources.base import Source
from edgekit_runtime.sources.phone import PhoneCamera
from edgekit_runtime.sources.uri import parse_uri
from edgekit_runtime.stats import Stats

_POLL_S = 0.1
_ALIVE_S = 30.0  # a loop that has not turned for so long hangs
_PATIENCE_S, _HURRY_S = 20.0, 1.0  # for models that are still being opened: after an error, after a signal


@dataclass(frozen=True)
class Ready:
    """What is about to run: for display and for the JSON document. `beside`: further bundles, as texts."""

    bundle: str
    engine: str
    precision: str
    source: str
    source_fps: float | None
    skipped: tuple[str, ...]
    beside: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


def run(
    bundle: str | Path,
    source: str,
    sinks: Sequence[str] = (),
    *,
    beside: Sequence[str | Path] = (),
    frames: int | None = None,
    overlay: bool = True,
    smooth: bool = False,
    engine: str | None = None,
    key: Path | None = None,
    stats_file: Path | None = None,
    on_ready: Callable[[Ready], None] | None = None,
    on_stats: Callable[[Stats], None] | None = None,
    started: float | None = None,
) -> Stats:
    """Runs a bundle over a source into sinks until the source ends, `frames` were shown, or SIGINT or SIGTERM.

    `source` and `sinks` are as `open_source` and `open_sink` describe them; where no sink is named, there is a window,
    or a page where there can be none. Bundles `beside` the first see the same source, each at its own pace. Without
    `overlay` sinks get the bare frames; with `smooth` labels flicker less (`smoothing.py`); `engine` restricts the
    bundles' variants, `key` (a public key, PEM) says who must have signed them; `stats_file` gets the figures as JSON
    about once a second; `started` (`time.monotonic()`) is where the time to the first result counts from.

    A bundle that is replaced on disk meanwhile takes over between two frames (`hot_swap.py`).

    Raises UsageError before anything is opened, and BundleError, EngineError, SourceError or SinkError after; sinks
    are finished in any case.
    """
    began = time.monotonic() if started is None else started
    uri = parse_uri(source)
    sinks = list(sinks) or [default_sink(uri.scheme)]
    check_sinks(sinks, uri)
    if frames is not None and frames < 1:
        raise UsageError(f"The number of frames must be at least 1, not {frames}.")
    stop = threading.Event()
    last = Stats()
    bundles = [bundle, *beside]
    loaders = [partial(load, path, engine=engine, key=key) for path in bundles]
    with _stop_on_signals(stop), ExitStack() as opened:
        ready = _open_all(loaders, lambda: open_source(_as_built_for(bundle, source, key)), stop)
        if ready is None:
            return Stats(state="ended", reason="stopped")
        models, frames_in = ready
        for model in models:
            opened.enter_context(model)
        opened.enter_context(frames_in)
        if on_ready:
            on_ready(_ready(models, frames_in))
        view = View.at_first(models[0].manifest)
        outputs = opened.enter_context(_opened_sinks(sinks, _context(models, frames_in, stop, view, overlay)))

        def report(stats: Stats) -> None:
            if stats_file:
                _write_stats(stats_file, stats)
            if on_stats:
                on_stats(stats)

        loop = Loop(
            models[0], frames_in, outputs,
            beside=models[1:], engine=engine, smoothing=Smoothing() if smooth else None,
            overlay=Overlay(models[0].manifest, view) if overlay else None, view=view,
            frames=frames, stop=stop, on_stats=report, started=began,
        )  # fmt: skip

        def alive() -> bool:
            return time.monotonic() - loop.turned < _ALIVE_S

        with hot_swap(list(zip(bundles, loop.inferences, loaders, strict=True))), watched(alive):
            last = loop.run()
    if stats_file:
        _write_stats(stats_file, last)
    return last


def _context(models: Sequence[Model], source: Source, stop: threading.Event, view: View, overlay: bool) -> SinkContext:
    manifest = models[0].manifest
    taxonomy = manifest.taxonomy
    legend = tuple(zip(taxonomy.classes, taxonomy.colours, strict=True)) if taxonomy else ()
    depths = [depth.unit for model in models if (depth := depth_modality(model.manifest))]
    phone = source if isinstance(source, PhoneCamera) else None
    return SinkContext(
        f"edgekit: {manifest.name}", source.live, source.fps, stop, view, legend, depths[0] if depths else None, phone,
        overlay,
    )  # fmt: skip


def _ready(models: Sequence[Model], source: Source) -> Ready:
    first = models[0]
    return Ready(
        bundle=str(first.path),
        engine=first.engine,
        precision=first.variant.precision,
        source=source.uri,
        source_fps=source.fps,
        skipped=tuple(f"{s.variant.engine} {s.variant.precision}: {s.reason}" for m in models for s in m.skipped),
        beside=tuple(f"{model.path}: {model.variant.precision}, {model.engine}" for model in models[1:]),
    )


def _open_all(
    loaders: Sequence[Callable[[], Model]], open_it: Callable[[], Source], stop: threading.Event
) -> tuple[list[Model], Source] | None:
    """All at once, since each takes a good part of a second; None when told to stop meanwhile.

    A driver that hangs does not hold up the exit; a compiler is waited for, as a process that ends under it crashes.
    """
    models = [in_background("opening", load_it) for load_it in loaders]
    frames = in_background("opening", open_it)
    pending: set[Future[Any]] = {*models, frames}
    try:
        while pending and not stop.is_set():
            done, pending = wait(pending, timeout=_POLL_S, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        if not pending:
            return [model.result() for model in models], frames.result()
    except BaseException:
        _close_when_done(models, _PATIENCE_S)
        _close_when_done([frames], 0)
        raise
    _close_when_done(models, _HURRY_S)
    _close_when_done([frames], 0)
    return None


def _as_built_for(bundle: str | Path, source: str, key: Path | None) -> str:
    """The source; a camera with what the bundle was built to see, where the user says nothing else."""
    uri = parse_uri(source)
    if uri.scheme != "camera":
        return source
    return uri.with_defaults(peek_manifest(bundle, key=key).camera)


def _close_when_done(futures: Sequence[Future[Any]], patience_s: float) -> None:
    """Here where that takes no longer than `patience_s`, else in the thread that opens."""

    def close(done: Future[Any]) -> None:
        if not done.exception():
            done.result().close()

    opened, late = wait(futures, timeout=patience_s)
    for future in opened:
        close(future)
    for future in late:
        future.add_done_callback(close)


@contextmanager
def _opened_sinks(texts: Sequence[str], context: SinkContext) -> Iterator[list[Sink]]:
    """Opens all; closes all, whatever happens. The first error is raised, later ones are logged."""
    opened: list[Sink] = []
    failure: BaseException | None = None
    try:
        for text in texts:
            opened.append(open_sink(text, context))  # noqa: PERF401  (those opened must be closed if one fails)
        yield opened
    except BaseException as error:
        failure = error
        raise
    finally:
        late: SinkError | None = None
        for sink in opened:
            try:
                sink.close()
            except SinkError as error:
                late = late or error
                if failure is not None:
                    warn(str(error))
        if late is not None and failure is None:
            raise late


@contextmanager
def _stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP (the terminal is gone) set `stop`; a second one ends the program at once.

    Only the main thread can do this.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    numbers = [signal.SIGINT, signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_stats(path: Path, stats: Stats) -> None:
    try:
        with whole(path) as partial:
            partial.write_text(json.dumps(stats.to_dict()) + "\n", encoding="utf-8")
    except OSError as error:
        raise SinkError(f"The statistics file {path} cannot be written: {error.strerror or error}.") from error


def explain(error: BaseException, program: str, log_format: str = "text") -> int:
    """Says on stderr in one or two lines what went wrong; returns the exit status."""
    if isinstance(error, BrokenPipeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    if not isinstance(error, EdgekitError):
        said = f"internal error: {type(error).__name__}: {error}".splitlines()[0]
        error = EdgekitError(said, hint="Please report it with the output of the same command and --debug.")
    if log_format == "json":
        said = str(error.args[0])
        announce("failed", said, level=logging.ERROR, hint=error.hint, exit_status=error.exit_status)
    else:
        print(f"{program}: {error}", file=sys.stderr)
    return error.exit_status
