"""Losses that may be chosen by modality, and weights that are learnt."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.checkpoint import read_config, read_weights
from edgekit_student.encoding import Encoded, encode
from edgekit_student.fit import Progress
from edgekit_student.losses import LOSSES, modality_loss
from edgekit_student.phg_mae import load_phg_mae
from edgekit_student.settings import TrainSettings, read_settings
from edgekit_student.train import train
from edgekit_student.weighting import LearnedWeights, check_losses

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

DEPTH = Modality("depth", Kind.DEPTH, dtype="float32", unit="m")
EDGES = Modality("canny", Kind.EDGES)
STATISTICS = {"depth": {"mean": [10.0], "std": [4.0]}}


def far(metres: torch.Tensor) -> torch.Tensor:
    """What a network that predicts these depths puts out, `(1, 1, H, W)`."""
    return ((metres - 10) / 4).view(1, 1, *metres.shape)


def scale_invariant(predicted: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    target = encode(DEPTH, truth.view(1, *truth.shape, 1), STATISTICS)
    return modality_loss(DEPTH, far(predicted), target, loss="scale-invariant", statistics=STATISTICS)


def test_every_kind_has_a_loss_of_its_own() -> None:
    assert set(LOSSES) == set(Kind)
    assert all(LOSSES.values())


def test_the_scale_invariant_loss_is_that_of_the_paper() -> None:
    torch.manual_seed(0)
    truth, predicted = torch.rand(6, 8) * 20 + 1, torch.rand(6, 8) * 20 + 1
    difference = predicted.log() - truth.log()
    expected = difference.square().mean() - 0.5 * difference.mean() ** 2
    assert scale_invariant(predicted, truth).item() == pytest.approx(expected.item(), rel=1e-4)
    assert scale_invariant(truth, truth).item() == pytest.approx(0, abs=1e-6)
    assert scale_invariant(1.5 * truth, truth).item() == pytest.approx(0.5 * math.log(1.5) ** 2, rel=1e-3)


def test_frames_of_a_batch_have_each_a_scale_of_their_own() -> None:
    truth = torch.full((2, 4, 4, 1), 8.0)
    predicted = torch.cat([far(torch.full((4, 4), 16.0)), far(torch.full((4, 4), 4.0))])
    target = encode(DEPTH, truth, STATISTICS)
    loss = modality_loss(DEPTH, predicted, target, loss="scale-invariant", statistics=STATISTICS)
    assert loss.item() == pytest.approx(0.5 * math.log(2) ** 2, rel=1e-3)


def test_depths_that_are_not_positive_cost_nothing_and_what_is_predicted_so_is_drawn_back() -> None:
    truth = torch.tensor([[8.0, 8.0, 0.0, -3.0, float("nan")]])
    predicted = torch.tensor([[8.0, 8.0, 99.0, 99.0, 99.0]])
    assert scale_invariant(predicted, truth).item() == pytest.approx(0, abs=1e-6)
    negative = far(torch.tensor([[-5.0, 8.0]])).requires_grad_()
    target = encode(DEPTH, torch.full((1, 1, 2, 1), 8.0), STATISTICS)
    modality_loss(DEPTH, negative, target, loss="scale-invariant", statistics=STATISTICS).backward()
    assert negative.grad is not None
    assert torch.isfinite(negative.grad).all()
    assert negative.grad[0, 0, 0, 0] < 0, "upwards"


def test_the_focal_loss_is_that_of_the_paper_and_counts_what_is_known_less() -> None:
    truth, logits = torch.tensor([1.0, 0.0]), torch.tensor([2.0, 0.5])
    right = torch.where(truth > 0, logits.sigmoid(), 1 - logits.sigmoid())
    side = torch.tensor([0.25, 0.75])
    expected = (-side * (1 - right) ** 2 * right.log()).mean()
    target = Encoded(truth.view(1, 1, 1, 2), torch.ones(1, 1, 1, 2, dtype=torch.bool))
    found = modality_loss(EDGES, logits.view(1, 1, 1, 2), target, loss="focal")
    assert found.item() == pytest.approx(expected.item())
    sure = 8 * (target.values - 0.5)
    by = {loss: modality_loss(EDGES, sure, target, loss=loss).item() for loss in ("bce", "focal")}
    assert by["focal"] < by["bce"] / 100


def test_l2_is_the_square_of_what_is_off() -> None:
    target = encode(DEPTH, torch.full((1, 1, 2, 1), 10.0), STATISTICS)
    assert modality_loss(DEPTH, torch.full((1, 1, 1, 2), 3.0), target, loss="l2").item() == 9


def settings(**more: object) -> TrainSettings:
    return read_settings(TrainSettings, None, **more)


@pytest.mark.parametrize(
    ("chosen", "message", "hint"),
    [
        ({"losses": {"depth": "focal"}}, "'focal' does not fit 'depth', which is of kind depth", "l1, l2, scale-inv"),
        ({"losses": {"canny": "l1"}}, "does not fit 'canny'", "Losses of edges: bce, focal"),
        ({"losses": {"dpeth": "l1"}}, "losses names 'dpeth', which is no output", "Outputs: depth, canny"),
        ({"loss_weights": {"dpeth": 1.0}}, "loss_weights names 'dpeth'", "Outputs: depth, canny"),
        ({"weighting": "learned", "loss_weights": {"canny": 0.0}}, "that of canny is 0", "small weight"),
    ],
)
def test_a_loss_that_does_not_fit_is_refused_with_those_that_do(chosen: dict, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        check_losses([DEPTH, EDGES], "vote", settings(**chosen))
    assert hint in caught.value.hint


def test_learned_weights_begin_as_the_fixed_ones_and_find_the_uncertainty() -> None:
    weights = LearnedWeights({"a": 1.0, "b": 0.3})
    losses = {"a": torch.tensor(0.05), "b": torch.tensor(2.0)}
    counted = dict.fromkeys(losses, torch.tensor(True))
    assert weights.values() == {"a": 1.0, "b": 0.3}
    assert weights(losses, counted).item() == pytest.approx(0.05 + 0.3 * 2)
    optimiser = torch.optim.Adam(weights.parameters(), lr=0.05)
    for _ in range(400):
        optimiser.zero_grad()
        weights(losses, counted).backward()
        optimiser.step()
    assert weights.values() == pytest.approx({"a": 1 / (2 * 0.05), "b": 1 / (2 * 2.0)}, rel=0.01)


def test_an_output_that_no_sample_has_moves_no_weight() -> None:
    weights = LearnedWeights({"a": 1.0, "b": 0.3})
    losses = {"a": torch.tensor(1.0), "b": torch.tensor(0.0)}
    weights(losses, {"a": torch.tensor(True), "b": torch.tensor(False)}).backward()
    assert weights.shifts.grad is not None
    assert weights.shifts.grad[1] == 0


def test_learned_weights_survive_an_interruption_and_stand_in_provenance_alone(scene: Path, tmp_path: Path) -> None:
    chosen = settings(
        network="edge-150k",
        losses={"depth": "scale-invariant"},
        weighting="learned",
        augmentation__crop=(32, 48),
        optimisation__steps=4,
        optimisation__batch=2,
        optimisation__ema=0.5,
        optimisation__checkpoint_every=2,
    )
    data = Dataset.open(scene)
    train(data, tmp_path / "whole", chosen, device="cpu")

    class KilledError(Exception):
        pass

    def kill(state: Progress) -> None:
        if state.step == 3:
            raise KilledError

    with pytest.raises(KilledError):
        train(data, tmp_path / "parts", chosen, device="cpu", on_progress=kill)
    train(data, tmp_path / "parts", chosen, device="cpu", resume=True)
    whole, parts = (read_config(tmp_path / run).provenance["loss_weights"] for run in ("whole", "parts"))
    assert whole == parts
    assert set(whole) == {"rgb", "blind_expert", "depth", "vote"}
    assert whole["vote"] != 1.0
    assert whole["vote"] == pytest.approx(1.0, abs=0.1)
    tensors, others = (read_weights(tmp_path / run) for run in ("whole", "parts"))
    assert all(torch.equal(tensors[name], others[name]) for name in tensors)
    assert all(name.startswith("network.") for name in tensors)
    load_phg_mae(tmp_path / "whole")
