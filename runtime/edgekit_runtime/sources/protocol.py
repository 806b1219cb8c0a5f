"""How a decoding process and the process that reads from it talk.

Pixels lie in a ring of slots in shared memory. The reader sends a job, then the number of each slot that is free; the
decoder a header, then for each frame its slot. Either side ends when its pipe is closed.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

SLOTS = 3
_PREFIX = struct.Struct("<cI")
_FRAME = struct.Struct("<IIId")
_MAX_PAYLOAD = 64 << 20

HEADER, FRAME, ERROR, END = b"H", b"F", b"X", b"E"


@dataclass(frozen=True)
class Job:
    """What to decode: a video file, one that lies behind a `url`, or with `live` a stream there; what comes out of a
    GStreamer `pipeline`; or pictures in order, shown `fps` a second. `memory` names the ring's memory.
    """

    video: str = ""
    url: str = ""
    live: bool = False
    pipeline: str = ""
    pictures: tuple[str, ...] = ()
    fps: float = 0.0
    memory: str = ""

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Job:
        table = json.loads(data)
        return cls(**{**table, "pictures": tuple(table["pictures"])})


@dataclass(frozen=True)
class Header:
    """What was opened: the first frame's size, the rate (0: unknown) and the room that each slot has, in bytes."""

    width: int
    height: int
    fps: float
    slot_bytes: int

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Header:
        return cls(**json.loads(data))


@dataclass(frozen=True)
class Decoded:
    """A frame that lies in a slot: `height * width * 3` bytes of BGR."""

    slot: int
    height: int
    width: int
    timestamp_s: float

    def to_bytes(self) -> bytes:
        return _FRAME.pack(self.slot, self.height, self.width, self.timestamp_s)

    @classmethod
    def from_bytes(cls, data: bytes) -> Decoded:
        return cls(*_FRAME.unpack(data))


def send(descriptor: int, kind: bytes, payload: bytes = b"") -> None:
    """Writes one message. Raises OSError when the other side is gone."""
    data = memoryview(_PREFIX.pack(kind, len(payload)) + payload)
    while data:
        data = data[os.write(descriptor, data) :]


def receive(descriptor: int) -> tuple[bytes, bytes] | None:
    """One message as (kind, payload); None when the other side is gone or sent nonsense."""
    prefix = _exactly(descriptor, _PREFIX.size)
    if prefix is None:
        return None
    kind, size = _PREFIX.unpack(prefix)
    if size > _MAX_PAYLOAD:
        return None
    payload = _exactly(descriptor, size)
    return None if payload is None else (kind, payload)


def _exactly(descriptor: int, size: int) -> bytes | None:
    parts = []
    while size:
        part = os.read(descriptor, min(size, 1 << 16))
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


class SharedMemory:
    """Memory that a child process can map: anonymous on Linux, an unlinked file elsewhere, a named one on Windows.

    Unlike that of `multiprocessing` nothing is left behind on POSIX when both processes are killed.
    """

    def __init__(self) -> None:
        self._path: Path | None = None
        if hasattr(os, "memfd_create"):
            self._descriptor = os.memfd_create("edgekit-frames")
        else:
            self._descriptor, name = tempfile.mkstemp(prefix="edgekit-frames-")
            self._path = Path(name)
            if os.name == "posix":
                self._path.unlink()
                self._path = None
        self._map: mmap.mmap | None = None

    @property
    def name(self) -> str:
        """What the child opens."""
        return str(self._path) if self._path else f"fd:{self._descriptor}"

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What the child must inherit."""
        return () if self._path else (self._descriptor,)

    def map(self) -> mmap.mmap:
        """Maps it; the child has set the size by then."""
        if self._map is None:
            self._map = mmap.mmap(self._descriptor, 0)
        return self._map

    def close(self) -> None:
        # A view of the map may live on in a frame being copied: then the garbage collector closes it.
        self._map = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
        if self._path:
            self._path.unlink(missing_ok=True)


def map_in_child(name: str, size: int) -> mmap.mmap:
    """Sets the size of the memory that `SharedMemory.name` names, and maps it."""
    if name.startswith("fd:"):
        descriptor = int(name.removeprefix("fd:"))
    else:
        descriptor = os.open(name, os.O_RDWR | getattr(os, "O_BINARY", 0))
    os.ftruncate(descriptor, size)
    return mmap.mmap(descriptor, size)
