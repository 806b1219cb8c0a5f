"""Videos whose frames can be told apart, experts to run over them, and what a folder holds."""

from __future__ import annotations

import textwrap
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def numbered_frames(count: int, size: tuple[int, int]) -> np.ndarray:
    """Frames that can be told apart after lossy coding: 8 vertical bars show the number in binary."""
    frames = np.zeros((count, *size, 3), np.uint8)
    for number, frame in enumerate(frames):
        for bit, columns in enumerate(np.array_split(np.arange(size[1]), 8)):
            frame[:, columns] = 230 if number >> bit & 1 else 20
    return frames


def number_of(frame: np.ndarray) -> int:
    bars = np.array_split(frame.mean(axis=(0, 2)), 8)
    return sum(1 << bit for bit, bar in enumerate(bars) if bar.mean() > 125)


PIXELS = {"libx264": "yuv444p", "mjpeg": "yuvj420p"}


def write_clip(
    path: Path,
    frames: np.ndarray,
    times: list[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
) -> Path:
    """A video of these frames; `times` (in 1/100 s) for a varying frame rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = PIXELS.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 100)
        for number, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = times[number] if times else 4 * number
            picture.time_base = Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return path


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def expert_file(folder: Path, body: str) -> Path:
    """An expert `Mine` whose `compute(batch)` has this body."""
    path = folder / "mine.py"
    header = """
        import time
        from edgekit_experts.expert import Expert
        from edgekit_runtime.modality import Kind, Modality

        class Mine(Expert):
            def produces(self, inputs):
                return Modality("mine", Kind.IMAGE, 3)
            def compute(self, batch):
    """
    path.write_text(textwrap.dedent(header) + textwrap.indent(textwrap.dedent(body), " " * 8), encoding="utf-8")
    return path
