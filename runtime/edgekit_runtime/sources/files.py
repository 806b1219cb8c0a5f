"""Video files, picture folders and globs: found here, decoded elsewhere."""

from __future__ import annotations

import glob
from pathlib import Path

from edgekit_runtime.errors import SourceError
from edgekit_runtime.sources.base import Source
from edgekit_runtime.sources.decoder import DecodedFile
from edgekit_runtime.sources.protocol import Job
from edgekit_runtime.sources.uri import SourceUri

PICTURES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
PICTURES_PER_SECOND = 25.0


def open_uri(uri: SourceUri) -> Source:
    path = Path(uri.body).expanduser()
    try:
        if path.is_dir():
            return _pictures(uri, sorted(path.iterdir()))
        if path.is_file():
            if path.suffix.lower() in PICTURES:
                return _pictures(uri, [path])
            return _video(uri, path)
        if path.exists():
            raise SourceError(f"{uri.text} is neither a file nor a folder.")
    except OSError as error:
        raise SourceError(f"{uri.text} cannot be read: {error.strerror or error}.") from error
    if any(sign in uri.body for sign in "*?["):
        return _pictures(uri, [Path(name) for name in sorted(glob.glob(str(path)))])  # noqa: PTH207  (absolute too)
    raise SourceError(f"There is no file or folder {uri.text}.", hint="Check the path; a camera is camera:0.")


def _video(uri: SourceUri, path: Path) -> Source:
    if path.stat().st_size == 0:
        raise SourceError(f"{uri.text} is empty.", hint="The recording or the copy did not finish.")
    with path.open("rb"):  # a file that may not be read says so here, in words
        pass
    return DecodedFile(uri.text, Job(video=str(path.absolute())))


def _pictures(uri: SourceUri, paths: list[Path]) -> Source:
    pictures = [str(path.absolute()) for path in paths if path.suffix.lower() in PICTURES and path.is_file()]
    if not pictures:
        raise SourceError(f"{uri.text} has no pictures.", hint=f"Pictures end in {', '.join(sorted(PICTURES))}.")
    return DecodedFile(uri.text, Job(pictures=tuple(pictures), fps=PICTURES_PER_SECOND))
