"""Reads the frame number that the source `test:` burns into its pictures."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from edgekit_runtime.sources.pattern import BLOCKS, block_size


def read_number(image: npt.NDArray[np.uint8]) -> int | None:
    """The frame number in a picture of the pattern (uint8 `(H, W, 3)`); None when there is none to be read."""
    block = block_size(image.shape[1])
    inner = slice(block // 4, max(block - block // 4, block // 4 + 1))
    grey = image[inner, : block * BLOCKS].astype(np.float32).mean(axis=(0, 2)).reshape(BLOCKS, block)
    levels = grey[:, inner].mean(axis=1)
    white, black = levels[0], levels[1]
    if white - black < 30:
        return None
    ones = levels[2:] > (white + black) / 2
    if int(ones[:-1].sum()) % 2 != int(ones[-1]):
        return None
    return int("".join("1" if one else "0" for one in ones[:-1]), 2)
