"""Simulated experts for the synthetic world: ground truth, degraded as real networks' answers are.

They are no networks and say so by name. What they get wrong are regions, not pixels: smooth noise that lies in the
picture and drifts with time decides where classes are confused, where things are invented, how far borders
wander; small things are missed whole. The noise knows nothing of the frame's colours. A part of it is shared by
all experts, as the mistakes of networks trained on the same data are, the rest is each one's own: a vote mends
some errors and leaves others. How much is wrong is what pretrained networks get wrong from the air: of those that
were scored on Dronescapes the best reaches 54 mIoU, the next 41.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import NormalDist
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_experts.typecheck import expect
from edgekit_experts.world.torus import fractal
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_TILE = 128  # nodes of a noise tile, 16 bumps across
_BUMPS = 16
_SHARED_SEED = 77
_LAND, _FOREST, _RESIDENTIAL, _ROAD, _THINGS, _WATER, _SKY, _HILL = range(8)


class Drift:
    """Smooth noise over the picture, of zero mean and unit variance, that drifts and changes with time.

    A pure function of (seed, name, time): the mean of two tiles that slide in different directions.
    """

    def __init__(self, seed: int, name: str, bumps: float) -> None:
        """`bumps`: how many fit into the height of the picture."""
        rng = np.random.default_rng([seed, *name.encode()])
        self._tiles = [fractal(rng, _TILE, _BUMPS, 2, gain=0.35) for _ in range(2)]
        self._start = rng.uniform(0, _TILE, (2, 2))
        self._speed = rng.normal(0, 0.25 * _TILE / _BUMPS, (2, 2))
        self._bumps = bumps

    def at(self, time: float, shape: tuple[int, int]) -> Array:
        """The noise at `time` seconds, float32, on a grid of a quarter of `shape`, which is fine enough for it."""
        small = _quarter(shape)
        step = self._bumps * _TILE / _BUMPS / small[0]
        total = np.zeros(small, np.float32)
        for tile, start, speed in zip(self._tiles, self._start, self._speed, strict=True):
            origin = np.mod(start + speed * time, _TILE)
            span = [int(np.ceil(length * step)) + 3 for length in small]
            nodes = [(int(first) + np.arange(count)) % _TILE for first, count in zip(origin, span, strict=True)]
            y, x = (value - int(value) for value in origin)
            matrix = np.array([[step, 0, x], [0, step, y]])
            flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            total += cv2.warpAffine(tile[np.ix_(*nodes)], matrix, small[::-1], flags=flags)
        total *= np.float32(np.sqrt(0.5))
        return total


@lru_cache(maxsize=512)  # 128 kB each: the fields of a few videos at a time, however many there are
def _drift(seed: int, name: str, bumps: float) -> Drift:
    return Drift(seed, name, bumps)


@dataclass(frozen=True)
class Moment:
    """`time` seconds into `video`: with the seed, all that decides what is wrong."""

    video: str
    time: float


def _moment(batch: Batch, n: int) -> Moment:
    return Moment(batch.video, (batch.first + n) / batch.fps)


@dataclass(frozen=True)
class Confusion:
    """Regions of class `of` taken for class `taken_for`: a share of the area, in blobs."""

    of: int
    taken_for: int
    share: float
    bumps: float = 3.0


@dataclass(frozen=True)
class Degradation:
    """How much is wrong. Lengths are in shares of the picture's height."""

    confusions: tuple[Confusion, ...]
    missed: float  # share of small things that are not seen
    wander: float  # how far borders are displaced
    smoothing: float  # below this size shapes are rounded off
    invented: tuple[tuple[int, float], ...]  # class and share of the ground where it is imagined
    common: float  # correlation of the noise with that of the other experts


