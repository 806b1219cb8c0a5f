"""Simulated experts err as networks do: in regions, differently from each other, never by colour."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from edgekit_experts.expert import Batch, Expert
from edgekit_experts.simulated import SimulatedDepth, SimulatedSharp, SimulatedSloppy, SimulatedSmooth
from edgekit_experts.taxonomies import CAMVID, DRONESCAPES
from edgekit_experts.world import Flight, FlightFrame
from edgekit_experts.world.modalities import DEPTH, LABELS, NORMALS
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind, Modality

SEMANTIC = (SimulatedSharp, SimulatedSmooth, SimulatedSloppy)
WANTED = {SimulatedSharp: 0.53, SimulatedSmooth: 0.50, SimulatedSloppy: 0.45}
THINGS = DRONESCAPES.classes.index("little-objects")


@pytest.fixture(scope="module")
def views() -> list[FlightFrame]:
    """Frames of several flights, far enough apart to differ."""
    return [
        flight.render(index)
        for seed in (1, 4, 7, 10)
        for flight in [Flight(seed, size=(272, 480), frames=None)]
        for index in range(0, 600, 75)
    ]


def batch(frames: list[FlightFrame], first: int) -> Batch:
    return Batch(
        np.stack([frame.rgb for frame in frames]),
        {
            "labels": np.stack([frame.labels for frame in frames])[..., None],
            "true_depth": np.stack([frame.depth for frame in frames])[..., None].astype(np.float16),
        },
        first,
    )


@pytest.fixture(scope="module")
def answers(views: list[FlightFrame]) -> dict[type[Expert], np.ndarray]:
    return {
        kind: np.concatenate([kind().compute(batch([frame], frame.index)) for frame in views])[..., 0]
        for kind in SEMANTIC
    }


@pytest.fixture(scope="module")
def truth(views: list[FlightFrame]) -> np.ndarray:
    return np.stack([frame.labels for frame in views])


def miou(truth: np.ndarray, answer: np.ndarray) -> float:
    confusion = np.bincount(truth.ravel() * 8 + answer.ravel().astype(np.int64), minlength=64).reshape(8, 8)
    hits = np.diag(confusion)
    return float(np.mean(hits / (confusion.sum(axis=0) + confusion.sum(axis=1) - hits)))


@pytest.mark.parametrize("kind", SEMANTIC)
def test_each_is_as_good_as_it_says(
    kind: type[Expert], truth: np.ndarray, answers: dict[type[Expert], np.ndarray]
) -> None:
    assert miou(truth, answers[kind]) == pytest.approx(WANTED[kind], abs=0.06)


@pytest.mark.parametrize("kind", [*SEMANTIC, SimulatedDepth])
def test_an_answer_depends_on_seed_frame_and_truth_alone(kind: type[Expert], views: list[FlightFrame]) -> None:
    frames = views[:3]
    whole = kind(seed=3).compute(batch(frames, 10))  # type: ignore[call-arg]
    warm = kind(seed=3)  # type: ignore[call-arg]
    warm.compute(batch(frames[::-1], 90))
    parts = [warm.compute(batch([frame], 10 + n)) for n, frame in enumerate(frames)]
    np.testing.assert_array_equal(whole, np.concatenate(parts))
    other = kind(seed=4).compute(batch(frames, 10))  # type: ignore[call-arg]
    assert (other != whole).mean() > 0.02


@pytest.mark.parametrize("kind", [*SEMANTIC, SimulatedDepth])
def test_no_error_is_a_function_of_colour(kind: type[Expert], views: list[FlightFrame]) -> None:
    plain = batch(views[:1], 5)
    recoloured = Batch(255 - plain.frames, plain.inputs, plain.first)
    np.testing.assert_array_equal(kind().compute(plain), kind().compute(recoloured))


def test_their_errors_are_related_but_not_the_same(truth: np.ndarray, answers: dict[type[Expert], np.ndarray]) -> None:
    wrong = [answers[kind] != truth for kind in SEMANTIC]
    for a, b in ((0, 1), (0, 2), (1, 2)):
        common = (wrong[a] & wrong[b]).sum() / (wrong[a] | wrong[b]).sum()
        assert 0.1 < common < 0.7
    assert (wrong[0] & wrong[1] & wrong[2]).mean() > 0.02  # no vote can mend these


def test_a_vote_helps_and_does_not_mend_everything(truth: np.ndarray, answers: dict[type[Expert], np.ndarray]) -> None:
    sharp, smooth, sloppy = (answers[kind] for kind in SEMANTIC)
    vote = np.where(smooth == sloppy, smooth, sharp)
    best = max(miou(truth, answer) for answer in (sharp, smooth, sloppy))
    assert best + 0.01 < miou(truth, vote) < 0.8


@pytest.mark.parametrize("kind", SEMANTIC)
def test_errors_are_regions_not_pixels(
    kind: type[Expert], truth: np.ndarray, answers: dict[type[Expert], np.ndarray]
) -> None:
    wrong = (answers[kind] != truth).astype(np.uint8)
    opened = np.stack([cv2.morphologyEx(one, cv2.MORPH_OPEN, np.ones((5, 5), np.uint8)) for one in wrong])
    assert opened.sum() > 0.5 * wrong.sum()


@pytest.mark.parametrize("kind", SEMANTIC)
def test_errors_stay_from_frame_to_frame(kind: type[Expert]) -> None:
    flight = Flight(7, size=(272, 480), frames=None)
    frames = [flight.render(index) for index in (100, 101)]
    answer = kind().compute(batch(frames, 100))[..., 0]
    wrong = [one != frame.labels for one, frame in zip(answer, frames, strict=True)]
    assert (wrong[0] & wrong[1]).sum() > 0.6 * (wrong[0] | wrong[1]).sum()


@pytest.mark.parametrize("kind", SEMANTIC)
def test_small_things_are_missed(
    kind: type[Expert], truth: np.ndarray, answers: dict[type[Expert], np.ndarray]
) -> None:
    seen = (answers[kind] == THINGS)[truth == THINGS].mean()
    assert 0.05 < seen < 0.75


@pytest.mark.parametrize("kind", SEMANTIC)
def test_they_declare_labels_under_their_own_name(kind: type[Expert]) -> None:
    expert = kind()
    assert expert.requires == ("labels",)
    modality = expert.produces({"labels": LABELS})
    assert modality.kind is Kind.LABELS
    assert modality.taxonomy == DRONESCAPES
    assert not modality.truth
    assert modality.name == f"simulated_{kind.__name__.removeprefix('Simulated').lower()}"


@pytest.mark.parametrize("size", [(16, 16), (97, 131)])
def test_odd_sizes_work(size: tuple[int, int]) -> None:
    frame = Flight(7, size=size).render(0)
    for kind in (*SEMANTIC, SimulatedDepth):
        assert kind().compute(batch([frame], 0)).shape == (1, *size, 1)


def test_depth_has_the_right_form_and_a_drifting_scale(views: list[FlightFrame]) -> None:
    expert = SimulatedDepth()
    assert expert.produces({"true_depth": DEPTH}) == Modality(
        "simulated_depth", Kind.DEPTH, dtype="float16", range=(0.0, 65504.0), unit="m"
    )
    frame = views[0]
    known = frame.depth < 500
    scales = []
    for index in range(0, 2000, 100):
        answer = expert.compute(batch([frame], index))
        assert answer.dtype == np.float16
        assert np.isfinite(answer).all()
        ratio = answer[0, ..., 0][known] / frame.depth[known]
        scales.append(np.median(ratio))
        assert 0.02 < np.std(ratio) < 0.4
    assert 0.04 < np.std(scales) < 0.3
    assert np.mean(scales) == pytest.approx(1, abs=0.15)


def test_wrong_inputs_and_parameters_are_refused() -> None:
    with pytest.raises(ExpertError):
        SimulatedSharp(seed=-1)
    with pytest.raises(ExpertError):
        SimulatedDepth(farthest=1e9)
    with pytest.raises(ExpertError):
        SimulatedSmooth().produces({"labels": DEPTH})
    with pytest.raises(ExpertError):
        SimulatedSmooth().produces({"labels": Modality("labels", Kind.LABELS, taxonomy=CAMVID)})
    with pytest.raises(ExpertError):
        SimulatedDepth().produces({"true_depth": NORMALS})
