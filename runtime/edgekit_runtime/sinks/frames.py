"""Frames alone: raw on standard output, for `ffplay -f rawvideo -pixel_format bgr24 -video_size 960x540 -`, or one PNG
each in a folder, named by the frame's index in its source.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import cv2

from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import SinkError
from edgekit_runtime.files import whole
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Sink, SinkContext

_DRAIN_S = 1.0


class RawSink(Sink):
    """Writes from a thread of its own: a reader that stops reading must not hold up the end of the program."""

    def __init__(self, descriptor: int, pixel_format: str, context: SinkContext) -> None:
        self._descriptor = descriptor
        self._swap = pixel_format == "rgb24"
        self._context = context
        self._shape: tuple[int, ...] | None = None
        self._failure: SinkError | None = None
        self._queue: Handoff[bytes] = Handoff(2)
        self._thread = threading.Thread(target=self._drain, name="stdout", daemon=True)
        self._thread.start()

    def write(self, picture: Picture, result: Result) -> None:
        if self._shape is None:
            self._shape = picture.shape
        if picture.shape != self._shape:
            raise SinkError(
                f"The frames change from {self._shape[1]}x{self._shape[0]} to "
                f"{picture.shape[1]}x{picture.shape[0]}, which raw output cannot say."
            )
        data = (picture[..., ::-1] if self._swap else picture).tobytes()
        if self._context.live:
            self._queue.offer(data)
        else:
            while not self._queue.put(data, 0.1) and not self._queue.closed and not self._context.stop.is_set():
                pass
        if self._failure:
            raise self._failure

    def close(self) -> None:
        self._queue.close()
        self._thread.join(0.2 if self._context.stop.is_set() else None)
        if self._failure:
            failure, self._failure = self._failure, None
            raise failure

    def _drain(self) -> None:
        try:
            while True:
                data = self._queue.get(_DRAIN_S)
                if data is not None:
                    view = memoryview(data)
                    while view:
                        view = view[os.write(self._descriptor, view) :]
                elif self._queue.exhausted:
                    return
        except BrokenPipeError:
            # `… | head` is a normal end: nobody is left to tell.
            self._context.stop.set()
        except OSError as error:
            self._failure = SinkError(f"Standard output cannot be written: {error.strerror or error}.")
        finally:
            self._queue.discard()


def open_stdout(argument: str, context: SinkContext) -> Sink:
    if sys.stdout.isatty():
        raise SinkError("Raw frames would garble the terminal.", hint="Pipe standard output into a program or a file.")
    return RawSink(sys.stdout.fileno(), argument or "bgr24", context)


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


def open_png(argument: str, context: SinkContext) -> Sink:
    return PictureSink(Path(argument).expanduser())
