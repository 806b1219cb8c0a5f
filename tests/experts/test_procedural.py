"""What follows from other experts' answers: votes over maps and time, masks, depth from motion."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit_experts.classical.labels import MajorityVote, TemporalMedian, weighted_vote
from edgekit_experts.classical.masks import ClassMask, Confident, Nearby, SafeLanding, groups
from edgekit_experts.classical.parallax import ParallaxDepth, depth_from_flow
from edgekit_experts.expert import Batch
from edgekit_experts.taxonomies import CAMVID, CITYSCAPES, DRONESCAPES, TAXONOMIES
from edgekit_experts.world import Flight
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

NO_FRAMES = np.zeros((1, 1, 1, 3), np.uint8)
METRES = Modality("depth", Kind.DEPTH, dtype="float16", unit="m")
INVERSE = Modality("depth", Kind.DEPTH, dtype="float16", unit="relative inverse depth")


def labels(name: str, taxonomy: object = DRONESCAPES) -> Modality:
    return Modality(name, Kind.LABELS, taxonomy=taxonomy)  # type: ignore[arg-type]


def pixels(*values: float, dtype: str = "uint8") -> np.ndarray:
    return np.array(values, dtype).reshape(1, 1, -1, 1)


def test_a_weighted_vote_agrees_with_counting_out() -> None:
    rng = np.random.default_rng(0)
    maps = [rng.integers(0, 4, (20, 30, 1)).astype(np.uint8) for _ in range(4)]
    for one in maps:
        one[rng.random(one.shape) < 0.3] = 255
    weights = [0.5, 1.5, 1.0, 2.25]
    sums = np.stack([sum(w * (one == k) for w, one in zip(weights, maps, strict=True)) for k in range(4)])
    expected = np.where(sums.max(axis=0) > 0, sums.argmax(axis=0), 255)
    np.testing.assert_array_equal(weighted_vote(maps, weights, 255), expected)


def test_equal_weights_are_a_majority() -> None:
    rng = np.random.default_rng(1)
    inputs = {name: rng.integers(0, 8, (1, 9, 9, 1)).astype(np.uint8) for name in "abc"}
    answers = []
    for expert in (MajorityVote(tuple("abc")), MajorityVote(tuple("abc"), weights=(2, 2, 2))):
        expert.produces({name: labels(name) for name in "abc"})
        answers.append(expert.compute(Batch(NO_FRAMES, inputs, 0)))
    np.testing.assert_array_equal(*answers)
    with pytest.raises(ExpertError, match="weights"):
        MajorityVote(("a", "b"), weights=(1,))


def test_the_temporal_median_of_labels_is_their_majority() -> None:
    expert = TemporalMedian("a", frames=3)
    assert expert.context == (1, 1)
    assert expert.produces({"a": labels("a")}).taxonomy == DRONESCAPES
    over_time = np.uint8([[0, 1, 255], [0, 2, 255], [3, 2, 4], [3, 5, 255]]).reshape(4, 1, 3, 1)
    steady = expert.compute(Batch(NO_FRAMES, {"a": over_time}, 0))
    assert steady.reshape(2, 3).tolist() == [[0, 2, 4], [3, 2, 4]]


def test_the_temporal_median_of_depth_passes_over_holes() -> None:
    expert = TemporalMedian("depth", frames=3)
    expert.produces({"depth": METRES})
    over_time = np.array([[1, np.nan], [9, np.nan], [2, np.nan]], np.float16).reshape(3, 1, 2, 1)
    steady = expert.compute(Batch(NO_FRAMES, {"depth": over_time}, 0))
    assert steady.dtype == np.float16
    np.testing.assert_array_equal(steady.ravel(), [2, np.nan])


def test_a_class_mask_counts_maps_of_different_taxonomies() -> None:
    expert = ClassMask(("a", "b", "c"), group="buildings")
    modality = expert.produces({"a": labels("a"), "b": labels("b", CAMVID), "c": labels("c", CITYSCAPES)})
    assert modality.kind is Kind.MASK
    inputs = {"a": pixels(2, 2, 0, 255), "b": pixels(1, 0, 1, 1), "c": pixels(2, 0, 0, 255)}
    assert expert.compute(Batch(NO_FRAMES, inputs, 0)).ravel().tolist() == [1, 0, 0, 1]
    strict = ClassMask(("a", "b", "c"), group="buildings", votes=3)
    strict.produces({"a": labels("a"), "b": labels("b", CAMVID), "c": labels("c", CITYSCAPES)})
    assert strict.compute(Batch(NO_FRAMES, inputs, 0)).ravel().tolist() == [1, 0, 0, 0]


def test_every_group_names_classes_that_exist_in_every_taxonomy_that_ships() -> None:
    for table in groups().values():
        assert set(table) == set(TAXONOMIES)
        for name, classes in table.items():
            assert set(classes) <= set(TAXONOMIES[name].classes)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"of": ("a",), "group": "bildings"}, "buildings"),
        ({"of": ("a",)}, "either a group or classes"),
        ({"of": ("a",), "group": "buildings", "classes": ("road",)}, "either"),
        ({"of": ("a",), "classes": ("raod",)}, "road"),
    ],
)
def test_a_class_mask_of_nothing_known_is_refused(parameters: dict[str, object], message: str) -> None:
    with pytest.raises(ExpertError) as caught:
        ClassMask(**parameters).produces({"a": labels("a")})  # type: ignore[arg-type]
    assert message in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(("depth", "expected"), [(METRES, [1, 0, 0, 0]), (INVERSE, [0, 1, 0, 0])])
def test_nearby_knows_which_way_depth_counts(depth: Modality, expected: list[int]) -> None:
    expert = Nearby("mask", "depth", limit=0.3)
    expert.produces({"mask": Modality("mask", Kind.MASK), "depth": depth})
    inputs = {"mask": pixels(1, 1, 0, 1), "depth": pixels(0.1, 0.8, 0.1, np.nan, dtype="float16")}
    assert expert.compute(Batch(NO_FRAMES, inputs, 0)).ravel().tolist() == expected


def test_only_level_near_and_known_ground_is_safe_to_land_on() -> None:
    expert = SafeLanding("normals", "depth", farthest=50)
    expert.produces({"normals": Modality("normals", Kind.NORMALS, 3, "float16"), "depth": METRES})
    ground, wall, slope, ceiling, hole = (0, -0.98, -0.2), (0, 0, -1), (0.75, -0.66, 0), (0, 1, 0), (np.nan,) * 3
    normals = np.array([ground, ground, wall, slope, ceiling, hole, ground], np.float16).reshape(1, 1, 7, 3)
    depth = pixels(20, 80, 20, 20, 20, 20, np.nan, dtype="float16")
    inputs = {"normals": normals, "depth": depth}
    assert expert.compute(Batch(NO_FRAMES, inputs, 0)).ravel().tolist() == [1, 0, 0, 0, 0, 0, 0]
    careful = SafeLanding("normals", "depth", semantics="mask", farthest=50)
    careful.produces(
        {
            "normals": Modality("normals", Kind.NORMALS, 3, "float16"),
            "depth": METRES,
            "mask": Modality("mask", Kind.MASK),
        }
    )
    inputs["mask"] = pixels(0, 1, 1, 1, 1, 1, 1)
    assert not careful.compute(Batch(NO_FRAMES, inputs, 0)).any()


def test_two_of_three_are_confident_at_two_thirds() -> None:
    expert = Confident("agreement", least=2 / 3)
    expert.produces({"agreement": Modality("agreement", Kind.IMAGE, 1)})
    inputs = {"agreement": pixels(0, 85, 170, 255)}
    assert expert.compute(Batch(NO_FRAMES, inputs, 0)).ravel().tolist() == [0, 0, 1, 1]


@pytest.fixture(scope="module")
def flight() -> Flight:
    return Flight(4, size=(136, 240), frames=None, fps=5)


def test_parallax_is_exact_where_flow_is(flight: Flight) -> None:
    frame, k = flight.render(20), flight.intrinsics
    depth = depth_from_flow(frame.flow, (k[0, 0], k[1, 1], k[0, 2], k[1, 2]), 1.0).astype(np.float32)
    known = np.isfinite(depth)
    assert known.mean() > 0.7 * np.isfinite(frame.depth).mean()
    both = known & np.isfinite(frame.depth)
    assert both.sum() > 0.99 * known.sum()
    assert np.nanmedian(depth) == pytest.approx(1, abs=0.01)
    scale = np.median(frame.depth[both]) / np.median(depth[both])
    assert np.percentile(np.abs(scale * depth[both] / frame.depth[both] - 1), 90) < 0.02


def test_a_camera_that_stands_still_shows_no_depth() -> None:
    expert = ParallaxDepth("flow")
    modality = expert.produces({"flow": Modality("flow", Kind.FLOW, 2, "float16", unit="px")})
    still = np.random.default_rng(0).normal(0, 0.05, (2, 60, 80, 2)).astype(np.float16)
    depth = expert.compute(Batch(NO_FRAMES, {"flow": still}, 0))
    assert depth.shape == (2, 60, 80, 1)
    assert depth.dtype.name == modality.dtype
    assert np.isnan(depth).all()
