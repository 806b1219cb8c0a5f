"""`-`: raw pictures on standard input, as `ffmpeg -i ... -f rawvideo -pix_fmt rgb24 -` writes them.

As with a file, nothing is dropped; with `live=1` only the newest picture is kept.
"""

from __future__ import annotations

import os
import select
import sys
import time

import cv2
import numpy as np

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.sources.base import Frame, ThreadedSource
from edgekit_runtime.sources.uri import STDIN, SourceUri

_POLL_S = 0.1
_PART = 1 << 20


class PipedFrames(ThreadedSource):
    """rgb24 frames of one size from a descriptor, which stays the caller's."""

    def __init__(self, uri: str, descriptor: int, size: tuple[int, int], fps: float, *, live: bool) -> None:
        super().__init__(uri)
        self.live = live
        self.fps = fps
        self._descriptor = descriptor
        self._size = size
        self._start()

    def _produce(self) -> None:
        width, height = self._size
        buffer = bytearray(width * height * 3)
        view, began, index = memoryview(buffer), time.monotonic(), 0
        while not self._stop.is_set():
            got = self._fill(view)
            if got < len(buffer):
                if got and not self._stop.is_set():
                    raise SourceError(
                        f"{self.uri}: the input ended in the middle of a picture of {width}x{height}.",
                        hint="Is --input-size the size that is written, and the format rgb24?",
                    )
                return
            captured = time.monotonic()
            image = cv2.cvtColor(np.frombuffer(buffer, np.uint8).reshape(height, width, 3), cv2.COLOR_RGB2BGR)
            timestamp = captured - began if self.live else index / (self.fps or 1)
            if not self._publish(Frame(np.asarray(image, np.uint8), index, timestamp, captured)):
                return
            index += 1

    def _fill(self, view: memoryview) -> int:
        """How many bytes came before the input ended or the source was closed."""
        got = 0
        while got < len(view) and not self._stop.is_set():
            # On Windows only sockets can be waited for; there the thread is left in its read.
            if sys.platform != "win32" and not select.select([self._descriptor], [], [], _POLL_S)[0]:
                continue
            data = os.read(self._descriptor, min(len(view) - got, _PART))
            if not data:
                break
            view[got : got + len(data)] = data
            got += len(data)
        return got


def with_input_size(source: str, size: str | None) -> str:
    """The source `-` with the size that `--input-size` says. Raises UsageError where that belongs to another source."""
    if size is None:
        return source
    if source != "-":
        raise UsageError("--input-size is the size of the pictures on standard input.", hint="Add --source -")
    return f"{STDIN}:?size={size}"


def open_uri(uri: SourceUri) -> PipedFrames:
    uri.check_options("size", "fps", "live")
    if "size" not in uri.options:
        raise UsageError(f"{uri.text} does not say how large its pictures are.", hint="Add --input-size WIDTHxHEIGHT")
    size, fps, live = uri.size((0, 0)), uri.number("fps", 25, 1, 1000), bool(uri.number("live", 0, 0, 1))
    try:
        descriptor = None if sys.stdin is None or sys.stdin.isatty() else sys.stdin.fileno()
    except (OSError, ValueError):  # closed, or no file at all
        descriptor = None
    if descriptor is None:
        raise SourceError(f"{uri.text}: nothing is piped in.", hint="ffmpeg -i ... -f rawvideo -pix_fmt rgb24 - | ...")
    return PipedFrames(uri.text, descriptor, size, fps, live=live)
