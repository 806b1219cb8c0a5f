"""`phone:`, the camera of whoever opens the web page: pictures arrive through the sink `web`, one sender at a time."""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edgekit_runtime.handoff import Handoff
from edgekit_runtime.sources.base import Frame, Source, SourceState
from edgekit_runtime.sources.uri import SourceUri

_STALL_S = 1.0
_LEASE_S = 5.0


@dataclass(frozen=True)
class Wanted:
    """What the page asks of its camera; a phone held upright gives width and height exchanged."""

    width: int
    height: int
    fps: float


class PhoneCamera(Source):
    """Frames that a device sends: it has to `claim` the source, then may `give` pictures. Only the newest is kept.

    A claim lapses when its device falls silent, so that one that went out of reach keeps nobody out.
    """

    live = True

    def __init__(self, uri: str, wanted: Wanted) -> None:
        super().__init__(uri)
        self.wanted = wanted
        self._frames: Handoff[Frame] = Handoff(1)
        self._lock = threading.Lock()
        self._sender: str | None = None
        self._began: float | None = None
        self._last = -math.inf
        self._count = 0

    # The sender's side.

    def claim(self, sender: str) -> bool:
        """Makes this the one sender, or finds that it is; False while there is another."""
        with self._lock:
            if self._sender != sender and time.monotonic() - self._last <= _LEASE_S:
                return False
            if self._sender != sender:
                self._sender, self._last = sender, time.monotonic()
            return True

    def release(self, sender: str) -> None:
        with self._lock:
            if self._sender == sender:
                self._sender, self._last = None, -math.inf

    def give(self, image: npt.NDArray[np.uint8], captured: float) -> bool:
        """Takes a picture, uint8 `(H, W, 3)` BGR, that arrived at `captured`; False when nobody wants more."""
        with self._lock:
            self._last = captured
            self._began = captured if self._began is None else self._began
            self._frames.offer(Frame(image, self._count, captured - self._began, captured))
            self._count += 1
        return not self._frames.closed

    # The loop's side.

    @property
    def state(self) -> SourceState:
        if self._frames.exhausted:
            return SourceState.ENDED
        return SourceState.STALLED if time.monotonic() - self._last > _STALL_S else SourceState.RUNNING

    @property
    def reason(self) -> str:
        if self.state is not SourceState.STALLED:
            return ""
        silence = time.monotonic() - self._last
        return f"no frame for {silence:.0f} s" if silence <= _LEASE_S else "no device sends its camera"

    @property
    def dropped(self) -> int:
        return self._frames.dropped

    def read(self, timeout_s: float) -> Frame | None:
        return self._frames.get(timeout_s)

    def close(self) -> None:
        self._frames.discard()


def open_uri(uri: SourceUri) -> PhoneCamera:
    uri.check_options("size", "fps")
    width, height = uri.size((1280, 720))
    return PhoneCamera(uri.text, Wanted(width, height, uri.number("fps", 30, 1, 120)))
