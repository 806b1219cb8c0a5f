"""What benchmarks work on: a real clip where there is one, else a generated one, at 540×960."""

from __future__ import annotations

import os
from pathlib import Path

import av
import pytest

from edgekit_experts.world import Flight

_ROOT = Path(__file__).parents[1]
_REAL = _ROOT.parent / "shared" / "real" / "videos" / "udacity_solidWhiteRight.mp4"


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """540×960; `EDGEKIT_BENCH_VIDEO` names another."""
    chosen = Path(os.environ.get("EDGEKIT_BENCH_VIDEO", _REAL))
    if chosen.is_file():
        return chosen
    path = tmp_path_factory.mktemp("video") / "flight.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 960, 540, "yuv420p"
        for frame in Flight(7, size=(540, 960), frames=120):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.rgb, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="session")
def vre_python() -> Path:
    """The Python of the environment that `make peers` makes, with the papers' own tool in it."""
    path = _ROOT / ".peers" / "vre" / "bin" / "python"
    if not path.is_file():
        pytest.skip("the papers' tool is not installed; `make peers` does that")
    return path
