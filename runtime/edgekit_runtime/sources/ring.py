"""The shared memory that a decoding process fills and the live loop reads."""

from __future__ import annotations

import mmap
import os
import tempfile
from pathlib import Path


class SharedMemory:
    """Memory that a child process can map: anonymous on Linux, an unlinked file elsewhere, a named one on Windows.

    Unlike `multiprocessing.shared_memory` it needs no tracker process, and nothing is left behind on POSIX even
    when both processes are killed.
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
