"""Colours of every kind of modality, and what the overlay draws."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import TAXONOMY

from edgekit_runtime import Frame, Kind, Modality, Overlay, Result, Timing, UsageError, colourise, load
from edgekit_runtime.overlay import Status, View

STATUS = Status(60.0, 8.0, "OpenVINO on CPU")


def test_labels_take_the_colours_of_their_taxonomy():
    labels = np.array([[0, 1], [3, 255]], np.uint8)
    picture = colourise(Modality("labels", Kind.LABELS, taxonomy=TAXONOMY), labels)
    assert picture.dtype == np.uint8
    assert picture.tolist() == [[[40, 40, 40], [0, 0, 255]], [[255, 0, 0], [0, 0, 0]]]


def test_depth_is_red_near_blue_far_and_black_where_there_is_none():
    depth = np.array([[1.0, 100.0, np.nan]], np.float32)[..., None]
    near, far, none = colourise(Modality("depth", Kind.DEPTH, dtype="float32", unit="m"), depth, (1, 100))[0]
    assert near[0] > near[2]
    assert far[2] >= far[0]
    assert none.tolist() == [0, 0, 0]


def test_normals_are_half_of_one_plus_n():
    normals = np.array([[[1, 0, -1], [np.nan] * 3]], np.float32)
    picture = colourise(Modality("normals", Kind.NORMALS, channels=3, dtype="float32"), normals)
    assert picture[0, 0].tolist() == [255, 128, 0]


def test_flow_shows_direction_as_hue_and_length_as_saturation():
    flow = np.array([[[10, 0], [-10, 0], [0, 0], [np.nan, 0]]], np.float32)
    right, left, still, none = colourise(Modality("flow", Kind.FLOW, channels=2, dtype="float32"), flow, (0, 10))[0]
    assert right.tolist() == [255, 0, 0]
    assert left.tolist() == [0, 255, 255]
    assert still.tolist() == [255, 255, 255]
    assert none.tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("modality", "array", "expected"),
    [
        (Modality("mask", Kind.MASK), np.array([[0, 1]], np.uint8), [[0] * 3, [255] * 3]),
        (Modality("edges", Kind.EDGES), np.array([[0, 99]], np.uint8), [[0] * 3, [99] * 3]),
        (
            Modality("rgb", Kind.IMAGE, channels=3),
            np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8),
            [[1, 2, 3], [4, 5, 6]],
        ),
        (
            Modality("hsv", Kind.IMAGE, channels=3, dtype="float32", range=(0, 2)),
            np.array([[[0, 1, 2], [2, 2, 3]]], np.float32),
            [[0, 128, 255], [255, 255, 255]],
        ),
    ],
)
def test_masks_edges_and_images(modality: Modality, array: np.ndarray, expected: list):
    assert colourise(modality, array)[0].tolist() == expected


@pytest.mark.parametrize("kind", [Kind.DEPTH, Kind.NORMALS, Kind.FLOW])
def test_arrays_without_any_value_are_black_and_silent(kind: Kind):
    channels = {Kind.DEPTH: 1, Kind.NORMALS: 3, Kind.FLOW: 2}[kind]
    nothing = np.full((4, 4, channels), np.nan, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not colourise(Modality("m", kind, channels=channels, dtype="float32"), nothing).any()


def test_an_array_that_does_not_fit_is_a_usage_error():
    with pytest.raises(UsageError, match=r"flow: a frame has shape \(H, W, 2\), not \(4, 4, 3\)"):
        colourise(Modality("flow", Kind.FLOW, channels=2), np.zeros((4, 4, 3)))


@pytest.fixture(scope="module")
def manifest(small_bundle: Path):
    with load(small_bundle) as model:
        return model.manifest


def result(height: int = 540, width: int = 960, grey: int = 100) -> Result:
    """The left half is class 1 (blue), the right half class 3 (red)."""
    labels = np.full((height // 4, width // 4), 1, np.uint8)
    labels[:, width // 8 :] = 3
    depth = np.tile(np.linspace(1, 100, width, dtype=np.float32), (height, 1))
    image = np.full((height, width, 3), grey, np.uint8)
    return Result(Frame(image, 0, 0.0, 0.0), labels, depth, Timing(0, 1))


def test_overlay_blends_class_colours_into_the_frame(manifest):
    picture = Overlay(manifest, View(opacity=0.5)).draw(result(), STATUS)
    assert picture[400, 300].tolist() == [178, 50, 50]
    assert picture[400, 700].tolist() == [50, 50, 178]


def test_overlay_leaves_the_frame_alone(manifest):
    frame = result()
    Overlay(manifest).draw(frame, STATUS)
    assert (frame.frame.image == 100).all()


def test_overlay_writes_live_shares_into_its_legend(manifest):
    overlay = Overlay(manifest, View(opacity=0.0))
    before = overlay.draw(result(), STATUS).copy()
    other = result()
    other.labels[:] = 2
    after = overlay.draw(other, STATUS)
    changed = np.argwhere((before != after).any(axis=2))
    assert len(changed)
    assert changed[:, 1].max() < 200, "only numbers in the legend differ"


def test_the_bundle_says_how_it_is_shown_at_first(manifest):
    assert View.at_first(manifest) == View()
    assert View.at_first(replace(manifest, display={"opacity": 0.2, "depth": True})) == View(0.2, depth=True)
    assert View.at_first(replace(manifest, display={"opacity": 7, "depth": "yes"})) == View()


def test_overlay_can_show_depth(manifest):
    picture = Overlay(manifest, View(opacity=1.0, depth=True)).draw(result(), STATUS)
    assert picture[400, 50, 2] > picture[400, 50, 0]
    assert picture[400, 900, 0] >= picture[400, 900, 2]


@pytest.mark.parametrize("size", [(48, 64), (101, 77), (540, 960), (1080, 1920)])
def test_overlay_draws_frames_of_any_size(manifest, size: tuple[int, int]):
    overlay = Overlay(manifest)
    overlay.draw(result(), STATUS)
    assert overlay.draw(result(*size), STATUS).shape == (*size, 3)


@pytest.mark.parametrize("span", [None, (0.0, 3.0)])
def test_inverse_depth_is_red_where_it_is_near_as_depth_is(span: tuple[float, float] | None) -> None:
    values = np.arange(4, dtype=np.float32).repeat(4).reshape(4, 4, 1)
    metres = Modality("depth", Kind.DEPTH, dtype="float32", unit="m")
    inverse = Modality("depth", Kind.DEPTH, dtype="uint8", unit="relative inverse depth")
    np.testing.assert_array_equal(
        colourise(inverse, (3 - values).astype(np.uint8), span), colourise(metres, values, span)
    )
