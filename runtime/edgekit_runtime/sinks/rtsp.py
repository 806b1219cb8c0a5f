"""`rtsp://[USER:PASSWORD@]HOST[:PORT]/PATH`: the pictures as H.264 to an RTSP server, by the program ffmpeg.

While it runs, whoever may list the processes of this machine can read a password in the address on its command line.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from contextlib import suppress

import cv2
import numpy as np

from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import SinkError
from edgekit_runtime.events import warn
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Sink, SinkContext, Viewer
from edgekit_runtime.sources.base import PAUSES_S, SourceState
from edgekit_runtime.sources.uri import redact, split_url

# The first that this ffmpeg has.
_ENCODERS = (("libx264", "-preset", "veryfast", "-tune", "zerolatency"), ("libopenh264",), ("mpeg4", "-q:v", "5"))
_PREFIX = re.compile(r"^\[[^\]]*\] ")
_PROGRESS = re.compile(r"(\w+)= *(\S+)")
_ALERT_EVERY_S = 0.5
_POLL_S = 0.2
_GOODBYE_S = 0.8


class RtspSink(Viewer):
    """Sends from a thread of its own: a server that is slow or away costs pictures, and holds nothing up.

    Frames of another size are brought to the first one's.
    """

    def __init__(self, url: str, context: SinkContext) -> None:
        super().__init__(context)
        self._url, self._shown = url, redact(url)
        self._fps = min(max(context.fps or 25.0, 1.0), 60.0)
        self._encoder = _encoder()
        self._size: tuple[int, int] | None = None
        self._alerted = 0.0
        self._program: subprocess.Popen[bytes] | None = None
        self._complaint, self._trouble, self._sent = "", "", 0
        self._queue: Handoff[Picture] = Handoff(2)
        self._thread = threading.Thread(target=self._send, name="rtsp", daemon=True)
        self._thread.start()

    def write(self, picture: Picture, result: Result) -> None:
        height, width = picture.shape[:2]
        if self._size is None:
            self._size = max(width & ~1, 2), max(height & ~1, 2)
        fitted = picture.copy() if (width, height) == self._size else cv2.resize(picture, self._size)
        self._last = np.asarray(fitted, np.uint8)
        self._show(self._last)
        self._context.stop.wait(self._pace.wait_s(result.frame.timestamp_s))

    def idle(self, state: SourceState, reason: str) -> None:
        if time.monotonic() - self._alerted >= _ALERT_EVERY_S:
            self._said, self._alerted = "", time.monotonic()  # again: a stream goes on
        super().idle(state, reason)

    def _show(self, picture: Picture) -> None:
        self._queue.offer(picture)

    def close(self) -> None:
        self._queue.close()
        self._thread.join(_GOODBYE_S)
        program = self._program
        if program is not None and program.poll() is None:
            program.kill()  # a server that no longer reads would keep the thread in its write
            self._thread.join(_GOODBYE_S)
        if self._trouble:
            raise SinkError(f"{self._shown}: nothing was sent: {self._trouble}.", hint="Check address and password.")

    def _send(self) -> None:
        attempt = 0
        while not (self._queue.exhausted or (self._queue.closed and self._trouble)):
            picture = self._queue.get(_POLL_S)
            if picture is None:
                continue
            before = self._sent
            reason = self._session(picture)
            self._trouble = "" if self._sent else reason
            attempt = 0 if self._sent > before else attempt + 1
            if self._queue.closed or not reason:
                continue
            pause = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            if attempt <= len(PAUSES_S):  # a server that stays away is not told of for ever
                warn(f"{self._shown}: {reason}; trying again in {pause:g} s")
            self._context.stop.wait(pause)

    def _session(self, picture: Picture | None) -> str:
        """Sends until ffmpeg ends or the sink is closed; why ffmpeg failed, empty if it did not."""
        with self._start() as program:
            self._program = program
            assert program.stdin is not None
            listener = threading.Thread(target=self._listen, args=(program,), name="rtsp messages", daemon=True)
            listener.start()
            with suppress(OSError):  # it has ended, and says why
                while picture is not None or not (self._queue.exhausted or program.poll() is not None):
                    view = memoryview(b"") if picture is None else picture.data.cast("B")
                    while view:
                        view = view[program.stdin.write(view) :]
                    picture = self._queue.get(_POLL_S)
            with suppress(OSError):
                program.stdin.close()  # ffmpeg takes leave of the server
            try:
                program.wait(_GOODBYE_S)
            except subprocess.TimeoutExpired:
                program.kill()
            listener.join(_GOODBYE_S)
        return "" if program.returncode == 0 else self._complaint or "ffmpeg was ended"

    def _start(self) -> subprocess.Popen[bytes]:
        assert self._size is not None
        width, height = self._size
        command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-nostats", "-progress", "pipe:2"]
        command += ["-use_wallclock_as_timestamps", "1", "-f", "rawvideo", "-pixel_format", "bgr24"]
        command += ["-video_size", f"{width}x{height}", "-framerate", f"{self._fps:g}", "-i", "pipe:0"]
        command += ["-c:v", *self._encoder, "-pix_fmt", "yuv420p", "-g", str(round(2 * self._fps))]
        command += ["-f", "rtsp", "-rtsp_transport", "tcp", self._url]
        self._complaint = ""
        # In a session of its own: Ctrl-C is this program's business, which then ends the stream properly.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True,
        )  # fmt: skip

    def _listen(self, program: subprocess.Popen[bytes]) -> None:
        assert program.stderr is not None
        with suppress(OSError, ValueError):
            for data in program.stderr:
                line = data.decode(errors="replace").strip()
                if progress := _PROGRESS.fullmatch(line):
                    self._sent += progress[1] == "frame" and progress[2] != "0"
                else:  # the first says what went wrong, those after it what that led to
                    self._complaint = self._complaint or _PREFIX.sub("", redact(line))[:200]


def _encoder() -> tuple[str, ...]:
    if not shutil.which("ffmpeg"):
        raise SinkError("To send to an RTSP server, the program ffmpeg is needed.", hint="apt install ffmpeg")
    listed = subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, check=False).stdout.split()
    for encoder in _ENCODERS:
        if encoder[0].encode() in listed:
            return encoder
    raise SinkError(f"This ffmpeg has none of the encoders {', '.join(one[0] for one in _ENCODERS)}.")


def parse(argument: str) -> str:
    """The address of `//[USER:PASSWORD@]HOST[:PORT]/PATH`. Raises UsageError."""
    url = f"rtsp:{argument}"
    # Without signs that no address has, which urlsplit may pass over.
    split_url(url if argument.startswith("//") and not set(url) & set(" \t\r\n") else "rtsp:")
    return url


def open_rtsp(argument: str, context: SinkContext) -> Sink:
    return RtspSink(parse(argument), context)
