"""Edges, segments, key points and flow of made-up pictures whose answers are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekit_experts.classical.edges import Gradients
from edgekit_experts.classical.features import KeyPoints
from edgekit_experts.classical.flow import DisFlow, FarnebackFlow
from edgekit_experts.classical.softseg import (
    GeneralisedBoundaries,
    Halftone,
    SoftSegmentation,
    Superpixels,
    waterpixels,
)
from edgekit_experts.expert import Batch, Expert
from edgekit_runtime.errors import ExpertError

LEFT, RIGHT = (120, 60, 60), (60, 60, 150)


def only(expert: Expert, frame: np.ndarray) -> np.ndarray:
    return expert.compute(Batch(frame[None], {}, 0))[0]


@pytest.fixture
def halves() -> np.ndarray:
    """Two colours side by side, with a little noise."""
    frame = np.empty((80, 120, 3), np.float64)
    frame[:, :60], frame[:, 60:] = LEFT, RIGHT
    frame += np.random.default_rng(0).normal(0, 2, frame.shape)
    return frame.clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("expert", [Gradients(), GeneralisedBoundaries()])
def test_boundaries_are_where_the_colour_changes(expert: Expert, halves: np.ndarray) -> None:
    strength = only(expert, halves)[..., 0].astype(float)
    row = strength[10:-10].mean(axis=0)
    assert 57 <= int(row.argmax()) <= 62
    assert row.max() > 5 * row[20:40].mean()


def test_gradients_see_a_change_of_colour_at_equal_brightness() -> None:
    frame = np.zeros((40, 40, 3), np.uint8)
    frame[:, :20], frame[:, 20:] = (200, 0, 0), (0, 102, 0)
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    assert abs(int(grey[0, 0]) - int(grey[0, -1])) <= 1
    assert only(Gradients(), frame)[20, 19:21].min() > 200


def test_soft_segments_are_even_inside_and_different_outside(halves: np.ndarray) -> None:
    segments = only(SoftSegmentation(), halves).astype(float)
    left, right = segments[10:70, 10:50], segments[10:70, 70:110]
    first = 0  # the component that explains most
    assert abs(left[..., first].mean() - right[..., first].mean()) > 60
    assert max(left[..., first].std(), right[..., first].std()) < 12
    np.testing.assert_array_equal(only(SoftSegmentation(), halves), only(SoftSegmentation(), halves))


def test_superpixels_cover_the_frame_and_keep_to_its_borders(halves: np.ndarray) -> None:
    owner = waterpixels(halves, 10, 1.0)
    count = int(owner.max()) + 1
    assert set(np.unique(owner)) == set(range(count))
    assert 80 <= count <= 110
    # Nearly none lies on both sides of the border between the colours.
    both = [np.unique(owner[:, :58]), np.unique(owner[:, 63:])]
    assert len(np.intersect1d(*both)) <= 4
    painted = only(Superpixels(size=10), halves).astype(float)
    assert np.abs(painted[:, 5:55] - LEFT).max() < 12
    assert np.abs(painted[:, 66:115] - RIGHT).max() < 12


@pytest.mark.parametrize("grey", [40, 128, 220])
def test_a_halftone_is_as_dark_as_the_frame(grey: int) -> None:
    dots = only(Halftone(), np.full((90, 90, 3), grey, np.uint8))
    assert set(np.unique(dots)) == {0, 255}
    assert dots.mean() == pytest.approx(grey, abs=3)


@pytest.mark.parametrize("detector", ["sift", "orb"])
def test_key_points_are_at_what_stands_out_and_nowhere_in_the_plain(detector: str) -> None:
    frame = np.full((120, 160, 3), 90, np.uint8)
    cv2.rectangle(frame, (60, 40), (76, 56), (220, 220, 220), -1)
    points = only(KeyPoints(detector), frame)[..., 0]
    assert points.any()
    assert not points[:20].any()
    assert points[34:62, 54:82].any()
    assert not only(KeyPoints(detector), np.full((60, 60, 3), 90, np.uint8)).any()


@pytest.mark.parametrize("kind", [DisFlow, FarnebackFlow])
@pytest.mark.parametrize("gap", [1, -1, 2])
def test_flow_follows_a_moving_texture(kind: type[DisFlow] | type[FarnebackFlow], gap: int) -> None:
    texture = cv2.GaussianBlur(np.random.default_rng(1).integers(0, 256, (140, 200, 3), np.uint8), (0, 0), 3)
    texture = cv2.normalize(texture, None, 0, 255, cv2.NORM_MINMAX)
    frames = np.stack([texture[20 - n : 120 - n, 30 - 2 * n : 180 - 2 * n] for n in range(4)])
    expert = kind(gap=gap)
    before, after = expert.context
    flow = expert.compute(Batch(frames, {}, 0))
    assert len(flow) == 4 - before - after
    middle = flow[0, 30:-30, 30:-30].astype(float)
    assert np.median(middle, axis=(0, 1)) == pytest.approx([2 * gap, gap], abs=0.25)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (DisFlow, {"gap": 0}),
        (DisFlow, {"preset": "slow"}),
        (FarnebackFlow, {"window": 1}),
        (Gradients, {"sigma": 0}),
        (SoftSegmentation, {"sigma": -1}),
        (GeneralisedBoundaries, {"radius": 0}),
        (Superpixels, {"size": 1}),
        (Halftone, {"dot": 1}),
        (KeyPoints, {"detector": "surf"}),
        (KeyPoints, {"count": 0}),
    ],
)
def test_parameters_that_make_no_sense_are_refused(kind: type[Expert], parameters: dict[str, object]) -> None:
    with pytest.raises(ExpertError):
        kind(**parameters)
