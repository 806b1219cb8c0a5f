"""Every frame, and everything that comes with it, brought to one size."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.video.reader import Frame, VideoReader
from edgekit_runtime.modality import Kind, Modality

Array = npt.NDArray[Any]


def resize_rgb(rgb: Array, size: tuple[int, int]) -> Array:
    """uint8 (h, w, 3) to (H, W, 3): averaged where it shrinks, linear where it grows."""
    if rgb.shape[:2] == size:
        return rgb
    shrinks = size[0] * size[1] < rgb.shape[0] * rgb.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, size[::-1], interpolation=how))


def resize_stream(modality: Modality, frame: Array, size: tuple[int, int]) -> Array:
    """(h, w, C) to (H, W, C). Nearest pixel, so that no class, edge or depth between two is made up; pictures
    are averaged; flow is scaled to the new pixels. `float` depth without a hole is interpolated.
    """
    if frame.shape[:2] == size:
        return frame
    if modality.kind is Kind.IMAGE and frame.shape[2] == 3:
        return resize_rgb(frame, size)
    smooth = modality.kind is Kind.DEPTH and bool(np.isfinite(frame).all())
    wide = frame.astype(np.float32) if frame.dtype.kind == "f" else frame
    how = cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST
    resized: Array = cv2.resize(wide, size[::-1], interpolation=how).reshape(*size, frame.shape[2])
    if modality.kind is Kind.FLOW:
        resized *= np.array([size[1] / frame.shape[1], size[0] / frame.shape[0]], np.float32)
    return resized.astype(frame.dtype)


class ResizedReader:
    """A reader whose frames are all `size` (height, width)."""

    def __init__(self, reader: VideoReader, size: tuple[int, int]) -> None:
        self._reader = reader
        self.size = size
        self.name = reader.name
        self.uri = reader.uri
        self.fingerprint = reader.fingerprint
        self.fps = reader.fps
        self.frames = reader.frames
        self.counted = reader.counted
        self.streams = reader.streams
        self.declared = reader.declared

    @property
    def shortfall(self) -> int:
        return self._reader.shortfall

    def exact_frames(self) -> int | None:
        return self._reader.exact_frames()

    def read(self, start: int = 0) -> Iterator[Frame]:
        declared = {modality.name: modality for modality in self.streams}
        for frame in self._reader.read(start):
            streams = {
                name: None if array is None else resize_stream(declared[name], array, self.size)
                for name, array in frame.streams.items()
            }
            yield Frame(frame.index, resize_rgb(frame.rgb, self.size), streams, frame.fault)
