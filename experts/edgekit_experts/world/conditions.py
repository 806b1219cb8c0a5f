"""What differs from flight to flight beside the land: season, light, air, water, camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Conditions:
    """Colours are float32 RGB in 0..1 as a display shows them; angles in radians, lengths in metres."""

    season: Array  # factors on the colours of all that grows
    sun_azimuth: float
    sun_elevation: float
    sun: Array  # light of the sun on a surface that faces it
    ambient: Array
    haze: Array  # colour of the air at the horizon
    zenith: Array
    visibility: float  # distance at which haze takes 63 %
    clouds: float  # share of the sky
    water: Array
    reflection: float
    exposure: float
    contrast: float
    noise: float  # standard deviation, grey levels of 255
    shutter: float  # seconds that the shutter is open
    softness: float  # standard deviation of the lens blur in pixels at 960 columns


def make_conditions(seed: int) -> Conditions:
    """The conditions of a seed."""
    rng = np.random.default_rng([seed, 2])
    warmth = rng.normal(0, 0.06)
    overcast = rng.random() ** 1.5
    sun_elevation = np.deg2rad(rng.uniform(20, 62))
    tint = np.array([1 + warmth, 1.0, 1 - warmth])
    grey = rng.uniform(0.6, 0.86)
    haze = grey * np.array([1 - rng.uniform(0.0, 0.12), 1.0 - rng.uniform(0, 0.03), 1.0 + rng.uniform(-0.03, 0.12)])
    zenith = haze * np.array([0.55, 0.75, 1.05]) ** (1 - overcast) * rng.uniform(0.8, 1.0)
    murk = rng.random()
    water = (1 - murk) * np.array([0.17, 0.27, 0.29]) + murk * np.array([0.42, 0.38, 0.28])
    return Conditions(
        season=_colour(np.array([1 + rng.normal(0.02, 0.10), 1.0, 1 + rng.normal(0, 0.09)]) * rng.uniform(0.85, 1.12)),
        sun_azimuth=float(rng.uniform(0, 2 * np.pi)),
        sun_elevation=float(sun_elevation),
        sun=_colour(tint * np.array([1.06, 1.0, 0.9]) * (0.95 - 0.7 * overcast)),
        ambient=_colour((0.42 + 0.42 * overcast) * np.array([0.95, 1.0, 1.07]) * tint),
        haze=_colour(np.clip(haze, 0, 0.95)),
        zenith=_colour(np.clip(zenith, 0, 0.95)),
        visibility=float(np.exp(rng.uniform(np.log(700), np.log(4500)))),
        clouds=float(np.clip(0.15 + 0.8 * overcast + rng.normal(0, 0.1), 0, 1)),
        water=_colour(water * rng.uniform(0.7, 1.1)),
        reflection=float(rng.uniform(0.35, 0.9)),
        exposure=float(np.exp(rng.normal(0.12, 0.15))),
        contrast=float(rng.uniform(0.85, 1.15)),
        noise=float(rng.uniform(0.8, 5.0)),
        shutter=float(rng.choice((0.0, rng.uniform(0.1, 0.6)), p=(0.35, 0.65))) / 25,
        softness=float(rng.uniform(0.45, 0.8)),
    )


def _colour(values: Array) -> Array:
    return values.astype(np.float32)
