"""A small real data set in the store: six frames of a scene of three colours, with labels of a clumsy expert."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_runtime.modality import Kind, Modality, Taxonomy

SCENE = Taxonomy("scene", ("ground", "sky", "thing"), ((0, 255, 0), (0, 255, 255), (255, 0, 0)))
SIZE = (64, 96)


def declare(video, modality: Modality) -> None:
    video.declare(modality, expert="made by hand")


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    """A data set with rgb, two experts' labels, depth with holes; truth in `labels`; splits train and val."""
    path = tmp_path / "scene"
    data = Dataset.create(path)
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        frames = 6
        video = data.add_video(split, VideoInfo(frames, SIZE, 10.0, split, {"uri": split, "fingerprint": split}))
        truth = np.zeros((frames, *SIZE, 1), np.uint8)
        truth[:, :24] = 1
        for index in range(frames):
            truth[index, 32:52, 8 * index : 8 * index + 24] = 2
        colours = np.array([[60, 120, 40], [150, 190, 230], [190, 50, 40]], np.float32)
        rgb = colours[truth[..., 0]] + rng.normal(0, 12, (frames, *SIZE, 3))
        depth = np.where(truth == 1, np.nan, 20.0).astype(np.float16)
        wrong = np.where(truth == 2, 0, truth).astype(np.uint8)
        ignored = truth.copy()
        ignored[:, :, :8] = SCENE.ignore
        arrays = {
            Modality("rgb", Kind.IMAGE, channels=3): np.clip(rgb, 0, 255).astype(np.uint8),
            Modality("labels", Kind.LABELS, taxonomy=SCENE, truth=True): truth,
            Modality("blind_expert", Kind.LABELS, taxonomy=SCENE): wrong,
            Modality("vote", Kind.LABELS, taxonomy=SCENE): ignored,
            Modality("depth", Kind.DEPTH, dtype="float16", unit="m"): depth,
        }
        for modality, array in arrays.items():
            declare(video, modality)
            video.write(modality.name, 0, array)
    return path
