"""What teaches a student, and what it learns: several heads, stored labels, and how sure the data set is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.cli import main
from edgekit.commands.scores import score_model
from edgekit.commands.training import find_teacher
from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import read_config
from edgekit_student.distill import distill
from edgekit_student.ensemble import predict
from edgekit_student.phg_mae import PHGMAE, load_phg_mae
from edgekit_student.samples import PRESENT, ModalityDataset, automatic_modalities
from edgekit_student.settings import DistillSettings, Ensemble, TrainSettings, read_settings
from edgekit_student.student import Student, load_student
from edgekit_student.teaching import EnsembleTeacher
from edgekit_student.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

SHORT = {
    "network": "edge-150k",
    "augmentation__crop": (64, 96),
    "optimisation__batch": 2,
    "optimisation__ema": 0.5,
    "optimisation__steps": 1,
}


@pytest.fixture
def shaped(scene: Path) -> Path:
    """The scene with normals, which look at the camera everywhere but in the sky, where there are none."""
    data = Dataset.open(scene)
    normals = Modality("normals", Kind.NORMALS, channels=3, dtype="float16", range=(-1, 1))
    for split in ("train", "val"):
        with data.writing(split) as video:
            truth = video.read_many("labels", 0, video.frames)
            array = np.where(truth == 1, np.nan, np.array([0.6, 0, -0.8])).astype(np.float16)
            depth = video.read_many("depth", 0, video.frames)
            exact = {
                normals: array,
                Modality("true_normals", Kind.NORMALS, 3, "float16", (-1, 1), truth=True): array,
                Modality("true_depth", Kind.DEPTH, 1, "float16", unit="m", truth=True): depth,
            }
            for modality, values in exact.items():
                video.declare(modality, expert="made by hand")
                video.write(modality.name, 0, values)
    return scene


@pytest.fixture
def phg_mae(shaped: Path, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    train(Dataset.open(shaped), run, read_settings(TrainSettings, None, **SHORT), device="cpu")
    return run


def distilled(teacher: str, scene: Path, folder: Path, **more: object) -> Student:
    settings = read_settings(DistillSettings, None, **{**SHORT, "ensemble__members": 2, **more})
    data = Dataset.open(scene)
    distill(find_teacher(teacher, data, settings), data, folder, settings, device="cpu")
    return load_student(folder)


def test_an_ensemble_teaches_one_network_labels_depth_and_normals(shaped: Path, phg_mae: Path, tmp_path: Path) -> None:
    student = distilled(str(phg_mae), shaped, tmp_path / "student", outputs=("vote", "depth", "normals"))
    assert [modality.name for modality in student.config.outputs] == ["labels", "depth", "normals"]
    assert [each.shape[1] for each in student(torch.zeros(1, 3, 64, 96))] == [3, 1, 3]
    assert set(student.config.statistics) == {"rgb", "depth"}
    assert not student.config.provenance["supervised"]
    score = score_model(str(tmp_path / "student"), Dataset.open(shaped), "val").to_dict()
    assert score["geometry_truth"] == {"depth": "true_depth", "normals": "true_normals"}
    assert score["depth_alignment"] == "none"
    assert score["depth_abs_rel"] >= 0
    assert 0 <= score["normals_mean_deg"] <= 180
    assert set(score["geometry_per_video"]) == {"val"}
    json.dumps(score, allow_nan=False)


def test_a_mirrored_ensemble_says_the_same_of_a_mirrored_frame(shaped: Path, phg_mae: Path) -> None:
    from edgekit_student.batches import collate
    from edgekit_student.encoding import mirrored

    model = load_phg_mae(phg_mae)
    samples = ModalityDataset(Dataset.open(shaped), [m.name for m in model.config.inputs], split="val")
    frame = collate([{m.name: samples[0][m.name] for m in model.config.inputs}])
    other = {m.name: mirrored(m, frame[m.name]) for m in model.config.inputs}
    masks = torch.ones(1, len(model.config.inputs), dtype=torch.bool)
    said, again = (
        predict(model, each, masks, outputs=[m.name for m in model.config.outputs], mirror=True).outputs
        for each in (frame, other)
    )
    for modality in model.config.outputs:
        back = mirrored(modality, again[modality.name].permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        assert torch.allclose(said[modality.name], back, atol=1e-3), modality.name
    assert torch.allclose(said["normals"].norm(dim=1), torch.ones(()), atol=1e-4)


def test_where_an_expert_has_no_value_there_is_none_to_learn(shaped: Path, phg_mae: Path) -> None:
    model = load_phg_mae(phg_mae)
    teacher = EnsembleTeacher(model, Ensemble(members=2), ["depth"], parent="run")
    samples = ModalityDataset(Dataset.open(shaped), teacher.reads, split="train")
    lessons = teacher.lessons(samples, 0, lambda done, total: None)
    depth = lessons.taught[0]["depth"]
    assert depth.dtype == np.float16
    assert depth.shape == (64 // model.stride, 96 // model.stride, 1)
    sky = 24 // model.stride
    assert np.isnan(depth[:sky]).all()
    assert np.isfinite(depth[sky:]).all()


def test_outputs_that_the_teacher_does_not_predict_are_named(shaped: Path, phg_mae: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not predict 'dept'") as caught:
        distilled(str(phg_mae), shaped, tmp_path / "student", outputs=("vote", "dept"))
    assert "Did you mean 'depth'?" in caught.value.hint
    with pytest.raises(DataError, match="no modality 'dept'"):
        distilled("expert:vote", shaped, tmp_path / "student", outputs=("dept",))
    with pytest.raises(UsageError, match="'depth' is of kind depth: a student needs labels"):
        distilled("expert:depth", shaped, tmp_path / "student")


def test_stored_labels_teach_a_student_and_what_nobody_labelled_does_not_count(shaped: Path, tmp_path: Path) -> None:
    more = {"outputs": ("depth",), "optimisation__steps": 80, "optimisation__ema": 0.9}
    student = distilled("expert:vote", shaped, tmp_path / "student", **more)
    assert student.config.provenance["parent"] == "expert:vote"
    assert student.config.provenance["supervised"] is False
    assert [modality.name for modality in student.config.outputs] == ["labels", "depth"]
    data = Dataset.open(shaped)
    assert (
        score_model(str(tmp_path / "student"), data, "val").miou > score_model("expert:blind_expert", data, "val").miou
    )
    with data.writing("train") as video:
        ids = video.read_many("vote", 0, video.frames)
        ids[:, :, :] = 255
        ids[:, :8, :8] = 1
        video.write("vote", 0, ids)
    only_sky = distilled("expert:vote", shaped, tmp_path / "sky", optimisation__steps=2)
    assert only_sky.config.provenance["learnt"]["doubts"]


def test_truth_teaches_only_when_named_and_the_student_says_so(
    shaped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["distill", "expert:labels", shaped, "-o", tmp_path / "s", "--student", "edge-150k", "--steps", 1]
    assert main([*map(str, arguments), "--batch", "2", "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert (document["supervised"], document["parent"]) == (True, "expert:labels")
    assert "Human labels or exact truth are used" in said.err
    assert read_config(tmp_path / "s").provenance["supervised"] is True
    assert not read_config(tmp_path / "s").outputs[0].truth
    # What such a student says is nothing that a training without human labels may see.
    assert main(["label", str(tmp_path / "s"), str(shaped), "--name", "peeker"]) == 0
    data = Dataset.open(shaped)
    assert "peeker" in data.video("train").modalities
    assert "peeker" not in automatic_modalities(data)
    assert find_teacher("expert:peeker", data, read_settings(DistillSettings, None)).supervised


def test_pixels_of_which_the_data_set_is_not_sure_count_less(shaped: Path, tmp_path: Path) -> None:
    data = Dataset.open(shaped)
    with data.writing("train") as video:
        video.declare(Modality("agreement", Kind.IMAGE, 1, "uint8", (0, 255)), expert="made by hand")
        video.write("agreement", 0, np.zeros((video.frames, *video.size, 1), np.uint8))
    still = {"optimisation__weight_decay": 0.0}
    begun = distilled("expert:vote", shaped, tmp_path / "a", certainty="agreement", **still)
    with data.writing("train") as video:
        wrong = np.full((video.frames, *video.size, 1), 2, np.uint8)
        video.write("vote", 0, wrong)
    other = distilled("expert:vote", shaped, tmp_path / "b", certainty="agreement", **still)
    assert all(torch.equal(begun.state_dict()[name], value) for name, value in other.state_dict().items())
    with pytest.raises(UsageError, match="one value a pixel"):
        distilled("expert:vote", shaped, tmp_path / "c", certainty="rgb")


def test_a_phg_mae_that_has_learnt_from_truth_makes_a_supervised_student(shaped: Path, tmp_path: Path) -> None:
    settings = read_settings(TrainSettings, None, target="labels", inputs=("rgb",), **SHORT)
    model: PHGMAE = train(Dataset.open(shaped), tmp_path / "run", settings, device="cpu")
    assert EnsembleTeacher(model, Ensemble(members=1), parent="run").supervised


def test_frames_that_lack_what_is_taught_are_masked(shaped: Path) -> None:
    teacher = find_teacher(
        "expert:vote", Dataset.open(shaped), read_settings(DistillSettings, None, outputs=("depth",))
    )
    samples = ModalityDataset(Dataset.open(shaped), ["rgb", *teacher.reads], split="train", missing="mask")
    taught = teacher.lessons(samples, 0, lambda done, total: None).taught
    assert len(taught) == 6
    assert set(taught[0]) == {"vote", "vote" + PRESENT, "depth", "depth" + PRESENT}
