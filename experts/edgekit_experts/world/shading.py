"""From what is hit to what a camera shows: surface colours, sun, haze, sky, lens and sensor."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_experts.world.conditions import Conditions
from edgekit_experts.world.landscape import CELL, Landscape
from edgekit_experts.world.raycast import Spot
from edgekit_experts.world.torus import fractal

Array = npt.NDArray[Any]

_TILE = 512
_BLUR_ROWS = 64  # small pieces of memory are used again, large ones are asked for anew
_DETAIL_PER_METRE = 7.0  # texels: a tile is 73 m
_WALL = np.array((186, 178, 164), np.float32)


@lru_cache(maxsize=1)
def _detail() -> Array:
    """Fine texture that all surfaces share, uint8, mean 128: `(TILE+1, TILE+1)`."""
    rng = np.random.default_rng(20)
    noise = fractal(rng, _TILE, 16, 6, gain=0.8)
    return np.asarray(
        cv2.copyMakeBorder(np.clip(128 + 42 * noise, 0, 255).astype(np.uint8), 0, 1, 0, 1, cv2.BORDER_WRAP)
    )


@lru_cache(maxsize=1)
def _clouds() -> Array:
    rng = np.random.default_rng(21)
    noise = fractal(rng, _TILE, 4, 7, gain=0.55)
    return np.asarray(
        cv2.copyMakeBorder(np.clip(128 + 50 * noise, 0, 255).astype(np.uint8), 0, 1, 0, 1, cv2.BORDER_WRAP)
    )


@lru_cache(maxsize=4)
def _grain(deviation: float) -> tuple[Array, Array]:
    """A long strip of sensor noise, uint8: what it adds, and what it takes."""
    noise = np.rint(np.random.default_rng(22).standard_normal(1 << 20, np.float32) * deviation)
    return np.clip(noise, 0, 255).astype(np.uint8), np.clip(-noise, 0, 255).astype(np.uint8)


def _tiled(tile: Array, x: Array, y: Array) -> Array:
    turns = np.floor(x * np.float32(1 / _TILE)) * np.float32(_TILE)
    rows = np.floor(y * np.float32(1 / _TILE)) * np.float32(_TILE)
    return np.asarray(cv2.remap(tile, x - turns, y - rows, cv2.INTER_LINEAR))


def surface_colour(
    land: Landscape,
    spot: Spot,
    marks: Array,
    normal: tuple[Array, Array, Array],
    depth: Array,
    grazing: Array,
    pixel: float,
) -> list[Array]:
    """Lit colours with haze: three float32 planes `(h, w)`, 0..255.

    `marks` as sampled at `spot`; `normal` in the world (east, up, north); `grazing` the sine of the angle between
    ray and horizon; `pixel` the angle of a pixel in radians.
    """
    sky = land.conditions
    *ground, rough = (plane.astype(np.float32) for plane in cv2.split(spot.sample(land.ground)))
    *painted, wall = (plane.astype(np.float32) for plane in cv2.split(spot.sample(land.painted)))
    wet, _, cover, sunlit = (plane.astype(np.float32) for plane in cv2.split(marks))
    # A border as sharp as a pixel: the stored coverage grows by 255 within one cell.
    sharp = np.float32(CELL / pixel) / depth
    np.clip(sharp, 1, 12, out=sharp)
    cover = _sharpened(cover, sharp, 255)
    wall *= cover
    wall *= np.float32(1 / 255)

    texture = _tiled(
        _detail(), spot.x * np.float32(CELL * _DETAIL_PER_METRE), spot.z * np.float32(CELL * _DETAIL_PER_METRE)
    )
    texture = texture.astype(np.float32) - 128
    grain = rough + cover * (60 - rough)
    grain *= np.minimum(np.float32(70) / depth, 1)
    grain *= texture
    grain *= np.float32(1 / 128 / 255 * 0.9)
    grain += 1

    facing = _facing(normal, _sun_direction(sky))
    facing *= sunlit
    facing *= np.float32(1 / 255)
    facing *= grain
    open_sky = (0.6 + 0.4 * normal[1]) * grain
    water = _Water(sky, wet, sharp, texture, grazing) if wet.max() > 60 else None
    air = np.exp(depth * np.float32(-1 / sky.visibility))
    veil = 255 * (1 - air)
    planes = []
    for axis, (colour, over) in enumerate(zip(ground, painted, strict=True)):
        over += wall * (_WALL[axis] - over)
        over -= colour
        over *= cover
        colour += over
        colour *= facing * sky.sun[axis] + open_sky * sky.ambient[axis]
        if water:
            water.cover_with(colour, axis)
        colour *= air
        colour += veil * sky.haze[axis]
        planes.append(colour)
    return planes


def _sharpened(cover: Array, sharp: Array, slope: float) -> Array:
    """Stored coverage, 0..255, to 0..1 with the border at 128 made `sharp` times as steep."""
    result = cover - np.float32(128)
    result *= sharp
    result *= np.float32(1 / slope)
    result += np.float32(0.5)
    np.clip(result, 0, 1, out=result)
    return result


def _facing(normal: tuple[Array, Array, Array], light: tuple[float, float, float]) -> Array:
    """Cosine between surface and light, 0 where it is turned away."""
    cosine = normal[0] * np.float32(light[0])
    cosine += normal[1] * np.float32(light[1])
    cosine += normal[2] * np.float32(light[2])
    return np.maximum(cosine, 0, out=cosine)


class _Water:
    """Water over the ground: its own colour from above, the sky's at a grazing angle, small ripples."""

    def __init__(self, sky: Conditions, wet: Array, sharp: Array, texture: Array, grazing: Array) -> None:
        self._sky = sky
        self._cover = _sharpened(wet, sharp, 160)
        self._ripple = texture * np.float32(0.0012)
        self._mirror = np.clip(1 - grazing + self._ripple, 0, 1) ** 3 * np.float32(sky.reflection)
        self._high = np.clip(grazing * np.float32(1.2), 0, 1)

    def cover_with(self, colour: Array, axis: int) -> None:
        sky = self._sky
        deep = sky.water[axis] * (sky.ambient[axis] + np.float32(0.6) * sky.sun[axis])
        shown = sky.haze[axis] + self._high * (sky.zenith[axis] - sky.haze[axis])
        shown -= deep
        shown *= self._mirror
        shown += deep
        shown += self._ripple * np.float32(0.4)
        shown *= 255
        shown -= colour
        shown *= self._cover
        colour += shown


