"""The frames of a build: some to calibrate INT8 with, others to judge the candidates on.

They come from the student's data set (calibration from its train split, the frames that differ most; judging from val,
evenly) or, where there is none, from flights over the synthetic world, others to judge by than to calibrate with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.console import progress
from edgekit.diversity import most_different, thumbnail
from edgekit_experts.dataset import Dataset
from edgekit_experts.dataset.video import Video
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Taxonomy

if TYPE_CHECKING:
    from edgekit_experts.world import FlightFrame

Image = npt.NDArray[np.uint8]
Size = tuple[int, int]

RGB = "rgb"
# Flights differ in ground, light and haze. No training uses these seeds.
CALIBRATION_SEEDS, JUDGED_SEEDS = (9001, 9002), (9011, 9012)
# Of so many times the frames that calibrate, those are taken that differ most.
OFFERED = 4
_STRIDE = 30  # frames between two that are taken
_FRAMES_OF_A_FLIGHT = 32  # at most, while there are other seeds: a flight takes seconds to prepare


@dataclass(frozen=True)
class Judged:
    """`image`: uint8 BGR at the graph's input size; `labels`: uint8 ids `(h, w)` at the data's own, or None."""

    image: Image
    labels: npt.NDArray[np.uint8] | None


@dataclass(frozen=True)
class Material:
    """What a build calibrates with and judges by; `origin` is said to the user, `provenance` to the manifest."""

    calibration: tuple[Image, ...]
    judged: tuple[Judged, ...]
    origin: str
    provenance: dict[str, Any]

    @property
    def labelled(self) -> bool:
        return all(frame.labels is not None for frame in self.judged)

    def at(self, size: Size) -> Material:
        """The same frames at another size; labels stay as they are."""
        return replace(
            self,
            calibration=tuple(_resized(image, size) for image in self.calibration),
            judged=tuple(replace(frame, image=_resized(frame.image, size)) for frame in self.judged),
        )


def gather(data: Path | str | None, taxonomy: Taxonomy | None, size: Size, calibration: int, judged: int) -> Material:
    """Frames from the data set at `data`, or from the synthetic world; labels where they have this taxonomy.

    Raises DataError.
    """
    if data is None:
        return _from_world(taxonomy, size, calibration, judged)
    return _from_dataset(Dataset.open(data), taxonomy, size, calibration, judged)


def _from_dataset(dataset: Dataset, taxonomy: Taxonomy | None, size: Size, calibration: int, judged: int) -> Material:
    videos = [dataset.video(name) for name in dataset.videos]
    videos = [video for video in videos if RGB in video.modalities]
    frames = {
        split: [(video, int(i)) for video in videos if video.split == split for i in _indices(video)]
        for split in ("train", "val", "test")
    }
    everything = [frame for split in frames.values() for frame in split]
    if not everything:
        raise DataError(
            f"{dataset.location} has no rgb frame.",
            hint="`edgekit status` shows what is done; `edgekit extract` goes on.",
        )
    # A data set without a val split is halved in time: neighbouring frames are nearly the same picture.
    half = len(everything) // 2
    to_judge = frames["val"] or everything[half:]
    to_calibrate = frames["train"] or everything[: half or 1]
    truth = _truth_name(videos, taxonomy)
    if truth:
        labelled = [(video, i) for video, i in to_judge if truth in video.modalities and video.done(truth)[i]]
        truth = truth if labelled else None
        to_judge = labelled or to_judge
    calibration_images, judged_frames = [], []
    offered, chosen_judged = _spread(to_calibrate, OFFERED * calibration), _spread(to_judge, judged)
    with progress("Reading frames", len(offered) + calibration + len(chosen_judged)) as advance:
        thumbnails = []
        for video, i in offered:
            thumbnails.append(thumbnail(video.read(RGB, i)))
            advance()
        for number in most_different(thumbnails, calibration):
            video, i = offered[number]
            calibration_images.append(_bgr(video.read(RGB, i), size))
            advance()
        for video, i in chosen_judged:
            labels = video.read(truth, i)[..., 0] if truth else None
            judged_frames.append(Judged(_bgr(video.read(RGB, i), size), labels))
            advance()
    return Material(
        tuple(calibration_images),
        tuple(judged_frames),
        f"{dataset.location} ({'labels' if truth else 'no labels'})",
        _provenance(
            "dataset", calibration_images, judged_frames, data_hash=dataset.content_hash(), offered=len(offered)
        ),
    )


def _from_world(taxonomy: Taxonomy | None, size: Size, calibration: int, judged: int) -> Material:
    known = taxonomy is not None and taxonomy.classes == DRONESCAPES.classes
    with progress("Rendering frames", calibration + judged) as advance:
        calibration_images, judged_frames = [], []
        for frame in _fly(CALIBRATION_SEEDS, size, calibration):
            calibration_images.append(_bgr(frame.rgb, size))
            advance()
        for frame in _fly(JUDGED_SEEDS, size, judged):
            judged_frames.append(Judged(_bgr(frame.rgb, size), frame.labels if known else None))
            advance()
    return Material(
        tuple(calibration_images),
        tuple(judged_frames),
        f"the synthetic world ({'labels' if known else 'no labels'})",
        _provenance("world", calibration_images, judged_frames, seeds=[*CALIBRATION_SEEDS, *JUDGED_SEEDS]),
    )


def _fly(seeds: Sequence[int], size: Size, frames: int) -> Iterator[FlightFrame]:
    """`frames` frames, taken in turn from one flight for each seed, far apart in time."""
    from edgekit_experts.world import Flight

    enough = -(-frames // _FRAMES_OF_A_FLIGHT)
    flights = [Flight(seed, size=size, frames=None) for seed in seeds[:enough]]
    turns = [(flights[n % len(flights)], _STRIDE * (n // len(flights))) for n in range(frames)]
    with ThreadPoolExecutor(2, thread_name_prefix="flight") as pool:
        yield from pool.map(lambda turn: turn[0].render(turn[1]), turns)


def _indices(video: Video) -> npt.NDArray[np.intp]:
    return np.flatnonzero(video.done(RGB))


def _truth_name(videos: list[Video], taxonomy: Taxonomy | None) -> str | None:
    """The modality with human labels or exact ground truth in these classes, if there is one."""
    if taxonomy is None:
        return None
    for video in videos:
        for name, modality in video.modalities.items():
            if modality.truth and modality.kind is Kind.LABELS and modality.taxonomy is not None:
                same = modality.taxonomy.classes == taxonomy.classes
                if same and modality.taxonomy.ignore == taxonomy.ignore:
                    return name
    return None


def _spread(frames: list[tuple[Video, int]], count: int) -> list[tuple[Video, int]]:
    """At most `count` frames, evenly over all of them, in order."""
    if len(frames) <= count:
        return frames
    return [frames[i] for i in np.linspace(0, len(frames) - 1, count).round().astype(int)]


def _bgr(rgb: npt.NDArray[Any], size: Size) -> Image:
    """What the runtime would hand to the graph: BGR at its input size, resized as the runtime does."""
    return _resized(np.asarray(cv2.cvtColor(np.ascontiguousarray(rgb, np.uint8), cv2.COLOR_RGB2BGR), np.uint8), size)


def _resized(image: Image, size: Size) -> Image:
    if image.shape[:2] == size:
        return image
    method = cv2.INTER_AREA if image.shape[0] >= 2 * size[0] else cv2.INTER_LINEAR
    resized: Image = cv2.resize(image, (size[1], size[0]), interpolation=method)
    return resized


def _provenance(kind: str, calibration: list[Image], judged: list[Judged], **more: Any) -> dict[str, Any]:
    return {
        "kind": kind,
        **more,
        "calibration_frames": len(calibration),
        "judged_frames": len(judged),
        "calibration_sha256": [hashlib.sha256(image.tobytes()).hexdigest()[:16] for image in calibration],
    }
