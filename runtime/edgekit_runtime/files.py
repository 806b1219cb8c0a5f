"""Files that appear whole or not at all, the user's cache directory, and digests."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_runtime.manifest import FileEntry

PARTIAL = ".partial"
BLOCK = 1 << 20


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file to write beside `path`: it takes that name when the block ends, and nothing of it stays if it fails."""
    partial = path.with_name(f".{path.name}{PARTIAL}")
    try:
        yield partial
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Returns when the bytes of a file are on the disk: before it takes the name of one that must not be lost."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def cache_directory(name: str) -> Path | None:
    """`edgekit/NAME` in the user's cache directory, made where it is not there; None where that cannot be written."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA", "~/AppData/Local")
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    try:
        folder = Path(base).expanduser() / "edgekit" / name
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


def digest_bytes(data: bytes) -> FileEntry:
    """Size and SHA-256 of `data`."""
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def digest_stream(read: Callable[[int], bytes], limit: int | None = None) -> FileEntry:
    """Size and SHA-256 of what `read(n)` returns until it is empty, in constant memory.

    Reading stops when more than `limit` bytes have come, and the size is greater then.
    """
    sha256, size = hashlib.sha256(), 0
    while block := read(BLOCK):
        size += len(block)
        sha256.update(block)
        if limit is not None and size > limit:
            break
    return FileEntry(size, sha256.hexdigest())
