"""Clips of a given size and length: a real one, scaled and repeated, where there is one; else a generated flight."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from itertools import cycle, islice
from pathlib import Path

import av
import numpy as np

from edgekit_experts.video import open_video
from edgekit_experts.world import Flight

Size = tuple[int, int]
_REAL = Path(__file__).parents[2] / "shared" / "real" / "videos" / "udacity_solidWhiteRight.mp4"
FPS = 25


def real() -> Path | None:
    """A clip of 540×960, or what `EDGEKIT_BENCH_VIDEO` names."""
    chosen = Path(os.environ.get("EDGEKIT_BENCH_VIDEO", _REAL))
    return chosen if chosen.is_file() else None


def frames(size: Size, count: int) -> Iterator[np.ndarray]:
    """uint8 RGB `(H, W, 3)`."""
    if (clip := real()) is None:
        flight = (frame.rgb for frame in Flight(7, size=size, frames=min(count, 120)))
        return islice(cycle(flight), count)
    return islice((frame.rgb for _ in cycle([0]) for frame in open_video(str(clip), size).read()), count)


def write(path: Path, size: Size, count: int) -> Path:
    """An H.264 file; sides must be even."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for frame in frames(size, count):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path
