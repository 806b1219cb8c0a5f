"""The `sharding_indexed` codec of the Zarr 3 specification, for shards that hold one frame per chunk.

A shard is the encoded frames one after another, in the order of their number, then an index of
(offset, length) pairs as little-endian uint64 (all ones where a frame is absent) and its CRC-32C. It is written
here rather than through zarr-python for three reasons: a shard must be flushed and renamed as one file, frames
are encoded while their neighbours are still being computed, and one frame is read with one `pread`, without an
event loop. Any Zarr 3 library reads the result; the tests read it with zarr-python.

Reference: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import Zstd, blosc

Array = npt.NDArray[Any]

ABSENT = np.uint64(2**64 - 1)

# The threads inside Blosc write blocks in the order in which they finish: the same frame would not always
# give the same bytes. Frames are encoded side by side instead.
blosc.use_threads = False


class FrameCodec(Protocol):
    """Encodes one frame; `metadata` is the codec chain as `zarr.json` states it."""

    @property
    def metadata(self) -> list[dict[str, Any]]: ...

    def encode(self, frame: Array) -> bytes: ...

    def decode(self, data: bytes, out: Array) -> None: ...


@dataclass(frozen=True)
class ByteCodec:
    """Zstandard, fast level: best for labels, masks and lossless pictures (uint8)."""

    level: int = 1

    @property
    def metadata(self) -> list[dict[str, Any]]:
        return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]

    def encode(self, frame: Array) -> bytes:
        return bytes(Zstd(level=self.level).encode(frame))

    def decode(self, data: bytes, out: Array) -> None:
        Zstd().decode(data, out=out)


@dataclass(frozen=True)
class WordCodec:
    """Byte shuffle and LZ4: best for floats, whose high bytes hardly change between neighbours."""

    item_bytes: int
    level: int = 3

    @property
    def metadata(self) -> list[dict[str, Any]]:
        configuration = {
            "typesize": self.item_bytes,
            "cname": "lz4",
            "clevel": self.level,
            "shuffle": "shuffle",
            "blocksize": 0,
        }
        return [
            {"name": "bytes", "configuration": {"endian": "little"}},
            {"name": "blosc", "configuration": configuration},
        ]

    def encode(self, frame: Array) -> bytes:
        return bytes(blosc.compress(frame, b"lz4", self.level, blosc.SHUFFLE, 0, self.item_bytes))

    def decode(self, data: bytes, out: Array) -> None:
        blosc.decompress(data, out)


def codec_for(dtype: np.dtype[Any]) -> FrameCodec:
    return ByteCodec() if dtype.itemsize == 1 else WordCodec(dtype.itemsize)


def index_bytes(frames: int) -> int:
    """Length of the index of a shard that has room for this many frames."""
    return 16 * frames + 4


def pack(encoded: Mapping[int, bytes], frames: int) -> bytes:
    """A shard from encoded frames, keyed by their place in it (0 .. frames - 1)."""
    index = np.full((frames, 2), ABSENT, dtype="<u8")
    parts, offset = [], 0
    for place in sorted(encoded):
        parts.append(encoded[place])
        index[place] = offset, len(encoded[place])
        offset += len(encoded[place])
    table = index.tobytes()
    crc = int(google_crc32c.value(table)).to_bytes(4, "little")
    return b"".join([*parts, table, crc])


def read_index(tail: bytes, frames: int) -> Array:
    """The `(frames, 2)` table of offsets and lengths from the last `index_bytes(frames)` bytes.

    Raises ValueError when the checksum does not agree.
    """
    if len(tail) != index_bytes(frames) or int.from_bytes(tail[-4:], "little") != google_crc32c.value(tail[:-4]):
        raise ValueError("the index of the shard is damaged")
    return np.frombuffer(tail[:-4], dtype="<u8").reshape(frames, 2)


def unpack(shard: bytes, frames: int) -> dict[int, bytes]:
    """The encoded frames of a shard, keyed by their place."""
    index = read_index(shard[-index_bytes(frames) :], frames)
    return {
        place: shard[int(offset) : int(offset + length)]
        for place, (offset, length) in enumerate(index)
        if offset != ABSENT
    }
