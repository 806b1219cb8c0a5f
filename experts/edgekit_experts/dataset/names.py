"""Names of videos and modalities are names of folders and keys of Zarr groups, so they are plain."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from edgekit_runtime.errors import DataError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")


def check_name(name: str, what: str) -> None:
    """Raises DataError unless the name can be a folder everywhere."""
    if not _NAME.fullmatch(name) or name == "zarr.json":
        raise DataError(
            f"{name!r} cannot be the name of a {what}.",
            hint="Names are up to 100 letters, digits and the signs _ . + -, and do not begin with a sign.",
        )


def plain_name(text: str) -> str:
    """The nearest name that is allowed: other signs become `_`."""
    name = re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).lstrip(".+-")[:100]
    return name or "video"


def closest(name: str, known: Iterable[str]) -> str:
    """A hint that names the most similar known name, or lists them all; empty where there are none."""
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1)
    if match:
        return f"Did you mean {match[0]!r}?"
    return f"Known: {', '.join(names)}." if names else ""
