"""`world:SEED`, a flight through the synthetic world as a video source: something to look at without a camera.

    edgekit run --source "world:7?size=960x544&frames=200"

Registered for the runtime through the entry point group `edgekit.sources`.
"""

from __future__ import annotations

import time

import numpy as np

from edgekit_experts.world import Flight
from edgekit_runtime.errors import UsageError
from edgekit_runtime.sources.base import Frame, Source, ThreadedSource
from edgekit_runtime.sources.uri import SourceUri


class WorldSource(ThreadedSource):
    """Frames as fast as they are read or rendered, whichever is slower; none is dropped."""

    def __init__(self, uri: str, flight: Flight) -> None:
        super().__init__(uri)
        self.fps = flight.fps
        self._flight = flight
        self._start()

    def _produce(self) -> None:
        for frame in self._flight:
            image = np.ascontiguousarray(frame.rgb[..., ::-1])
            if not self._publish(Frame(image, frame.index, frame.time, time.monotonic())):
                return


def open_uri(uri: SourceUri) -> Source:
    """`world:SEED` with the options `size=WIDTHxHEIGHT`, `fps`, `path` and `frames` (0: endless). Raises UsageError."""
    uri.check_options("size", "fps", "frames", "path")
    if not uri.body.isdecimal():
        raise UsageError(f"{uri.text}: world: wants a seed, a whole number.", hint="For example: --source world:7")
    width, height = uri.size((960, 544))
    frames = int(uri.number("frames", 0, 0, 1e9)) or None
    fps = uri.number("fps", 25.0, 0.1, 1000)
    path = int(uri.number("path", 0, 0, 1e9))
    return WorldSource(uri.text, Flight(int(uri.body), size=(height, width), frames=frames, fps=fps, path=path))
