"""What experts and data sets do wrong: broken numbers, classes that are not there, videos that lack a modality."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit_experts.dataset import Dataset
from edgekit_runtime.errors import UsageError
from edgekit_student.batches import collate
from edgekit_student.ensemble import choose_members, predict, read_inputs
from edgekit_student.phg_mae import PHGMAE, load_phg_mae
from edgekit_student.samples import ModalityDataset
from edgekit_student.settings import Ensemble, TrainSettings, read_settings
from edgekit_student.train import reconstruction_loss, train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")


def settings(**more: object) -> TrainSettings:
    short = {"network": "edge-150k", "augmentation__crop": (32, 48), "optimisation__batch": 2, "optimisation__steps": 2}
    return read_settings(TrainSettings, None, **(short | more))


def finite(model: PHGMAE) -> bool:
    return all(bool(value.isfinite().all()) for value in model.state_dict().values())


@pytest.mark.parametrize("loss", ["l1", "l2", "scale-invariant"])
def test_broken_numbers_of_an_expert_cost_nothing_and_poison_nothing(scene: Path, tmp_path: Path, loss: str) -> None:
    data = Dataset.open(scene)
    with data.writing("train") as video:
        depth = video.read_many("depth", 0, video.frames)
        depth[:, :40:3] = np.nan
        depth[:, 1:40:3] = np.inf
        depth[0], depth[1, 50:] = np.nan, -np.inf
        video.write("depth", 0, depth)
    chosen = settings(losses={"depth": loss})
    model = train(data, tmp_path / "run", chosen, device="cpu")
    assert finite(model)
    samples = ModalityDataset(data, ["rgb", "blind_expert", "depth", "vote"], split="train")
    batch = collate([samples[0], samples[1]])
    masks = model.everything().expand(2, -1)

    def cost(batch: dict[str, torch.Tensor]) -> float:
        with torch.no_grad():
            return reconstruction_loss(model, model(batch, masks), batch, chosen, torch.ones(3)).item()

    other = {**batch, "depth": torch.where(batch["depth"].isfinite(), batch["depth"], -torch.inf)}
    assert np.isfinite(cost(batch))
    assert cost(other) == cost(batch), "it does not matter how a number is broken"
    found = predict(load_phg_mae(tmp_path / "run"), batch, model.everything(), outputs=["vote", "depth"], mirror=True)
    assert all(values.isfinite().all() for values in [*found.outputs.values(), found.uncertainty])


def test_a_class_that_no_frame_shows_breaks_nothing(scene: Path, tmp_path: Path) -> None:
    data = Dataset.open(scene)
    with data.writing("train") as video:
        vote = video.read_many("vote", 0, video.frames)
        video.write("vote", 0, np.where(vote == 2, 0, vote).astype(np.uint8))
    model = train(data, tmp_path / "run", settings(class_balance=1.0, weighting="learned"), device="cpu")
    assert finite(model)


def test_a_modality_that_some_videos_lack_is_masked_there_also_in_chosen_ensembles(scene: Path, tmp_path: Path) -> None:
    data = Dataset.open(scene)
    source = data.video("train")
    other = data.add_video("other", replace(source.info, source={"uri": "other", "fingerprint": "other"}))
    for name in ("rgb", "vote"):
        other.declare(source.modalities[name], expert="made by hand")
        other.write(name, 0, source.read_many(name, 0, source.frames))
    chosen = settings(missing="mask", masking={"visible": 2, "never_visible": ["blind_expert"]}, weighting="learned")
    model = train(data, tmp_path / "run", chosen, device="cpu")
    assert model.config.provenance["frames"] == 12
    assert finite(model)
    samples = ModalityDataset(data, ["rgb", "blind_expert", "depth"], split="train", missing="mask")
    members = choose_members(model, samples, Ensemble(members=6, select=2), seed=0)
    for sample in samples:
        batch, present = read_inputs(model, sample)
        masks = members.masks(present)
        assert not (masks & ~present).any()
        assert masks.any(dim=1).all()
        assert predict(model, batch, masks).outputs["vote"].isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"masking": {"always_visible": ["dpeth"]}}, "always_visible names 'dpeth'"),
        ({"masking": {"never_visible": ["vote"]}}, "never_visible names 'vote', which is no input"),
        ({"masking": {"hide": {"dpeth": 0.5}}}, "hide names 'dpeth'"),
        ({"losses": {"dpeth": "l1"}}, "losses names 'dpeth'"),
        ({"losses": {"depth": "cosine"}}, "'cosine' does not fit 'depth'"),
        ({"loss_weights": {"dpeth": 1.0}}, "loss_weights names 'dpeth'"),
    ],
)
def test_settings_that_name_an_unknown_modality_are_refused_before_the_first_step(
    scene: Path, tmp_path: Path, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        train(Dataset.open(scene), tmp_path / "run", settings(**wrong), device="cpu")
    assert not (tmp_path / "run").exists()
