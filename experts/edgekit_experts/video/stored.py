"""A video of a data set as a source: `rgb` are its frames, whatever else is stored comes along as streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.config import Config
from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.dataset.names import closest
from edgekit_experts.registry import names as expert_names
from edgekit_experts.video.reader import Frame
from edgekit_runtime.errors import DataError, ExpertError, UsageError

Array = npt.NDArray[Any]

RGB = "rgb"


def stored_videos(data: Dataset, config: Config, names: Sequence[str] = ()) -> list[StoredVideo]:
    """The videos `names` of a data set (else all), to make what `config` says from what they hold.

    Raises UsageError for an unknown name, ExpertError where the configuration would make anew what came with a video
    and cannot be made again, DataError where there is no video or no frames.
    """
    for name in names:
        if name not in data.videos:
            raise UsageError(f"{data.location} has no video {name!r}.", hint=closest(name, data.videos))
    videos = [data.video(name) for name in names or data.videos]
    if not videos:
        raise DataError(f"{data.location} has no video.", hint="`edgekit extract` and `edgekit import` add some.")
    for video in videos:
        for name in config:
            if name in video.arrays and _came_along(video, name):
                raise ExpertError(
                    f"[{name}] {video.name} has a modality {name!r} already, which came with the video.",
                    hint="Give what you make another name.",
                )
    return [StoredVideo(video) for video in videos]


def _came_along(video: Video, name: str) -> bool:
    """Whether no expert can make a modality of what is stored: the frames, truth, what other tools or models said."""
    declaration = video.arrays[name].declaration
    known = declaration.expert in expert_names() or ".py:" in declaration.expert
    return name == RGB or not known or any(source not in video.arrays for source in declaration.inputs)


class StoredVideo:
    """What more can be made of what is stored, without the file that it came from.

    A stream is read when an expert asks for it. Raises DataError where the frames themselves are not stored.
    """

    counted = True
    shortfall = 0

    def __init__(self, video: Video) -> None:
        if RGB not in video.modalities:
            raise DataError(
                f"{video.name} has no {RGB}: its frames are not stored.", hint="`edgekit extract` makes modality rgb."
            )
        self._video = video
        self.name = video.name
        self.uri = video.info.source.get("uri", "")
        self.fingerprint = video.info.source.get("fingerprint", "")
        self.size, self.fps, self.frames = video.size, video.fps, video.frames
        self.streams = tuple(video.modalities.values())
        self.declared = {name: array.declaration.hash for name, array in video.arrays.items()}

    def exact_frames(self) -> int:
        return self.frames

    def read(self, start: int = 0) -> Iterator[Frame]:
        done = self._video.done(RGB)
        black = np.zeros((*self.size, 3), np.uint8)
        for index in range(start, self.frames):
            streams = _Streams(self._video, index)
            if done[index]:
                yield Frame(index, self._video.read(RGB, index), streams)
            else:
                yield Frame(index, black, streams, f"{RGB} is not stored")


class _Streams(Mapping[str, Array | None]):
    """One frame of every modality, read once; None where it is not stored, or stale."""

    def __init__(self, video: Video, index: int) -> None:
        self._video, self._index = video, index
        self._read: dict[str, Array | None] = {}

    def __getitem__(self, name: str) -> Array | None:
        if name not in self._read:
            if name not in self._video.modalities:
                raise KeyError(name)
            there = bool(self._video.done(name)[self._index])
            self._read[name] = self._video.read(name, self._index) if there else None
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._video.modalities)

    def __len__(self) -> int:
        return len(self._video.modalities)
