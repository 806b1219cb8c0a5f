"""The decoding process: native decoders crash here, where it costs one source and not the loop.

Started by `files.py`; `protocol.py` is how the two talk. Imports nothing but NumPy and OpenCV.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator

# A file may name others (a playlist, for instance): only local files are ever opened for it.
os.environ.setdefault("OPENCV_FFMPEG_CAPTURE_OPTIONS", "protocol_whitelist;file,crypto,data")
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.sources.protocol import (
    END,
    ERROR,
    FRAME,
    HEADER,
    SLOTS,
    Decoded,
    Header,
    Job,
    map_in_child,
    receive,
    send,
)

Image = npt.NDArray[np.uint8]
# What a server says may lead to other servers, never to a file. TCP, as lost packets are lost pictures.
_NETWORK = "protocol_whitelist;tcp,tls,udp,rtp,srtp,rtsp,rtsps,http,https,crypto|rtsp_transport;tcp"
_UNBUFFERED = "|fflags;nobuffer|flags;low_delay"
_PATIENCE_MS = 6000
# How many damaged pictures in a row are passed over, and for how long.
_DAMAGED, _DAMAGE_S = 50, 1.0
# What a file may lack of the length that it states: so much is rounding.
_LACK_S, _LACK = 0.5, 0.02
# Untouched memory costs nothing, so slots have room for frames that grow in mid-stream.
_ROOM = 4
_MIN_SLOT_BYTES = 1920 * 1080 * 3


class UnreadableError(Exception):
    """The message goes to the reader as it is."""


class _Video:
    """Frames of a video file, each with its presentation time."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._use(cv2.VideoCapture(path), "is not a video that OpenCV can decode, or it is damaged")

    def _use(self, capture: cv2.VideoCapture, complaint: str) -> None:
        self._capture = capture
        if not capture.isOpened():
            raise UnreadableError(complaint)
        rate = float(self._capture.get(cv2.CAP_PROP_FPS))
        self.fps = rate if 0 < rate <= 1000 else 0.0
        self._last = -1.0

    def frames(self, into: Image | None) -> tuple[Image, float] | None:
        image = self._read(into)
        if image is None:
            return None
        period = 1 / (self.fps or 25.0)
        time_s = float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3
        # Some containers carry no times, some wrong ones: time still only goes forward.
        if not self._last < time_s < self._last + 3600:
            time_s = self._last + period if self._last >= 0 else 0.0
        self._last = time_s
        return image, time_s

    def _read(self, into: Image | None) -> Image | None:
        """The next picture. A damaged one is passed over: only OpenCV's silence for some time is the end."""
        patience = time.monotonic() + _DAMAGE_S
        for _ in range(_DAMAGED):
            ok, image = self._capture.read() if into is None else self._capture.read(into)
            if ok:
                return np.asarray(image)
            if time.monotonic() > patience:
                break
        return None

    def lack(self) -> str:
        """How much of the length that a file states was there, if a good part was not."""
        if not self.fps or _mp4_ends(self._path):
            return ""
        stated_s = float(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)) / self.fps
        there_s = self._last + 1 / self.fps
        return f"{there_s:.1f} s of {stated_s:.1f} s" if stated_s - there_s > max(_LACK_S, _LACK * stated_s) else ""


def _mp4_ends(path: str) -> bool:
    """Whether this is an MP4 file with its last box: what it has more frames than it shows, an edit list cuts away."""
    with open(path, "rb") as file:  # noqa: PTH123
        end, at = file.seek(0, os.SEEK_END), 0
        while at < end:
            file.seek(at)
            head = file.read(16)
            if at == 0 and head[4:8] != b"ftyp":
                return False
            size = int.from_bytes(head[:4], "big")
            at += max(int.from_bytes(head[8:], "big") if size == 1 else size or end - at, 8)
    return at == end


class _Remote(_Video):
    """Frames of what lies behind a URL; of a live stream, each as soon as it comes."""

    def __init__(self, url: str, *, live: bool) -> None:
        os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] = _NETWORK + (_UNBUFFERED if live else "")
        patience = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _PATIENCE_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _PATIENCE_MS]
        capture = cv2.VideoCapture(url, cv2.CAP_FFMPEG, patience)
        self._use(capture, "does not answer, or has no video that OpenCV decodes")


class _Pipeline(_Video):
    """Frames that a GStreamer pipeline hands to its appsink."""

    def __init__(self, pipeline: str) -> None:
        self._use(
            cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER), "is a pipeline that does not start, or gives no picture"
        )


class _Pictures:
    """Picture files at a fixed rate."""

    def __init__(self, paths: tuple[str, ...], fps: float) -> None:
        self._paths: Iterator[tuple[int, str]] = iter(enumerate(paths))
        self.fps = fps

    def frames(self, into: Image | None) -> tuple[Image, float] | None:
        for number, path in self._paths:
            image = cv2.imread(path, cv2.IMREAD_COLOR)
            if image is None:
                raise UnreadableError(f"has a picture that cannot be decoded: {os.path.basename(path)}")  # noqa: PTH119
            return image, number / self.fps
        return None


def _open(job: Job) -> _Video | _Pictures:
    if job.pipeline:
        return _Pipeline(job.pipeline)
    if job.url:
        return _Remote(job.url, live=job.live)
    return _Video(job.video) if job.video else _Pictures(job.pictures, job.fps)


def serve(job: Job, requests: int, answers: int) -> None:
    """Decodes into free slots until the end, or until the reader closes its pipe."""
    reader = _open(job)
    first = reader.frames(None)
    if first is None:
        raise UnreadableError("holds no frame that can be decoded")
    height, width = first[0].shape[:2]
    slot_bytes = max(_ROOM * first[0].nbytes, _MIN_SLOT_BYTES)
    memory = map_in_child(job.memory, SLOTS * slot_bytes)
    send(answers, HEADER, Header(width, height, reader.fps, slot_bytes).to_bytes())
    pending: tuple[Image, float] | None = first
    while pending is not None:
        request = receive(requests)
        if request is None:
            return
        slot = int.from_bytes(request[1], "little")
        view = np.frombuffer(memory, np.uint8, slot_bytes, slot * slot_bytes)
        if first is not None:
            first = None
        else:
            pending = reader.frames(view[: height * width * 3].reshape(height, width, 3))
            if pending is None:
                break
        image, time_s = pending
        if image.nbytes > slot_bytes or image.ndim != 3 or image.shape[2] != 3:
            raise UnreadableError(f"changes to frames of {image.shape[1]}x{image.shape[0]}, which is too large")
        height, width = image.shape[:2]
        if image.__array_interface__["data"][0] != view.__array_interface__["data"][0]:
            view[: image.nbytes] = image.reshape(-1)
        send(answers, FRAME, Decoded(slot, height, width, time_s).to_bytes())
    send(answers, END, reader.lack().encode() if job.video and isinstance(reader, _Video) else b"")


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the reader's business; it closes the pipe
    requests, answers = os.dup(0), os.dup(1)
    os.dup2(2, 1)  # whatever native code prints must not get between the messages
    message = receive(requests)
    if message is None:
        return
    try:
        serve(Job.from_bytes(message[1]), requests, answers)
    except UnreadableError as error:
        send(answers, ERROR, str(error).encode())
    except (OSError, ValueError, MemoryError, cv2.error) as error:
        send(answers, ERROR, f"cannot be decoded: {error}".encode())
    except BrokenPipeError:
        pass
    finally:
        sys.stderr.flush()
        os._exit(0)  # a decoder whose heap is damaged may still crash while it is torn down


if __name__ == "__main__":
    main()
