"""Pictures of every kind of modality, for people to look at."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy

FONT = cv2.FONT_HERSHEY_SIMPLEX
WHITE = (255, 255, 255)
Picture = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
Span = tuple[float, float]


def colourise(modality: Modality, array: Array, span: Span | None = None) -> Picture:
    """One frame of a modality, `(H, W, C)` or `(H, W)`, as uint8 `(H, W, 3)` RGB.

    Labels take the colours of their taxonomy, black where ignored; depth goes from red (near) to blue (far) of the
    turbo map; normals are (n + 1) / 2; flow has its direction as hue and its length as saturation; edges and
    masks are grey. Black marks pixels without a value. `span` fixes the range of depth (low, high) or the longest
    flow (0, high), so that the frames of a video share one scale; without it each frame has its own.
    Raises UsageError when the array does not fit the modality.
    """
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] != modality.channels:
        raise UsageError(f"{modality.name}: a frame has shape (H, W, {modality.channels}), not {tuple(array.shape)}.")
    if modality.kind is Kind.LABELS and modality.taxonomy:
        return palette(modality.taxonomy)[array[..., 0].astype(np.uint8)]
    if modality.kind is Kind.DEPTH:
        depth = far_is_high(modality, array[..., 0])
        if span and modality.near_is_high:
            span = (-span[1], -span[0])
        return np.ascontiguousarray(depth_bgr(depth, span or depth_span(depth))[..., ::-1])
    if modality.kind is Kind.NORMALS:
        return _from_unit((array.astype(np.float32) + 1) / 2)
    if modality.kind is Kind.FLOW:
        return _flow(array[..., :2], span)
    if modality.kind is Kind.MASK:
        return _grey((array[..., 0] > 0).astype(np.uint8) * 255)
    return _image(array, modality)


def palette(taxonomy: Taxonomy) -> Picture:
    """uint8 `(256, 3)` RGB by class id; black for the ignore id and for ids that are no class."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(taxonomy)] = taxonomy.colours
    return table


def lookup(taxonomy: Taxonomy) -> Picture:
    """`palette` for `cv2.applyColorMap`: uint8 `(256, 1, 3)` BGR."""
    return np.ascontiguousarray(palette(taxonomy)[:, None, ::-1])


def far_is_high(modality: Modality, depth: Array) -> Array:
    """Depth `(H, W)` so that larger is farther, as the pictures below take it: inverse depth is negated."""
    return -depth.astype(np.float32) if modality.near_is_high else depth


def depth_span(depth: Array) -> Span:
    """The range in which nearly all finite depths lie: 2nd to 98th percentile. (0, 1) when there are none."""
    sample = depth[:: max(depth.shape[0] // 96, 1), :: max(depth.shape[1] // 96, 1)].astype(np.float32)
    finite = sample[np.isfinite(sample)]
    if not finite.size:
        return 0.0, 1.0
    low, high = np.percentile(finite, (2, 98))
    return float(low), float(max(high, low + 1e-6))


def follow(span: Span | None, new: Span) -> Span:
    """A depth scale that follows slowly, so that colours do not flicker from frame to frame."""
    if span is None:
        return new
    return 0.9 * span[0] + 0.1 * new[0], 0.9 * span[1] + 0.1 * new[1]


def depth_bgr(depth: Array, span: Span) -> Picture:
    """Depth `(H, W)` as uint8 `(H, W, 3)` BGR: turbo, red at the near end of `span`, black where not finite."""
    low, high = span
    depth = np.asarray(depth, np.float32)
    scale = 255 / (high - low)
    # One saturating pass; NaN becomes some level here and black below.
    level = cv2.addWeighted(depth, -scale, depth, 0, high * scale, dtype=cv2.CV_8U)
    bgr = np.asarray(cv2.applyColorMap(level, cv2.COLORMAP_TURBO), np.uint8)
    valid = np.isfinite(depth)
    if not valid.all():
        bgr[~valid] = 0
    return bgr


def caption(picture: Picture, text: str, scale: float) -> None:
    """Writes lines at the top left of uint8 `(H, W, 3)`, in place, on a ground dark enough to read white on."""
    lines = text.splitlines()
    sizes = [cv2.getTextSize(line, FONT, scale, 1)[0] for line in lines]
    height = max(high for _, high in sizes)
    pad, row = height // 2 + 1, 2 * height + 4
    ground = picture[: row * len(lines), : max(wide for wide, _ in sizes) + 2 * pad]
    np.right_shift(ground, 2, out=ground)
    for number, line in enumerate(lines):
        cv2.putText(picture, line, (pad, number * row + height + pad), FONT, scale, WHITE, 1, cv2.LINE_AA)


def _flow(flow: Array, span: Span | None) -> Picture:
    flow = flow.astype(np.float32)
    valid = np.isfinite(flow[..., 0]) & np.isfinite(flow[..., 1])
    dx, dy = np.moveaxis(np.where(valid[..., None], flow, 0), 2, 0)
    length, angle = cv2.cartToPolar(np.ascontiguousarray(dx), np.ascontiguousarray(dy), angleInDegrees=True)
    longest = span[1] if span else float(np.percentile(length, 99))
    hsv = np.empty((*length.shape, 3), np.uint8)
    hsv[..., 0] = angle / 2
    hsv[..., 1] = np.clip(length / max(longest, 1e-6), 0, 1) * 255
    hsv[..., 2] = 255
    rgb = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)
    rgb[~valid] = 0
    return rgb


def _image(array: Array, modality: Modality) -> Picture:
    if array.dtype == np.uint8:
        scaled = array
    else:
        low, high = modality.range or (0.0, 1.0)
        scaled = _from_unit((array.astype(np.float32) - low) / max(high - low, 1e-6))
    if modality.channels == 3:
        return np.ascontiguousarray(scaled)
    return _grey(scaled[..., 0])


def _from_unit(array: Array) -> Picture:
    return np.asarray(np.clip(np.nan_to_num(array, nan=0.0), 0, 1) * 255 + 0.5).astype(np.uint8)


def _grey(array: Array) -> Picture:
    return np.ascontiguousarray(np.repeat(array[..., None], 3, axis=2), np.uint8)
