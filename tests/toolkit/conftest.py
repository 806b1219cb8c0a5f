"""A student that knows a little, trained in seconds on the synthetic world, and a profile of its size."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from small_student import SIZE, new_student
from torch.nn import functional as F

from edgekit import cli
from edgekit.build import Built, build_student
from edgekit.profiles import Profile, load_profile
from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_experts.world import Flight
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.student import load_student

# Small networks of transformers are made as the experts' tests make them.
sys.path.append(str(Path(__file__).resolve().parents[1] / "experts"))

PROFILE = """
inherits = "laptop-cpu"
input_size = [96, 160]
calibration_frames = 12
judged_frames = 8
"""


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines cache what they compiled; not in the home of whoever runs the tests."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))
    yield
    os.environ.pop("XDG_CACHE_HOME")
    if before is not None:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture(scope="session")
def flight_frames() -> tuple[np.ndarray, np.ndarray]:
    """uint8 RGB `(N, 96, 160, 3)` and labels `(N, 96, 160)`, far apart in one flight."""
    flight = Flight(3, size=SIZE, frames=None)
    frames = [flight.render(40 * n) for n in range(24)]
    return np.stack([frame.rgb for frame in frames]), np.stack([frame.labels for frame in frames])


def write_dataset(path: Path, rgb: np.ndarray, labels: np.ndarray, taxonomy: Taxonomy) -> Path:
    """A data set of two videos: 16 frames to train with, 8 to validate on, all labelled."""
    dataset = Dataset.create(path)
    for split, part in (("train", slice(0, 16)), ("val", slice(16, 24))):
        video = dataset.add_video(split, VideoInfo(len(rgb[part]), rgb.shape[1:3], 25.0, split))
        video.declare(Modality("rgb", Kind.IMAGE, 3), expert="test")
        video.write("rgb", 0, rgb[part])
        video.declare(Modality("labels", Kind.LABELS, taxonomy=taxonomy, truth=True), expert="test")
        video.write("labels", 0, labels[part][..., None])
    return path


@pytest.fixture
def make_dataset() -> Callable[..., Path]:
    return write_dataset


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, flight_frames: tuple[np.ndarray, np.ndarray]) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "flight", *flight_frames, DRONESCAPES)


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory: pytest.TempPathFactory, flight_frames: tuple[np.ndarray, np.ndarray]) -> Path:
    folder = tmp_path_factory.mktemp("work") / "student"
    student = new_student().train()
    rgb = torch.from_numpy(flight_frames[0]).permute(0, 3, 1, 2).float()
    labels = torch.from_numpy(flight_frames[1]).long()[:, 2::4, 2::4]
    optimiser = torch.optim.AdamW(student.parameters(), lr=3e-3)
    for step in range(30):
        picks = torch.arange(4) * 6 + step % 6
        loss = F.cross_entropy(student(rgb[picks])[0], labels[picks])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    student.save(folder)
    return folder


@pytest.fixture(scope="session")
def fragile_student_folder(tmp_path_factory: pytest.TempPathFactory, student_folder: Path) -> Path:
    """The same function in float, hopeless in INT8: a few channels dwarf the others in one tensor."""
    folder = tmp_path_factory.mktemp("work") / "fragile"
    student = load_student(student_folder)
    first, second = student.network.stem
    with torch.no_grad():
        first.norm.weight[:2] *= 1e5
        first.norm.bias[:2] *= 1e5
        second.conv.weight[:, :2] *= 1e-5
    student.save(folder)
    return folder


@pytest.fixture(scope="session")
def profile_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("profiles") / "small.toml"
    path.write_text(PROFILE, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def profile(profile_file: Path) -> Profile:
    return load_profile(profile_file)


@pytest.fixture(scope="session")
def built(student_folder: Path, profile: Profile, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build_student(student_folder, profile, tmp_path_factory.mktemp("built"), data)


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str


@pytest.fixture
def edgekit(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs the command in this process."""

    def command(*arguments: object) -> Answer:
        status = cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(status, captured.out, captured.err)

    return command
