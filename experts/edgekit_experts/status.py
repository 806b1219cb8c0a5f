"""What of a data set is done, missing, failed and stale."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby

from edgekit_experts.dataset import Dataset, Video
from edgekit_experts.dataset.dataset import AT_A_TIME


@dataclass(frozen=True)
class ModalityStatus:
    """Numbers of frames. `missing` counts those that are neither done, failed nor stale: holes.

    `failures` holds the messages of failed frames, by frame number; `bytes` is the size on disk.
    """

    name: str
    kind: str
    expert: str
    truth: bool
    done: int
    missing: int
    failed: int
    stale: int
    bytes: int
    failures: Mapping[int, str]


@dataclass(frozen=True)
class VideoStatus:
    """`size` is [height, width]; `fps` the video's own frame rate."""

    name: str
    frames: int
    size: tuple[int, int]
    fps: float
    split: str
    source: str
    modalities: tuple[ModalityStatus, ...]


@dataclass(frozen=True)
class Status:
    """Sums are over all videos and modalities."""

    location: str
    videos: tuple[VideoStatus, ...]

    @property
    def done(self) -> int:
        return self._sum("done")

    @property
    def missing(self) -> int:
        return self._sum("missing")

    @property
    def failed(self) -> int:
        return self._sum("failed")

    @property
    def stale(self) -> int:
        return self._sum("stale")

    @property
    def size_bytes(self) -> int:
        return self._sum("bytes")

    def to_dict(self) -> dict[str, object]:
        sums = {name: self._sum(name) for name in ("done", "missing", "failed", "stale", "bytes")}
        return {"location": self.location, **sums, "videos": [asdict(video) for video in self.videos]}

    def _sum(self, field: str) -> int:
        return sum(getattr(modality, field) for video in self.videos for modality in video.modalities)


def read_status(data: Dataset) -> Status:
    """Reads declarations and states, no frame. Raises DataError where they are damaged."""
    with ThreadPoolExecutor(AT_A_TIME, "status") as pool:
        return Status(data.location, tuple(pool.map(lambda name: _video(data.video(name)), data.videos)))


def _video(video: Video) -> VideoStatus:
    modalities = tuple(_modality(video, name) for name in video.modalities)
    return VideoStatus(
        video.name, video.frames, video.size, video.fps, video.split, video.info.source.get("uri", ""), modalities
    )


def _modality(video: Video, name: str) -> ModalityStatus:
    array = video.arrays[name]
    done, stale = video.done(name), video.stale(name)
    # A frame that failed anew may still have its old, stale array.
    failures = {frame: text for frame, text in video.failed(name).items() if not done[frame] and not stale[frame]}
    present = int(done.sum()), int(stale.sum())
    return ModalityStatus(
        name=name,
        kind=array.declaration.modality.kind.value,
        expert=array.declaration.expert,
        truth=array.declaration.modality.truth,
        done=present[0],
        missing=video.frames - sum(present) - len(failures),
        failed=len(failures),
        stale=present[1],
        bytes=array.size_bytes(),
        failures=failures,
    )


@dataclass(frozen=True)
class Failure:
    """Frames (as `frames 3, 5–9`) of a modality that failed with the same message."""

    video: str
    modality: str
    frames: str
    message: str


def spans(frames: Iterable[int], most: int = 1000) -> str:
    """`frames 3, 5–9` for 3, 5, 6, 7, 8, 9; after `most` runs of them, that there are more."""
    runs = [
        [frame for _, frame in run] for _, run in groupby(enumerate(sorted(frames)), lambda each: each[1] - each[0])
    ]
    text = ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}–{run[-1]}" for run in runs[:most])
    more = " and more" if len(runs) > most else ""
    return f"frame {text}" if text.isdecimal() and not more else f"frames {text}{more}"


def grouped_failures(video: str, row: ModalityStatus) -> list[Failure]:
    """The failures of a modality, one for each message, in the order of their first frames."""
    by_message: dict[str, list[int]] = {}
    for frame, message in row.failures.items():
        by_message.setdefault(message, []).append(frame)
    return [Failure(video, row.name, spans(frames), message) for message, frames in by_message.items()]
