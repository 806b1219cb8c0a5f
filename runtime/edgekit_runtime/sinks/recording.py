"""`file:OUT.mp4`: a recording with every frame at its own time, playable even if the process is killed.

OpenCV can encode but neither set times nor survive a kill: it encodes segments into a scratch AVI, from which the
pictures are moved into an MP4 of our own making.
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import count, pairwise
from pathlib import Path
from typing import IO, Any

import cv2

from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.events import say
from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Sink, SinkContext
from edgekit_runtime.sinks.mp4 import TIMESCALE, Mp4Writer, Sample

_SEGMENT_FRAMES = 60
_SEGMENT_S = 2.0
_MAX_TICKS = 2**31 - 1
_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
_VOP = b"\x00\x00\x01\xb6"
_GROUP = b"\x00\x00\x01\xb3"


class RecordingSink(Sink):
    """Writes `OUT.partial.mp4` and renames it on close; frames of another size are brought to the first one's."""

    def __init__(self, path: Path, fps: float | None) -> None:
        self._path = path
        self._partial = path.with_name(f"{path.stem}.partial.mp4")
        self._scratch = path.with_name(f".{path.stem}.segment.avi")
        self._fps = min(max(fps or 30.0, 1.0), 240.0)
        self._size: tuple[int, int] | None = None
        self._mp4: Mp4Writer | None = None
        self._encoder: Any = None
        self._times: list[float] = []  # of the segment's frames, in seconds
        self._failed = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _keep(self._partial, path, "recovered")
            self._claim = _claimed(self._partial)
        except OSError as error:
            raise self._error(error) from error

    def write(self, picture: Picture, result: Result) -> None:
        time_s = result.frame.timestamp_s
        if self._times and (len(self._times) >= _SEGMENT_FRAMES or time_s - self._times[0] >= _SEGMENT_S):
            self._finish_segment(until=time_s)
        if self._size is None:
            self._size = (picture.shape[1] & ~1, picture.shape[0] & ~1)
        if self._encoder is None:
            self._encoder = self._begin_segment(self._size)
        if (picture.shape[1], picture.shape[0]) != self._size:
            # Odd sizes lose a row or column, which subsampled colour cannot hold.
            picture = (
                picture[: self._size[1], : self._size[0]]
                if self._size == (picture.shape[1] & ~1, picture.shape[0] & ~1)
                else cv2.resize(picture, self._size)
            )
        # OpenCV 4 returns nothing, OpenCV 5 whether it worked; what the disk refused shows at the segment's end.
        if self._encoder.write(picture) is False:
            self._give_up(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
        self._times.append(time_s)

    def close(self) -> None:
        try:
            if not self._failed:
                if self._times:
                    self._finish_segment(until=None)
                self._finish_file()
        finally:
            if self._encoder is not None:
                self._encoder.release()
                self._encoder = None
            self._scratch.unlink(missing_ok=True)
            self._claim.close()

    def _begin_segment(self, size: tuple[int, int]) -> Any:
        encoder = cv2.VideoWriter(str(self._scratch), cv2.VideoWriter.fourcc(*"mp4v"), round(self._fps), size)
        if not encoder.isOpened():
            self._failed = True
            self._partial.unlink(missing_ok=True)
            self._claim.close()
            raise SinkError(f"{self._path}: this OpenCV cannot encode MPEG-4 video.")
        return encoder

    def _finish_segment(self, until: float | None) -> None:
        """Moves the scratch file's pictures over; `until` is the time of the picture that follows, if any."""
        self._encoder.release()
        self._encoder = None
        times, self._times = self._times, []
        last = until if until is not None else times[-1] + 1 / self._fps
        try:
            encoded = list(_avi_pictures(self._scratch.read_bytes()))
            self._append(encoded, [*times, last])
            if len(encoded) != len(times):
                raise OSError(errno.ENOSPC, "the encoder lost pictures, which it does when the disk is full")
        except OSError as error:
            self._give_up(error)

    def _append(self, encoded: list[bytes], times: list[float]) -> None:
        if not encoded:
            return
        if self._mp4 is None and self._size is not None:
            self._mp4 = Mp4Writer(self._partial, *self._size, _headers(encoded[0]))
        # Rounding the times and not the durations keeps a day's recording from drifting.
        ticks = [round(time_s * TIMESCALE) for time_s in times]
        spans = [min(max(after - at, 1), _MAX_TICKS) for at, after in pairwise(ticks)]
        if self._mp4 is not None:
            pictures = zip(encoded, spans, strict=False)
            self._mp4.add([Sample(data, span, _is_key(data)) for data, span in pictures])

    def _finish_file(self) -> None:
        try:
            if self._mp4 is not None:
                self._mp4.close()
                self._appear()
            else:
                self._partial.unlink(missing_ok=True)
        except OSError as error:
            self._failed = True
            raise self._error(error) from error

    def _give_up(self, error: OSError) -> None:
        """Ends the recording at its last whole fragment."""
        self._failed = True
        self._scratch.unlink(missing_ok=True)  # its room goes to the index
        kept = 0
        if self._mp4 is not None:
            kept = self._mp4.samples
            with suppress(OSError):  # without an index it stays a fragmented file, which plays as well
                self._mp4.close()
            self._appear()
        else:
            self._partial.unlink(missing_ok=True)
        self._claim.close()
        raise self._error(error, kept) from error

    def _appear(self) -> None:
        """Under its name; an earlier recording of that name stays beside it."""
        _keep(self._path, self._path, "before")
        self._partial.replace(self._path)

    def _error(self, error: OSError, kept: int = 0) -> SinkError:
        hint = "Free some space, or record elsewhere." if error.errno in _NO_ROOM else "Check path and rights."
        if kept:
            hint = f"The first {kept} frames were saved and play. {hint}"
        return SinkError(f"{self._path} cannot be written: {error.strerror or error}.", hint=hint)


def _keep(old: Path, path: Path, word: str) -> None:
    """What an earlier recording left plays, whether it was killed or not, and is not written over."""
    if not old.exists() or old.stat().st_size == 0:
        return
    _claimed(old).close()
    free = (path.with_name(f"{path.stem}.{word}-{number}.mp4") for number in count(1))
    kept = next(each for each in free if not each.exists())
    old.rename(kept)
    say(f"An earlier recording was kept as {kept}.")


def _claimed(partial: Path) -> IO[bytes]:
    """The file, open, so that no other process records into it. Raises OSError where one does."""
    file = partial.open("ab")
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:
        pass  # Windows lets nobody else write to it anyway
    except OSError as error:
        file.close()
        raise OSError(errno.EBUSY, "another edgekit-run records into it") from error
    return file


def _avi_pictures(data: bytes) -> Iterator[bytes]:
    """The encoded pictures in an AVI file: the `00dc` chunks of its `movi` list."""
    position = data.find(b"movi")
    position = position + 4 if position >= 0 else len(data)
    while position + 8 <= len(data):
        kind, size = data[position : position + 4], struct.unpack_from("<I", data, position + 4)[0]
        if kind == b"LIST":
            position += 12
            continue
        if kind in (b"00dc", b"00db"):
            if position + 8 + size > len(data) or not size:
                return
            yield data[position + 8 : position + 8 + size]
        elif kind == b"idx1":
            return
        position += 8 + size + size % 2


def _headers(picture: bytes) -> bytes:
    """What comes before the first picture of an MPEG-4 part 2 stream: the decoder's configuration."""
    ends = [end for end in (picture.find(_GROUP), picture.find(_VOP)) if end > 0]
    return picture[: min(ends)] if ends else b""


def _is_key(picture: bytes) -> bool:
    """Whether the picture stands alone: the two bits after the start code say its coding type, 0 for intra."""
    start = picture.find(_VOP)
    return 0 <= start < len(picture) - 4 and picture[start + 4] >> 6 == 0


def open_file(argument: str, context: SinkContext) -> Sink:
    path = Path(argument).expanduser()
    if path.suffix.lower() != ".mp4":
        raise UsageError(f"Recordings are .mp4 files, not {path.name!r}.", hint=f"file:{path.with_suffix('.mp4')}")
    if path.is_dir():
        raise SinkError(f"{path} is a folder.")
    return RecordingSink(path, context.fps)
