"""The live loop: capture, inference and display overlap; live pictures stay fresh, files lose no frame.

Three threads at most: the source's own, one for inference, and the caller's, which draws and feeds the sinks
(windows want the main thread). Between them are hand-offs that hold one or two items and no more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from edgekit_runtime.flight import Flight
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.model import Model, Result
from edgekit_runtime.overlay import Overlay, Status
from edgekit_runtime.sinks.base import Sink
from edgekit_runtime.sources.base import Source, SourceState
from edgekit_runtime.stats import Meter, Stats

_POLL_S = 0.1
_REPORT_S = 1.0
_JOIN_S = 1.0


class Loop:
    """Runs a model over a source into sinks until the source ends, `frames` were shown, or `stop` is set.

    Opens and closes nothing that it was given. `overlay` None hands the bare frames to the sinks. `on_stats` is
    called about once a second. `started` (`time.monotonic()`) is where the time to the first result counts from.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        sinks: Sequence[Sink],
        *,
        overlay: Overlay | None = None,
        frames: int | None = None,
        stop: threading.Event | None = None,
        on_stats: Callable[[Stats], None] | None = None,
        started: float | None = None,
    ) -> None:
        self._model = model
        self._source = source
        self._sinks = sinks
        self._overlay = overlay
        self._wanted = frames
        self._stop = stop or threading.Event()
        self._on_stats = on_stats
        self._meter = Meter(time.monotonic() if started is None else started)
        self._results: Handoff[Result] = Handoff(1 if source.live else 2)
        self._failure: BaseException | None = None

    def run(self) -> Stats:
        """Blocks until the end. Raises SourceError, EngineError or SinkError as they come."""
        worker = threading.Thread(target=self._infer, name="inference", daemon=True)
        worker.start()
        next_report = time.monotonic() + _REPORT_S
        try:
            while not self._stop.is_set() and self._meter.frames != self._wanted:
                result = self._results.get(_POLL_S)
                if result is not None:
                    self._show(result)
                elif self._results.exhausted:
                    break
                else:
                    for sink in self._sinks:
                        sink.idle(self._source.state, self._source.reason)
                if self._on_stats and time.monotonic() >= next_report:
                    next_report += _REPORT_S
                    self._on_stats(self.stats())
        finally:
            self._results.discard()
            worker.join(_JOIN_S)
        if self._failure is not None:
            raise self._failure
        return self.stats(ended=True)

    def stats(self, *, ended: bool = False) -> Stats:
        """The figures so far; a finished loop is `ended`, with the reason if it was told to stop."""
        dropped = self._source.dropped + (self._results.dropped if self._source.live else 0)
        if ended:
            return self._meter.stats(dropped, SourceState.ENDED.value, "stopped" if self._stop.is_set() else "")
        return self._meter.stats(dropped, self._source.state.value, self._source.reason)

    def _show(self, result: Result) -> None:
        picture = result.frame.image
        if self._overlay is not None:
            status = Status(self._meter.recent_fps, self._meter.age_ms, self._model.engine)
            picture = self._overlay.draw(result, status)
        for sink in self._sinks:
            sink.write(picture, result)
        self._meter.add(result.frame.captured, result.timing.inference_ms)

    def _infer(self) -> None:
        give = self._results.offer if self._source.live else self._results.put
        flight = Flight(self._model, 1 if self._source.live else self._model.requests)
        try:
            while not self._results.closed:
                frame = self._source.read(_POLL_S)
                for result in flight.send(frame) if frame is not None else flight.land():
                    give(result)
                if frame is None and self._source.state is SourceState.ENDED:
                    break
            for result in flight.land():
                give(result)
        except BaseException as error:  # whatever it is, the caller's thread must hear of it
            self._failure = error
        finally:
            self._results.close()
