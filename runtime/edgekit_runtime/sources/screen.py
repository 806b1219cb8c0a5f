"""`screen:`: what is on a screen, by the package mss (X11, Windows, macOS)."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.errors import SourceError
from edgekit_runtime.sources.base import Frame, ThreadedSource
from edgekit_runtime.sources.uri import SourceUri

if TYPE_CHECKING:
    from mss import MSS


class Screen(ThreadedSource):
    """One screen, `fps` times a second; only the newest picture is kept."""

    live = True

    def __init__(self, uri: str, number: int, fps: float) -> None:
        super().__init__(uri)
        self.fps = fps
        self._number = number
        self._shots = _open(uri)
        if number >= len(self._shots.monitors):
            screens = ", ".join(f"screen:{one}" for one in range(1, len(self._shots.monitors)))
            self._shots.close()
            raise SourceError(f"{uri}: there is no such screen.", hint=f"There is: {screens}.")
        self._start()

    def _produce(self) -> None:
        with self._shots:
            began, index, period = time.monotonic(), 0, 1 / (self.fps or 1)
            while not self._stop.wait(max(began + index * period - time.monotonic(), 0)):
                image = self._shoot()
                now = time.monotonic()
                self._publish(Frame(image, index, now - began, now))
                # A screen that is slower than was asked for is read as fast as it goes.
                index = max(index + 1, int((now - began) / period))

    def _shoot(self) -> npt.NDArray[np.uint8]:
        shot = self._shots.grab(self._shots.monitors[self._number])
        pixels = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGRA2BGR), np.uint8)


def _open(uri: str) -> MSS:
    try:
        from mss import MSS, ScreenShotError
    except ImportError as error:
        raise SourceError(f"{uri} needs the package mss.", hint="pip install 'edgekit-runtime[screen]'") from error
    try:
        return MSS()
    except ScreenShotError as error:
        hint = (
            "Wayland shows no program the whole screen; log in with X11." if os.environ.get("WAYLAND_DISPLAY") else ""
        )
        raise SourceError(f"{uri}: there is no screen here: {error}.", hint=hint) from error


def open_uri(uri: SourceUri) -> Screen:
    uri.check_options("fps")
    number = uri.device("a screen is a number: screen:1 is the first, screen:0 all together", default="1")
    return Screen(uri.text, number, uri.number("fps", 15, 1, 120))
