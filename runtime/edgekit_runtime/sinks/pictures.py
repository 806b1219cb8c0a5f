"""One PNG a frame in a folder, named by the frame's index in its source."""

from __future__ import annotations

from pathlib import Path

import cv2

from edgekit_runtime.errors import SinkError
from edgekit_runtime.files import whole
from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Picture, Sink, SinkContext


class PictureSink(Sink):
    """`DIR/000000.png`, …; each appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SinkError(f"The folder {folder} cannot be made: {error.strerror or error}.") from error

    def write(self, picture: Picture, result: Result) -> None:
        save_png(self._folder / f"{result.frame.index:06d}.png", picture)


def save_png(path: Path, picture: Picture) -> None:
    """Writes uint8 `(H, W, 3)` BGR. Raises SinkError."""
    ok, data = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    if not ok:
        raise SinkError(f"{path}: the picture cannot be encoded.")
    try:
        with whole(path) as partial:
            partial.write_bytes(data.tobytes())
    except OSError as error:
        raise SinkError(
            f"{path} cannot be written: {error.strerror or error}.", hint="What was written before is whole."
        ) from error


def open_named(argument: str, context: SinkContext) -> Sink:
    return PictureSink(Path(argument).expanduser())
