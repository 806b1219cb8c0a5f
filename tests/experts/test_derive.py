"""`edgekit derive`: what more can be made of what a data set holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from clips import numbered_frames, write_clip
from test_data_commands import edgekit

from edgekit_experts.dataset import Dataset, Declaration
from edgekit_runtime.errors import DataError, ExpertError, UsageError

FLIGHT = "world:3?frames=6&size=96x64"
VOTE = """
[jury]
expert = "majority_vote"
of = ["simulated_sharp", "simulated_smooth", "student_1"]
weights = [1, 1, 2.5]

[outlines]
expert = "canny"
"""


@pytest.fixture
def flight(tmp_path: Path) -> Path:
    out = tmp_path / "data"
    edgekit("extract", FLIGHT, "-o", out, "--only", "rgb,labels,simulated_sharp,simulated_smooth")
    edgekit("extract", "world:4?frames=4&size=96x64", "-o", out, "--only", "rgb,simulated_sharp", "--split", "val")
    return out


def write_student(out: Path, weights: str, frames: range = range(5)) -> None:
    """What `edgekit label` would store: everything is of class 2."""
    with Dataset.open(out).writing("world-3") as video:
        modality = video.modalities["simulated_sharp"]
        declaration = Declaration(
            modality=type(modality).from_dict({**modality.to_dict(), "name": "student_1"}),
            expert="student",
            inputs={"rgb": video.arrays["rgb"].declaration.hash},
            identity=weights,
        )
        video.declare_as(declaration)
        for index in frames:
            video.write("student_1", index, np.full((1, 64, 96, 1), 2, np.uint8))


def test_a_student_takes_part_in_a_vote_and_its_frames_alone_are_made(flight: Path, tmp_path: Path) -> None:
    write_student(flight, "aa")
    config = tmp_path / "jury.toml"
    config.write_text(VOTE, encoding="utf-8")
    before = Dataset.open(flight).content_hash()
    document = json.loads(edgekit("derive", flight, "-c", config, "--video", "world-3", "--json"))
    assert document["written"] == 5 + 6
    video = Dataset.open(flight).video("world-3")
    assert video.done("jury").tolist() == [True] * 5 + [False]
    assert video.done("outlines").all()
    assert (video.read("jury", 0) == 2).all(), "its 2.5 votes outweigh the others"
    assert video.split == "train"
    assert Dataset.open(flight).content_hash() != before
    assert json.loads(edgekit("derive", flight, "-c", config, "--video", "world-3", "--json"))["written"] == 0


def test_what_is_made_of_a_modality_is_stale_when_that_is_made_anew(flight: Path, tmp_path: Path) -> None:
    write_student(flight, "aa")
    config = tmp_path / "jury.toml"
    config.write_text(VOTE, encoding="utf-8")
    edgekit("derive", flight, "-c", config, "--video", "world-3")
    write_student(flight, "bb", range(2))
    assert Dataset.open(flight).video("world-3").stale("jury").sum() == 5
    document = json.loads(edgekit("derive", flight, "-c", config, "--video", "world-3", "--json"))
    assert any("made otherwise" in note for note in document["notes"])
    assert Dataset.open(flight).video("world-3").done("jury").tolist() == [True] * 2 + [False] * 4


def test_all_videos_of_all_splits_in_one_run(flight: Path, tmp_path: Path) -> None:
    config = tmp_path / "edges.toml"
    config.write_text('[outlines]\nexpert = "canny"\n', encoding="utf-8")
    document = json.loads(edgekit("derive", flight, "-c", config, "--json"))
    assert document["written"] == 6 + 4
    assert {video["name"]: video["split"] for video in document["videos"]} == {"world-3": "train", "world-4": "val"}


def test_what_came_with_a_video_is_never_made_anew(flight: Path, tmp_path: Path) -> None:
    config = tmp_path / "wrong.toml"
    write_student(flight, "aa")
    for text in (
        '[rgb]\nexpert = "hsv"\n',
        '[labels]\nexpert = "given"\nof = "simulated_sharp"\n',
        '[student_1]\nexpert = "given"\nof = "simulated_sharp"\n',
    ):
        config.write_text(text, encoding="utf-8")
        with pytest.raises(ExpertError, match="already, which came with the video"):
            edgekit("derive", flight, "-c", config)
    labels = Dataset.open(flight).video("world-3")
    assert labels.modalities["labels"].truth
    assert labels.done("labels").all()


def test_bad_input(flight: Path, tmp_path: Path) -> None:
    config = tmp_path / "jury.toml"
    config.write_text(VOTE, encoding="utf-8")
    with pytest.raises(ExpertError, match=r"\[jury\] needs 'student_1', which nothing makes"):
        edgekit("derive", flight, "-c", config)
    config.write_text('[outlines]\nexpert = "canny"\n', encoding="utf-8")
    with pytest.raises(UsageError, match="no video 'world-33'"):
        edgekit("derive", flight, "-c", config, "--video", "world-33")
    with pytest.raises(DataError, match="There is no data set"):
        edgekit("derive", tmp_path / "nowhere", "-c", config)
    edges_only = tmp_path / "edges"
    clip = write_clip(tmp_path / "clip.mp4", numbered_frames(3, (48, 64)))
    edgekit("extract", clip, "-o", edges_only, "--only", "canny")
    with pytest.raises(DataError, match="its frames are not stored"):
        edgekit("derive", edges_only, "-c", config)
