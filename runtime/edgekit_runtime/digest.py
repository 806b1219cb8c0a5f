"""SHA-256 and size of files: written by the toolkit that packs a bundle, compared by the runtime that opens it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

from edgekit_runtime.manifest import FileEntry

BLOCK = 1 << 20


def digest_bytes(data: bytes) -> FileEntry:
    """Size and SHA-256 of `data`."""
    return FileEntry(len(data), hashlib.sha256(data).hexdigest())


def digest_stream(read: Callable[[int], bytes], limit: int | None = None) -> FileEntry:
    """Size and SHA-256 of what `read(n)` returns until it is empty, in constant memory.

    With `limit`, reading stops as soon as more than that many bytes have come: the size then says so
    (it is greater than `limit`), and no hostile stream is read to its end.
    """
    sha256, size = hashlib.sha256(), 0
    while block := read(BLOCK):
        size += len(block)
        sha256.update(block)
        if limit is not None and size > limit:
            break
    return FileEntry(size, sha256.hexdigest())