def sky_colour(sky: Conditions, east: Array, up: Array, north: Array, length: Array) -> list[Array]:
    """Three float32 planes, 0..255, of rays that end in the sky; a function of direction alone."""
    rise = np.maximum(up / length, 0)
    scale = np.float32(90) / (rise + np.float32(0.12)) / length
    cloud = _tiled(_clouds(), east * scale, north * scale).astype(np.float32)
    level = 190 - 130 * sky.clouds
    amount = np.clip((cloud - np.float32(level)) * np.float32(0.85 / 70), 0, 0.85) * np.clip(rise * 9, 0, 1)
    blend = np.sqrt(np.clip(rise * np.float32(1.8), 0, 1))
    white = np.float32(1.05) - cloud * np.float32(0.35 * sky.clouds / 255)
    planes = []
    for haze, zenith in zip(sky.haze, sky.zenith, strict=True):
        colour = haze + blend * (zenith - haze)
        colour += amount * (white * min(haze * np.float32(1.25), np.float32(1)) - colour)
        planes.append(colour * np.float32(255))
    return planes


def expose(sky: Conditions, planes: list[Array]) -> Array:
    """Contrast and exposure: float32 planes, 0..255, to a uint8 RGB picture."""
    gain = sky.contrast * sky.exposure
    lift = 112 * (1 - sky.contrast) * sky.exposure
    # OpenCV's conversion takes the absolute value; light is never below -lift / gain by much.
    return np.asarray(cv2.merge([cv2.convertScaleAbs(np.maximum(plane, 0), alpha=gain, beta=lift) for plane in planes]))


def develop(sky: Conditions, image: Array, flow: Array, fps: float, seed: int, index: int) -> Array:
    """What lens, shutter and sensor make of an exposed picture, uint8 RGB: blur, motion along `flow`, noise."""
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(image, (3, 3), max(sky.softness * width / 960, 0.35))
    if sky.shutter > 0:
        image = _motion_blurred(image, flow, min(sky.shutter * fps, 1.0) / 3)
    brighter, darker = _grain(round(sky.noise, 1))
    # Each row is a piece of one long strip of noise, and no two frames start at the same places.
    rng = np.random.default_rng([seed, 4, index])
    count = width * 3
    starts = rng.integers(len(brighter) - count, size=height)
    for row, start in zip(image.reshape(height, count), starts.tolist(), strict=True):
        cv2.add(row, brighter[start : start + count], dst=row)
        cv2.subtract(row, darker[start : start + count], dst=row)
    return image


def _motion_blurred(image: Array, flow: Array, share: float) -> Array:
    """The mean of three moments of an open shutter, `share` of the way to the next frame apart."""
    height, width = image.shape[:2]
    result = np.empty_like(image)
    columns = np.arange(width, dtype=np.float32)[None, :]
    for top in range(0, height, _BLUR_ROWS):
        band = slice(top, top + _BLUR_ROWS)
        step = flow[band] * np.float32(share)
        rows = np.arange(top, top + len(step), dtype=np.float32)[:, None]
        moments = [
            cv2.remap(
                image,
                columns + sign * step[..., 0],
                rows + sign * step[..., 1],
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            for sign in (-1, 1)
        ]
        moved = cv2.addWeighted(moments[0], 0.5, moments[1], 0.5, 0)
        result[band] = cv2.addWeighted(moved, 2 / 3, image[band], 1 / 3, 0)
    return result


def _sun_direction(sky: Conditions) -> tuple[float, float, float]:
    """(east, up, north) towards the sun."""
    level = np.cos(sky.sun_elevation)
    return (
        float(level * np.cos(sky.sun_azimuth)),
        float(np.sin(sky.sun_elevation)),
        float(level * np.sin(sky.sun_azimuth)),
    )
