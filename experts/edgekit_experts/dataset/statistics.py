"""Statistics of one modality of one video, from evenly spread frames, kept in the data set until its frames change."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.video import Video
from edgekit_runtime.modality import Modality

Array = npt.NDArray[Any]

FRAMES = 64  # of a video, evenly spread: more do not change the third digit
STRIDE = 4  # of the pixels of a frame, in both directions
_KEPT_AS = f"statistics-{FRAMES}-{STRIDE}"  # other numbers give other statistics


@dataclass(frozen=True)
class Statistics:
    """`pixels` stands for all frames that are done, whether they were read or not; with 0, nothing else is known.

    `mean` and `variance` are per channel, over finite pixels, in the unit of the modality. Labels have `classes`
    instead: the pixels of each class; ignored pixels count nowhere.
    """

    pixels: float = 0.0
    mean: tuple[float, ...] = ()
    variance: tuple[float, ...] = ()
    classes: tuple[float, ...] = ()

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Statistics:
        """Reads what `asdict` gave; raises ValueError on anything malformed."""
        try:
            lists = [tuple(float(n) for n in table[name]) for name in ("mean", "variance", "classes")]
            read = cls(float(table["pixels"]), *lists)
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed statistics: {error}") from error
        if not all(map(math.isfinite, (read.pixels, *read.mean, *read.variance, *read.classes))):
            raise ValueError("malformed statistics: not finite")
        return read


def video_statistics(video: Video, name: str) -> Statistics:
    """Statistics of the frames of a modality that are done.

    They are computed once, and again when the modality was declared anew or any of its frames written. A data set
    that may not be written is read each time. Raises DataError where a frame is damaged.
    """
    done = np.flatnonzero(video.done(name))
    if not len(done):
        return Statistics()
    array, modality = video.arrays[name], video.modalities[name]
    try:
        kept = Statistics.from_dict(array.recall(_KEPT_AS))
        if _fits(kept, modality):
            return kept
    except ValueError:  # none yet, or altered
        pass
    picks = done[np.unique(np.linspace(0, len(done) - 1, FRAMES).astype(int))]
    found = _count(modality, (video.read(name, int(index)) for index in picks), len(done) / len(picks))
    array.remember(_KEPT_AS, asdict(found))
    return found


def pooled(parts: Iterable[Statistics]) -> Statistics:
    """The statistics of several videos as of one."""
    parts = [part for part in parts if part.pixels]
    if not parts:
        return Statistics()
    weights = np.array([part.pixels for part in parts])
    total = float(weights.sum())
    if parts[0].classes:
        return Statistics(total, classes=tuple(np.sum([part.classes for part in parts], axis=0).tolist()))
    means = np.array([part.mean for part in parts])
    mean = weights @ means / total
    variance = weights @ (np.array([part.variance for part in parts]) + (means - mean) ** 2) / total
    return Statistics(total, tuple(mean.tolist()), tuple(variance.tolist()))


def _fits(statistics: Statistics, modality: Modality) -> bool:
    if not statistics.pixels:
        return True
    if modality.taxonomy:
        return len(statistics.classes) == len(modality.taxonomy)
    return len(statistics.mean) == len(statistics.variance) == modality.channels


def _count(modality: Modality, frames: Iterable[Array], scale: float) -> Statistics:
    """`scale`: how many frames each of these stands for."""
    pixels = np.concatenate([frame[::STRIDE, ::STRIDE].reshape(-1, modality.channels) for frame in frames])
    if modality.taxonomy:
        counts = np.bincount(pixels.ravel(), minlength=256)[: len(modality.taxonomy)] * scale
        return Statistics(float(counts.sum()), classes=tuple(counts.tolist())) if counts.any() else Statistics()
    values = pixels.astype(np.float64)
    values = values[np.isfinite(values).all(axis=1)]
    if not len(values):
        return Statistics()
    return Statistics(len(values) * scale, tuple(values.mean(axis=0).tolist()), tuple(values.var(axis=0).tolist()))
