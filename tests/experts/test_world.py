"""The synthetic world keeps its promise: what it calls truth is true, and colour alone does not give it away."""

from __future__ import annotations

import hashlib
import itertools

import cv2
import numpy as np
import pytest

from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_experts.world import Flight, FlightFrame
from edgekit_experts.world.modalities import DEPTH, FLOW, LABELS, NORMALS
from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind

SIZE = (272, 480)
SEEDS = (1, 4, 7)
SKY = DRONESCAPES.classes.index("sky")


@pytest.fixture(scope="module", params=SEEDS)
def flight(request: pytest.FixtureRequest) -> Flight:
    return Flight(request.param, size=SIZE, frames=None, fps=10)  # large steps from frame to frame


@pytest.fixture(scope="module")
def pair(flight: Flight) -> tuple[FlightFrame, FlightFrame]:
    return flight.render(60), flight.render(61)


def pixels(shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.meshgrid(np.arange(shape[1], dtype=np.float64), np.arange(shape[0], dtype=np.float64))
    return x, y


def points(frame: FlightFrame, intrinsics: np.ndarray) -> np.ndarray:
    """What each pixel sees, `(H, W, 3)` in the camera frame."""
    x, y = pixels(frame.depth.shape)
    rays = np.stack(
        [(x - intrinsics[0, 2]) / intrinsics[0, 0], (y - intrinsics[1, 2]) / intrinsics[1, 1], x * 0 + 1], -1
    )
    return rays * frame.depth[..., None].astype(np.float64)


def reprojected(here: FlightFrame, there: FlightFrame, intrinsics: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each pixel of `here` lies in `there`, `(H, W, 2)`, and its depth there: from depth and poses alone."""
    move = np.linalg.inv(there.pose) @ here.pose
    moved = points(here, intrinsics) @ move[:3, :3].T + move[:3, 3]
    image = moved @ intrinsics.T
    return image[..., :2] / image[..., 2:], moved[..., 2]


def sampled(image: np.ndarray, where: np.ndarray, how: int = cv2.INTER_LINEAR) -> np.ndarray:
    x, y = (np.ascontiguousarray(where[..., axis], dtype=np.float32) for axis in (0, 1))
    return cv2.remap(image, x, y, how, borderMode=cv2.BORDER_CONSTANT)


def inside(where: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    x, y = where[..., 0], where[..., 1]
    return (x >= 1) & (y >= 1) & (x <= shape[1] - 2) & (y <= shape[0] - 2)


def seen_in_both(here: FlightFrame, there: FlightFrame, intrinsics: np.ndarray) -> np.ndarray:
    """Pixels of `here` whose surface is in `there`, not behind something."""
    where, depth = reprojected(here, there, intrinsics)
    filled = np.nan_to_num(there.depth, nan=1e6)
    # The nearest and farthest around: a border between pixels is no occlusion, a nearer surface is.
    nearest = sampled(cv2.erode(filled, np.ones((3, 3))), np.nan_to_num(where, nan=-9), cv2.INTER_NEAREST)
    return inside(where, here.depth.shape) & (nearest > 0.97 * depth)


def test_frames_have_the_declared_shapes_and_types(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    frame = pair[0]
    assert frame.rgb.shape == (*SIZE, 3)
    assert frame.rgb.dtype == np.uint8
    assert frame.depth.shape == frame.labels.shape == SIZE
    assert frame.depth.dtype == frame.normals.dtype == frame.flow.dtype == np.float32
    assert frame.normals.shape == (*SIZE, 3)
    assert frame.flow.shape == (*SIZE, 2)
    assert frame.labels.dtype == np.uint8
    assert frame.labels.max() < len(DRONESCAPES)
    assert frame.pose.shape == (4, 4)
    assert (frame.index, frame.time) == (60, 6.0)
    assert flight.intrinsics.shape == (3, 3)


def test_depth_and_normals_are_missing_in_the_sky_and_only_there(pair: tuple[FlightFrame, FlightFrame]) -> None:
    frame = pair[0]
    sky = frame.labels == SKY
    np.testing.assert_array_equal(np.isnan(frame.depth), sky)
    np.testing.assert_array_equal(np.isnan(frame.normals).any(axis=2), sky)
    assert not np.isnan(frame.flow).any()
    assert np.nanmin(frame.depth) > 5


def test_flow_is_what_depth_and_poses_say(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    here, there = pair
    where, _ = reprojected(here, there, flight.intrinsics)
    flow = where - np.stack(pixels(SIZE), -1)
    known = ~np.isnan(here.depth)
    np.testing.assert_allclose(here.flow[known], flow[known], atol=0.01)


def test_flow_in_the_sky_is_that_of_the_rotation(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    here, there = pair
    turn = flight.intrinsics @ there.pose[:3, :3].T @ here.pose[:3, :3] @ np.linalg.inv(flight.intrinsics)
    x, y = pixels(SIZE)
    image = np.stack([x, y, np.ones_like(x)], -1) @ turn.T
    flow = image[..., :2] / image[..., 2:] - np.stack([x, y], -1)
    sky = here.labels == SKY
    np.testing.assert_allclose(here.flow[sky], flow[sky], atol=0.01)


def test_depth_reprojects_into_the_next_frame(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    here, there = pair
    where, depth = reprojected(here, there, flight.intrinsics)
    visible = seen_in_both(here, there, flight.intrinsics)
    assert visible.mean() > 0.6 * (~np.isnan(here.depth)).mean()
    error = np.abs(sampled(np.nan_to_num(there.depth, nan=1e6), np.nan_to_num(where)) / depth - 1)[visible]
    assert np.median(error) < 0.002
    assert np.quantile(error, 0.9) < 0.02


def test_flow_warps_the_next_frame_onto_this_one(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    here, there = pair
    where = here.flow + np.stack(pixels(SIZE), -1)
    visible = seen_in_both(here, there, flight.intrinsics) | ((here.labels == SKY) & inside(where, SIZE))
    soft = [cv2.GaussianBlur(frame.rgb, (0, 0), 1.5).astype(np.float32) for frame in pair]
    warped = np.abs(sampled(soft[1], where) - soft[0])
    assert warped[visible].mean() < 3.0
    # Where something moves and has a pattern, the flow explains most of the change.
    pattern = np.abs(cv2.Laplacian(cv2.GaussianBlur(here.rgb, (0, 0), 2.0), cv2.CV_32F)).max(axis=2)
    moving = visible & (np.linalg.norm(here.flow, axis=2) > 1) & (pattern > 3)
    assert moving.mean() > 0.01
    assert warped[moving].mean() < 0.5 * np.abs(soft[1] - soft[0])[moving].mean()
    labels = sampled(there.labels, where, cv2.INTER_NEAREST)
    assert (labels == here.labels)[visible].mean() > 0.96


def test_normals_are_those_of_the_depth_where_it_is_smooth(
    flight: Flight, pair: tuple[FlightFrame, FlightFrame]
) -> None:
    frame = pair[0]
    surface = points(frame, flight.intrinsics)
    across = (np.roll(surface, -3, 1) - np.roll(surface, 3, 1))[8:-8, 8:-8]
    down = (np.roll(surface, -3, 0) - np.roll(surface, 3, 0))[8:-8, 8:-8]
    derived = np.cross(down, across)
    derived /= np.linalg.norm(derived, axis=2, keepdims=True)
    given = frame.normals[8:-8, 8:-8]
    # Smooth: the ground does not bend much between a pixel and those around it.
    around = cv2.blur(np.nan_to_num(frame.normals), (7, 7))[8:-8, 8:-8]
    smooth = (np.linalg.norm(around, axis=2) > 0.995) & ~np.isnan(given).any(axis=2)
    assert smooth.mean() > 0.1
    angle = np.degrees(np.arccos(np.clip(np.sum(given * derived, axis=2)[smooth], -1, 1)))
    assert np.median(angle) < 3
    assert np.quantile(angle, 0.9) < 8


def test_normals_are_unit_and_face_the_camera(flight: Flight, pair: tuple[FlightFrame, FlightFrame]) -> None:
    frame = pair[0]
    known = ~np.isnan(frame.depth)
    np.testing.assert_allclose(np.linalg.norm(frame.normals[known], axis=1), 1, atol=1e-4)
    assert (np.sum(frame.normals * points(frame, flight.intrinsics), axis=2)[known] < 0).all()


def test_poses_are_rigid_and_move_smoothly(flight: Flight) -> None:
    poses = [flight.pose(index) for index in range(100)]
    for pose in poses[::10]:
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(pose) == pytest.approx(1)
    steps = np.linalg.norm(np.diff([pose[:3, 3] for pose in poses], axis=0), axis=1) * 10
    assert steps.max() < 25  # metres per second
    assert np.abs(np.diff(steps)).max() < 2


def digest(frame: FlightFrame) -> str:
    arrays = (frame.rgb, frame.depth, frame.normals, frame.flow, frame.labels, frame.pose)
    return hashlib.sha256(b"".join(np.ascontiguousarray(array).tobytes() for array in arrays)).hexdigest()


def test_a_frame_is_a_function_of_seed_size_rate_and_number_alone(flight: Flight) -> None:
    again = Flight(flight.seed, size=SIZE, frames=70, fps=10)
    assert digest(again.render(60)) == digest(flight.render(60))
    in_order = list(itertools.islice(again, 3))
    assert [frame.index for frame in in_order] == [0, 1, 2]
    assert [digest(frame) for frame in in_order] == [digest(flight.render(index)) for index in range(3)]


def test_another_seed_is_another_flight() -> None:
    assert digest(Flight(1, size=(136, 240)).render(0)) != digest(Flight(4, size=(136, 240)).render(0))


def test_another_path_leads_over_the_same_country() -> None:
    here, there = (Flight(1, size=(136, 240), path=path) for path in (0, 1))
    assert here._land is there._land
    assert np.linalg.norm((here.pose(0) - there.pose(0))[:3, 3]) > 10
    assert digest(here.render(0)) != digest(there.render(0))


@pytest.mark.parametrize("size", [(136, 240), (97, 131), (16, 16), (240, 136)])
def test_small_and_odd_sizes_show_the_same_scene(size: tuple[int, int]) -> None:
    frame = Flight(7, size=size).render(5)
    assert frame.rgb.shape == (*size, 3)
    assert frame.labels.shape == frame.depth.shape == size
    assert np.isfinite(frame.flow).all()


def test_a_flight_ends_or_goes_on_for_ever() -> None:
    flight = Flight(7, size=(32, 48), frames=4)
    assert len(flight) == 4
    assert [frame.index for frame in flight] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        flight.render(4)
    endless = Flight(7, size=(32, 48), frames=None)
    assert endless.render(1_000_000).labels.size
    with pytest.raises(TypeError):
        len(endless)
    assert len(list(itertools.islice(endless, 6))) == 6
    assert list(Flight(7, size=(32, 48), frames=0)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"size": (8, 8)},
        {"size": (99999, 64)},
        {"fps": 0.0},
        {"fps": float("nan")},
        {"seed": -1},
        {"path": -1},
        {"frames": -2},
    ],
)
def test_flights_that_make_no_sense_are_refused(arguments: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Flight(**{"seed": 1, **arguments})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def views() -> dict[int, list[FlightFrame]]:
    """A few small frames of several flights."""
    return {
        seed: [flight.render(index) for index in range(0, 500, 50)]
        for seed in (1, 4, 7, 10)
        for flight in [Flight(seed, size=(136, 240), frames=None)]
    }


def test_all_classes_are_there_in_useful_shares(views: dict[int, list[FlightFrame]]) -> None:
    labels = np.stack([frame.labels for frames in views.values() for frame in frames])
    share = dict(zip(DRONESCAPES.classes, np.bincount(labels.ravel(), minlength=8) / labels.size, strict=True))
    assert min(share.values()) > 0.003, share
    assert all(share[name] > 0.015 for name in share if name != "little-objects"), share
    assert max(share.values()) < 0.6, share


def test_colour_alone_does_not_give_the_labels_away(views: dict[int, list[FlightFrame]]) -> None:
    """The best guess per colour, learnt on all flights but one, tried on that one."""
    counts = {}
    for seed, frames in views.items():
        colour = np.concatenate([(frame.rgb >> 4).reshape(-1, 3) for frame in frames]).astype(np.int64)
        labels = np.concatenate([frame.labels.ravel() for frame in frames])
        code = (colour[:, 0] * 256 + colour[:, 1] * 16 + colour[:, 2]) * 8 + labels
        counts[seed] = np.bincount(code, minlength=4096 * 8).reshape(4096, 8)
    confusion = np.zeros((8, 8))
    for seed in views:
        learnt = sum(counts[other] for other in views if other != seed)
        assert isinstance(learnt, np.ndarray)
        balanced = learnt / learnt.sum(axis=0)  # classes count alike, as they do in the score
        guess = balanced.argmax(axis=1)
        for value in range(8):
            confusion[:, value] += counts[seed][guess == value].sum(axis=0)
    hits = np.diag(confusion)
    miou = float(np.mean(hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)))
    assert miou < 0.35, f"{miou:.3f}"


def test_light_and_colours_differ_between_flights(views: dict[int, list[FlightFrame]]) -> None:
    means = [np.mean([frame.rgb.mean(axis=(0, 1)) for frame in frames], axis=0) for frames in views.values()]
    assert np.std(means, axis=0).min() > 4


def test_truth_is_declared_as_truth() -> None:
    assert [modality.name for modality in (LABELS, DEPTH, NORMALS, FLOW)] == [
        "labels",
        "true_depth",
        "true_normals",
        "true_flow",
    ]
    assert all(modality.truth for modality in (LABELS, DEPTH, NORMALS, FLOW))
    assert LABELS.taxonomy == DRONESCAPES
    assert [modality.kind for modality in (LABELS, DEPTH, NORMALS, FLOW)] == [
        Kind.LABELS,
        Kind.DEPTH,
        Kind.NORMALS,
        Kind.FLOW,
    ]
