"""What a sink is: something that takes pictures and results; and what several of them need."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edgekit_runtime.colour import Picture, caption
from edgekit_runtime.model import Result
from edgekit_runtime.overlay import View, alerted, font_scale
from edgekit_runtime.sources.base import SourceState
from edgekit_runtime.stats import Stats

if TYPE_CHECKING:
    from edgekit_runtime.sources.phone import PhoneCamera


@dataclass(frozen=True)
class SinkContext:
    """What a sink may need to know of its loop. `fps` is the source's nominal rate, None where unknown.

    `stop` is set when the loop has to end; a window sets it when it is closed. No sink may block past it. `legend` are
    the classes that results have, by their ids, with RGB colours; `depth_unit` is that of depth, None without any.
    `phone` is the source, where its pictures are to come through the page. Without `overlay` pictures are bare.
    """

    title: str = "edgekit"
    live: bool = False
    fps: float | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    view: View = field(default_factory=View)
    legend: tuple[tuple[str, tuple[int, int, int]], ...] = ()
    depth_unit: str | None = None
    phone: PhoneCamera | None = None
    overlay: bool = True

    @property
    def classes(self) -> int:
        return len(self.legend)


class Sink(ABC):
    """Takes results one by one, all from one thread."""

    @abstractmethod
    def write(self, picture: Picture, result: Result) -> None:
        """Takes a picture, uint8 `(H, W, 3)` BGR, and the result that it shows.

        The picture's memory is reused as soon as this returns. Raises SinkError.
        """

    def idle(self, state: SourceState, reason: str) -> None:
        """Called ten times a second or more while there is nothing new, with the source's state, or `paused`."""
        return

    def report(self, stats: Stats) -> None:
        """Called about once a second with the loop's figures so far."""
        return

    def close(self) -> None:
        """Finishes what was begun. Raises SinkError when what was written is not whole."""
        return


# A viewer that falls behind by more than this begins anew instead of racing after.
_LATE_S = 0.5


class Pace:
    """When the picture after this one is due: files are shown at their own speed, live pictures at once."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._clock: tuple[float, float] | None = None

    def wait_s(self, timestamp_s: float) -> float:
        """How long to wait with a picture of this time; 0 for live sources."""
        if self._live:
            return 0.0
        now = time.monotonic()
        if self._clock is None:
            self._clock = (now, timestamp_s)
        due = self._clock[0] + timestamp_s - self._clock[1]
        if now > due + _LATE_S:
            self._clock = None
        return max(due - now, 0.0)


class Viewer(Sink):
    """Shows live pictures at once and files at their own speed; the last one says why none follows, if none does."""

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._pace = Pace(context.live)
        self._last: Picture | None = None
        self._said = ""

    @abstractmethod
    def _show(self, picture: Picture) -> None:
        """Shows a picture, whose memory stays as it is."""

    def idle(self, state: SourceState, reason: str) -> None:
        said = f"{state}: {reason}" if reason else str(state)
        if self._last is None or said == self._said or state in (SourceState.RUNNING, SourceState.ENDED):
            return
        self._said = said
        if state is SourceState.PAUSED:  # to be looked at: it is what it says it is
            picture, height = self._last.copy(), self._last.shape[0]
            caption(picture[height // 2 :], said, 1.6 * font_scale(height))
        else:
            picture = alerted(self._last, said)
        self._show(picture)


class NullSink(Sink):
    """Takes everything and keeps nothing: for measuring."""

    def write(self, picture: Picture, result: Result) -> None:
        return None


def open_null(argument: str, context: SinkContext) -> Sink:
    return NullSink()
