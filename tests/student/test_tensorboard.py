"""`--tensorboard`: what TensorBoard itself reads back."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import UsageError
from edgekit_student.distill import distill
from edgekit_student.fit import Progress
from edgekit_student.phg_mae import load_phg_mae
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings
from edgekit_student.teaching import EnsembleTeacher
from edgekit_student.tensorboard import FOLDER
from edgekit_student.train import train

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning:lightning"),
]
SHORT = {
    "network": "edge-150k",
    "augmentation__crop": (64, 96),
    "optimisation__batch": 2,
    "optimisation__validate_every": 2,
    "optimisation__checkpoint_every": 2,
}


def events(run: Path) -> object:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(run / FOLDER))
    found.Reload()
    return found


class KilledError(Exception):
    pass


def test_a_resumed_training_goes_on_in_the_same_curves(scene: Path, tmp_path: Path) -> None:
    settings = read_settings(TrainSettings, None, **SHORT, optimisation__steps=5, optimisation__patience=9)

    def kill(progress: Progress) -> None:
        if progress.step == 3:
            raise KilledError

    data, run = Dataset.open(scene), tmp_path / "run"
    with pytest.raises(KilledError):
        train(data, run, settings, device="cpu", tensorboard=True, on_progress=kill)
    train(data, run, settings, device="cpu", tensorboard=True, resume=True)
    found = events(run)
    for name in ("loss", "learning_rate", "samples_per_second"):
        assert [event.step for event in found.Scalars(name)] == [1, 2, 3, 4, 5]
    for name in ("held_out_loss", "frames_loss/vote", "frames_loss/depth"):
        assert [event.step for event in found.Scalars(name)] == [2, 4, 5]
    picture = found.Images("frame_0/vote")[0]
    assert (picture.width, picture.height) == (2 * 96, 64), "target and prediction"
    assert {"frame_0/input", "frame_0/depth"} <= set(found.Tags()["images"])


def test_pictures_do_not_change_what_is_learnt_and_students_have_them_too(scene: Path, tmp_path: Path) -> None:
    data, settings = Dataset.open(scene), read_settings(TrainSettings, None, **SHORT, optimisation__steps=3)
    plain = train(data, tmp_path / "plain", settings, device="cpu")
    drawn = train(data, tmp_path / "drawn", settings, device="cpu", tensorboard=True)
    assert all((plain.state_dict()[name] == value).all() for name, value in drawn.state_dict().items())
    assert not (tmp_path / "plain" / FOLDER).exists()
    learning = read_settings(DistillSettings, None, **SHORT, optimisation__steps=2, ensemble__members=2)
    teacher = load_phg_mae(tmp_path / "plain")
    lessons = EnsembleTeacher(teacher, learning.ensemble, parent="plain")
    distill(lessons, data, tmp_path / "student", learning, device="cpu", tensorboard=True)
    (picture,) = events(tmp_path / "student").Images("frame_0")
    assert (picture.width, picture.height) == (3 * 96, 64), "input, target, prediction"


def test_a_missing_package_is_named(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    settings = read_settings(TrainSettings, None, **SHORT)
    with pytest.raises(UsageError, match="needs the package tensorboard") as caught:
        train(Dataset.open(scene), tmp_path / "run", settings, device="cpu", tensorboard=True)
    assert caught.value.hint == "pip install 'edgekit[tensorboard]'"
