"""What a source is: timestamped frames and a state."""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from edgekit_runtime.errors import EdgekitError, SourceError
from edgekit_runtime.handoff import Handoff

PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)


def pauses() -> Iterator[float]:
    """Seconds to wait between attempts to open again what was lost: more and more, for ever."""
    return chain(PAUSES_S, repeat(PAUSES_S[-1]))


class SourceState(str, Enum):
    """`stalled`: open, but no picture for too long; `retrying`: lost, being opened again; `ended`: no more frames;
    `paused`: what a loop says, not a source, while the person who watches has stopped it.
    """

    __str__ = str.__str__

    RUNNING = "running"
    STALLED = "stalled"
    RETRYING = "retrying"
    ENDED = "ended"
    PAUSED = "paused"


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture.

    `image` is uint8 `(H, W, 3)` BGR, C-contiguous, and belongs to the receiver; `index` counts the source's frames
    from 0, so a gap shows what was dropped; `timestamp_s` is the source's own time (position in a file, seconds
    since the first frame of a camera); `captured` is `time.monotonic()` when the picture reached this process.
    """

    image: npt.NDArray[np.uint8]
    index: int
    timestamp_s: float
    captured: float


class Source(ABC):
    """Yields frames until `state` is `ended`. Iterate over it, or call `read`; close it (or use `with`).

    A `live` source (a camera) keeps only the newest frame and counts the others in `dropped`; any other source
    waits for its reader and drops nothing. `fps` is the nominal rate, None where unknown. `uri` is safe to show.
    """

    live: bool = False
    fps: float | None = None

    def __init__(self, uri: str) -> None:
        self.uri = uri

    @property
    @abstractmethod
    def state(self) -> SourceState: ...

    @property
    def reason(self) -> str:
        """Why the state is what it is; empty while all is well."""
        return ""

    @property
    def dropped(self) -> int:
        return 0

    @abstractmethod
    def read(self, timeout_s: float) -> Frame | None:
        """The next frame; None when none came within `timeout_s` seconds or the source has ended (see `state`).

        Raises SourceError when the source broke and cannot go on.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees everything; at most half a second or so, in any state, any number of times."""

    def __iter__(self) -> Iterator[Frame]:
        while True:
            frame = self.read(0.5)
            if frame is not None:
                yield frame
            elif self.state is SourceState.ENDED:
                return

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ThreadedSource(Source):
    """A source whose frames are fetched by a thread of its own, which runs `_produce`.

    Subclasses set `live` before they call `_start`. What `_produce` raises, `read` raises again. What a thread does
    that was left behind counts for nothing.
    """

    stall_s = 1.0
    prefetch = 2

    def __init__(self, uri: str) -> None:
        super().__init__(uri)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._frames: Handoff[Frame] = Handoff(1)
        self._state = SourceState.RUNNING
        self._reason = ""
        self._failure: EdgekitError | None = None
        self._last = time.monotonic()

    def _start(self) -> None:
        self._frames = Handoff(1 if self.live else self.prefetch)
        self._last = time.monotonic()
        self._start_thread()

    def _start_thread(self) -> None:
        self._thread = threading.Thread(target=self._guard, name=f"source {self.uri}", daemon=True)
        self._thread.start()

    @property
    def _current(self) -> bool:
        return self._thread is threading.current_thread()

    @abstractmethod
    def _produce(self) -> None:
        """Calls `_publish` for each frame until the end, or until `_stop` is set. Runs in the thread."""

    def _publish(self, frame: Frame) -> bool:
        """Hands a frame over; False when nobody wants more."""
        self._last = time.monotonic()
        if self.live:
            self._frames.offer(frame)
            return not self._stop.is_set()
        taken = self._frames.put(frame)
        self._last = time.monotonic()  # whoever was slow, it was not the source
        return taken

    def _guard(self) -> None:
        try:
            self._produce()
        except EdgekitError as error:
            self._end(error)
        except Exception as error:
            failure = SourceError(f"{self.uri} failed: {error or type(error).__name__}.")
            failure.__cause__ = error
            self._end(failure)
        else:
            self._end(None)

    def _end(self, failure: EdgekitError | None) -> None:
        if self._current:
            self._failure = failure
            self._frames.close()

    def _become(self, state: SourceState, reason: str = "") -> None:
        self._state, self._reason = state, reason

    @property
    def state(self) -> SourceState:
        if self._frames.exhausted:
            return SourceState.ENDED
        if self.live and self._state is SourceState.RUNNING and self._silence() > self.stall_s:
            return SourceState.STALLED
        return self._state

    @property
    def reason(self) -> str:
        if self.state is SourceState.STALLED and not self._reason:
            return f"no frame for {self._silence():.0f} s"
        return self._reason

    def _silence(self) -> float:
        return time.monotonic() - self._last

    @property
    def dropped(self) -> int:
        return self._frames.dropped

    def read(self, timeout_s: float) -> Frame | None:
        frame = self._frames.get(timeout_s)
        if frame is None and self._failure is not None and self._frames.exhausted:
            raise self._failure
        return frame

    def close(self) -> None:
        self._stop.set()
        self._frames.discard()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(0.5)
