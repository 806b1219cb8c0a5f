"""The bare ground: rolling plain, river and lake beds, hills. Heights are metres above the water level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.world.torus import blurred, fractal, smoothstep, upsampled

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Relief:
    """`height` (m, below 0 under water) and `hill`, the part of it that a hill adds (m); float32 maps."""

    height: Array
    hill: Array


def make_relief(rng: np.random.Generator, size: int, cell: float) -> Relief:
    """A plain with one winding river, now and then a lake, and hills that keep off the river."""
    coarse = size // 4
    step = cell * 4
    plain = 9 + 3.0 * fractal(rng, coarse, 4, 3) + 0.5 * fractal(rng, coarse, 16, 3)

    # A level set of smooth noise is a closed, winding curve on the torus; dividing by the gradient turns the
    # value into a distance.
    field = fractal(rng, coarse, 2, 3, gain=0.32)
    along_z, along_x = np.gradient(blurred(field, 3.0), step)
    river = np.abs(field) / (np.hypot(along_x, along_z) + 0.0012)
    width = rng.uniform(9, 20) * (1 + 0.25 * fractal(rng, coarse, 8, 2))
    lake = fractal(rng, coarse, 2, 3, gain=0.4)
    lake = (np.quantile(lake, rng.uniform(0.9, 0.95)) - lake) * 70
    shore = np.minimum(river - width, lake)
    bank = np.where(shore < 0, 0.3 * shore, 0.14 * shore + 0.0016 * np.square(np.maximum(shore, 0)))
    height = _smooth_minimum(plain, np.maximum(bank, -6.0), 1.5)

    where = fractal(rng, coarse, 2, 2, gain=0.4) + 0.25 * np.tanh(shore / 150)
    level = np.quantile(where, rng.uniform(0.5, 0.65))
    ridge = 1 - np.abs(fractal(rng, coarse, 4, 4))
    crag = fractal(rng, coarse, 32, 3, gain=0.6)
    mask = smoothstep(where, level, level + 1.1) * smoothstep(shore, 12, 120)
    hill = mask * np.maximum(62 + 30 * ridge + 3.0 * crag, 5)
    return Relief(
        height=upsampled((height + hill).astype(np.float32), size),
        hill=upsampled(hill.astype(np.float32), size),
    )


def _smooth_minimum(a: Array, b: Array, width: float) -> Array:
    blend = np.clip(0.5 + 0.5 * (b - a) / width, 0, 1)
    result: Array = b + (a - b) * blend - width * blend * (1 - blend)
    return result
