"""Video files, picture folders and globs, decoded in a process of their own (`decode.py`): one that crashes its decoder
ends as a SourceError.
"""

from __future__ import annotations

import glob
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit_runtime.errors import SourceError
from edgekit_runtime.events import warn
from edgekit_runtime.sources.base import Frame, Source, ThreadedSource
from edgekit_runtime.sources.protocol import (
    END,
    ERROR,
    FRAME,
    HEADER,
    SLOTS,
    Decoded,
    Header,
    Job,
    SharedMemory,
    receive,
    send,
)
from edgekit_runtime.sources.uri import SourceUri

_OPEN_TIMEOUT_S = 20.0
# A decoder that gives nothing for so long hangs: in a codec, or on a disk that is gone.
GIVEN_UP_S = 30.0
_PACKAGES = str(Path(__file__).resolve().parents[2])
# Nothing is imported from the working directory (what `-P` does from Python 3.11 on). The package may be importable
# only through this process's path; it is appended, so that it shadows nothing.
_CHILD = (
    "import sys; sys.path[:] = [*filter(None, sys.path), sys.argv[1]]; "
    "from edgekit_runtime.sources.decode import main; main()"
)


class DecodedFile(ThreadedSource):
    """A video file, a list of pictures, or a stream; waits for its reader, drops nothing."""

    live = False

    def __init__(self, uri: str, job: Job) -> None:
        super().__init__(uri)
        self._opened = threading.Event()
        self._header: Header | None = None
        self._memory = SharedMemory()
        self._hung = False
        debug = bool(os.environ.get("EDGEKIT_DEBUG"))
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, _PACKAGES],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=None if debug else subprocess.DEVNULL,
                pass_fds=self._memory.descriptors,
                bufsize=0,
            )
        except OSError as error:
            self._memory.close()
            raise SourceError(f"{uri}: the decoding process cannot be started: {error}.") from error
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._requests, self._answers = self._child.stdin, self._child.stdout
        self._job = replace(job, memory=self._memory.name)
        self._start()
        self._await_header()

    @property
    def fps(self) -> float | None:  # type: ignore[override]
        return self._header.fps or None if self._header else None

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame."""
        return (self._header.width, self._header.height) if self._header else (0, 0)

    def read(self, timeout_s: float) -> Frame | None:
        frame = super().read(timeout_s)
        if frame is None and self._silence() > GIVEN_UP_S:
            self._hung = True
            self._child.kill()  # which the thread hears, and says
        return frame

    def _await_header(self) -> None:
        opened = self._opened.wait(_OPEN_TIMEOUT_S)
        if self._header is not None:
            return
        failure = (
            self._failure
            if opened
            else SourceError(f"{self.uri} could not be opened in time.", hint=_advice(self._job))
        )
        self.close()
        raise failure or SourceError(f"{self.uri} was closed while it was being opened.")

    def _produce(self) -> None:
        try:
            self._receive_frames()
        finally:
            # Set after `_failure`: whoever waits for the header then finds the reason.
            self._finish()

    def _guard(self) -> None:
        super()._guard()
        self._opened.set()

    def _receive_frames(self) -> None:
        index = 0
        with suppress(OSError):
            send(self._requests.fileno(), b"J", self._job.to_bytes())
        while not self._stop.is_set():
            message = receive(self._answers.fileno())
            if message is None:
                if not self._stop.is_set():
                    raise SourceError(
                        f"{self.uri}: {self._obituary()}.",
                        hint="What it reads is damaged or hostile, or its disk is gone; nothing else was harmed.",
                    )
                return
            kind, payload = message
            if kind == END:
                if payload:
                    self._reason = f"{payload.decode()} could be read"
                    warn(f"{self.uri} is cut short or damaged: {self._reason}.")
                return
            if kind == ERROR:
                raise SourceError(f"{self.uri} {payload.decode(errors='replace')}.", hint=_advice(self._job))
            if kind == HEADER:
                self._header = Header.from_bytes(payload)
                self._memory.map()
                self._opened.set()
                for slot in range(SLOTS):
                    self._free(slot)
            elif kind == FRAME and self._header is not None:
                decoded = Decoded.from_bytes(payload)
                frame = self._copy(decoded, index)
                self._free(decoded.slot)
                if not self._publish(frame):
                    return
                index += 1

    def _copy(self, decoded: Decoded, index: int) -> Frame:
        header = self._header
        size = decoded.height * decoded.width * 3
        if header is None or decoded.slot >= SLOTS or not 0 < size <= header.slot_bytes:
            raise SourceError(f"{self.uri}: the decoding process sent nonsense.")
        view = np.frombuffer(self._memory.map(), np.uint8, size, decoded.slot * header.slot_bytes)
        image = view.reshape(decoded.height, decoded.width, 3).copy()
        return Frame(image, index, decoded.timestamp_s, time.monotonic())

    def _free(self, slot: int) -> None:
        with suppress(OSError):  # a dead child shows itself at the next receive
            send(self._requests.fileno(), b"S", slot.to_bytes(4, "little"))

    def _obituary(self) -> str:
        if self._hung:
            return f"the decoder gave nothing for {GIVEN_UP_S:g} s and was ended"
        with suppress(subprocess.TimeoutExpired):
            code = self._child.wait(2)
            if code < 0:
                return f"the decoder crashed on it ({signal.Signals(-code).name})"
            return f"the decoder ended unexpectedly (status {code})"
        return "the decoder stopped answering"

    def _finish(self) -> None:
        """Ends the child; its pipe's end tells it to go, and what does not go is killed."""
        with suppress(OSError):
            self._requests.close()
        try:
            self._child.wait(0.2)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
        self._answers.close()
        self._memory.close()

    def close(self) -> None:
        self._stop.set()
        # A decoder that hangs would keep the thread in its read: killing it ends that.
        self._child.kill()
        super().close()


