"""A frame in few parts, without classes: soft segments and their boundaries, superpixels, halftone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]

_LEVELS = 16  # of each colour channel
_GRID = (7, 9)  # rows and columns of the local colour models


class SoftSegmentation(Expert):
    """To which of three soft segments each pixel belongs, by its colour: uint8 (H, W, 3), 128 is the mean.

    A colour model (histogram) of each of many overlapping windows says how likely every colour belongs to that
    window rather than to the rest of the frame; the three main components of these opinions are the segments. The
    sign of a component is arbitrary: here the upper half of the frame has the lower mean. `sigma` smooths, in
    pixels. Method: Leordeanu, Sukthankar and Sminchisescu, Generalized Boundaries from Multiple Image
    Interpretations, 2014 (section on soft segmentation).
    """

    def __init__(self, sigma: float = 1.5) -> None:
        if sigma < 0:
            raise ExpertError(f"soft_segmentation: a sigma of {sigma} makes no sense.", hint="sigma >= 0.")
        self.sigma = sigma

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("soft_segmentation", Kind.IMAGE, 3, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        return np.stack(
            [np.clip(128 + 48 * soft_segments(frame, self.sigma), 0, 255).astype(np.uint8) for frame in batch.frames]
        )


class GeneralisedBoundaries(Expert):
    """How strongly colours and soft segments change: uint8 (H, W, 1), 0 to 255.

    The rate of change of all layers together, estimated over windows of about `radius` pixels, as the largest
    eigenvalue of the sum of the layers' gradient products; the method of `soft_segmentation`'s paper, whose
    learned weights of the layers are replaced by equal ones.
    """

    def __init__(self, radius: float = 3.0) -> None:
        if radius <= 0:
            raise ExpertError(f"generalised_boundaries: a radius of {radius} makes no sense.", hint="radius > 0.")
        self.radius = radius

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("generalised_boundaries", Kind.EDGES, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        return np.stack([self._boundaries(frame) for frame in batch.frames])[..., None]

    def _boundaries(self, frame: Array) -> Array:
        lab = cv2.cvtColor(frame, cv2.COLOR_RGB2LAB).astype(np.float32) / 48
        layers = np.concatenate([lab, soft_segments(frame, 0)], axis=2)
        # The gradient of the smoothed layer: its slope over the window, as a plane fit would give it.
        smooth = [cv2.GaussianBlur(layer, (0, 0), self.radius) for layer in np.moveaxis(layers, -1, 0)]
        xx = yy = xy = np.zeros(frame.shape[:2], np.float32)
        for layer in smooth:
            dx, dy = (cv2.Sobel(layer, cv2.CV_32F, *axis, ksize=3, scale=1 / 8) for axis in ((1, 0), (0, 1)))
            xx, yy, xy = xx + dx * dx, yy + dy * dy, xy + dx * dy
        larger = (xx + yy + np.sqrt((xx - yy) ** 2 + 4 * xy * xy)) / 2
        return np.clip(np.sqrt(larger) * (255 * self.radius / 3), 0, 255).astype(np.uint8)


class Superpixels(Expert):
    """The frame with each superpixel in its mean colour: uint8 (H, W, 3).

    `size` is their side in pixels, `compactness` pulls their borders to a regular grid (0: not at all). Method:
    Machairas et al., Waterpixels, 2015: a watershed of the gradient from one marker in each cell of a grid.
    """

    def __init__(self, size: int = 16, compactness: float = 1.0) -> None:
        if size < 4 or compactness < 0:
            raise ExpertError(
                f"superpixels: size {size}, compactness {compactness} make no sense.",
                hint="size >= 4, compactness >= 0.",
            )
        self.size, self.compactness = size, compactness

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("superpixels", Kind.IMAGE, 3, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        return np.stack([self._painted(frame) for frame in batch.frames])

    def _painted(self, frame: Array) -> Array:
        owner = waterpixels(frame, self.size, self.compactness)
        counts = np.maximum(np.bincount(owner.ravel()), 1)
        means = [np.bincount(owner.ravel(), weights=frame[..., c].ravel()) / counts for c in range(3)]
        return np.rint(np.stack(means, axis=1)).astype(np.uint8)[owner]


class Halftone(Expert):
    """The frame as black dots on white, the darker the larger: uint8 (H, W, 1), 0 or 255.

    `dot` is the distance of dots in pixels, `angle` that of their rows in degrees: classical amplitude
    modulation, grey against a periodic threshold (Ulichney, Digital Halftoning, 1987).
    """

    def __init__(self, dot: float = 6.0, angle: float = 45.0) -> None:
        if dot < 2:
            raise ExpertError(f"halftone: dots {dot} pixels apart make no sense.", hint="dot >= 2.")
        self.dot, self.angle = dot, angle

    def produces(self, inputs: Mapping[str, Modality]) -> Modality:
        return Modality("halftone", Kind.IMAGE, 1, "uint8", (0, 255))

    def compute(self, batch: Batch) -> Array:
        height, width = batch.frames.shape[1:3]
        turn = math.radians(self.angle)
        x, y = np.arange(width) * (2 * math.pi / self.dot), np.arange(height)[:, None] * (2 * math.pi / self.dot)
        u, v = x * math.cos(turn) + y * math.sin(turn), y * math.cos(turn) - x * math.sin(turn)
        wave = (np.cos(u) + np.cos(v)) / 2
        # Its values by rank, so that a grey of g blackens just the share 1 - g of a flat region.
        ranks = np.argsort(np.argsort(wave, axis=None), axis=None).reshape(wave.shape)
        threshold = (ranks * 256.0 / wave.size).astype(np.float32)
        greys = np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in batch.frames])
        return ((greys > threshold) * np.uint8(255))[..., None]


def soft_segments(frame: Array, sigma: float) -> Array:
    """Three components of the windows' opinions, float32 `(H, W, 3)`, of zero mean and unit variance."""
    height, width = frame.shape[:2]
    steps = frame.astype(np.int32) // (256 // _LEVELS)
    bins = (steps[..., 0] * _LEVELS + steps[..., 1]) * _LEVELS + steps[..., 2]
    everywhere = _colour_model(bins)
    opinions = []
    rows, columns = _GRID
    for top in np.linspace(0, height * 3 // 4, rows).astype(int):
        for left in np.linspace(0, width * 3 // 4, columns).astype(int):
            inside = _colour_model(bins[top : top + max(1, height // 4), left : left + max(1, width // 4)])
            opinions.append(inside / np.maximum(inside + everywhere, 1e-9))
    table = np.stack(opinions, axis=-1).reshape(-1, len(opinions))
    weight = everywhere.ravel()
    table -= weight @ table
    values, vectors = np.linalg.eigh((table * weight[:, None]).T @ table)
    components = table @ vectors[:, ::-1][:, :3] / np.sqrt(np.maximum(values[::-1][:3], 1e-12))
    result = _lookup(components, frame)
    upper = result[: max(1, height // 2)].mean(axis=(0, 1))
    result *= np.where(upper > 0, -1, 1).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(result, (0, 0), sigma)) if sigma else result


def _colour_model(bins: Array) -> Array:
    """The share of each colour, float64 `(levels, levels, levels)`, smoothed so that alike colours are alike."""
    model = np.bincount(bins.ravel(), minlength=_LEVELS**3).reshape((_LEVELS,) * 3) / bins.size
    for axis in range(3):
        padded = np.pad(model, [(1, 1) if a == axis else (0, 0) for a in range(3)], mode="edge")
        before, here, after = (np.take(padded, np.arange(k, k + _LEVELS), axis) for k in range(3))
        model = (before + 2 * here + after) / 4
    return np.asarray(model)


def _lookup(components: Array, frame: Array) -> Array:
    """`(levels³, 3)` values at the colours of a frame, linear between the centres of the bins."""
    fine = (np.arange(0, 256, 4) + 2) * _LEVELS / 256 - 0.5
    lower = np.clip(np.floor(fine).astype(int), 0, _LEVELS - 2)
    part = np.clip(fine - lower, 0, 1)
    weights = np.zeros((len(fine), _LEVELS))
    weights[np.arange(len(fine)), lower] = 1 - part
    weights[np.arange(len(fine)), lower + 1] += part
    cube = components.reshape((_LEVELS,) * 3 + (3,))
    for axis in range(3):
        cube = np.moveaxis(np.tensordot(weights, cube, (1, axis)), 0, axis)
    red, green, blue = np.moveaxis(frame >> 2, -1, 0)
    return np.asarray(cube.astype(np.float32)[red, green, blue])


def waterpixels(frame: Array, size: int, compactness: float) -> Array:
    """The superpixel that each pixel belongs to, int32 `(H, W)`, from 0."""
    height, width = frame.shape[:2]
    smooth = cv2.GaussianBlur(frame, (0, 0), 1.0)
    gradient = np.hypot(*(cv2.Sobel(smooth, cv2.CV_32F, *axis, ksize=3).max(axis=2) for axis in ((1, 0), (0, 1))))
    rows, columns = max(1, round(height / size)), max(1, round(width / size))
    y = (np.arange(rows) + 0.5) * height / rows
    x = (np.arange(columns) + 0.5) * width / columns
    reach = np.maximum(
        np.abs(np.arange(height) - y[np.minimum(np.arange(height) * rows // height, rows - 1)])[:, None],
        np.abs(np.arange(width) - x[np.minimum(np.arange(width) * columns // width, columns - 1)])[None],
    )
    surface = gradient + np.float32(compactness * 8) * (2 * reach / size).astype(np.float32) * 4
    markers = np.zeros((height, width), np.int32)
    for number, (top, left) in enumerate(np.ndindex(rows, columns), 1):
        # The quietest place of the inner half of each cell.
        rows_of = slice(int(y[top] - height / rows / 4), int(y[top] + height / rows / 4) + 1)
        columns_of = slice(int(x[left] - width / columns / 4), int(x[left] + width / columns / 4) + 1)
        cell = surface[rows_of, columns_of]
        where = np.unravel_index(int(np.argmin(cell)), cell.shape)
        markers[rows_of.start + where[0], columns_of.start + where[1]] = number
    relief = np.clip(surface / 4, 0, 255).astype(np.uint8)
    owner = cv2.watershed(cv2.merge([relief] * 3), markers)
    # The watershed leaves lines between them, and a frame around all: they go to a neighbour.
    grown = cv2.dilate(np.maximum(owner, 0).astype(np.float32), np.ones((3, 3), np.uint8))
    owner = np.where(owner > 0, owner, grown.astype(np.int32))
    return np.asarray(np.maximum(owner, 1) - 1)
