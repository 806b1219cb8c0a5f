"""Steadier labels: what flickers for one frame is not shown, what moves or is new is not held back."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit_runtime import Frame, Result, run
from edgekit_runtime.model import Timing
from edgekit_runtime.smoothing import Smoothing

STEP = 6  # pixels a frame
SIZE, GRID = (270, 480), (90, 160)


@pytest.fixture(scope="module")
def street() -> np.ndarray:
    """A wide picture with much to see, of which a camera that pans shows a part: uint8 BGR."""
    import cv2

    rng = np.random.default_rng(3)
    noise = rng.integers(0, 256, (27, 200, 3), np.uint8)
    return cv2.resize(noise, (SIZE[1] * 4, SIZE[0]), interpolation=cv2.INTER_CUBIC)


def seen(street: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Frame `number` of the pan, and its true classes: bright or dark."""
    left = number * STEP
    image = np.ascontiguousarray(street[:, left : left + SIZE[1]])
    truth = (image[1::3, 1::3].mean(axis=2) > 127).astype(np.uint8)
    return image, truth


def result(image: np.ndarray, labels: np.ndarray, number: int, captured: float | None = None) -> Result:
    frame = Frame(image, number, number / 30, number / 30 if captured is None else captured)
    return Result(frame, labels, None, Timing(0, 1))


def flickering(truth: np.ndarray, number: int) -> np.ndarray:
    """Every other frame, blobs of another class here and there."""
    labels = truth.copy()
    if number % 2:
        rng = np.random.default_rng(number)
        for row, column in zip(rng.integers(5, 80, 12), rng.integers(20, 140, 12), strict=True):
            labels[row : row + 5, column : column + 5] = 2
    return labels


def test_what_flickers_for_one_frame_is_not_shown_though_the_camera_moves(street: np.ndarray):
    smooth = Smoothing()
    wrong_before, wrong_after = [], []
    for number in range(20):
        image, truth = seen(street, number)
        labels = flickering(truth, number)
        shown = smooth(result(image, labels, number)).labels
        wrong_before.append((labels != truth).mean())
        wrong_after.append((shown != truth).mean())
    assert np.mean(wrong_after[2:]) < 0.4 * np.mean(wrong_before[2:])


def test_what_does_not_flicker_stays_what_it_was(street: np.ndarray):
    smooth = Smoothing()
    for number in range(20):
        image, truth = seen(street, number)
        shown = smooth(result(image, truth, number)).labels
        assert (shown != truth).mean() < 0.02


def test_a_cut_shows_the_new_classes_at_once(street: np.ndarray):
    smooth = Smoothing()
    for number in range(5):
        image, truth = seen(street, number)
        smooth(result(image, truth, number))
    image = 255 - np.ascontiguousarray(street[::-1, -SIZE[1] :])
    labels = np.full(GRID, 3, np.uint8)
    shown = smooth(result(image, labels, 5)).labels
    assert (shown == 3).mean() > 0.85


def test_after_a_gap_or_another_size_it_begins_anew(street: np.ndarray):
    smooth = Smoothing()
    image, truth = seen(street, 0)
    for number in range(3):
        smooth(result(image, truth, number))
    other = 1 - truth
    late = smooth(result(image, other, 3, captured=10.0)).labels
    np.testing.assert_array_equal(late, other)
    finer = np.full((180, 320), 1, np.uint8)
    np.testing.assert_array_equal(smooth(result(image, finer, 4, captured=10.03)).labels, finer)
    upright = np.ascontiguousarray(image.transpose(1, 0, 2))
    np.testing.assert_array_equal(smooth(result(upright, finer, 5, captured=10.06)).labels, finer)


def test_a_result_without_labels_passes(street: np.ndarray):
    image, truth = seen(street, 0)
    bare = replace(result(image, truth, 0), labels=None)
    assert Smoothing()(bare) is bare


def test_the_loop_smooths_when_asked(small_bundle: Path):
    stats = run(small_bundle, "test:?fps=0&frames=20&size=96x64", ["null"], smooth=True)
    assert stats.frames == 20