def _advice(job: Job) -> str:
    if job.pipeline:
        return "Try it with gst-launch-1.0; EDGEKIT_DEBUG=1 shows what GStreamer says."
    if job.url and not job.live:
        return (
            "Check address, name and password. Of a server that sends no parts of files, download it, or put its index "
            "first: ffmpeg -i in.mp4 -c copy -movflags +faststart out.mp4"
        )
    return "Check address, name and password." if job.url else "Check that it plays elsewhere."


PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
PICTURES_PER_SECOND = 25.0


def open_uri(uri: SourceUri) -> Source:
    path = Path(uri.body).expanduser()
    try:
        if path.is_dir():
            return _pictures(uri, sorted(path.iterdir()))
        if path.is_file():
            if path.suffix.lower() in PICTURES:
                return _pictures(uri, [path])
            return _video(uri, path)
        if path.exists():
            raise SourceError(f"{uri.text} is neither a file nor a folder.")
    except OSError as error:
        raise SourceError(f"{uri.text} cannot be read: {error.strerror or error}.") from error
    if any(sign in uri.body for sign in "*?["):
        return _pictures(uri, [Path(name) for name in sorted(glob.glob(str(path)))])  # noqa: PTH207  (absolute too)
    raise SourceError(f"There is no file or folder {uri.text}.", hint="Check the path; a camera is camera:0.")


def _video(uri: SourceUri, path: Path) -> Source:
    if path.stat().st_size == 0:
        raise SourceError(f"{uri.text} is empty.", hint="The recording or the copy did not finish.")
    with path.open("rb"):  # a file that may not be read says so here, in words
        pass
    return DecodedFile(uri.text, Job(video=str(path.absolute())))


def _pictures(uri: SourceUri, paths: list[Path]) -> Source:
    pictures = [str(path.absolute()) for path in paths if path.suffix.lower() in PICTURES and path.is_file()]
    if not pictures:
        raise SourceError(f"{uri.text} has no pictures.", hint=f"Pictures end in {', '.join(sorted(PICTURES))}.")
    return DecodedFile(uri.text, Job(pictures=tuple(pictures), fps=PICTURES_PER_SECOND))
