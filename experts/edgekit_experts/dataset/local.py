"""A data set in a folder: objects are files, written so that they survive a crash.

A put goes to a temporary name beside the target, is flushed to the disk (fsync), and is then renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_runtime.errors import DataError
from edgekit_runtime.files import PARTIAL, flush, whole


class LocalStorage:
    """Objects are files under `root`; see `Storage` for what each method promises."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def location(self) -> str:
        return str(self.root)

    def address(self, key: str) -> str:
        return str(self.root / key)

    def get(self, key: str) -> bytes | None:
        try:
            return (self.root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DataError(f"Cannot read {self.root / key}: {error.strerror}.") from error

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        found = ((key, self.get(key)) for key in keys)
        return {key: data for key, data in found if data is not None}

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with whole(path) as partial:
                partial.write_bytes(data)
                flush(partial)
            _sync_folder(path.parent)
        except OSError as error:
            raise _write_error(path, error) from error

    def get_range(self, key: str, offset: int, length: int) -> tuple[bytes, object]:
        descriptor = os.open(self.root / key, os.O_RDONLY)
        try:
            stat = os.fstat(descriptor)
            start = offset if offset >= 0 else max(0, stat.st_size + offset)
            return os.pread(descriptor, length, start), (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        finally:
            os.close(descriptor)

    def list(self, prefix: str) -> list[str]:
        folder = self.root / prefix
        if not folder.is_dir():
            return [folder.name] if folder.is_file() else []
        return sorted(entry.name for entry in os.scandir(folder) if not entry.name.endswith(PARTIAL))

    def size(self, prefix: str) -> int:
        folder = self.root / prefix
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())

    def delete(self, prefix: str) -> None:
        place = self.root / prefix
        if place.is_file():
            place.unlink(missing_ok=True)
        else:
            shutil.rmtree(place, ignore_errors=True)

    def sweep(self, prefix: str) -> None:
        for leftover in (self.root / prefix).rglob("*" + PARTIAL):
            leftover.unlink(missing_ok=True)

    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        """Against other writers on this machine; released by the system if we die."""
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
