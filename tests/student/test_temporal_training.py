"""Students that learn to say the same of the same thing in consecutive frames."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from edgekit_experts.dataset import Dataset
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.augment import FOLLOWING, augment
from edgekit_student.distill import distill
from edgekit_student.settings import Augmentation, DistillSettings, read_settings
from edgekit_student.student import Student
from edgekit_student.teaching import StoredTeacher
from edgekit_student.temporal import at_grid, correspondence, temporal_loss

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")


def taught(scene: Path, folder: Path, temporal: float) -> Student:
    settings = read_settings(
        DistillSettings,
        None,
        network="edge-150k",
        temporal=temporal,
        augmentation__crop=(64, 96),
        optimisation={"steps": 60, "batch": 4, "ema": 0.9},
    )
    data = Dataset.open(scene)
    return distill(StoredTeacher(data, "vote"), data, folder, settings, device="cpu")


@torch.no_grad()
def inconsistency(student: Student, scene: Path) -> float:
    video = Dataset.open(scene).video("val")
    pictures = [video.read("rgb", index) for index in range(video.frames)]
    said = [student(torch.from_numpy(p).permute(2, 0, 1)[None].float())[0].softmax(dim=1) for p in pictures]
    found = []
    for index in range(video.frames - 1):
        flow, seen = (torch.from_numpy(part)[None] for part in correspondence(pictures[index], pictures[index + 1]))
        coarse = at_grid(flow, seen, (said[0].shape[2], said[0].shape[3]))
        found.append(temporal_loss(said[index], said[index + 1], *coarse).item())
    return float(np.mean(found))


def test_consecutive_frames_agree_more_where_a_student_learns_to(scene: Path, tmp_path: Path) -> None:
    with_it, without = taught(scene, tmp_path / "with", 5.0), taught(scene, tmp_path / "without", 0.0)
    assert inconsistency(with_it, scene) < 0.8 * inconsistency(without, scene)


def test_both_frames_are_seen_through_one_window_in_the_same_colours() -> None:
    """A picture and itself: whatever is done to the first is done to the second."""
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    picture = cv2.GaussianBlur(picture, (0, 0), 2)
    modalities = {name: Modality("rgb", Kind.IMAGE, channels=3) for name in ("rgb", FOLLOWING)}
    settings = Augmentation(crop=(32, 40), hue=90, blur=2, noise=20)
    for seed in range(6):
        seen = augment({"rgb": picture, FOLLOWING: picture}, modalities, settings, np.random.default_rng(seed))
        assert np.array_equal(seen["rgb"], seen[FOLLOWING])


def test_flow_on_a_coarser_grid_is_in_its_pixels_and_holds_where_all_of_a_cell_does() -> None:
    flow = torch.tensor([8.0, -4.0]).expand(1, 32, 48, 2)
    seen = torch.ones(1, 32, 48, dtype=torch.bool)
    seen[:, 5, 9] = False
    coarse, held = at_grid(flow, seen, (8, 12))
    assert coarse.shape == (1, 2, 8, 12)
    assert coarse[0, :, 0, 0].tolist() == [2.0, -1.0]
    assert (held == 0).nonzero().tolist() == [[0, 0, 1, 2]]
