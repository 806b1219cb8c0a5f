"""Where the bytes of a data set lie: whole objects under a root, in a folder or behind a URL.

Everything above (shards, states, metadata) needs only these few operations. What it relies on: a put is all or
nothing, it is on the disk or in the store when it returns, and who reads afterwards sees it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from edgekit_experts.dataset.local import LocalStorage
from edgekit_runtime.errors import DataError

_FOLDERS = ("file://", "local://")
_LOST_SLASH = re.compile(r"[a-z][a-z0-9+]+:/(?!/)")


class Storage(Protocol):
    """Keys are relative paths with forward slashes; a prefix is a key above others, `.` the root.

    Every method raises DataError where the place cannot be read or written.
    """

    @property
    def location(self) -> str:
        """The folder or URL; opens this storage again, and holds no secret."""

    def address(self, key: str) -> str:
        """Where an object lies, for messages."""

    def get(self, key: str) -> bytes | None:
        """The whole object, None where there is none."""

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """Those of these objects that there are; small ones, which come side by side where they are far away."""

    def get_range(self, key: str, offset: int, length: int) -> tuple[bytes, object]:
        """Bytes of an object, and a version that is another after every change of it.

        A negative offset counts from the end. The bytes of two calls that give equal versions are from one and
        the same object, if the first of them asked for its end. Raises FileNotFoundError where there is no object.
        """

    def put(self, key: str, data: bytes) -> None:
        """Replaces the object; the old one, if any, stays where that fails."""

    def list(self, prefix: str) -> list[str]:
        """Names directly below the prefix, sorted; of an object, its own. Never from a cache."""

    def size(self, prefix: str) -> int:
        """Bytes of all objects below the prefix."""

    def delete(self, prefix: str) -> None:
        """Removes the object of this key, and everything below it."""

    def sweep(self, prefix: str) -> None:
        """Removes what interrupted puts left behind; only for the one who holds the lock."""

    def lock(self, prefix: str) -> AbstractContextManager[None]:
        """Holds the prefix against other writers. Raises DataError when another one has it."""


def open_storage(location: Path | str) -> Storage:
    """The folder at a path or `file://`, or the object store behind any other URL, such as `s3://bucket/data`.

    Nothing is read yet. Raises DataError for a URL that cannot hold a data set.
    """
    text = str(location)
    for scheme in _FOLDERS:
        if text.startswith(scheme):
            return LocalStorage(Path(text.removeprefix(scheme)))
    if "://" in text:
        from edgekit_experts.dataset.remote import RemoteStorage

        return RemoteStorage(text)
    if _LOST_SLASH.match(text):
        raise DataError(f"{text} is not a URL: a slash is missing.", hint="Give URLs as text: pathlib.Path drops one.")
    return LocalStorage(Path(location))
