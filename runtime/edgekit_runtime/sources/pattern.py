"""`test:`, a moving pattern with its frame number burnt in, so that freshness and order can be proved.

A row of blocks at the top left: white, black, 24 bits, most significant first, a parity bit. It survives compression
and a half-transparent overlay.
"""

from __future__ import annotations

import time

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.sources.base import Frame, Source, SourceState, ThreadedSource
from edgekit_runtime.sources.uri import SourceUri

_BITS = 24
BLOCKS = 2 + _BITS + 1


class Pattern:
    """Draws the pattern: frame `n` is the same bytes every time."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        columns = np.arange(2 * width, dtype=np.float32) * (2 * np.pi / width)
        rows = np.linspace(0, 1, height, dtype=np.float32)[:, None]
        wave = 127 + 80 * np.sin(columns[None] + 4 * rows)
        self._strip = np.empty((height, 2 * width, 3), np.uint8)
        self._strip[..., 0] = wave
        self._strip[..., 1] = 60 + 150 * rows
        self._strip[..., 2] = 255 - wave
        self._block = block_size(width)

    def draw(self, number: int) -> npt.NDArray[np.uint8]:
        """Frame `number` (0 to 2^24 - 1) as uint8 `(height, width, 3)` BGR."""
        shift = (number * 4) % self.width
        image = np.ascontiguousarray(self._strip[:, shift : shift + self.width])
        radius = self.height // 8
        centre = (number * 7) % self.width, self.height // 2
        cv2.circle(image, centre, radius, (40, 220, 250), -1)
        number %= 1 << _BITS
        digits = f"10{number:0{_BITS}b}{number.bit_count() % 2}"
        row = np.array([255 if digit == "1" else 0 for digit in digits], np.uint8).repeat(3 * self._block)
        image.reshape(self.height, -1)[: self._block, : row.size] = row
        return image


def block_size(width: int) -> int:
    """Side of one block in pixels, for a picture of that width."""
    return max(width // (BLOCKS + 5), 1)


class FreeRunningPattern(Source):
    """As fast as it is read; nothing is dropped."""

    def __init__(self, uri: str, pattern: Pattern, frames: int | None) -> None:
        super().__init__(uri)
        self._pattern = pattern
        self._left = frames
        self._next = 0

    @property
    def state(self) -> SourceState:
        return SourceState.ENDED if self._left is not None and self._next >= self._left else SourceState.RUNNING

    def read(self, timeout_s: float) -> Frame | None:
        if self.state is SourceState.ENDED:
            return None
        number, self._next = self._next, self._next + 1
        return Frame(self._pattern.draw(number), number, number / 30, time.monotonic())

    def close(self) -> None:
        self._left = 0


class LivePattern(ThreadedSource):
    """Paced like a camera: whoever is late gets only the newest frame."""

    live = True

    def __init__(self, uri: str, pattern: Pattern, fps: float, frames: int | None) -> None:
        super().__init__(uri)
        self.fps = fps
        self._pattern = pattern
        self._count = frames
        self._start()

    def _produce(self) -> None:
        begin, number, period = time.monotonic(), 0, 1 / (self.fps or 30)
        while self._count is None or number < self._count:
            if self._stop.wait(max(begin + number * period - time.monotonic(), 0)):
                return
            if not self._publish(Frame(self._pattern.draw(number), number, number * period, time.monotonic())):
                return
            number += 1


def open_uri(uri: SourceUri) -> Source:
    uri.check_options("size", "fps", "frames")
    pattern = Pattern(*uri.size((960, 540)))
    fps = uri.number("fps", 30.0, 0, 1000)
    frames = int(uri.number("frames", 0, 0, 2**_BITS)) or None
    if fps == 0:
        return FreeRunningPattern(uri.text, pattern, frames)
    return LivePattern(uri.text, pattern, fps, frames)
