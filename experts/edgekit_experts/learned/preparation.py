"""How a checkpoint wants its pictures: what `preprocessor_config.json` says, done with OpenCV."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_PIL_BICUBIC = 3


@dataclass(frozen=True)
class Preparation:
    """What a checkpoint does to a picture: `size` as its configuration has it, `multiple` of what sides must be,
    `pad` the (height, width) that is filled up with zeros at the right and the bottom, None for none.
    """

    size: Mapping[str, int]
    keep_ratio: bool
    multiple: int
    interpolation: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    pad: tuple[int, int] | None = None

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Preparation:
        size = table.get("size", {"height": 384, "width": 384})
        if isinstance(size, int):
            size = {"shortest_edge": size}
        scale = float(table.get("rescale_factor", 1 / 255)) if table.get("do_rescale", True) else 1.0
        plain = not table.get("do_normalize", True)
        mean = (0.0,) * 3 if plain else tuple(table.get("image_mean", (0.485, 0.456, 0.406)))
        std = (1.0,) * 3 if plain else tuple(table.get("image_std", (0.229, 0.224, 0.225)))
        pad = table.get("pad_size") if table.get("do_pad") else None
        return cls(
            {key: int(side) for key, side in size.items() if side},
            bool(table.get("keep_aspect_ratio", False)),
            int(table.get("ensure_multiple_of") or table.get("size_divisor") or 1),
            cv2.INTER_CUBIC if table.get("resample") == _PIL_BICUBIC else cv2.INTER_LINEAR,
            tuple(float(value) / scale for value in mean),
            tuple(float(value) / scale for value in std),
            (int(pad["height"]), int(pad["width"])) if pad else None,
        )

    def target(self, height: int, width: int) -> tuple[int, int]:
        """(height, width) that a picture of this size is brought to, before it is filled up."""
        if "shortest_edge" in self.size:
            scale = self.size["shortest_edge"] / min(height, width)
            longest = self.size.get("longest_edge")
            if longest:
                scale = min(scale, longest / max(height, width))
            rows, columns = (math.ceil(side * scale / self.multiple) * self.multiple for side in (height, width))
            return rows, columns
        if "longest_edge" in self.size:
            scale = self.size["longest_edge"] / max(height, width)
            rows, columns = (max(1, int(side * scale + 0.5)) for side in (height, width))
            return rows, columns
        scales = self.size["height"] / height, self.size["width"] / width
        if self.keep_ratio:  # by the one that changes the picture less
            scales = (min(scales, key=lambda scale: abs(1 - scale)),) * 2
        rows, columns = (
            max(self.multiple, round(side * scale / self.multiple) * self.multiple)
            for side, scale in zip((height, width), scales, strict=True)
        )
        return rows, columns

    def tensor(self, frame: Array, size: tuple[int, int]) -> Array:
        """float32 `(1, 3, H, W)` of a uint8 RGB frame brought to `size`, and filled up where the checkpoint asks."""
        shrinks = frame.shape[0] > size[0]
        picture = cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA if shrinks else self.interpolation)
        values = (picture.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        if self.pad:
            values = np.pad(values, [(0, self.pad[0] - size[0]), (0, self.pad[1] - size[1]), (0, 0)])
        return np.ascontiguousarray(values.transpose(2, 0, 1))[None]
