"""`phone:`, the camera of whoever opens the web page: pictures arrive through the sink `web`, one sender at a time.

They come over a WebSocket, or one by one as POSTs (Safari: WebKit bug 145819). The page sends the next one when the one
before was answered: nothing queues up on the way.
"""

from __future__ import annotations

import math
import secrets
import threading
import time
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.handoff import Handoff
from edgekit_runtime.sinks.websocket import POLICY, ClosedError, WebSocket
from edgekit_runtime.sources.base import Frame, Source, SourceState
from edgekit_runtime.sources.uri import SourceUri

MAX_PICTURE_BYTES = 4 << 20
_STALL_S = 1.0
_LEASE_S = 5.0
_BUSY = "another device is sending its camera"
_ENDED = "edgekit-run has ended"


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


def take_picture(data: bytes, sender: str, phone: PhoneCamera) -> str:
    """Hands one picture over; empty when it was taken, else why it was not."""
    captured = time.monotonic()
    if not phone.claim(sender):
        return _BUSY
    image = decode_jpeg(data)
    if image is None:
        return "that was no JPEG picture of at most 4096 x 4096 pixels"
    return "" if phone.give(image, captured) else _ENDED


def take_pictures(socket: WebSocket, phone: PhoneCamera, stop: threading.Event) -> None:
    """Serves one sender until it leaves, sends what is no picture, or the program ends."""
    sender, number = secrets.token_hex(8), 0
    try:
        refusal = "" if phone.claim(sender) else _BUSY
        while not refusal:
            data = socket.receive()
            refusal = _ENDED if stop.is_set() else take_picture(data, sender, phone)
            if not refusal:
                number += 1
                socket.send(str(number))
        socket.close(POLICY, refusal)
    except ClosedError as over:
        socket.close(over.code, over.reason)
    except OSError:
        pass  # it is gone
    finally:
        phone.release(sender)


MAX_PIXELS = 4096 * 4096
# Baseline and extended sequential. A progressive picture may hold thousands of scans, and no camera makes one.
_FRAMES = (0xC0, 0xC1)
_OTHER_FRAMES = frozenset({*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SCAN, _END = 0xDA, 0xD9
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8] | None:
    """uint8 `(H, W, 3)` BGR of a sequential JPEG of at most 4096 x 4096 pixels; None for anything else.

    It is measured before it is decoded, so that a few bytes cannot ask for gigabytes.
    """
    size = jpeg_size(data)
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a sequential JPEG (ITU-T T.81, annex B); None where there is none."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _FRAMES:
            if position + 9 > len(data):
                return None
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker in _OTHER_FRAMES or marker in (_SCAN, _END):
            return None
        position += 2 if marker in _BARE else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
