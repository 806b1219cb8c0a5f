"""Calibration frames show as much as possible."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.diversity import most_different, thumbnail


def _picture(grey: int) -> np.ndarray:
    return np.full((72, 128, 3), grey, np.uint8)


def test_one_of_each_scene_is_taken_however_often_it_is_shown() -> None:
    """Fifty frames by day, three at dusk, one in a tunnel: all three are there."""
    frames = [_picture(200 + n % 5) for n in range(50)] + [_picture(90 + n) for n in range(3)] + [_picture(10)]
    taken = most_different([thumbnail(frame) for frame in frames], 3)
    assert {"day" if n < 50 else "dusk" if n < 53 else "tunnel" for n in taken} == {"day", "dusk", "tunnel"}


def test_every_frame_is_near_one_that_is_taken() -> None:
    points = [np.array([np.cos(a), np.sin(a)]) for a in np.linspace(0, 2 * np.pi, 200, endpoint=False)]
    taken = most_different(points, 8)
    assert len(set(taken)) == 8
    assert taken == sorted(taken)
    farthest = max(min(np.linalg.norm(p - points[t]) for t in taken) for p in points)
    best = 2 * np.sin(np.pi / 16)  # eight evenly spaced
    assert farthest <= 2 * best


@pytest.mark.parametrize("count", [3, 4])
def test_fewer_frames_than_asked_for_are_all_taken(count: int) -> None:
    assert most_different([thumbnail(_picture(n)) for n in range(3)], count) == [0, 1, 2]


def test_equal_frames_are_no_trouble() -> None:
    assert len(set(most_different([thumbnail(_picture(5))] * 9, 4))) == 4
