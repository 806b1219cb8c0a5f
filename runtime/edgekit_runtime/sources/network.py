"""`rtsp://`, `rtsps://`, `http://` and `https://`: live streams, and files on a server.

Decoded by FFmpeg in a process of its own, over TCP. A stream that ends, stops or never was is opened again with growing
pauses; only the newest frame is kept. What a server says cannot make the decoder open anything but network addresses.
"""

from __future__ import annotations

import time
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.sources.base import Frame, Source, SourceState, ThreadedSource
from edgekit_runtime.sources.decoder import DecodedFile
from edgekit_runtime.sources.protocol import Job
from edgekit_runtime.sources.uri import SourceUri

PAUSES_S = (0.2, 0.5, 1.0, 2.0, 5.0)
# A connection that gives nothing for so long is given up and made again.
GIVEN_UP_S = 8.0
_POLL_S = 0.25
# What has an end, though it comes over the network.
_FILES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm"})


class LiveStream(ThreadedSource):
    """What a decoding process reads live.

    Raises SourceError where there is nothing at the start: an address is more often wrong than late.
    """

    live = True

    def __init__(self, uri: str, job: Job) -> None:
        super().__init__(uri)
        self._job = job
        self._decoder: DecodedFile | None = self._connect()
        self.fps = self._decoder.fps
        self._start()

    def _connect(self) -> DecodedFile:
        return DecodedFile(self.uri, self._job)

    def _produce(self) -> None:
        began, index = time.monotonic(), 0
        while not self._stop.is_set():
            frame, gone = self._next()
            if frame is not None:
                self._become(SourceState.RUNNING)
                self._publish(Frame(frame.image, index, frame.captured - began, frame.captured))
                index += 1
            elif gone and not self._reconnect(gone):
                return

    def _next(self) -> tuple[Frame | None, str]:
        """A frame, or why there will be none."""
        decoder = self._decoder
        if decoder is None:
            return None, "closed"
        try:
            frame = decoder.read(_POLL_S)
        except SourceError as error:
            return None, str(error.args[0])
        if frame is not None:
            return frame, ""
        if decoder.state is SourceState.ENDED:
            return None, "the stream has ended"
        return None, f"nothing came for {GIVEN_UP_S:g} s" if self._silence() > GIVEN_UP_S else ""

    def _reconnect(self, reason: str) -> bool:
        """Tries until it works (True) or the source is closed (False)."""
        attempt = 0
        while True:
            if self._decoder is not None:
                self._decoder.close()
            pause = PAUSES_S[min(attempt, len(PAUSES_S) - 1)]
            self._become(SourceState.RETRYING, f"{reason.removeprefix(self.uri).strip()}; trying again in {pause:g} s")
            if self._stop.wait(pause):
                return False
            try:
                self._decoder = self._connect()
            except SourceError as error:
                self._decoder, reason = None, str(error.args[0])
                attempt += 1
            else:
                self._last = time.monotonic()
                return True

    def close(self) -> None:
        self._stop.set()
        if self._decoder is not None:
            self._decoder.close()
        super().close()
        if self._decoder is not None:  # one that was made while the thread was told to end
            self._decoder.close()


def open_uri(uri: SourceUri) -> Source:
    url = f"{uri.scheme}:{uri.body}"
    try:
        parts = urlsplit(url)
        valid = bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{uri.text} names no host.", hint=f"Write {uri.scheme}://HOST[:PORT]/PATH")
    if uri.scheme in ("http", "https") and PurePosixPath(parts.path).suffix.lower() in _FILES:
        return DecodedFile(uri.text, Job(url=url))
    return LiveStream(uri.text, Job(url=url, live=True))
