"""The synthetic world as a video: `world:SEED?frames=40&size=272x480&fps=25`."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qsl

from edgekit_experts.dataset.names import closest
from edgekit_experts.video.reader import Frame, checked_size
from edgekit_runtime.errors import SourceError

SCHEME = "world:"
_DEFAULTS = {"frames": "40", "size": "272x480", "fps": "25"}


class WorldVideo:
    """A flight with everything that is known about it: labels, metric depth, normals and flow come as streams."""

    counted = True

    def __init__(self, uri: str) -> None:
        from edgekit_experts.world import Flight
        from edgekit_experts.world.modalities import DEPTH, FLOW, LABELS, NORMALS

        seed_text, _, query = uri.removeprefix(SCHEME).partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True))
        for key in options.keys() - _DEFAULTS.keys():
            raise SourceError(f"{uri}: {key!r} is not an option of the world.", hint=closest(key, _DEFAULTS))
        options = {**_DEFAULTS, **options}
        try:
            seed, frames, fps = int(seed_text), int(options["frames"]), float(options["fps"])
            size = checked_size(options["size"])
            if seed < 0 or not 1 <= frames <= 1_000_000 or not 0 < fps <= 1000:
                raise ValueError("seed, frames and fps must be positive")
        except ValueError as error:
            raise SourceError(
                f"{uri} is not a flight: {error}.", hint="Write it like world:7?frames=40&size=272x480&fps=25"
            ) from error
        self._flight = Flight(seed, size, frames, fps)
        self.uri = self.fingerprint = f"{SCHEME}{seed}?frames={frames}&size={size[0]}x{size[1]}&fps={fps:g}"
        self.name = f"world-{seed}"
        self.size, self.fps, self.frames = size, fps, frames
        self.streams = (LABELS, DEPTH, NORMALS, FLOW)

    def read(self, start: int = 0) -> Iterator[Frame]:
        labels, depth, normals, flow = (modality.name for modality in self.streams)
        kinds = {modality.name: modality.dtype for modality in self.streams}
        for index in range(start, self.frames):
            view = self._flight.render(index)
            truth = {labels: view.labels, depth: view.depth, normals: view.normals, flow: view.flow}
            streams = {
                name: array.reshape(*self.size, -1).astype(kinds[name], copy=False) for name, array in truth.items()
            }
            yield Frame(index, view.rgb, streams)
