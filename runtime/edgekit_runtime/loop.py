"""The live loop: capture, inference and display overlap; live pictures stay fresh, files lose no frame.

The source's thread, one for the inference of each bundle, and the caller's, which draws and feeds the sinks (windows
want the main thread), with hand-offs of one or two items between them.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from edgekit_runtime.beside import Companion
from edgekit_runtime.events import announce
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.inference import Inference
from edgekit_runtime.model import Model, Result
from edgekit_runtime.overlay import Overlay, Status, View
from edgekit_runtime.quality import Quality
from edgekit_runtime.sinks.base import Sink
from edgekit_runtime.smoothing import Smoothing
from edgekit_runtime.sources.base import Frame, Source, SourceState
from edgekit_runtime.stats import Backlog, Meter, Stats

_POLL_S = 0.1
_PAUSED_S = 0.03  # between two looks whether it goes on
_REPORT_S = 1.0
_JOIN_S = 1.0
# Files can wait: a bundle that was built for throughput works on several of their frames.
MOST_AT_ONCE = 64


class Loop:
    """Runs a model over a source into sinks until the source ends, `frames` were shown, or `stop` is set.

    Models `beside` it run on the same source, each at its own pace; results carry the newest of theirs. Opens and
    closes nothing that it was given, but an engine that fails, which is opened again, then replaced (`inference.py`) by
    one that `engine`, if given, allows. `smoothing`, if given, steadies the labels. `overlay` None hands the bare
    frames to the sinks. While `view` is paused, nothing is shown. `on_stats` is called about once a second. `started`
    (`time.monotonic()`) is where the time to the first result counts from.
    """

    def __init__(
        self,
        model: Model,
        source: Source,
        sinks: Sequence[Sink],
        *,
        beside: Sequence[Model] = (),
        engine: str | None = None,
        smoothing: Smoothing | None = None,
        overlay: Overlay | None = None,
        view: View | None = None,
        frames: int | None = None,
        stop: threading.Event | None = None,
        on_stats: Callable[[Stats], None] | None = None,
        started: float | None = None,
    ) -> None:
        self._model = model
        self._source = source
        self._sinks = sinks
        self._smoothing = smoothing
        self._overlay = overlay
        self._view = view or View()
        self._wanted = frames
        self._stop = stop or threading.Event()
        self._on_stats = on_stats
        self._meter = Meter(time.monotonic() if started is None else started)
        self._results: Handoff[Result] = Handoff(1 if source.live else 2)
        self._companions = [Companion(each, engine) for each in beside]
        self._first = Inference(
            model,
            take=self._take,
            ended=lambda: self._results.closed or source.state is SourceState.ENDED,
            give=self._give,
            on_end=self._results.close,
            at_once=1 if source.live else MOST_AT_ONCE,
            engine=engine,
        )
        self._said = SourceState.RUNNING
        self._backlog = Backlog()
        self._quality = Quality(self._first)
        self.turned = time.monotonic()

    @property
    def inferences(self) -> tuple[Inference, ...]:
        """What runs the model, and what runs those beside it, in the order given."""
        return (self._first, *(companion.inference for companion in self._companions))

    def run(self) -> Stats:
        """Blocks until the end. Raises SourceError, EngineError or SinkError as they come."""
        for companion in self._companions:
            companion.start()
        self._first.start()
        next_report = time.monotonic() + _REPORT_S
        try:
            while not self._stop.is_set() and self._meter.frames != self._wanted:
                paused = self._view.paused and not self._stop.wait(_PAUSED_S)
                result = None if paused else self._results.get(_POLL_S)
                if result is not None:
                    self._show(result)
                elif self._results.exhausted:
                    break
                else:
                    self._idle()
                self.turned = time.monotonic()
                if self.turned >= next_report:
                    next_report = self.turned + _REPORT_S
                    self._report()
        finally:
            self._results.discard()
            self._quality.stop()
            for companion in self._companions:
                companion.stop(_JOIN_S)
            self._first.stop(_JOIN_S)
        if self._first.failure is not None:
            raise self._first.failure
        return self.stats(ended=True)

    def stats(self, *, ended: bool = False) -> Stats:
        """The figures so far; a finished loop is `ended`, with the reason if it was told to stop."""
        state, reason = self._state()
        if ended:
            state, reason = SourceState.ENDED, "stopped" if self._stop.is_set() else self._source.reason
        return replace(
            self._meter.stats(self._dropped, state.value, reason),
            engine_failures=sum(each.failures for each in self.inferences),
            bundle_swaps=sum(each.swaps for each in self.inferences),
            input_size=self._model.manifest.input_name,
        )

    @property
    def _dropped(self) -> int:
        return self._source.dropped + (self._results.dropped if self._source.live else 0)

    def _state(self) -> tuple[SourceState, str]:
        """The source's, unless somebody has paused it, or the engine has more to complain of."""
        if self._view.paused:
            return SourceState.PAUSED, ""
        return self._first.trouble or (self._source.state, self._source.reason)

    def _take(self) -> Frame | None:
        if self._results.closed:
            return None
        frame = self._source.read(_POLL_S)
        if frame is not None:
            for companion in self._companions:
                companion.offer(frame)
        return frame

    def _give(self, result: Result) -> None:
        self._quality.note(result.timing)
        if self._smoothing is not None:
            result = self._smoothing(result)
        if self._source.live:
            self._results.offer(result)
        else:
            self._results.put(result)

    def _show(self, result: Result) -> None:
        if self._companions:
            latest = [companion.latest for companion in self._companions]
            result = replace(result, beside=tuple(each for each in latest if each is not None))
        picture = result.frame.image
        if self._overlay is not None:
            status = Status(self._meter.recent_fps, self._meter.age_ms, self._model.engine)
            picture = self._overlay.draw(result, status)
        for sink in self._sinks:
            sink.write(picture, result)
        self._meter.add(result.frame.captured, result.timing.inference_ms)
        if self._said is not SourceState.RUNNING:
            self._announce(SourceState.RUNNING, "")

    def _idle(self) -> None:
        for inference in self.inferences:
            inference.watch()
        state, reason = self._state()
        if state is not SourceState.ENDED:
            self._announce(state, reason)
        for sink in self._sinks:
            sink.idle(state, reason)

    def _report(self) -> None:
        for inference in self.inferences:
            inference.watch()
        if self._source.live and not self._view.paused:
            share = self._backlog.look(self._meter.frames, self._dropped)
            if share is not None:
                self._announce_backlog(share)
            self._quality.look(self._source.dropped)
        stats = self.stats()
        for sink in self._sinks:
            sink.report(stats)
        if self._on_stats:
            self._on_stats(stats)

    def _announce_backlog(self, share: float) -> None:
        if self._backlog.skipping:
            message = f"too slow for the source: {100 * share:.0f} % of its frames are skipped, the newest are shown"
        else:
            message = "fast enough for the source again"
        level = logging.WARNING if self._backlog.skipping else logging.INFO
        announce("skipping", message, level=level, skipped_share=round(share, 3))

    def _announce(self, state: SourceState, reason: str) -> None:
        """Says a change of state once, not each reason that it has."""
        if state is self._said:
            return
        self._said = state
        level = logging.INFO if state in (SourceState.RUNNING, SourceState.PAUSED) else logging.WARNING
        message = f"{state.value}: {reason}" if reason else state.value
        announce("state", message, level=level, state=state.value, reason=reason)
