"""Geometry for all modalities at once, photometry for RGB alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.modality import Kind, Modality
from edgekit_student.samples import Array, Sample
from edgekit_student.settings import Augmentation

# Kinds that live on a continuum; the others (class ids, values with NaN holes) take the nearest pixel.
SMOOTH = (Kind.IMAGE, Kind.EDGES)
# The picture after `rgb` in its video: it is seen through the same window, in the same changed colours.
FOLLOWING = "rgb:following"


def augment(
    sample: Sample, modalities: Mapping[str, Modality], settings: Augmentation, rng: np.random.Generator
) -> Sample:
    """A random window of a random scale, perhaps mirrored, with changed colours; the same window everywhere.

    Arrays may have different resolutions, as long as they show the same field of view. The result of each has
    `settings.crop` (or the frame's size) at its own resolution. Flow vectors scale with the picture. What is no
    modality passes as it is.
    """
    frame = sample["rgb"] if "rgb" in sample else next(iter(sample.values()))
    height, width = frame.shape[:2]
    crop_h, crop_w = settings.crop or (height, width)
    zoom = np.exp(rng.uniform(*np.log(settings.scale)))
    # The window, as fractions of the frame; what lies outside of it is filled by reflection.
    window_h, window_w = crop_h / zoom / height, crop_w / zoom / width
    top = rng.uniform(min(0.0, 1 - window_h), max(0.0, 1 - window_h))
    left = rng.uniform(min(0.0, 1 - window_w), max(0.0, 1 - window_w))
    flip = settings.mirror and rng.random() < 0.5
    result = dict(sample)
    for name, modality in modalities.items():
        array = sample[name]
        h, w = array.shape[:2]
        out_h, out_w = round(crop_h * h / height), round(crop_w * w / width)
        result[name] = _window(
            array,
            (top * h, left * w, window_h * h, window_w * w),
            (out_h, out_w),
            smooth=modality.kind in SMOOTH,
        )
        if modality.kind is Kind.FLOW:
            result[name] = result[name] * np.array([out_w / (window_w * w), out_h / (window_h * h)], array.dtype)
        if flip:
            result[name] = _mirrored(modality, result[name])
    if "rgb" in result:
        drawn = rng.bit_generator.state
        result["rgb"] = _recolour(result["rgb"], settings, rng)
        if FOLLOWING in result:
            rng.bit_generator.state = drawn
            result[FOLLOWING] = _recolour(result[FOLLOWING], settings, rng)
    return result


def _mirrored(modality: Modality, array: Array) -> Array:
    """`encoding.mirrored` of `(H, W, C)`, without PyTorch's threads, which a small array would only wait for."""
    source = array.view(np.uint16) if array.dtype == np.float16 else array
    flipped: Array = cv2.flip(source, 1).reshape(array.shape).view(array.dtype)
    if modality.kind in (Kind.NORMALS, Kind.FLOW):
        np.negative(flipped[..., 0], out=flipped[..., 0])
    return flipped


def _window(array: Array, box: tuple[float, float, float, float], size: tuple[int, int], *, smooth: bool) -> Array:
    top, left, height, width = box
    scale_y, scale_x = height / size[0], width / size[1]
    # Pixel centres: output (i + 0.5) * scale + offset - 0.5.
    matrix = np.array([[scale_x, 0, left + 0.5 * scale_x - 0.5], [0, scale_y, top + 0.5 * scale_y - 0.5]], np.float64)
    flags = (cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST) | cv2.WARP_INVERSE_MAP
    if array.dtype != np.float16:
        source = array
    elif smooth:
        source = array.astype(np.float32)
    else:  # numbers that are only moved need not be understood
        source = array.view(np.uint16)
    # OpenCV warps up to four channels at a time.
    parts = [
        cv2.warpAffine(
            np.ascontiguousarray(source[..., c : c + 4]),
            matrix,
            size[::-1],
            flags=flags,
            borderMode=cv2.BORDER_REFLECT_101,
        ).reshape(*size, -1)
        for c in range(0, array.shape[-1], 4)
    ]
    result = np.concatenate(parts, axis=-1)
    return result.view(array.dtype) if source.dtype == np.uint16 else result.astype(array.dtype, copy=False)


def _recolour(rgb: npt.NDArray[np.uint8], settings: Augmentation, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    gain = 1 + rng.uniform(-settings.contrast, settings.contrast)
    shift = 255 * rng.uniform(-settings.brightness, settings.brightness)
    saturation = 1 + rng.uniform(-settings.saturation, settings.saturation)
    # Brightness, contrast, saturation and hue are one 3×4 colour matrix: a single pass over the pixels.
    grey = np.array([0.299, 0.587, 0.114])
    matrix = gain * (saturation * np.eye(3) + (1 - saturation) * np.ones((3, 1)) * grey)
    if settings.hue:
        matrix = matrix @ _turned(np.radians(rng.uniform(-settings.hue, settings.hue)))
    offset = np.full((3, 1), 128 * (1 - gain) + shift)
    result: npt.NDArray[np.uint8] = cv2.transform(np.ascontiguousarray(rgb), np.hstack([matrix, offset]))
    if settings.blur and rng.random() < 0.5:
        result = cv2.GaussianBlur(result, (0, 0), max(0.05, rng.uniform(0, settings.blur)))
    if settings.noise:
        grain = rng.standard_normal(result.shape, np.float32) * np.float32(rng.uniform(0, settings.noise))
        result = np.clip(np.rint(result + grain), 0, 255).astype(np.uint8)
    return result


def _turned(angle: float) -> npt.NDArray[np.float64]:
    """Rotation of RGB about the grey axis (Rodrigues' formula)."""
    axis = np.full(3, 1 / np.sqrt(3))
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation: npt.NDArray[np.float64] = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return rotation


def pasted(
    views: Sequence[Sample], classes: Callable[[Sample], Array], share: float, rng: np.random.Generator
) -> list[Sample]:
    """`share` of the samples of a batch with classes of the next one pasted in; `classes` gives ids `(h, w)`."""
    if not share or len(views) < 2:
        return list(views)
    partners = [*views[1:], views[0]]
    return [
        paste_classes(view, other, classes(other), rng) if rng.random() < share else view
        for view, other in zip(views, partners, strict=True)
    ]


def paste_classes(sample: Sample, other: Sample, classes: Array, rng: np.random.Generator) -> Sample:
    """Half of the classes that are in `other`, chosen at random, cut out of it and pasted over `sample`.

    `classes` `(h, w)` are the ids of `other`. Both have the same arrays, of any resolutions of one field of view;
    what only one of them has (see `samples.PRESENT`), the result has not. Method: ClassMix (Olsson et al., arXiv
    2007.07936).
    """
    there = np.unique(classes)
    chosen = rng.choice(there, len(there) // 2, replace=False)
    mask = np.isin(classes, chosen).astype(np.uint8)
    result = {}
    for name, array in sample.items():
        if array.ndim < 3:
            result[name] = array & other[name]
            continue
        height, width = array.shape[:2]
        own = (
            mask
            if mask.shape == (height, width)
            else cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        )
        result[name] = np.where(own[..., None] > 0, other[name], array)
    return result
