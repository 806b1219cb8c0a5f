"""Training and evaluation samples, read from the data set's store: one frame, several modalities, random access."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Modality
from edgekit_student.encoding import STANDARDISED

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

Array = npt.NDArray[Any]
Sample = dict[str, Array]

# Statistics come from this many frames, evenly spread: more do not change the third digit.
STATISTICS_FRAMES = 64


@dataclass(frozen=True)
class FrameRef:
    """One frame of one video."""

    video: str
    index: int


class Samples(Sequence[Sample]):
    """All frames of a split for which every named modality is done; `samples[i]` is `{name: (H, W, C)}`.

    Frames stay in memory once read while they fit into `cache_bytes`. Raises DataError when a modality is not
    in the data set, differs between videos, or no frame has them all.
    """

    def __init__(
        self, data: Dataset, names: Sequence[str], *, split: str | None = None, cache_bytes: int = 6 << 30
    ) -> None:
        self._data = data
        self.modalities = declarations(data, names, split=split)
        self.frames = tuple(self._complete(names, split))
        if not self.frames:
            where = f"the split {split!r} of the data set" if split else "the data set"
            raise DataError(
                f"No frame in {where} has all of: {', '.join(names)}.",
                hint="`edgekit status DATA` shows what is done; `edgekit extract` completes what is missing.",
            )
        self._cache: dict[int, Sample] = {}
        self._room = cache_bytes

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:  # type: ignore[override]
        if index in self._cache:
            return self._cache[index]
        ref = self.frames[index]
        video = self._data.video(ref.video)
        sample = {name: video.read(name, ref.index) for name in self.modalities}
        size = sum(array.nbytes for array in sample.values())
        if size <= self._room:
            self._cache[index] = sample
            self._room -= size
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the first frame."""
        return self._data.video(self.frames[0].video).size

    def statistics(self) -> dict[str, dict[str, list[float]]]:
        """Per-channel mean and standard deviation of the modalities that networks see standardised."""
        picks = np.unique(np.linspace(0, len(self) - 1, STATISTICS_FRAMES).astype(int))
        table = {}
        for name, modality in self.modalities.items():
            if modality.kind not in STANDARDISED:
                continue
            pixels = np.concatenate(
                [self[int(i)][name][::4, ::4].reshape(-1, modality.channels).astype(np.float64) for i in picks]
            )
            pixels = pixels[np.isfinite(pixels).all(axis=1)]
            if not len(pixels):
                raise DataError(f"{name} has no finite value in any frame.", hint="Look at it with `edgekit view`.")
            deviation = np.maximum(pixels.std(axis=0), 1e-6)
            table[name] = {"mean": pixels.mean(axis=0).tolist(), "std": deviation.tolist()}
        return table

    def frequencies(self, name: str) -> Tensor:
        """Pixels of each class of a labels modality, in `STATISTICS_FRAMES` frames; float64 `(classes,)`."""
        taxonomy = self.modalities[name].taxonomy
        assert taxonomy is not None
        count = len(taxonomy.classes)
        picks = np.unique(np.linspace(0, len(self) - 1, STATISTICS_FRAMES).astype(int))
        labels = np.concatenate([self[int(i)][name][::4, ::4].ravel() for i in picks])
        return torch.from_numpy(np.bincount(labels, minlength=count)[:count].astype(np.float64))

    def _complete(self, names: Sequence[str], split: str | None) -> Iterator[FrameRef]:
        for video in _videos(self._data, split):
            if all(name in video.modalities for name in names):
                done = np.logical_and.reduce([video.done(name) for name in names])
                yield from (FrameRef(video.name, int(index)) for index in np.flatnonzero(done))


def declarations(data: Dataset, names: Sequence[str], *, split: str | None = None) -> dict[str, Modality]:
    """The declaration of each named modality, the same in all videos that have it; DataError otherwise."""
    found: dict[str, Modality] = {}
    for video in _videos(data, split):
        for name in names:
            declared = video.modalities.get(name)
            if declared is None:
                continue
            if found.setdefault(name, declared) != declared:
                raise DataError(
                    f"Modality {name!r} is declared differently in video {video.name!r} than in others.",
                    hint="Extract it again everywhere with one configuration.",
                )
    for name in names:
        if name not in found:
            have = sorted({m for v in _videos(data, split) for m in v.modalities})
            raise DataError(
                f"The data set has no modality {name!r}.",
                hint=f"It has: {', '.join(have) or 'none'}.",
            )
    return {name: found[name] for name in names}


def automatic_modalities(data: Dataset, *, split: str | None = None) -> dict[str, Modality]:
    """Every modality that no human labelled and no exact world gave away, as declared in the first video with it."""
    found: dict[str, Modality] = {}
    for video in _videos(data, split):
        for name, modality in video.modalities.items():
            if not modality.truth:
                found.setdefault(name, modality)
    return found


def _videos(data: Dataset, split: str | None) -> Iterator[Any]:
    for name in data.videos:
        video = data.video(name)
        if split is None or video.split == split:
            yield video


def describe(data: Dataset) -> Mapping[str, Any]:
    """Provenance of a data set: where it was and what was in it."""
    return {"data": data.location, "data_hash": data.content_hash()}
