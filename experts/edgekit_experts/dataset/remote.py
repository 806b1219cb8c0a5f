"""A data set in an object store, through fsspec: one object per key, whole or not at all.

Retries and timeouts are those of the store's library, credentials and endpoints those that it finds: environment
variables, files in the home folder, the machine's own role.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from edgekit_experts.dataset.lease import LEASE, Lease
from edgekit_runtime.errors import DataError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


@dataclass(frozen=True)
class _Kind:
    """One kind of store: what to install, what to set when it does not let us in, options of its library."""

    install: str = ""
    credentials: str = ""
    endpoint: str = "Check the network."
    options: Mapping[str, Any] = field(default_factory=dict)


_S3 = _Kind(
    "pip install 'edgekit[s3]'",
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE.",
    "Check the network, and AWS_ENDPOINT_URL if the store is not Amazon's.",
    # An object is one request instead of two; many small ones come side by side.
    {"max_concurrency": 1, "config_kwargs": {"max_pool_connections": 50}},
)
_GOOGLE = _Kind("pip install gcsfs", "Set GOOGLE_APPLICATION_CREDENTIALS.")
_AZURE = _Kind("pip install adlfs", "Set AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY.")

# Stores whose puts are atomic. File servers (sftp, smb ...) are none: mounted, they are folders.
_KINDS = {
    "s3": _S3,
    "s3a": _S3,
    "gs": _GOOGLE,
    "gcs": _GOOGLE,
    "az": _AZURE,
    "abfs": _AZURE,
    "abfss": _AZURE,
    "memory": _Kind(),  # of this process
}

_PATTERN_SIGNS = "*?["  # fsspec would look for what matches
_VERSION = ("ETag", "etag", "generation", "LastModified", "last_modified", "mtime", "created", "size")
# By name, as the libraries are not imported here.
_NO_CREDENTIALS = {
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ClientAuthenticationError",
}
_UNREACHABLE = {"ConnectionError", "HTTPClientError", "ClientConnectorError", "ServiceRequestError", "TimeoutError"}


class RemoteStorage:
    """See `Storage` for what each method promises. Usable from threads, and again after a fork or a pickle."""

    def __init__(self, url: str) -> None:
        """Raises DataError for a URL that is none of an object store, and where its library is not installed."""
        protocol, _, place = url.partition("://")
        if protocol not in _KINDS:
            raise DataError(
                f"A data set cannot lie behind {protocol}://.",
                hint=f"Give a folder, or the URL of an object store: {', '.join(f'{name}://' for name in _KINDS)}.",
            )
        self._kind = _KINDS[protocol]
        if ":" in place.partition("@")[0] and "@" in place:
            raise DataError(f"The {protocol}:// URL holds a password.", hint=self._kind.credentials)
        if any(sign in place for sign in _PATTERN_SIGNS) or not place.strip("/"):
            raise DataError(
                f"The {protocol}:// URL is not the place of a data set.",
                hint=f"Write {protocol}://bucket/data; the signs {' '.join(_PATTERN_SIGNS)} cannot be in it.",
            )
        self.location = url.rstrip("/")
        self._leases: dict[str, Lease] = {}
        self._connection: tuple[int, AbstractFileSystem, str] | None = None
        self._connect()

    def address(self, key: str) -> str:
        return self.location if key == "." else f"{self.location}/{key}"

    def get(self, key: str) -> bytes | None:
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        keys = list(keys)
        if not keys:
            return {}
        with self._told("read", keys[0]):
            found = self._fs.cat_ranges([self._path(key) for key in keys], None, None, on_error="return")
        objects = {}
        for key, result in zip(keys, found, strict=True):
            if isinstance(result, bytes):
                objects[key] = result
            elif not isinstance(result, FileNotFoundError) or _code(result) == "NoSuchBucket":
                raise self._error(result, "read", key) from result
        return objects

    def get_range(self, key: str, offset: int, length: int) -> tuple[bytes, object]:
        path = self._path(key)
        with self._told("read", key, absent_passes=True):
            if offset >= 0:
                # The version after the bytes: if it is the one that the offset is from, then so are they.
                data = self._range(path, offset, length)
                return data, _version(self._fs.info(path))
            info = self._fs.info(path)
            return self._range(path, max(0, info["size"] + offset), length), _version(info)

    def _range(self, path: str, start: int, length: int) -> bytes:
        try:
            return bytes(self._fs.cat_file(path, start=start, end=start + length)) if length else b""
        except OSError as error:
            if error.errno == errno.EINVAL:  # beyond the end of an object that has become shorter
                return b""
            raise

    def put(self, key: str, data: bytes) -> None:
        for prefix, lease in list(self._leases.items()):
            if key.startswith(f"{prefix}/"):
                lease.confirm()
        self.write(key, data)

    def write(self, key: str, data: bytes, *, new: bool = False) -> None:
        """`put` without asking for the lease; `new` fails where there is an object, as far as the store can."""
        with self._told("write", key):
            self._fs.pipe_file(self._path(key), data, mode="create" if new else "overwrite")

    def list(self, prefix: str) -> list[str]:
        with self._told("read", prefix):
            try:
                paths = self._fs.ls(self._path(prefix), detail=False)
            except FileNotFoundError as error:
                if _code(error) == "NoSuchBucket":
                    raise
                return []
        # A path that ends with a slash is the mark by which consoles show an empty folder.
        names = {path.rpartition("/")[2] for path in paths}
        return sorted(names - {"", LEASE})

    def size(self, prefix: str) -> int:
        with self._told("read", prefix):
            objects = self._fs.find(self._path(prefix), detail=True)
        return sum(info["size"] for info in objects.values())

    def delete(self, prefix: str) -> None:
        with self._told("write", prefix):
            try:
                self._fs.rm(self._path(prefix), recursive=True)
            except FileNotFoundError:
                return

    def sweep(self, prefix: str) -> None:
        """Nothing to do: what a put that was cut short has sent, the store never shows."""

    @contextmanager
    def lock(self, prefix: str) -> Iterator[None]:
        with Lease(self, prefix) as lease:
            self._leases[prefix] = lease
            try:
                yield
            finally:
                del self._leases[prefix]

    def __reduce__(self) -> tuple[type[RemoteStorage], tuple[str]]:
        return RemoteStorage, (self.location,)

    @property
    def _fs(self) -> AbstractFileSystem:
        return self._connect()[0]

    def _path(self, key: str) -> str:
        root = self._connect()[1]
        return root if key == "." else f"{root}/{key}"

    def _connect(self) -> tuple[AbstractFileSystem, str]:
        """The file system and our root in it; another one in a forked process, whose parent's event loop is gone."""
        if self._connection is None or self._connection[0] != os.getpid():
            try:
                import fsspec

                fs, root = fsspec.url_to_fs(self.location, use_listings_cache=False, **self._kind.options)
            except ImportError as error:
                raise DataError(f"{self.location} needs a missing package.", hint=self._kind.install) from error
            except Exception as error:
                raise self._error(error, "read", ".") from error
            self._connection = os.getpid(), fs, root
        return self._connection[1:]

    @contextmanager
    def _told(self, doing: str, key: str, *, absent_passes: bool = False) -> Iterator[None]:
        """Whatever the libraries raise becomes a DataError; FileNotFoundError stays one where the caller wants it."""
        try:
            yield
        except Exception as error:
            if absent_passes and isinstance(error, FileNotFoundError):
                raise
            raise self._error(error, doing, key) from error

    def _error(self, error: BaseException, doing: str, key: str) -> DataError:
        names = {kind.__name__ for kind in type(error).__mro__}
        text = _plain(error)
        if names & _NO_CREDENTIALS:
            return DataError(f"There are no credentials for {self.location}.", hint=self._kind.credentials)
        if isinstance(error, PermissionError):
            return DataError(
                f"Not allowed to {doing} {self.address(key)}: {text}.",
                hint=f"Check what your credentials may do there. {self._kind.credentials}",
            )
        if isinstance(error, FileNotFoundError):
            bucket = self.location.partition("://")[2].partition("/")[0]
            return DataError(
                f"There is no bucket {bucket!r} for {self.location}.", hint="Check its name, or make it first."
            )
        if names & _UNREACHABLE:
            return DataError(f"{self.location} cannot be reached: {text}.", hint=self._kind.endpoint)
        return DataError(
            f"Cannot {doing} {self.address(key)}: {text}.",
            hint=f"Nothing that was done is lost. {self._kind.endpoint}",
        )


def _version(info: Mapping[str, Any]) -> object:
    return tuple(str(info.get(name)) for name in _VERSION)


def _code(error: BaseException) -> str:
    """What S3 calls the error."""
    response = getattr(error.__cause__, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))


def _plain(error: BaseException) -> str:
    """One line without what could be a secret: the query of a URL, or a user in it."""
    line = next(iter(str(error).splitlines()), "") or type(error).__name__
    return re.sub(r"\?\S+", "?…", re.sub(r"//[^/\s]*@", "//…@", line)).rstrip(".")
