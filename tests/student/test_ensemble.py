"""An ensemble's answer: how members are put together, how far they disagree, which masks are kept."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from edgekit.cli import app
from edgekit.commands.scores import score_model
from edgekit.eval_page import Worst, render
from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import UsageError
from edgekit_runtime.modality import Kind, Modality, Taxonomy
from edgekit_student.checkpoint import CheckpointConfig, read_config
from edgekit_student.distill import distill
from edgekit_student.encoding import mirrored, unmirrored
from edgekit_student.ensemble import Members, choose_members, predict, restricted
from edgekit_student.phg_mae import PHGMAE, load_phg_mae
from edgekit_student.samples import ModalityDataset
from edgekit_student.settings import DistillSettings, Ensemble, TrainSettings, read_settings
from edgekit_student.teaching import EnsembleTeacher
from edgekit_student.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

SCENE = Taxonomy("scene", ("ground", "sky", "thing"), ((0, 255, 0), (0, 255, 255), (255, 0, 0)))
VOTE = Modality("vote", Kind.LABELS, taxonomy=SCENE)
DEPTH = Modality("depth", Kind.DEPTH, dtype="float16", unit="m")
NORMALS = Modality("normals", Kind.NORMALS, channels=3, dtype="float16")
RGB = Modality("rgb", Kind.IMAGE, channels=3)
BLIND = Modality("blind_expert", Kind.LABELS, taxonomy=SCENE)


def untrained() -> PHGMAE:
    torch.manual_seed(0)
    statistics = {"rgb": {"mean": [120.0] * 3, "std": [60.0] * 3}, "depth": {"mean": [20.0], "std": [4.0]}}
    model = PHGMAE(
        CheckpointConfig(
            kind="phg-mae",
            network={"name": "edge-150k", "target": "vote", "masking": {"hide": 0.5}},
            inputs=(RGB, BLIND, DEPTH),
            outputs=(VOTE, DEPTH, NORMALS),
            statistics=statistics,
            input_size=(64, 96),
        )
    )
    model.load_state_dict({name: 3 * value for name, value in model.state_dict().items()})  # members that differ
    return model.eval()


class Scripted(PHGMAE):
    """A PHG-MAE whose members are told what to say."""

    def __init__(self, *said: dict[str, torch.Tensor]) -> None:
        super().__init__(untrained().config)
        self._said = said

    def members(self, *_: object, **__: object):  # type: ignore[override]
        return iter(self._said)


def member(*probabilities: float, depth: float = 0.0, normal: tuple[float, ...] = (0.0, 0.0, 1.0)) -> dict:
    values = {"vote": probabilities, "depth": (depth,), "normals": normal}
    return {name: torch.tensor(value).view(1, -1, 1, 1) for name, value in values.items()}


def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "rgb": torch.randint(0, 256, (2, 64, 96, 3), dtype=torch.uint8, generator=generator),
        "blind_expert": torch.randint(0, 3, (2, 64, 96, 1), dtype=torch.uint8, generator=generator),
        "depth": 20 * torch.rand(2, 64, 96, 1, generator=generator),
    }


ALL = torch.ones(1, 3, dtype=torch.bool)


def test_probabilities_are_averaged_or_voted_on() -> None:
    model = Scripted(member(0.9, 0.1, 0), member(0.4, 0.6, 0), member(0.4, 0.6, 0))
    mean = predict(model, {}, ALL).outputs["vote"].flatten()
    vote = predict(model, {}, ALL, aggregate="vote").outputs["vote"].flatten()
    assert mean.tolist() == pytest.approx([1.7 / 3, 1.3 / 3, 0]), "one that is sure outweighs two that are not"
    assert vote.tolist() == pytest.approx([1 / 3, 2 / 3, 0])


def test_other_outputs_are_averaged_and_normals_stay_of_unit_length() -> None:
    first = member(1, 0, 0, depth=10, normal=(1.0, 0.0, 0.0))
    second = member(1, 0, 0, depth=30, normal=(0.0, 0.0, 1.0))
    for aggregate in ("mean", "vote"):
        model = Scripted(first, second)
        found = predict(model, {}, ALL, outputs=["depth", "normals"], aggregate=aggregate).outputs
        assert set(found) == {"depth", "normals"}
        assert found["depth"].item() == 20
        assert found["normals"].flatten().tolist() == pytest.approx([0.5**0.5, 0, 0.5**0.5])


@pytest.mark.parametrize(
    ("said", "uncertainty"),
    [
        ([(1, 0, 0), (1, 0, 0), (1, 0, 0)], 0),
        ([(1, 0, 0), (0, 1, 0), (0, 0, 1)], 1),
        ([(1, 0, 0), (0, 1, 0)], math.log(2) / math.log(3)),
        ([(1 / 3, 1 / 3, 1 / 3)] * 3, 0),  # unsure, but of one mind
        ([(0.2, 0.5, 0.3)], 0),  # one alone
    ],
)
def test_uncertainty_is_how_far_members_disagree(said: list[tuple[float, ...]], uncertainty: float) -> None:
    found = predict(Scripted(*(member(*each) for each in said)), {}, ALL).uncertainty
    assert found.shape == (1, 1, 1, 1)
    assert found.item() == pytest.approx(uncertainty, abs=1e-6)


def test_the_mean_of_the_target_is_what_the_model_itself_predicts() -> None:
    model, sample = untrained(), batch()
    masks = model.masks(4, torch.Generator().manual_seed(0))
    for mirror in (False, True):
        found = predict(model, sample, masks, outputs=["vote", "depth", "normals"], mirror=mirror)
        assert torch.equal(found.outputs["vote"], model.predict(sample, masks, mirror=mirror))
        shapes = {name: tuple(values.shape) for name, values in found.outputs.items()}
        height, width = found.uncertainty.shape[-2:]
        assert shapes == {
            name: (2, channels, height, width) for name, channels in (("vote", 3), ("depth", 1), ("normals", 3))
        }
        assert found.outputs["normals"].norm(dim=1).flatten().tolist() == pytest.approx([1.0] * 2 * height * width)
        assert 0 <= found.uncertainty.min() < found.uncertainty.max() <= 1
    assert torch.equal(predict(model, sample, masks).outputs["vote"], model.predict(sample, masks))


def test_a_mirrored_prediction_is_turned_back_with_its_vectors() -> None:
    stored = torch.randn(1, 4, 6, 3)
    back = unmirrored(NORMALS, mirrored(NORMALS, stored).permute(0, 3, 1, 2))
    assert torch.equal(back, stored.permute(0, 3, 1, 2))


def test_what_is_not_predicted_is_named_with_what_is() -> None:
    with pytest.raises(UsageError, match="does not predict 'flow'") as caught:
        predict(untrained(), batch(), ALL, outputs=["flow"])
    assert "vote, depth, normals" in caught.value.hint


def test_a_chosen_mask_shows_what_is_there_of_it_and_never_nothing() -> None:
    masks = torch.tensor([[True, True, False], [False, False, True]])
    present = torch.tensor([True, False, False])
    assert restricted(masks, present).tolist() == [[True, False, False]] * 2


def test_the_masks_that_agree_best_with_all_are_kept_for_every_frame(scene: Path) -> None:
    model = untrained()
    samples = ModalityDataset(Dataset.open(scene), ["rgb", "blind_expert", "depth"], split="train")
    members = choose_members(model, samples, Ensemble(members=30, select=3), seed=0)
    every = choose_members(model, samples, Ensemble(members=30, select=30), seed=0)
    assert members.chosen is not None
    assert every.chosen is not None
    assert members.chosen.shape == (3, 3)
    assert len(every.chosen) == len(torch.unique(every.chosen, dim=0)) <= 7, "drawn twice, counted once"
    assert members.agreement == every.agreement[:3]
    assert list(every.agreement) == sorted(every.agreement, reverse=True)
    assert all(0 <= value <= 1 for value in every.agreement)
    assert torch.equal(members.masks(), members.masks(torch.ones(3, dtype=torch.bool)))
    told = members.describe()
    assert [len(mask) for mask in told["masks"]] == members.chosen.sum(dim=1).tolist()
    fresh = choose_members(model, samples, Ensemble(members=30), seed=0)
    assert not torch.equal(fresh.masks(), fresh.masks())
    assert fresh.describe() == {}


def test_fresh_members_are_as_many_as_asked() -> None:
    assert Members(untrained(), 5, torch.Generator().manual_seed(0)).masks().shape == (5, 3)


def test_a_student_tells_which_masks_taught_it_and_eval_takes_the_same_options(scene: Path, tmp_path: Path) -> None:
    data = Dataset.open(scene)
    short = {"network": "edge-150k", "augmentation__crop": (32, 48), "optimisation__batch": 2, "optimisation__steps": 2}
    train(data, tmp_path / "run", read_settings(TrainSettings, None, **short), device="cpu")
    teacher = load_phg_mae(tmp_path / "run")
    asked = {"ensemble__members": 4, "ensemble__select": 2, "ensemble__aggregate": "vote", "ensemble__mirror": False}
    settings = read_settings(DistillSettings, None, **short, **asked)
    lessons = EnsembleTeacher(teacher, settings.ensemble, parent="run")
    distill(lessons, data, tmp_path / "student", settings, device="cpu")
    told = read_config(tmp_path / "student").provenance["ensemble"]
    assert 1 <= len(told["masks"]) == len(told["agreement"]) <= 2
    assert {name for mask in told["masks"] for name in mask} <= {"rgb", "blind_expert", "depth"}
    for options in ({"members": 4, "select": 2}, {"members": 3, "aggregate": "vote", "mirror": True}):
        assert 0 <= score_model(str(tmp_path / "run"), data, "val", **options).miou <= 1
    worst = Worst()
    chosen = score_model(str(tmp_path / "run"), data, "val", members=4, select=2, on_frame=worst.add)
    assert chosen.to_dict()["ensemble"]["masks"]
    page = render(chosen, worst, "data", "val")
    assert "disagreement of the ensemble" in page
    assert ", ".join(chosen.ensemble["masks"][0]) in page
    shown = CliRunner().invoke(app, ["eval", str(tmp_path / "run"), str(scene), "--members", "4", "--select", "2"])
    assert "Chosen masks" in shown.output
    with pytest.raises(UsageError, match="--select 3 needs at least as many --members"):
        score_model(str(tmp_path / "run"), data, "val", members=2, select=3)
    with pytest.raises(UsageError, match="no --aggregate 'median'"):
        score_model(str(tmp_path / "run"), data, "val", members=2, aggregate="median")


def test_more_masks_cannot_be_kept_than_there_are() -> None:
    with pytest.raises(UsageError, match="select is more than the 3 members"):
        read_settings(DistillSettings, None, ensemble__members=3, ensemble__select=4)
