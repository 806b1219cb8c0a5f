"""Depth and normals against exact truth, on pictures whose errors are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.commands.scores import score_model
from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import DataError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.geometry_scores import DepthErrors, NormalErrors, alignment

TRUTH = np.linspace(5, 100, 2000).reshape(40, 50)


def depth(unit: str) -> Modality:
    return Modality("depth", Kind.DEPTH, dtype="float32", unit=unit)


def measured(found: np.ndarray, unit: str, truth: np.ndarray = TRUTH) -> dict[str, float]:
    errors = DepthErrors()
    errors.add(found.astype(np.float32), depth(unit), truth.astype(np.float32))
    return errors.measures()


def test_metric_depth_is_taken_as_it_is() -> None:
    found = measured(1.1 * TRUTH, "m")
    assert found["depth_abs_rel"] == pytest.approx(0.1, abs=1e-4)
    assert found["depth_rmse_m"] == pytest.approx(0.1 * np.sqrt(np.mean(TRUTH**2)), rel=1e-3)
    assert found["depth_delta1"] == 1
    assert measured(1.3 * TRUTH, "m")["depth_delta1"] == 0
    assert measured(1 / TRUTH, "1/m")["depth_abs_rel"] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(
    ("unit", "found", "words"),
    [
        ("relative", 0.01 * TRUTH, "median scale, per frame"),
        ("relative inverse depth", 3 + 40 / TRUTH, "scale and shift of inverse depth, per frame"),
    ],
)
def test_relative_depth_is_aligned_first_and_the_score_says_how(unit: str, found: np.ndarray, words: str) -> None:
    assert alignment(depth(unit)) == words
    assert measured(found, unit)["depth_abs_rel"] == pytest.approx(0, abs=1e-3)


def test_pixels_without_a_depth_do_not_count_and_are_told() -> None:
    truth, found = TRUTH.copy(), TRUTH.copy()
    truth[:20], found[20:30] = np.nan, np.nan
    assert measured(found, "m", truth)["depth_coverage"] == 0.5
    assert measured(found, "m", truth)["depth_abs_rel"] == pytest.approx(0, abs=1e-6)
    assert measured(TRUTH, "m", np.full_like(TRUTH, np.nan)) == {}


@pytest.mark.parametrize("degrees", [0.0, 5.0, 20.0, 25.0, 90.0, 180.0])
def test_normals_are_judged_by_the_angle_between_them(degrees: float) -> None:
    truth = np.zeros((8, 9, 3), np.float32)
    truth[..., 2] = -1
    angle = np.radians(degrees)
    found = np.zeros_like(truth) + np.array([np.sin(angle), 0, -np.cos(angle)], np.float32) * 3
    errors = NormalErrors()
    errors.add(found, Modality("normals", Kind.NORMALS, 3, "float32"), truth)
    measures = errors.measures()
    assert measures["normals_mean_deg"] == pytest.approx(degrees, abs=1e-3)
    assert measures["normals_median_deg"] == pytest.approx(degrees, abs=0.11)
    within = [measures[f"normals_within_{name}_deg"] for name in ("11_25", "22_5", "30")]
    assert within == [float(degrees < limit) for limit in (11.25, 22.5, 30)]


def test_videos_add_up() -> None:
    near, far = DepthErrors(), DepthErrors()
    near.add(TRUTH, depth("m"), TRUTH)
    far.add(2 * TRUTH, depth("m"), TRUTH)
    assert (near + far).measures()["depth_abs_rel"] == pytest.approx(0.5)


@pytest.fixture
def exact(scene: Path) -> Dataset:
    data = Dataset.open(scene)
    with data.writing("val") as video:
        video.declare(Modality("true_depth", Kind.DEPTH, dtype="float16", unit="m", truth=True), expert="by hand")
        video.write("true_depth", 0, video.read_many("depth", 0, video.frames) * np.float16(2))
    return data


def test_a_stored_depth_is_scored_alone(exact: Dataset) -> None:
    score = score_model("expert:depth", exact, "val").to_dict()
    assert score["depth_abs_rel"] == pytest.approx(0.5)
    assert (score["taxonomy"], score["miou"], score["per_class"]) == (None, None, {})
    assert score["geometry_truth"] == {"depth": "true_depth"}
    assert score["geometry_per_video"]["val"]["depth_rmse_m"] == pytest.approx(20)


def test_without_exact_depth_there_is_nothing_to_score_against(exact: Dataset) -> None:
    with pytest.raises(DataError, match="'train' has no exact depth") as caught:
        score_model("expert:depth", exact, "train")
    assert "Exact depth is in val" in caught.value.hint


def test_labels_of_another_taxonomy_and_empty_splits_are_refused(exact: Dataset) -> None:
    other = Taxonomy("other", ("land", "water"), ((0, 0, 0), (1, 1, 1)))
    with exact.writing("val") as video:
        video.declare(Modality("foreign", Kind.LABELS, taxonomy=other), expert="by hand")
        video.write("foreign", 0, np.zeros((video.frames, *video.size, 1), np.uint8))
    with pytest.raises(DataError, match="speaks 'other'"):
        score_model("expert:foreign", exact, "val")
    with pytest.raises(DataError, match="no labels"):
        score_model("expert:vote", exact, "test")
