"""The `sharding_indexed` codec of the Zarr 3 specification, for shards that hold one frame per chunk.

A shard is the encoded frames one after another, in the order of their number, then an index of
(offset, length) pairs as little-endian uint64 (all ones where a frame is absent) and its CRC-32C. It is written
here rather than through zarr-python for three reasons: a shard must be flushed and renamed as one file, frames
are encoded while their neighbours are still being computed, and one frame is read with one `pread`, without an
event loop. Any Zarr 3 library reads the result; the tests read it with zarr-python.

Reference: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import Zstd, blosc

from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

ABSENT = np.uint64(2**64 - 1)

# The threads inside Blosc write blocks in the order in which they finish: the same frame would not always
# give the same bytes. Frames are encoded side by side instead.
blosc.use_threads = False
_SHUFFLES = {"noshuffle": blosc.NOSHUFFLE, "shuffle": blosc.SHUFFLE, "bitshuffle": blosc.BITSHUFFLE}


class FrameCodec(Protocol):
    """Encodes one frame; `metadata` is the codec chain as `zarr.json` states it."""

    @property
    def metadata(self) -> list[dict[str, Any]]: ...

    def encode(self, frame: Array) -> bytes: ...

    def decode(self, data: bytes, out: Array) -> None: ...


@dataclass(frozen=True)
class ZstdCodec:
    """Zstandard alone; at its fast level best for labels, edges and lossless pictures (uint8)."""

    level: int = 1

    @property
    def metadata(self) -> list[dict[str, Any]]:
        return [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": self.level, "checksum": False}}]

    def encode(self, frame: Array) -> bytes:
        return bytes(Zstd(level=self.level).encode(frame))

    def decode(self, data: bytes, out: Array) -> None:
        Zstd().decode(data, out=out)


@dataclass(frozen=True)
class BloscCodec:
    """Blosc: what is alike of all items is brought together, then compressed. Fields as in `zarr.json`."""

    typesize: int
    cname: str
    clevel: int
    shuffle: str
    blocksize: int = 0

    @property
    def metadata(self) -> list[dict[str, Any]]:
        first: dict[str, Any] = {"name": "bytes"}
        if self.typesize > 1:
            first["configuration"] = {"endian": "little"}
        return [first, {"name": "blosc", "configuration": asdict(self)}]

    def encode(self, frame: Array) -> bytes:
        shuffle = _SHUFFLES[self.shuffle]
        return bytes(blosc.compress(frame, self.cname.encode(), self.clevel, shuffle, self.blocksize, self.typesize))

    def decode(self, data: bytes, out: Array) -> None:
        blosc.decompress(data, out)


def codec_for(modality: Modality, frame_bytes: int) -> FrameCodec:
    """The codec of a new array.

    The high bytes of floats hardly change between neighbours: bytes are shuffled. The bits of masks are: seven of
    the eight that a 0 or 1 takes are the same everywhere, so that it is packed in effect, and still uint8 to every
    reader. One block per frame, else each block has its own zeros; Blosc leaves alone what is no multiple of 8.
    """
    dtype = np.dtype(modality.dtype)
    if dtype.itemsize > 1:
        return BloscCodec(dtype.itemsize, "lz4", 3, "shuffle")
    if modality.kind is Kind.MASK:
        return BloscCodec(1, "zstd", 1, "bitshuffle", frame_bytes // 8 * 8)
    return ZstdCodec()


def stated_codec(metadata: Sequence[Mapping[str, Any]]) -> FrameCodec:
    """The codec of an array that is there, from its chain in `zarr.json`. Raises ValueError for one of others."""
    try:
        *_, last = metadata
        table = dict(last["configuration"])
        codec: FrameCodec = ZstdCodec(table["level"]) if last["name"] == "zstd" else BloscCodec(**table)
        if codec.metadata != list(metadata):
            raise ValueError
        codec.encode(np.zeros(8, np.uint8))  # refuses numbers and names that mean nothing
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError) as error:
        raise ValueError("its frames are encoded in a way that edgekit does not write") from error
    return codec


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
