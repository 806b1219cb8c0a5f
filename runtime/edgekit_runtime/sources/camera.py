"""Cameras through OpenCV: V4L2 on Linux, Media Foundation on Windows, AVFoundation on macOS."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import cv2

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.events import say
from edgekit_runtime.sources.base import Frame, SourceState, ThreadedSource, pauses
from edgekit_runtime.sources.uri import SourceUri

T = TypeVar("T")
_OPEN_TIMEOUT_S = 2.0
# A driver that has not answered for so long never will; V4L2 says itself after ten seconds that nothing came.
GIVEN_UP_S = 15.0
_GIVEN_UP_TIMES = 3


@dataclass(frozen=True)
class Wish:
    """What is asked of the driver; None leaves its choice.

    MJPG, unless another format is wished: many webcams give 5 fps of raw YUYV at full size.
    """

    size: tuple[int, int] | None = None
    fps: float | None = None
    format: str = "MJPG"


@dataclass(frozen=True)
class Grant:
    """What the driver said it gives."""

    width: int
    height: int
    fps: float
    format: str

    def __str__(self) -> str:
        return f"{self.width}x{self.height} {self.format} at {self.fps:g} fps"


class Camera(ThreadedSource):
    """A camera in a thread of its own: only the newest frame is kept; a lost camera is opened again."""

    live = True

    def __init__(self, uri: str, opener: Callable[[], cv2.VideoCapture], wish: Wish) -> None:
        super().__init__(uri)
        self._opener = opener
        self._wish = wish
        self._ready = threading.Event()
        self.grant: Grant | None = None
        self._began, self._index = time.monotonic(), 0
        # Since when the driver has been asked for something; None while it is not.
        self._asked: float | None = None
        self._given_up = 0
        self._start()
        # The drivers' open may block for ever; then the thread is left behind, and the caller gets an answer.
        if not self._ready.wait(_OPEN_TIMEOUT_S):
            self.close()
            raise SourceError(f"{uri} does not answer.", hint="Unplug it and plug it in again, or try another one.")
        if self.grant is None:
            failure = self._failure
            self.close()
            raise failure or SourceError(f"{uri} cannot be opened.")
        self.fps = self.grant.fps or None

    def _produce(self) -> None:
        if self._given_up:
            capture = self._reopen("the driver did not answer")
        else:
            capture = self._ask(self._open)
            if capture is None:
                raise SourceError(f"{self.uri} cannot be opened.", hint="Another program may be using it.")
            self._ready.set()
            self._began = time.monotonic()
        while capture is not None and self._wanted:
            ok, image = self._ask(capture.read)
            now = time.monotonic()
            if not self._wanted:
                break
            if ok and image is not None:
                self._become(SourceState.RUNNING)
                self._publish(Frame(image, self._index, now - self._began, now))
                self._index += 1
            else:
                capture.release()
                capture = self._reopen("the camera is gone")
        if capture is not None:
            capture.release()

    @property
    def _wanted(self) -> bool:
        return self._current and not self._stop.is_set()

    def _ask(self, driver: Callable[[], T]) -> T:
        """Calls the driver, under the eyes of the watchdog in `read`."""
        self._asked = time.monotonic()
        try:
            return driver()
        finally:
            if self._current:
                self._asked = None

    def read(self, timeout_s: float) -> Frame | None:
        frame = super().read(timeout_s)
        if frame is None and self._asked is not None and time.monotonic() - self._asked > GIVEN_UP_S:
            self._give_up()
        return frame

    def _give_up(self) -> None:
        """Leaves the thread that hangs in the driver behind; another one opens the camera anew."""
        self._given_up += 1
        if self._given_up > _GIVEN_UP_TIMES:
            raise SourceError(
                f"{self.uri}: its driver has hung {self._given_up} times.", hint="Unplug it and plug it in again."
            )
        self._asked = None
        self._start_thread()

    def _guard(self) -> None:
        super()._guard()
        self._ready.set()

    def _open(self) -> cv2.VideoCapture | None:
        capture = self._opener()
        if not capture.isOpened():
            capture.release()
            return None
        # The size must be set after the format.
        capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*self._wish.format))
        if self._wish.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self._wish.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self._wish.size[1])
        if self._wish.fps:
            capture.set(cv2.CAP_PROP_FPS, self._wish.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.grant = Grant(
            int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
            float(capture.get(cv2.CAP_PROP_FPS)),
            _fourcc(capture.get(cv2.CAP_PROP_FOURCC)),
        )
        say(f"{self.uri}: {self.grant}")
        return capture

    def _reopen(self, reason: str) -> cv2.VideoCapture | None:
        """Tries again with growing pauses until it works or nobody wants it any more."""
        for pause in pauses():
            self._become(SourceState.RETRYING, f"{reason}; trying again every {pause:g} s")
            if self._stop.wait(pause):
                break
            capture = self._ask(self._open)
            if capture is not None:
                self._last = time.monotonic()
                return capture
            if not self._wanted:
                break
        return None


def open_uri(uri: SourceUri) -> Camera:
    uri.check_options("size", "fps", "format")
    device = uri.device("a camera is a number, like camera:0, or /dev/video0")
    pixels = uri.options.get("format", Wish.format)
    if not re.fullmatch(r"[A-Za-z0-9]{4}", pixels):
        raise UsageError(f"{uri.text}: format must be four letters, like MJPG or YUYV, not {pixels!r}.")
    wish = Wish(
        uri.size((0, 0)) if "size" in uri.options else None,
        uri.number("fps", 30, 1, 1000) if "fps" in uri.options else None,
        pixels,
    )
    if sys.platform == "linux":
        node = Path(f"/dev/video{device}")
        if not node.exists():
            raise SourceError(f"{uri.text}: there is no camera {device}.", hint=_cameras_hint())
        if not os.access(node, os.R_OK | os.W_OK):
            hint = "sudo usermod -aG video $USER, then log in again; in a container: --device /dev/video0"
            raise SourceError(f"{uri.text}: this user may not open {node}.", hint=hint.replace("video0", node.name))
    backend = cv2.CAP_V4L2 if sys.platform == "linux" else cv2.CAP_ANY
    return Camera(uri.text, lambda: cv2.VideoCapture(device, backend), wish)


def _cameras_hint() -> str:
    found = sorted(path.name for path in Path("/dev").glob("video*"))
    if found:
        return f"There is: {', '.join(f'/dev/{name}' for name in found)}."
    return "No camera is connected, or this container or user may not see it (group video)."


def _fourcc(value: float) -> str:
    code = int(value)
    letters = "".join(chr((code >> shift) & 0xFF) for shift in (0, 8, 16, 24))
    return letters if letters.isprintable() and letters.strip() else "unknown format"
