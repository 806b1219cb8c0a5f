"""What training and evaluation read: one frame, several modalities, at random from the data set's store."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import STANDARDISED, log_statistics

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset, Video
    from edgekit_experts.dataset.array import ModalityArray
    from edgekit_experts.dataset.statistics import Statistics

Array = npt.NDArray[Any]
Sample = dict[str, Array]
Missing = Literal["raise", "drop", "mask"]

# `sample[name + PRESENT]` says whether the modality is there; no modality can have such a name.
PRESENT = ":present"
# What a training keeps of its frames in memory.
CACHE_BYTES = 6 << 30


@dataclass(frozen=True)
class FrameRef:
    """One frame of one video."""

    video: str
    index: int


class ModalityDataset(torch.utils.data.Dataset[Sample]):
    """The frames of a split with the named modalities, to be read in any order.

    `dataset[i]` is `{name: (H, W, C)}` as stored, and for each name `name + PRESENT`, a bool `()`. Any DataLoader
    takes it, `torch.utils.data.default_collate` stacks it. `missing` says what becomes of frames that lack a modality:

        raise   DataError for the first of them
        drop    they are left out
        mask    they are kept, with PRESENT false and an array that is everywhere what marks "no value": the ignore
                id, NaN, or 0 where there is no such mark. A frame needs at least one modality of each group in
                `one_of`; by default, of all names

    A sample is as large as the frames of its video. Videos of different sizes give samples of different sizes, which
    no batch can hold: `size` (height, width) brings them all to one, labels and values with holes by the nearest
    pixel, flow scaled along, without regard to the aspect ratio.

    Each process opens the data set for itself, so that workers may be forked or spawned. Each keeps what it has read
    while it fits into `cache_bytes`; samples that come from there are shared: do not alter them in place.

    Raises DataError when a modality is not in the data set, differs between videos, or no frame is left.
    """

    def __init__(
        self,
        data: Dataset,
        names: Sequence[str],
        *,
        split: str | None = None,
        missing: Missing = "drop",
        one_of: Sequence[Collection[str]] = (),
        size: tuple[int, int] | None = None,
        cache_bytes: int = 0,
    ) -> None:
        if not names:
            raise UsageError("No modality is asked for.", hint="`edgekit status DATA` shows which there are.")
        if missing not in get_args(Missing):
            raise UsageError(f"missing = {missing!r} is no policy.", hint=f"Policies: {', '.join(get_args(Missing))}.")
        if split is not None and not any(True for _ in _videos(data, split)):
            have = sorted({data.video(name).split for name in data.videos})
            raise DataError(f"No video is in the split {split!r}.", hint=f"Splits here: {', '.join(have) or 'none'}.")
        self.modalities = declarations(data, names, split=split)
        self.size = size
        self._location = data.location
        self._opened: tuple[int, Dataset] | None = os.getpid(), data
        self._videos = tuple(video.name for video in _videos(data, split))
        self._cache: dict[int, Sample] = {}
        self._cache_bytes = self._room = cache_bytes
        frames: list[FrameRef] = []
        present: list[Array] = []
        for video in _videos(data, split):
            there = self._there(video)
            kept = _kept(there, tuple(self.modalities), missing, one_of or [names], video.name)
            frames += (FrameRef(video.name, int(index)) for index in kept)
            present.append(there[kept])
        if not frames:
            where = f"the split {split!r} of the data set" if split else "the data set"
            raise DataError(
                f"No frame in {where} has {'any' if missing == 'mask' else 'all'} of: {', '.join(names)}.",
                hint="`edgekit status DATA` shows what is done; `edgekit extract` completes what is missing.",
            )
        self.frames = tuple(frames)
        self.present: npt.NDArray[np.bool_] = np.concatenate(present)

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Sample:
        index = range(len(self.frames))[index]
        sample = self._cache.get(index)
        if sample is None:
            sample = self._read(index)
            size = sum(array.nbytes for array in sample.values())
            if size <= self._room:
                self._cache[index] = sample
                self._room -= size
        return sample

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_cache": {}, "_room": self._cache_bytes}

    @property
    def frame_size(self) -> tuple[int, int]:
        """(height, width) of the first sample."""
        return self.size or self._data.video(self.frames[0].video).size

    def statistics(self) -> dict[str, dict[str, list[float]]]:
        """Per-channel mean and standard deviation of the modalities that networks see standardised.

        They are those of all frames of the split that have the modality, and are kept in the data set. Depth in metres
        also has `log_mean` and `log_std`, of its natural logarithm, estimated from them.
        """
        table = {}
        for name, modality in self.modalities.items():
            if modality.kind not in STANDARDISED:
                continue
            found = self._pooled(name)
            if not found.pixels:
                raise DataError(f"{name} has no finite value in any frame.", hint="Look at it with `edgekit view`.")
            deviation = np.maximum(np.sqrt(found.variance), 1e-6)
            table[name] = {"mean": list(found.mean), "std": deviation.tolist()}
            if modality.kind is Kind.DEPTH and modality.unit == "m" and found.mean[0] > 0:
                table[name] |= log_statistics(found.mean[0], float(deviation[0]))
        return table

    def frequencies(self, name: str) -> Tensor:
        """Pixels of each class of a labels modality in the split, estimated; float64 `(classes,)`."""
        found = self._pooled(name)
        if not found.pixels:
            raise DataError(f"{name} knows no class in any frame.", hint="Look at it with `edgekit view`.")
        return torch.tensor(found.classes, dtype=torch.float64)

    @property
    def _data(self) -> Dataset:
        """The data set, opened by this very process: nothing that is open may be shared with a parent."""
        if self._opened is None or self._opened[0] != os.getpid():
            from edgekit_experts.dataset import Dataset

            if torch.utils.data.get_worker_info() is not None:
                # Workers share the cores: none of them resizes with all.
                cv2.setNumThreads(0)
            self._opened = os.getpid(), Dataset.open(self._location)
        return self._opened[1]

    def _pooled(self, name: str) -> Statistics:
        from edgekit_experts.dataset.statistics import pooled, video_statistics

        videos = (self._data.video(video) for video in self._videos)
        return pooled(video_statistics(video, name) for video in videos if name in video.modalities)

    def _there(self, video: Video) -> npt.NDArray[np.bool_]:
        """bool (F, modalities): what is done of each frame."""
        nothing = np.zeros(video.frames, bool)
        declared = video.modalities
        return np.stack([video.done(name) if name in declared else nothing for name in self.modalities], axis=1)

    def _read(self, index: int) -> Sample:
        from edgekit_experts.video.resize import resize_stream

        ref = self.frames[index]
        video = self._data.video(ref.video)
        size = self.size or video.size
        sample: Sample = {}
        for (name, modality), present in zip(self.modalities.items(), self.present[index], strict=True):
            if present:
                sample[name] = resize_stream(modality, video.read(name, ref.index), size)
            else:
                sample[name] = np.full((*size, modality.channels), modality.absent, modality.dtype)
        return sample | {
            name + PRESENT: np.asarray(present)
            for name, present in zip(self.modalities, self.present[index], strict=True)
        }


def _kept(
    there: npt.NDArray[np.bool_], names: Sequence[str], missing: Missing, one_of: Sequence[Collection[str]], video: str
) -> Array:
    """Indices of the frames of a video that a policy keeps."""
    if missing == "mask":
        groups = [[names.index(name) for name in group] for group in one_of]
        return np.flatnonzero(np.logical_and.reduce([there[:, group].any(axis=1) for group in groups]))
    complete = there.all(axis=1)
    if missing == "raise" and not complete.all():
        frame = int(np.argmin(complete))
        name = names[int(np.argmin(there[frame]))]
        raise DataError(
            f"Frame {frame} of {name} is missing in {video}.",
            hint='`edgekit extract` completes it; missing = "drop" leaves such frames out, "mask" hides the gap.',
        )
    return np.flatnonzero(complete)


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
    """Every modality that no human labelled and no exact world gave away, as declared in the first video with it.

    What a model says that learnt from people or an exact world (`edgekit label`) is none, either.
    """
    found: dict[str, Modality] = {}
    for video in _videos(data, split):
        arrays = video.arrays
        for name, modality in video.modalities.items():
            if not modality.truth and not learnt_from_truth(arrays, name):
                found.setdefault(name, modality)
    return found


def learnt_from_truth(arrays: Mapping[str, ModalityArray], name: str) -> bool:
    """Whether a model that learnt from people or an exact world has said this, or something that it is made of."""
    if name not in arrays:
        return False
    declaration = arrays[name].declaration
    return bool(declaration.params.get("supervised")) or any(
        learnt_from_truth(arrays, source) for source in declaration.inputs
    )


def _videos(data: Dataset, split: str | None) -> Iterator[Video]:
    for name in data.videos:
        video = data.video(name)
        if split is None or video.split == split:
            yield video


def describe(data: Dataset) -> Mapping[str, Any]:
    """Provenance of a data set: where it was and what was in it."""
    return {"data": data.location, "data_hash": data.content_hash()}
