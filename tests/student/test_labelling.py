"""A model as one more expert of the data set, and rounds of that."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.cli import main
from edgekit.commands.scores import score_model
from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_experts.status import read_status
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.checkpoint import CheckpointConfig, read_config
from edgekit_student.labelling import label, next_free, student_labeller
from edgekit_student.student import Student, load_student

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

SCENE = Taxonomy("scene", ("ground", "sky", "thing"), ((0, 255, 0), (0, 255, 255), (255, 0, 0)))


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return new_student(tmp_path / "student", SCENE)


def new_student(folder: Path, taxonomy: Taxonomy) -> Path:
    """Untrained: what it says is not the point here."""
    config = CheckpointConfig(
        kind="student",
        network={"name": "edge-150k"},
        inputs=(Modality("rgb", Kind.IMAGE, channels=3),),
        outputs=(Modality("labels", Kind.LABELS, taxonomy=taxonomy),),
        statistics={"rgb": {"mean": [100.0] * 3, "std": [50.0] * 3}},
        input_size=(64, 96),
    )
    Student(config).save(folder)
    return folder


def test_what_a_student_says_is_a_modality_with_its_checkpoint(scene: Path, student: Path) -> None:
    data = Dataset.open(scene)
    labeller = student_labeller(load_student(student))
    assert label(data, labeller, "student_1", uncertainty=True) == 12
    video = Dataset.open(scene).video("val")
    declaration = video.arrays["student_1"].declaration
    assert (declaration.expert, declaration.identity) == ("student", read_config(student).weights_sha256[:16])
    assert declaration.params["checkpoint"] == declaration.identity
    assert declaration.modality.taxonomy == SCENE
    assert not declaration.modality.truth
    unsure = video.read("student_1_uncertainty", 0)
    assert unsure.dtype == np.uint8
    assert 0 < unsure.mean() < 255 * 2 / 3, "the best of three classes has at least a third"
    assert score_model("expert:student_1", data, "val").miou >= 0
    rows = [
        row for each in read_status(Dataset.open(scene)).videos for row in each.modalities if row.expert == "student"
    ]
    assert [(row.done, row.missing, row.stale) for row in rows] == [(6, 0, 0)] * 4


def test_frames_that_are_labelled_are_not_labelled_again(scene: Path, student: Path) -> None:
    data, labeller = Dataset.open(scene), student_labeller(load_student(student))
    assert label(data, labeller, "student_1", splits=["train"]) == 6
    assert "student_1" not in Dataset.open(scene).video("val").modalities
    assert label(Dataset.open(scene), labeller, "student_1") == 6
    assert next_free(Dataset.open(scene)) == "student_2"


def test_what_is_made_from_other_pictures_is_stale(scene: Path, student: Path) -> None:
    data, labeller = Dataset.open(scene), student_labeller(load_student(student))
    label(data, labeller, "student_1")
    with data.writing("val") as video:
        video.declare(video.modalities["rgb"], expert="another camera")
        assert video.stale("student_1").all()


def test_another_checkpoint_does_not_replace_labels_unless_told_to(scene: Path, student: Path, tmp_path: Path) -> None:
    data = Dataset.open(scene)
    label(data, student_labeller(load_student(student)), "student_1")
    other = student_labeller(load_student(new_student(tmp_path / "other", SCENE)))
    with pytest.raises(UsageError, match="another checkpoint") as caught:
        label(data, other, "student_1")
    assert "--overwrite" in caught.value.hint
    assert label(data, other, "student_1", overwrite=True) == 12


@pytest.mark.parametrize(
    ("name", "message"), [("vote", "made by"), ("labels", "cannot be called"), ("rgb", "cannot be called")]
)
def test_neither_truth_nor_experts_are_ever_overwritten(scene: Path, student: Path, name: str, message: str) -> None:
    data = Dataset.open(scene)
    with pytest.raises(UsageError, match=message):
        label(data, student_labeller(load_student(student)), name, overwrite=True)


def test_an_empty_split_is_named_with_those_that_are_there(scene: Path, student: Path) -> None:
    with pytest.raises(DataError, match="split 'test'") as caught:
        label(Dataset.open(scene), student_labeller(load_student(student)), "student_1", splits=["test"])
    assert "train, val" in caught.value.hint


def test_a_student_of_another_taxonomy_is_not_scored(scene: Path, tmp_path: Path) -> None:
    folder = new_student(tmp_path / "other", Taxonomy("two", ("a", "b"), ((0, 0, 0), (1, 1, 1))))
    with pytest.raises(DataError, match="speaks 'two'"):
        score_model(str(folder), Dataset.open(scene), "val")


def test_a_student_is_scored_on_frames_of_any_size(student: Path, tmp_path: Path) -> None:
    data = Dataset.create(tmp_path / "odd")
    video = data.add_video("odd", VideoInfo(1, (50, 71), 1.0, "val", {"uri": "odd", "fingerprint": "odd"}))
    for modality in (Modality("rgb", Kind.IMAGE, 3), Modality("labels", Kind.LABELS, taxonomy=SCENE, truth=True)):
        video.declare(modality, expert="made by hand")
        video.write(modality.name, 0, np.zeros((1, 50, 71, modality.channels), np.uint8))
    assert score_model(str(student), data, "val").frames == 1


def test_a_round_is_one_command_that_goes_on_where_it_ended(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = 'network = "edge-150k"\naugmentation.crop = "96x64"\noptimisation.batch = 2\noptimisation.steps = 1\n'
    config = tmp_path / "train.toml"
    listed = 'target = "vote"\ninputs = ["rgb", "depth"]\n'
    config.write_text(f"[train]\n{listed}{common}[distill]\n{common}ensemble.members = 1\n", encoding="utf-8")

    def done(folder: str, *more: str) -> tuple[int, str, str]:
        arguments = ["round", str(scene), "-o", str(tmp_path / folder), "-c", str(config), "--device", "cpu", *more]
        status = main([*arguments, "--json"])
        said = capsys.readouterr()
        return status, said.out, said.err

    status, out, err = done("first")
    assert status == 0, err
    first = json.loads(out)
    assert (first["modality"], first["labelled"]) == ("student_1", 12)
    status, out, err = done("first")
    again = json.loads(out)
    assert (again["modality"], again["labelled"]) == ("student_1", 0)
    assert "phg-mae: finished before." in err
    status, out, err = done("second", "--with", "student_1")
    second = json.loads(out)
    assert second["inputs"] == ["rgb", "depth", "student_1"]
    assert second["modality"] == "student_2"
    status, _, err = done("second")
    assert status == 2
    assert "other settings than those asked for now: inputs was ['rgb', 'depth', 'student_1'], is" in err
    # A name that is another's is found out at once, and can still be changed, as nothing was labelled by it.
    status, _, err = done("third", "--as", "vote")
    assert status == 2
    assert "has a modality 'vote' already" in err
    assert not (tmp_path / "third").exists()
    status, _, err = done("third", "--with", "nope")
    assert status != 0
    assert not (tmp_path / "third").exists()
    status, out, err = done("third", "--as", "other")
    assert status == 0, err
    assert json.loads(out)["modality"] == "other"
