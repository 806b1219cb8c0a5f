"""Live streams, of which only the newest frame is kept, each decoded in a process of its own.

`rtsp(s)://` and `http(s)://` by FFmpeg, over TCP; `csi:N` (a Jetson's camera) and `gst:PIPELINE` by an OpenCV that was
built with GStreamer.
"""

from __future__ import annotations

import time
from pathlib import PurePosixPath

import cv2

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.sources.base import Frame, Source, SourceState, ThreadedSource, pauses
from edgekit_runtime.sources.files import DecodedFile
from edgekit_runtime.sources.protocol import Job
from edgekit_runtime.sources.uri import SourceUri, split_url

# A connection that gives nothing for so long is given up and made again.
GIVEN_UP_S = 8.0
_POLL_S = 0.25
# What has an end, though it comes over the network.
_FILES = frozenset({".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpg", ".ts", ".webm"})


class LiveStream(ThreadedSource):
    """What a decoding process reads live. One that ends, stops or crashes is opened again with growing pauses.

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
        for pause in pauses():
            if self._decoder is not None:
                self._decoder.close()
            self._become(SourceState.RETRYING, f"{reason.removeprefix(self.uri).strip()}; trying again in {pause:g} s")
            if self._stop.wait(pause):
                break
            try:
                self._decoder = self._connect()
            except SourceError as error:
                self._decoder, reason = None, str(error.args[0])
            else:
                self._last = time.monotonic()
                return True
        return False

    def close(self) -> None:
        self._stop.set()
        if self._decoder is not None:
            self._decoder.close()
        super().close()
        if self._decoder is not None:  # one that was made while the thread was told to end
            self._decoder.close()


def open_uri(uri: SourceUri) -> Source:
    return _open_pipeline(uri) if uri.scheme in ("csi", "gst") else _open_url(uri)


def _open_url(uri: SourceUri) -> Source:
    url = f"{uri.scheme}:{uri.body}"
    path = split_url(url).path
    if uri.scheme in ("http", "https") and PurePosixPath(path).suffix.lower() in _FILES:
        return DecodedFile(uri.text, Job(url=url))
    return LiveStream(uri.text, Job(url=url, live=True))


# The newest picture, as soon as it is there.
_END = "video/x-raw,format=BGR ! appsink drop=true max-buffers=1 sync=false"


def _open_pipeline(uri: SourceUri) -> LiveStream:
    pipeline = csi_pipeline(uri) if uri.scheme == "csi" else whole_pipeline(uri)
    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"{uri.text}: this OpenCV was built without GStreamer, as all wheels are.",
            hint="JetPack's and Debian's python3-opencv have it: use the system's Python, or a virtual environment "
            "made with --system-site-packages.",
        )
    return LiveStream(uri.text, Job(pipeline=pipeline, live=True))


def csi_pipeline(uri: SourceUri) -> str:
    """For `csi:N?size=1280x720&fps=30&flip=0`: the camera's own memory is converted by the Jetson's hardware.

    `flip` is nvvidconv's flip-method: 0 as it is, 2 upside down. Raises UsageError.
    """
    uri.check_options("size", "fps", "flip")
    number = uri.device("a CSI camera is a number, like csi:0")
    width, height = uri.size((1280, 720))
    fps, flip = round(uri.number("fps", 30, 1, 240)), round(uri.number("flip", 0, 0, 7))
    return (
        f"nvarguscamerasrc sensor-id={number} ! "
        f"video/x-raw(memory:NVMM),width={width},height={height},framerate={fps}/1 ! "
        f"nvvidconv flip-method={flip} ! video/x-raw,format=BGRx ! videoconvert ! {_END}"
    )


def whole_pipeline(uri: SourceUri) -> str:
    """A pipeline with its end, an appsink with BGR pictures, where it has none of its own. Raises UsageError."""
    pipeline = uri.body.strip().removesuffix("!").rstrip()
    if not pipeline:
        raise UsageError(f"{uri.text} has no pipeline.", hint="gst:v4l2src device=/dev/video0")
    return pipeline if "appsink" in pipeline else f"{pipeline} ! videoconvert ! {_END}"
