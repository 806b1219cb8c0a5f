"""Trainings and ensembles keep to one device, tried where no GPU is: `meta` computes nothing and refuses the CPU's
tensors as CUDA does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from edgekit_experts.dataset import Dataset
from edgekit_student import distill as distilling
from edgekit_student import train as training
from edgekit_student.ensemble import predict, read_inputs
from edgekit_student.phg_mae import PHGMAE
from edgekit_student.samples import ModalityDataset
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings
from edgekit_student.teaching import StoredTeacher

SHORT = {"network": "edge-150k", "augmentation__crop": (32, 48), "optimisation__batch": 2}


class Begun(Exception):  # noqa: N818
    """What a training would fit: its model, its first batch and its loss."""


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainings stop before their first step; what `meta` lacks beside CUDA, values and autocast, is made up."""

    def begun(model: Any, batch: Callable[[int], Any], loss: Any, *rest: Any, **options: Any) -> None:
        raise Begun(model, batch(0), loss)

    there = torch.Tensor.cpu
    monkeypatch.setattr(training, "fit_watched", begun)
    monkeypatch.setattr(distilling, "fit_watched", begun)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": False)
    monkeypatch.setattr(
        torch.Tensor,
        "cpu",
        lambda tensor: torch.ones(tensor.shape).to(tensor.dtype) if tensor.is_meta else there(tensor),
    )


def gradients(begin: Callable[[], Any]) -> list[torch.device]:
    """The devices of all gradients of a first step on `meta`."""
    with pytest.raises(Begun) as caught:
        begin()
    model, batch, loss = caught.value.args
    model.to("meta")
    value = loss(model, {name: tensor.to("meta") for name, tensor in batch.items()}, 0)
    value.backward()
    return [parameter.grad.device for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weighting": "learned", "outputs": ["vote", "depth", "rgb"], "class_balance": 1.0},
        {"masking__patches": 0.3},
    ],
)
def test_a_step_of_train_stays_on_its_device(scene: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    settings = read_settings(TrainSettings, None, **SHORT, target="vote", inputs=["rgb", "vote", "depth"], **options)
    found = gradients(lambda: training.train(Dataset.open(scene), tmp_path / "run", settings, device="cpu"))
    assert len(found) > 10
    assert {device.type for device in found} == {"meta"}


@pytest.mark.parametrize("options", [{}, {"outputs": ["depth"], "temporal": 0.1, "class_balance": 1.0}])
def test_a_step_of_distill_stays_on_its_device(scene: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    data, settings = Dataset.open(scene), read_settings(DistillSettings, None, **SHORT, **options)
    teacher = StoredTeacher(data, "vote", settings.outputs)
    found = gradients(lambda: distilling.distill(teacher, data, tmp_path / "run", settings, device="cpu"))
    assert len(found) > 10
    assert {device.type for device in found} == {"meta"}


def test_an_ensemble_reads_where_its_model_is_and_answers_on_the_cpu(scene: Path, tmp_path: Path) -> None:
    data, settings = Dataset.open(scene), read_settings(TrainSettings, None, **SHORT, target="vote")
    with pytest.raises(Begun) as caught:
        training.train(data, tmp_path / "run", settings, device="cpu")
    model: PHGMAE = caught.value.args[0].to("meta").eval()
    sample = next(iter(ModalityDataset(data, [modality.name for modality in model.config.inputs], split="val")))
    batch, present = read_inputs(model, sample)
    assert {tensor.device.type for tensor in batch.values()} == {"meta"}
    said = predict(model, batch, model.everything(), mirror=True, aggregate="vote")
    assert present.device.type == said.uncertainty.device.type == said.outputs["vote"].device.type == "cpu"
