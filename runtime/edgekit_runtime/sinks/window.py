"""A window on the screen, with keys."""

from __future__ import annotations

import os
import re
import sys
import time
from contextlib import suppress
from pathlib import Path

import cv2

from edgekit_runtime.colour import Picture, caption
from edgekit_runtime.errors import SinkError
from edgekit_runtime.events import say
from edgekit_runtime.model import Result
from edgekit_runtime.overlay import font_scale
from edgekit_runtime.sinks.base import Sink, SinkContext, Viewer
from edgekit_runtime.sinks.frames import save_png
from edgekit_runtime.sources.base import SourceState

_ALTERNATIVES = "Say where to: --sink web, file:OUT.mp4, png:DIR, stdout or null."
KEYS = "q or Esc quit, space pause, + and - opacity,\n1 to 9 hide a class, d depth, s snapshot, h these keys"
_NOTE_S = 2.0
_NO_KEY = 255


class WindowSink(Viewer):
    """What a key has done, or why it did nothing, stands in the picture for two seconds."""

    def __init__(self, context: SinkContext) -> None:
        super().__init__(context)
        self._title = context.title
        self._shown: Picture | None = None
        self._note, self._noted = "", 0.0
        # OpenCV's Qt complains about fonts, a line a letter; it shows the picture all the same.
        os.environ.setdefault("QT_LOGGING_RULES", "default.warning=false")
        try:
            # Of any size, in the picture's own shape, without OpenCV's toolbar.
            cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        except cv2.error as error:
            raise SinkError("OpenCV cannot open a window here.", hint=_ALTERNATIVES) from error

    def write(self, picture: Picture, result: Result) -> None:
        first = self._last is None
        self._last, self._said = picture.copy(), ""
        self._show(self._last)
        if first:
            cv2.resizeWindow(self._title, picture.shape[1], picture.shape[0])
        self._keys(int(1000 * self._pace.wait_s(result.frame.timestamp_s)))

    def idle(self, state: SourceState, reason: str) -> None:
        super().idle(state, reason)
        self._keys(1)

    def close(self) -> None:
        with suppress(cv2.error):  # the person may have closed it already
            cv2.destroyWindow(self._title)

    def _show(self, picture: Picture) -> None:
        self._shown = picture
        if self._note:
            picture, height = picture.copy(), picture.shape[0]
            caption(picture[height * 3 // 4 :], self._note, font_scale(height))
        cv2.imshow(self._title, picture)

    def _tell(self, note: str) -> None:
        self._note, self._noted = note, time.monotonic()
        if self._shown is not None:
            self._show(self._shown)

    def _keys(self, wait_ms: int) -> None:
        key = (cv2.waitKey(wait_ms) if wait_ms > 0 else cv2.pollKey()) & 0xFF
        view = self._context.view
        if self._note and time.monotonic() - self._noted > _NOTE_S:
            self._tell("")
        if key in (ord("q"), 27) or not self._visible():
            self._context.stop.set()
        elif key == ord(" "):
            view.paused = not view.paused
        elif key == ord("h"):
            say(KEYS.replace("\n", " "))
            self._tell(KEYS)
        elif key == ord("s") and self._last is not None:
            path = Path(time.strftime("edgekit-%Y%m%d-%H%M%S.png"))
            save_png(path, self._last)
            say(f"saved {path}")
            self._tell(f"saved {path}")
        elif key != _NO_KEY and (note := self._switched(chr(key))):
            self._tell(f"{note}, from the next picture on" if view.paused else note)

    def _switched(self, key: str) -> str:
        """What a key has changed of the overlay, or why nothing; empty for one that means nothing."""
        view, legend = self._context.view, self._context.legend
        if key not in "+=-d123456789":
            return ""
        if not self._context.overlay:
            return "nothing is drawn: --no-overlay"
        if key in "+=-":
            view.opacity = min(max(view.opacity + (-0.1 if key == "-" else 0.1), 0.0), 1.0)
            return f"opacity {view.opacity:.0%}"
        if key == "d":
            if self._context.depth_unit is None or not legend:
                return "there is no depth" if legend else "there is nothing but depth"
            view.depth = not view.depth
            return "depth" if view.depth else "classes"
        number = int(key) - 1
        if number >= len(legend):
            return f"there is no class {key}"
        view.hidden ^= {number}
        return f"{legend[number][0]} is {'hidden' if number in view.hidden else 'shown'}"

    def _visible(self) -> bool:
        try:
            return self._shown is None or cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) >= 1
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
