"""Video files through PyAV (FFmpeg): every frame once, in the order of showing, as the player would turn it."""

from __future__ import annotations

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import plain_name
from edgekit_experts.video.reader import UNDECLARED, Frame
from edgekit_experts.video.resize import resize_rgb
from edgekit_runtime.errors import SourceError
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

_HEAD_BYTES = 1 << 20
_PROBED_FRAMES = 16
_UNDECODABLE = "the picture cannot be decoded"


class VideoFile:
    """A file of any container and codec that FFmpeg decodes; the first video stream of it.

    The frame rate may vary. A frame's number is the number of packets that are shown before it: a damaged packet
    is a frame with a fault, and the frames behind it keep their numbers. Reading from a later frame goes to the
    key frame before it. Where packets are no frames (fields, missing time stamps), frames are counted as the
    decoder gives them, from the beginning.

    `frames` is the header's claim, which a cut file does not keep. Raises SourceError when no frame can be decoded.
    """

    counted = False
    streams: tuple[Modality, ...] = ()
    declared = UNDECLARED

    def __init__(self, path: Path) -> None:
        self.path = path
        self.uri = str(path)
        self.name = plain_name(path.stem)
        self.shortfall = 0
        self._numbered_by_time = True
        if not path.is_file():
            raise SourceError(f"There is no video at {path}.", hint="Check the path.")
        try:
            with av.open(str(path)) as container:
                if not container.streams.video:
                    raise SourceError(f"{path} has no video stream.", hint="Give a video file.")
                stream = container.streams.video[0]
                self.fps = float(stream.average_rate or stream.base_rate or 25)
                self._claimed = stream.frames
        except av.error.FFmpegError as error:
            raise _unreadable(path, error) from error
        self.size = self._probe()
        self.frames = max(1, self._claimed or self._table.packets)
        self.fingerprint = _fingerprint(path)

    def read(self, start: int = 0) -> Iterator[Frame]:
        expected = start
        for index, picture in self._pictures(start):
            for missing in range(expected, index):
                yield Frame(missing, np.zeros((*self.size, 3), np.uint8), fault=_UNDECODABLE)
            if index >= expected:
                yield Frame(index, resize_rgb(_upright(picture), self.size))
                expected = index + 1

    def exact_frames(self) -> int | None:
        """Frames of the file, counted without decoding; None where only decoding tells."""
        return len(self._table.times) if self._numbered_by_time and self._table.complete else None

    def _probe(self) -> tuple[int, int]:
        """(height, width) of the first frame; also finds out whether packets are frames in this file."""
        size: tuple[int, int] | None = None
        for expected, (index, picture) in enumerate(islice(self._pictures(0), _PROBED_FRAMES)):
            self._numbered_by_time &= index == expected
            if size is None:
                height, width = _upright(picture).shape[:2]
                size = height, width
        if size is None:
            raise _unreadable(self.path, "no frame could be decoded")
        return size

    def _pictures(self, start: int) -> Iterator[tuple[int, av.VideoFrame]]:
        """Decoded frames with their numbers, from some frame at or before `start` on."""
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "AUTO"
                ahead = self._packets_ahead(container, stream, start) if start else None
                numbering = _Numbering(self._numbered_by_time, None if ahead is None else self._table.times)
                count = 0
                for packet in ahead or _packets(container, stream):
                    count += bool(packet is not None and packet.size)
                    numbering.sent(packet)
                    for picture in _decoded(stream, packet):
                        yield numbering.number(picture), picture
                self.shortfall = max(0, self._claimed - (count if ahead is None else self._table.packets))
        except av.error.FFmpegError as error:
            raise _unreadable(self.path, error) from error

    def _packets_ahead(self, container: Any, stream: Any, start: int) -> Iterator[Any] | None:
        """Packets from the key frame at or before `start` on; None where there is no way but from the beginning."""
        table = self._table
        if not (self._numbered_by_time and table.complete and start < len(table.times)):
            return None
        key = bisect_right(table.keys, table.times[start], key=lambda entry: entry[0]) - 1
        if key <= 0:
            return None
        container.seek(table.keys[key][1], stream=stream, backward=True)
        packets = _packets(container, stream)
        first = next(packets, None)
        # Formats without an index may land anywhere, and guess other times from there.
        if first is None or _key(first) not in table.keys[: key + 1]:
            container.seek(0, stream=stream, backward=True)
            return None
        return chain([first], packets)

    @cached_property
    def _table(self) -> _Table:
        """Read from the whole file, but nothing is decoded."""
        try:
            with av.open(str(self.path)) as container:
                packets = [p for p in _packets(container, container.streams.video[0]) if p is not None and p.size]
        except av.error.FFmpegError as error:
            raise _unreadable(self.path, error) from error
        shown = [packet for packet in packets if not packet.is_discard]
        timed = [packet for packet in shown if packet.pts is not None]
        keys = sorted(_key(packet) for packet in timed if packet.is_keyframe)
        return _Table(len(packets), sorted(packet.pts for packet in timed), keys, len(timed) == len(shown))


@dataclass(frozen=True)
class _Table:
    """What a file says of its packets: how many there are, when each is shown, in order, and the key frames as
    (shown, decoded); `complete` says that no time is missing.
    """

    packets: int
    times: list[int]
    keys: list[tuple[int, int]]
    complete: bool


class _Numbering:
    """Which frame of the video a decoded picture is.

    From the beginning, all packets that are shown before a picture went into the decoder before it came out:
    they need no table. `times` are those of all frames, for a reading that began elsewhere.
    """

    def __init__(self, by_time: bool, times: list[int] | None) -> None:
        self._by_time = by_time
        self._times = times
        self._sent: list[int] = []
        self._next = 0

    def sent(self, packet: Any) -> None:
        by_time = self._by_time and self._times is None
        if by_time and packet is not None and packet.size and packet.pts is not None and not packet.is_discard:
            heappush(self._sent, packet.pts)

    def number(self, picture: av.VideoFrame) -> int:
        if self._times is not None and picture.pts is not None:
            return bisect_left(self._times, picture.pts)
        if picture.pts is not None:
            while self._sent and self._sent[0] < picture.pts:
                heappop(self._sent)
                self._next += 1
            if self._sent and self._sent[0] == picture.pts:
                heappop(self._sent)
        self._next += 1
        return self._next - 1


def _key(packet: Any) -> tuple[int, int]:
    """When a packet is shown, and when it is decoded, where seeking goes by that."""
    return packet.pts, packet.pts if packet.dts is None else packet.dts


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
