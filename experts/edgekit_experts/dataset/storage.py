"""Where the bytes of a data set lie: whole objects under a root, written so that they survive a crash.

A put is all or nothing: the bytes go to a temporary name beside the target, are flushed to the disk (fsync),
and are then renamed. Everything above (shards, states, metadata) needs only these few operations, so that a
store behind a URL is one more class and no other change.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgekit_runtime.errors import DataError

PARTIAL = ".partial"


class LocalStorage:
    """Objects are files under `root`; keys are relative paths with forward slashes."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def get(self, key: str) -> bytes | None:
        """The whole object, None where there is none."""
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"Cannot read {self.root / key}: {error.strerror}.") from error

    def put(self, key: str, data: bytes) -> None:
        """Replaces the object atomically; when this returns, the bytes are on the disk.

        Raises DataError when they cannot be written (no space, no permission); the old object, if any, stays.
        """
        path = self.root / key
        partial = path.with_name(path.name + PARTIAL)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise _write_error(path, error) from error

    def get_range(self, key: str, offset: int, length: int) -> tuple[bytes, object]:
        """Bytes of an object and the version that they are from; a negative offset counts from the end.

        Raises FileNotFoundError where there is no such object.
        """
        descriptor = os.open(self.root / key, os.O_RDONLY)
        try:
            stat = os.fstat(descriptor)
            start = offset if offset >= 0 else max(0, stat.st_size + offset)
            return os.pread(descriptor, length, start), (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> list[str]:
        """Names directly below the prefix, sorted, without leftovers of interrupted puts."""
        folder = self.root / prefix
        if not folder.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.endswith(PARTIAL))

    def size(self, prefix: str) -> int:
        """Bytes of all objects below the prefix."""
        folder = self.root / prefix
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def delete(self, prefix: str) -> None:
        """Removes everything below the prefix."""
        shutil.rmtree(self.root / prefix, ignore_errors=True)

    def sweep(self, prefix: str) -> None:
        """Removes what interrupted puts left behind; only for the one who holds the lock."""
        for leftover in (self.root / prefix).rglob("*" + PARTIAL):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        """Holds the folder against other writers on this machine; released by the system if we die.

        Raises DataError at once when another process has it.
        """
        try:
            import fcntl
        except ImportError:  # no advisory locks on this system
            yield
            return
        descriptor = os.open(self.root / prefix, os.O_RDONLY)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"{self.root / prefix} is being written by another process.",
                    hint="Wait until it ends; `edgekit status` shows how far it is.",
                ) from error
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable: the directory entry is data, too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_error(path: Path, error: OSError) -> DataError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return DataError(
            f"No space to write {path}: {error.strerror}.",
            hint="Nothing that was done is lost: free some space and give the same command again.",
        )
    return DataError(f"Cannot write {path}: {error.strerror}.", hint="Check that the folder may be written.")
