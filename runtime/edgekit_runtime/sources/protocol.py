"""How a decoding process and the process that reads from it talk.

Pixels lie in a ring of slots in shared memory; two pipes carry only short messages. The reader sends one job and
then a slot number for each slot that is free; the decoder answers with a header and then, for each decoded
frame, the slot where it lies. Either side ends when its pipe is closed, so none outlives the other.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import asdict, dataclass

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
        table = json.loads(data)
        return cls(int(table["width"]), int(table["height"]), float(table["fps"]), int(table["slot_bytes"]))


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