class _SimulatedLabels(Expert):
    """Truth labels with one `Degradation`; two with different seeds are wrong in different places."""

    name: str
    degradation: Degradation

    def __init__(self, seed: int = 0) -> None:
        if seed < 0:
            raise ExpertError(f"{self.name}: seed is {seed}.", hint="Give a seed of 0 or more.")
        self._seed = seed

    @property
    def requires(self) -> tuple[str, ...]:
        return ("labels",)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        modality = expect(inputs, "labels", Kind.LABELS, self.name)
        if modality.taxonomy != DRONESCAPES:
            raise ExpertError(
                f"{self.name} degrades truth of the synthetic world, but 'labels' is not in its taxonomy.",
                hint="Simulated experts work on flights of the built-in world only.",
            )
        return Modality(self.name, Kind.LABELS, taxonomy=DRONESCAPES)

    def compute(self, batch: Batch) -> Array:
        labels = batch.inputs["labels"]
        return np.stack([self._degraded(truth[..., 0], _moment(batch, n)) for n, truth in enumerate(labels)])[..., None]

    def _degraded(self, truth: Array, when: Moment) -> Array:
        how, shape = self.degradation, truth.shape
        labels = self._without_missed(truth, when).copy()
        for confusion in how.confusions:
            where = self._chance(f"{confusion.of}-{confusion.taken_for}", confusion.bumps, when, shape, confusion.share)
            np.copyto(labels, np.uint8(confusion.taken_for), where=where & (labels == confusion.of))
        for invented, share in how.invented:
            where = self._chance(f"invented {invented}", 6.0, when, shape, share)
            np.copyto(labels, np.uint8(invented), where=where & (labels != _SKY))
        labels = _rounded(labels, how.smoothing * shape[0])
        return self._displaced(labels, how.wander * shape[0], when)

    def _noise(self, name: str, bumps: float, when: Moment, shape: tuple[int, int]) -> Array:
        own = _drift(self._seed, f"{when.video} {self.name} {name}", bumps)
        shared = _drift(_SHARED_SEED, f"{when.video} {name}", bumps)
        weight = np.float32(self.degradation.common)
        noise = weight * shared.at(when.time, shape) + np.sqrt(1 - weight**2) * own.at(when.time, shape)
        return _enlarged(noise, shape)

    def _chance(self, name: str, bumps: float, when: Moment, shape: tuple[int, int], share: float) -> Array:
        """True over about `share` of the picture, in blobs."""
        result: Array = self._noise(name, bumps, when, shape) > NormalDist().inv_cdf(1 - share)
        return result

    def _without_missed(self, truth: Array, when: Moment) -> Array:
        """Each small thing is seen or missed whole, by the noise at its middle; then its ground shows instead."""
        things = (truth == _THINGS).astype(np.uint8)
        count, parts, _, centres = cv2.connectedComponentsWithStats(things, connectivity=8)
        if count < 2:
            return truth
        missed = self._chance("missed", 9.0, when, truth.shape, self.degradation.missed)
        x, y = np.rint(centres).astype(int).T
        lost = missed[y, x]
        lost[0] = False
        gone = lost[parts]
        if things.all() or not gone.any():
            return truth
        _, nearest = cv2.distanceTransformWithLabels(things, cv2.DIST_L2, 3, labelType=cv2.DIST_LABEL_PIXEL)
        ground = np.zeros(int(nearest.max()) + 1, np.uint8)
        ground[nearest[things == 0]] = truth[things == 0]
        return np.where(gone, ground[nearest], truth)

    def _displaced(self, labels: Array, reach: float, when: Moment) -> Array:
        height, width = labels.shape
        x, y = np.arange(width, dtype=np.float32)[None, :], np.arange(height, dtype=np.float32)[:, None]
        moves = [np.float32(reach) * self._noise(name, 12.0, when, labels.shape) for name in ("aside", "along")]
        return np.asarray(
            cv2.remap(labels, x + moves[0], y + moves[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
        )


class SimulatedSharp(_SimulatedLabels):
    """Fine borders, and whole regions taken for something else: true labels in, uint8 (H, W, 1), Dronescapes ids.

    For flights of the synthetic world, whose truth it degrades; `seed` decides where. Method: edgekit's own, see
    `edgekit_experts/simulated.py`.
    """

    name = "simulated_sharp"
    degradation = Degradation(
        confusions=(
            Confusion(_HILL, _LAND, 0.42, 2.0),
            Confusion(_LAND, _HILL, 0.11, 2.5),
            Confusion(_FOREST, _HILL, 0.08, 2.5),
            Confusion(_FOREST, _LAND, 0.16, 4.0),
            Confusion(_WATER, _LAND, 0.35, 2.5),
            Confusion(_ROAD, _LAND, 0.32, 4.0),
            Confusion(_RESIDENTIAL, _LAND, 0.35, 4.0),
            Confusion(_LAND, _FOREST, 0.10, 4.0),
        ),
        missed=0.59,
        wander=0.004,
        smoothing=0.004,
        invented=((_RESIDENTIAL, 0.019), (_WATER, 0.013)),
        common=0.5,
    )


class SimulatedSmooth(_SimulatedLabels):
    """Right about regions more often, but with rounded shapes: true labels in, uint8 (H, W, 1), Dronescapes ids.

    What is thin or small goes under. For flights of the synthetic world; `seed` and method as for `simulated_sharp`.
    """

    name = "simulated_smooth"
    degradation = Degradation(
        confusions=(
            Confusion(_HILL, _FOREST, 0.20, 2.0),
            Confusion(_HILL, _LAND, 0.31, 2.5),
            Confusion(_LAND, _HILL, 0.12, 2.0),
            Confusion(_FOREST, _LAND, 0.14, 3.0),
            Confusion(_WATER, _ROAD, 0.17, 3.0),
            Confusion(_WATER, _LAND, 0.26, 2.5),
            Confusion(_ROAD, _LAND, 0.17, 4.0),
            Confusion(_RESIDENTIAL, _ROAD, 0.22, 4.0),
            Confusion(_LAND, _FOREST, 0.09, 4.0),
        ),
        missed=0.54,
        wander=0.006,
        smoothing=0.014,
        invented=((_FOREST, 0.020), (_ROAD, 0.017)),
        common=0.5,
    )


class SimulatedSloppy(_SimulatedLabels):
    """Wandering borders, missed things, inventions, all confusions: true labels in, uint8 (H, W, 1), Dronescapes ids.

    For flights of the synthetic world; `seed` and method as for `simulated_sharp`.
    """

    name = "simulated_sloppy"
    degradation = Degradation(
        confusions=(
            Confusion(_HILL, _LAND, 0.41, 2.0),
            Confusion(_HILL, _FOREST, 0.20, 3.0),
            Confusion(_LAND, _HILL, 0.14, 2.0),
            Confusion(_LAND, _FOREST, 0.14, 3.0),
            Confusion(_FOREST, _LAND, 0.20, 3.0),
            Confusion(_WATER, _LAND, 0.41, 2.5),
            Confusion(_ROAD, _RESIDENTIAL, 0.24, 4.0),
            Confusion(_ROAD, _LAND, 0.17, 4.0),
            Confusion(_RESIDENTIAL, _LAND, 0.37, 4.0),
            Confusion(_SKY, _WATER, 0.10, 3.0),
        ),
        missed=0.47,
        wander=0.006,
        smoothing=0.006,
        invented=((_RESIDENTIAL, 0.020), (_WATER, 0.014), (_ROAD, 0.014)),
        common=0.5,
    )


class SimulatedDepth(Expert):
    """True depth with a scale that drifts, smooth errors and blurred borders: float16 (H, W, 1), metres.

    As networks do, it answers everywhere: what is farther than `farthest`, the sky too, comes out at about that. For
    flights of the synthetic world. Method: edgekit's own, see `edgekit_experts/simulated.py`.
    """

    def __init__(self, seed: int = 0, scale_drift: float = 0.12, error: float = 0.08, farthest: float = 1000.0) -> None:
        """`scale_drift` and `error` are standard deviations of the logarithm of depth, over time and space."""
        if seed < 0 or scale_drift < 0 or error < 0 or not 1 <= farthest <= 30_000:
            raise ExpertError(
                "simulated_depth: a parameter is out of range.",
                hint="seed, scale_drift and error are 0 or more, farthest is 1 to 30000 m.",
            )
        self._seed, self._drift, self._error, self._farthest = seed, scale_drift, error, farthest

    @property
    def requires(self) -> tuple[str, ...]:
        return ("true_depth",)

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        expect(inputs, "true_depth", Kind.DEPTH, "simulated_depth")
        return Modality("simulated_depth", Kind.DEPTH, dtype="float16", range=(0.0, 65504.0), unit="m")

    def compute(self, batch: Batch) -> Array:
        truth = batch.inputs["true_depth"]
        return np.stack([self._degraded(depth[..., 0], _moment(batch, n)) for n, depth in enumerate(truth)])[..., None]

    def _degraded(self, truth: Array, when: Moment) -> Array:
        shape = truth.shape
        known = np.nan_to_num(truth.astype(np.float32), nan=self._farthest)
        log = np.log(np.clip(known, 0.1, self._farthest))
        small = cv2.resize(log, (max(1, shape[1] // 4), max(1, shape[0] // 4)), interpolation=cv2.INTER_AREA)
        blurred = cv2.resize(cv2.GaussianBlur(small, (0, 0), 1.0), shape[::-1], interpolation=cv2.INTER_LINEAR)
        rng = np.random.default_rng([self._seed, 5, *when.video.encode()])
        waves = np.sin(rng.uniform(0, 2 * np.pi, 2) + rng.uniform(0.2, 0.7, 2) * when.time)
        blurred += np.float32(self._drift * waves.sum())
        broad = _drift(self._seed, f"{when.video} depth broad", 1.5).at(when.time, shape)
        fine = _drift(self._seed, f"{when.video} depth fine", 6.0).at(when.time, shape)
        error = broad + np.float32(0.5) * fine
        blurred += np.float32(self._error) * _enlarged(error, shape)
        return np.asarray(np.exp(blurred).astype(np.float16))


def _rounded(labels: Array, size: float) -> Array:
    """The class of the largest share in a Gaussian window of about `size` pixels."""
    if size < 0.5:
        return labels
    best = np.zeros(labels.shape, np.uint8)
    result = labels.copy()
    for identity in np.unique(labels):
        share = cv2.GaussianBlur((labels == identity).astype(np.uint8) * np.uint8(255), (0, 0), size)
        np.copyto(result, identity, where=share > best)
        np.maximum(best, share, out=best)
    return result


def _quarter(shape: tuple[int, int]) -> tuple[int, int]:
    return max(2, -(-shape[0] // 4)), max(2, -(-shape[1] // 4))


def _enlarged(noise: Array, shape: tuple[int, int]) -> Array:
    return np.asarray(cv2.resize(noise, shape[::-1], interpolation=cv2.INTER_LINEAR))
