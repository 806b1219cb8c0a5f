"""The synthetic world as a video: `world:SEED?frames=40&size=480x272&fps=25&path=0`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from urllib.parse import parse_qsl

import numpy as np

from edgekit_experts.dataset.names import closest
from edgekit_experts.video.reader import UNDECLARED, Frame, checked_size
from edgekit_runtime.errors import SourceError

SCHEME = "world:"
_DEFAULTS = {"frames": "40", "size": "480x272", "fps": "25", "path": "0"}


class WorldVideo:
    """A flight with everything that is known about it: labels, metric depth, normals and flow come as streams."""

    counted = True
    declared = UNDECLARED
    shortfall = 0

    def __init__(self, uri: str) -> None:
        from edgekit_experts.world import VERSION, Flight
        from edgekit_experts.world.modalities import DEPTH, FLOW, LABELS, NORMALS

        seed_text, _, query = uri.removeprefix(SCHEME).partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        for key in options.keys() - _DEFAULTS.keys():
            raise SourceError(f"{uri}: {key!r} is not an option of the world.", hint=closest(key, _DEFAULTS))
        options = {**_DEFAULTS, **options}
        try:
            seed, frames, fps = int(seed_text), int(options["frames"]), float(options["fps"])
            size = checked_size(options["size"])
            path = int(options["path"])
            if seed < 0 or path < 0 or not 1 <= frames <= 1_000_000 or not 0 < fps <= 1000:
                raise ValueError
        except ValueError as error:
            raise SourceError(
                f"{uri} is not a flight: seed and path are whole numbers from 0 on, frames 1 to 1000000, fps at "
                "most 1000, the sides of size 16 to 16384.",
                hint="Write it like world:7?frames=40&size=480x272&fps=25",
            ) from error
        # The flight itself is made when it is read: its landscape takes seconds and a hundred megabytes.
        self._flight = partial(Flight, seed, size, frames, fps, path)
        self.uri = f"{SCHEME}{seed}?frames={frames}&size={size[1]}x{size[0]}&fps={fps:g}&path={path}"
        self.fingerprint = f"{self.uri} version {VERSION}"
        self.name = f"world-{seed}-path-{path}" if path else f"world-{seed}"
        self.size, self.fps, self.frames = size, fps, frames
        self.streams = (LABELS, DEPTH, NORMALS, FLOW)

    def exact_frames(self) -> int:
        return self.frames

    def read(self, start: int = 0) -> Iterator[Frame]:
        labels, depth, normals, flow = (modality.name for modality in self.streams)
        kinds = {modality.name: modality.dtype for modality in self.streams}
        flight = self._flight()
        for index in range(start, self.frames):
            view = flight.render(index)
            truth = {labels: view.labels, depth: view.depth, normals: view.normals, flow: view.flow}
            with np.errstate(over="ignore"):  # what is beyond half precision, such as flow at the zenith, is no value
                streams = {
                    name: array.reshape(*self.size, -1).astype(kinds[name], copy=False) for name, array in truth.items()
                }
            yield Frame(index, view.rgb, streams)
