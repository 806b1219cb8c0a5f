"""What every video is to the pipeline: facts, and frames in order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Protocol

import numpy.typing as npt

from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """`rgb` is uint8 (H, W, 3). `streams` holds what came with the frame, `(H, W, C)` each: human labels, exact
    truth, pictures that other tools made; None where this frame has none. `fault` says why there is no picture;
    `rgb` is black then.
    """

    index: int
    rgb: Array
    streams: Mapping[str, Array | None] = field(default_factory=dict)
    fault: str = ""


# Of sources that are no data set.
UNDECLARED: Mapping[str, str] = MappingProxyType({})


class VideoReader(Protocol):
    """A source of frames of one size, read forward any number of times.

    `size` is (height, width). `frames` is what the source claims; only reading to the end tells, unless
    `counted`. `fingerprint` differs for different content. `streams` declares what comes beside the frames.
    `shortfall` is the number of frames that are claimed but not there, known after reading to the end. `declared` has
    the hash of each stream's declaration where the streams are modalities of a data set, and is empty otherwise.
    """

    @property
    def name(self) -> str: ...

    @property
    def uri(self) -> str: ...

    @property
    def fingerprint(self) -> str: ...

    @property
    def size(self) -> tuple[int, int]: ...

    @property
    def fps(self) -> float: ...

    @property
    def frames(self) -> int: ...

    @property
    def counted(self) -> bool: ...

    @property
    def streams(self) -> tuple[Modality, ...]: ...

    @property
    def declared(self) -> Mapping[str, str]: ...

    @property
    def shortfall(self) -> int: ...

    def exact_frames(self) -> int | None:
        """The number of frames without decoding them; None where only decoding tells."""
        ...

    def read(self, start: int = 0) -> Iterator[Frame]:
        """Frames from `start` to the end, numbered as in a reading from 0. Raises SourceError."""
        ...


def checked_size(text: str) -> tuple[int, int]:
    """(height, width) from `WIDTHxHEIGHT`, as cameras and ffmpeg write it; raises ValueError."""
    width, _, height = text.lower().partition("x")
    size = int(height), int(width)
    if not all(16 <= side <= 16384 for side in size):
        raise ValueError(f"{text}: both sides must be between 16 and 16384")
    return size
