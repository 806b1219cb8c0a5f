"""Video files through PyAV (FFmpeg): every frame once, in the order of showing, as the player would turn it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import plain_name
from edgekit_experts.video.reader import Frame
from edgekit_experts.video.resize import resize_rgb
from edgekit_runtime.errors import SourceError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

_HEAD_BYTES = 1 << 20


class VideoFile:
    """A file of any container and codec that FFmpeg decodes; the first video stream of it.

    The frame rate may vary: a frame is what the decoder gives, whenever it is shown. `frames` is the header's
    claim, which a cut or damaged file does not keep. Raises SourceError when no frame can be decoded.
    """

    counted = False
    streams: tuple[Modality, ...] = ()

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = str(path)
        self.name = plain_name(path.stem)
        if not path.is_file():
            raise SourceError(f"There is no video at {path}.", hint="Check the path.")
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise SourceError(f"{path} has no video stream.", hint="Give a video file.")
                stream = container.streams.video[0]
                self.fps = float(stream.average_rate or stream.base_rate or 25)
                self.frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
        except av.error.FFmpegError as error:
            raise _unreadable(path, error) from error
        first = next(iter(self.read()), None)
        if first is None:
            raise _unreadable(path, "no frame could be decoded")
        self.size: tuple[int, int] = (first.rgb.shape[0], first.rgb.shape[1])
        self.frames = max(self.frames, 1)
        self.fingerprint = _fingerprint(path)

    def read(self, start: int = 0) -> Iterator[Frame]:
        index = 0
        size: tuple[int, int] | None = None
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                for packet in _packets(container, stream):
                    for picture in _decoded(stream, packet):
                        if index >= start or size is None:
                            rgb = _upright(picture)
                            size = size or (rgb.shape[0], rgb.shape[1])
                            if index >= start:
                                yield Frame(index, resize_rgb(rgb, size))
                        index += 1
        except av.error.FFmpegError as error:
            raise _unreadable(self.path, error) from error


def _packets(container: Any, stream: Any) -> Iterator[Any]:
    """Packets until the file ends or breaks off; the last one is empty and empties the decoder."""
    try:
        yield from container.demux(stream)
    except av.error.FFmpegError:
        yield None  # cut short: what was read so far is the video


def _decoded(stream: Any, packet: Any) -> list[Any]:
    try:
        return list(stream.codec_context.decode(packet))
    except (av.error.InvalidDataError, av.error.EOFError):
        return []  # one damaged packet is one frame less, not the end


def _upright(picture: av.VideoFrame) -> Array:
    """uint8 (H, W, 3), turned by the rotation that the container asks players for."""
    rgb = picture.to_ndarray(format="rgb24")
    turns = round(picture.rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(rgb, turns)) if turns else rgb


def _fingerprint(path: Path) -> str:
    """Of length, beginning and end: enough to tell two videos apart, and quick for any length."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HEAD_BYTES))
        file.seek(max(0, size - _HEAD_BYTES))
        digest.update(file.read(_HEAD_BYTES))
    return digest.hexdigest()[:16]


def _unreadable(path: Path, reason: Exception | str) -> SourceError:
    reason = getattr(reason, "strerror", None) or reason
    return SourceError(
        f"{path} cannot be read as a video: {reason}.",
        hint="It may be cut short or of an unknown format; try to play it, or convert it with ffmpeg.",
    )
