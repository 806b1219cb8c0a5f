"""Files that appear whole or not at all, texts that people write, and digests of what a bundle holds."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_runtime.errors import EdgekitError, SinkError
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


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """`whole` for what a person asked for by name; folders are made. Raises SinkError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder.") from error


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


def not_writable(folder: Path) -> str:
    """Why nothing can be written to a folder that is, or is yet to be, there; empty where it can."""
    for place in (folder, *folder.absolute().parents):
        if place.is_dir():
            return "" if os.access(place, os.W_OK | os.X_OK) else f"{place} may not be written to"
        if place.exists():
            return f"{place} is no folder"
    return "there is no such place"


def read_text(path: Path, what: str, error_class: type[EdgekitError], hint: str = "Check the path.") -> str:
    """The text of a UTF-8 file that a person named; `what` is what it is to them ("The settings").

    Raises `error_class` when it is absent, may not be read, or is no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        reason = "there is no such file"
    except UnicodeDecodeError:
        reason = "it is no UTF-8 text"
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    raise error_class(f"{what} {path} cannot be read: {reason}.", hint=hint)


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
