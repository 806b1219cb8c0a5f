"""A window on the screen, with keys."""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2

from edgekit_runtime.errors import SinkError
from edgekit_runtime.model import Result
from edgekit_runtime.overlay import alerted
from edgekit_runtime.sinks.base import Pace, Picture, Sink, SinkContext, standstill
from edgekit_runtime.sinks.frames import save_png
from edgekit_runtime.sources.base import SourceState

_LOG = logging.getLogger("edgekit_runtime")
_ALTERNATIVES = "Say where to: --sink web, file:OUT.mp4, png:DIR, stdout or null."
KEYS = "q or Esc quit, space pause, + and - opacity, 1 to 9 hide a class, d depth, s snapshot, h these keys"


class WindowSink(Sink):
    """Shows live pictures at once and files at their own speed."""

    def __init__(self, context: SinkContext) -> None:
        self._context = context
        self._title = context.title
        self._picture: Picture | None = None
        self._alert = ""
        self._pace = Pace(context.live)
        # OpenCV's Qt complains about fonts, a line a letter; it shows the picture all the same.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        try:
            # Of any size, in the picture's own shape, without OpenCV's toolbar.
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError("OpenCV cannot open a window here.", hint=_ALTERNATIVES) from error

    def write(self, picture: Picture, result: Result) -> None:
        first = self._picture is None
        self._picture, self._alert = picture.copy(), ""
        cv2.imshow(self._title, picture)
        if first:
            cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
        self._keys(int(1000 * self._pace.wait_s(result.frame.timestamp_s)))
        while self._context.view.paused and not self._context.stop.is_set():
            self._keys(30)
            self._pace.restart()

    def idle(self, state: SourceState, reason: str) -> None:
        alert = standstill(state, reason)
        if self._picture is not None and alert not in ("", self._alert):
            self._alert = alert
            cv2.imshow(self._title, alerted(self._picture, alert))
        self._keys(1)

    def close(self) -> None:
        with suppress(cv2.error):  # the person may have closed it already
            cv2.destroyWindow(self._title)

    def _keys(self, wait_ms: int) -> None:
        key = (cv2.waitKey(wait_ms) if wait_ms > 0 else cv2.pollKey()) & 0xFF
        view = self._context.view
        if key in (ord("q"), 27) or not self._visible():
            self._context.stop.set()
        elif key == ord(" "):
            view.paused = not view.paused
        elif key in (ord("+"), ord("=")):
            view.opacity = min(view.opacity + 0.1, 1.0)
        elif key == ord("-"):
            view.opacity = max(view.opacity - 0.1, 0.0)
        elif key == ord("d"):
            view.depth = not view.depth
        elif ord("1") <= key <= ord("9") and key - ord("1") < self._context.classes:
            view.hidden ^= {key - ord("1")}
        elif key == ord("h"):
            _LOG.info(KEYS)
        elif key == ord("s") and self._picture is not None:
            path = Path(time.strftime("edgekit-%Y%m%d-%H%M%S.png"))
            save_png(path, self._picture)
            _LOG.info("saved %s", path)

    def _visible(self) -> bool:
        try:
            return self._picture is None or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:
            return False


def open_window(argument: str, context: SinkContext) -> Sink:
    check()
    return WindowSink(context)


def check() -> None:
    """Raises SinkError where no window can be opened, before anything else takes time."""
    if re.search(r"GUI:\s*NONE", cv2.getBuildInformation()):
        raise SinkError(
            "This OpenCV has no windows (the headless wheel), and the sink window needs them.",
            hint=f"{_ALTERNATIVES} Or: pip uninstall opencv-python-headless, pip install 'edgekit-runtime[gui]'.",
        )
    if not _display_there():
        raise SinkError("There is no screen here, and the sink window needs one.", hint=_ALTERNATIVES)


def _display_there() -> bool:
    """OpenCV's Qt ends the whole process where it finds no display, so that is found out before."""
    if sys.platform != "linux":
        return True
    if os.environ.get("WAYLAND_DISPLAY"):
        return True
    display = os.environ.get("DISPLAY", "")
    local = re.fullmatch(r":(\d+)(\.\d+)?", display)
    return Path(f"/tmp/.X11-unix/X{local[1]}").exists() if local else bool(display)  # noqa: S108
