"""Files that people name: where one cannot be read or written, they are told why."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgekit_runtime.errors import EdgekitError, SinkError
from edgekit_runtime.files import whole


@contextmanager
def output_file(path: Path) -> Iterator[Path]:
    """`whole` for what a person asked for by name; folders are made. Raises SinkError when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole(path) as partial:
            yield partial
    except OSError as error:
        raise SinkError(f"{path} cannot be written: {error.strerror or error}.", hint="Check the folder.") from error


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
