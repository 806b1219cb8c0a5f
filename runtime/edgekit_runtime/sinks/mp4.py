"""An MP4 file that is playable at every moment of its making (ISO/IEC 14496-12 and -14, MPEG-4 part 2 video).

While it grows it is a fragmented file, of which a killed process or a full disk costs the last fragment at most.
`close` adds an index and declares the fragments to be one block of media data: then it is a plain MP4.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMESCALE = 90_000  # ticks a second: whole for 24, 25, 30, 50 and 60 frames a second


@dataclass(frozen=True)
class Sample:
    """One encoded picture; `ticks` is how long it is shown."""

    data: bytes
    ticks: int
    key: bool


class Mp4Writer:
    """Writes one video track. `config` is the decoder configuration: the stream's headers before its first picture.

    Raises OSError from every method; what was added before is then still playable.
    """

    def __init__(self, path: Path, width: int, height: int, config: bytes) -> None:
        self._width, self._height, self._config = width, height, config
        self._durations: list[tuple[int, int]] = []  # (count, ticks), as the index stores them
        self._sizes: list[int] = []
        self._keys: list[int] = []
        self._chunks: list[tuple[int, int]] = []  # (offset of the first sample, number of samples)
        self._ticks = 0
        self._fragments = 0
        self._file = path.open("wb", buffering=0)
        self._file.write(_box(b"ftyp", b"isom", _u32(512), b"isomiso5mp41"))
        self._hidden_from = self._file.tell()
        # Sixteen bytes that `close` turns into the header of one block over all fragments.
        self._file.write(_box(b"free", bytes(8)) + self._moov(fragmented=True))
        self._end = self._file.tell()

    @property
    def samples(self) -> int:
        return len(self._sizes)

    def add(self, samples: Sequence[Sample]) -> None:
        """Appends a fragment; its first sample should be a key picture."""
        sizes = b"".join(_u32(s.ticks) + _u32(len(s.data)) + _u32(0x02000000 if s.key else 0x01010000) for s in samples)
        # The moof's size must be known to say where the data begins: it does not depend on that value.
        header_size = len(self._moof(sizes, len(samples), 0)) + 8
        moof = self._moof(sizes, len(samples), header_size)
        data = b"".join(sample.data for sample in samples)
        try:
            self._write(moof + _box(b"mdat", data))
        except OSError:
            self._file.truncate(self._end)
            raise
        self._chunks.append((self._end + header_size, len(samples)))
        self._end = self._file.seek(0, os.SEEK_END)
        for sample in samples:
            self._sizes.append(len(sample.data))
            if sample.key:
                self._keys.append(len(self._sizes))
            count, ticks = self._durations[-1] if self._durations else (0, sample.ticks)
            if self._durations and ticks == sample.ticks:
                self._durations[-1] = (count + 1, ticks)
            else:
                self._durations.append((1, sample.ticks))
            self._ticks += sample.ticks
        self._fragments += 1

    def close(self) -> None:
        """Adds the index. Where there is no room for it, the file stays a fragmented one."""
        try:
            if self._sizes:
                self._write(self._moov(fragmented=False))
                self._file.seek(self._hidden_from)
                self._file.write(_u32(1) + b"mdat" + struct.pack(">Q", self._end - self._hidden_from))
                os.fsync(self._file.fileno())
        except OSError:
            self._file.truncate(self._end)
            raise
        finally:
            self._file.close()

    def _write(self, data: bytes) -> None:
        self._file.seek(self._end)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) or 0 :]

    def _moof(self, runs: bytes, count: int, data_offset: int) -> bytes:
        # Base is this moof (0x020000); each sample has its duration, size and flags (0x700) after an offset (0x1).
        tfhd = _full(b"tfhd", 0, 0x020000, _u32(1))
        tfdt = _full(b"tfdt", 1, 0, struct.pack(">Q", self._ticks))
        trun = _full(b"trun", 0, 0x000701, _u32(count), struct.pack(">i", data_offset), runs)
        mfhd = _full(b"mfhd", 0, 0, _u32(self._fragments + 1))
        return _box(b"moof", mfhd, _box(b"traf", tfhd, tfdt, trun))

    def _moov(self, *, fragmented: bool) -> bytes:
        ticks = 0 if fragmented else self._ticks
        matrix = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
        mvhd = _full(
            b"mvhd", 1, 0, struct.pack(">QQIQ", 0, 0, TIMESCALE, ticks), _u32(0x10000), struct.pack(">H", 0x100),
            bytes(10), matrix, bytes(24), _u32(2),
        )  # fmt: skip
        size = struct.pack(">II", self._width << 16, self._height << 16)
        tkhd = _full(b"tkhd", 1, 3, struct.pack(">QQIIQ", 0, 0, 1, 0, ticks), bytes(16), matrix, size)
        mdhd = _full(b"mdhd", 1, 0, struct.pack(">QQIQ", 0, 0, TIMESCALE, ticks), struct.pack(">HH", 0x55C4, 0))
        hdlr = _full(b"hdlr", 0, 0, bytes(4), b"vide", bytes(12), b"edgekit\0")
        dinf = _box(b"dinf", _full(b"dref", 0, 0, _u32(1), _full(b"url ", 0, 1)))
        minf = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), dinf, self._sample_table(fragmented=fragmented))
        trak = _box(b"trak", tkhd, _box(b"mdia", mdhd, hdlr, minf))
        trex = _box(b"mvex", _full(b"trex", 0, 0, _u32(1), _u32(1), _u32(0), _u32(0), _u32(0)))
        return _box(b"moov", mvhd, trak, trex if fragmented else b"")

    def _sample_table(self, *, fragmented: bool) -> bytes:
        stsd = _full(b"stsd", 0, 0, _u32(1), self._entry())
        if fragmented:
            empty = [_full(kind, 0, 0, _u32(0)) for kind in (b"stts", b"stsc", b"stco")]
            return _box(b"stbl", stsd, *empty, _full(b"stsz", 0, 0, _u32(0), _u32(0)))
        stts = _table(b"stts", [struct.pack(">II", *run) for run in self._durations])
        stss = _table(b"stss", [_u32(number) for number in self._keys])
        stsc = _table(b"stsc", [struct.pack(">III", n, chunk[1], 1) for n, chunk in enumerate(self._chunks, 1)])
        stsz = _full(b"stsz", 0, 0, _u32(0), _u32(len(self._sizes)), b"".join(map(_u32, self._sizes)))
        co64 = _table(b"co64", [struct.pack(">Q", offset) for offset, _ in self._chunks])
        return _box(b"stbl", stsd, stts, stss, stsc, stsz, co64)

    def _entry(self) -> bytes:
        """`mp4v` sample entry with the decoder configuration in its elementary stream descriptor."""
        # Object type 0x20: MPEG-4 part 2; stream type 4: video.
        decoder = struct.pack(">BB", 0x20, 0x11) + bytes(11) + _descriptor(0x05, self._config)
        stream = struct.pack(">HB", 1, 0) + _descriptor(0x04, decoder) + _descriptor(0x06, b"\x02")
        size = struct.pack(">HH", self._width, self._height)
        resolution = struct.pack(">II", 72 << 16, 72 << 16)
        return _box(
            b"mp4v", bytes(6), struct.pack(">H", 1), bytes(16), size, resolution, bytes(4), struct.pack(">H", 1),
            bytes(32), struct.pack(">Hh", 24, -1), _full(b"esds", 0, 0, _descriptor(0x03, stream)),
        )  # fmt: skip


def _u32(value: int) -> bytes:
    return struct.pack(">I", value)


def _box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return _u32(len(body) + 8) + kind + body


def _full(kind: bytes, version: int, flags: int, *parts: bytes) -> bytes:
    return _box(kind, _u32(version << 24 | flags), *parts)


def _table(kind: bytes, rows: Sequence[bytes]) -> bytes:
    return _full(kind, 0, 0, _u32(len(rows)), *rows)


def _descriptor(tag: int, body: bytes) -> bytes:
    size = len(body)
    return bytes([tag, size >> 21 & 127 | 128, size >> 14 & 127 | 128, size >> 7 & 127 | 128, size & 127]) + body
