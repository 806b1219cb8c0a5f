"""Frames that are held out, and trainings that end when these are no longer served better."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit_runtime.errors import CheckpointError, UsageError
from edgekit_student.checkpoint import read_config
from edgekit_student.fit import STATE, Progress, fit
from edgekit_student.holdout import EarlyStop, split_frames
from edgekit_student.samples import FrameRef
from edgekit_student.settings import Optimisation, TrainSettings, read_settings
from edgekit_student.train import train

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")

FRAMES = [FrameRef(video, index) for video, count in (("a", 120), ("b", 60), ("c", 20)) for index in range(count)]


def test_whole_stretches_of_one_video_are_held_out() -> None:
    split = split_frames(FRAMES, Optimisation(patience=2, holdout=0.1))
    assert sorted(split.kept + split.held_out) == list(range(200))
    assert len(split.held_out) == 20
    borders = [i for i in split.held_out if i - 1 not in split.held_out or FRAMES[i - 1].video != FRAMES[i].video]
    assert 4 <= len(borders) <= 6, "few stretches: neighbours on the other side are rare"
    assert split == split_frames(FRAMES, Optimisation(patience=2, holdout=0.1))
    assert split != split_frames(FRAMES, Optimisation(patience=2, holdout=0.1, seed=1))


def test_nothing_is_held_out_unless_asked_for() -> None:
    assert split_frames(FRAMES, Optimisation()).kept == tuple(range(200))


def test_one_frame_cannot_be_held_out() -> None:
    with pytest.raises(UsageError, match="Of 1 frame, none can be held out"):
        split_frames(FRAMES[:1], Optimisation(patience=1))


class KilledError(Exception):
    pass


def descend(run: Path, *, kill: int = 0, resume: bool = False, **more: object) -> tuple[float, EarlyStop]:
    """A weight that is drawn to 1 where held-out data want 0.3: it gets better, then worse."""
    settings = Optimisation(
        steps=200,
        learning_rate=0.02,
        weight_decay=0,
        ema=0.5,
        warmup=0,
        checkpoint_every=5,
        precision="32-true",
        **{"patience": 3, "validate_every": 5, **more},
    )
    line = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(line.weight)
    stop = EarlyStop(lambda index: {"x": torch.ones(1, 1), "y": torch.full((1, 1), 0.3)}, 2, settings)

    def watch(progress: Progress) -> None:
        if progress.step == kill:
            raise KilledError

    def loss(module: torch.nn.Module, batch: dict[str, torch.Tensor], number: int) -> torch.Tensor:
        return (module(batch["x"]) - batch["y"]).square().mean()

    def batches(number: int) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(1, 1), "y": torch.ones(1, 1)}

    fit(line, batches, loss, settings, run, device="cpu", resume=resume, early_stop=stop, on_progress=watch)
    return line.weight.item(), stop


def test_a_training_ends_when_held_out_frames_are_served_worse_and_keeps_the_best(tmp_path: Path) -> None:
    weight, stop = descend(tmp_path)
    losses = dict(stop.history)
    told = stop.told()
    assert told["best_step"] == min(losses, key=losses.__getitem__)
    assert told["stopped_at"] == told["best_step"] + 3 * 5 < 200
    assert weight == pytest.approx(0.3, abs=0.06)
    assert (weight - 0.3) ** 2 == pytest.approx(losses[told["best_step"]], rel=1e-3), (
        "the best weights are what is kept"
    )
    assert not (tmp_path / STATE).exists()


@pytest.mark.parametrize("kill", [12, 27])
def test_what_was_held_out_is_part_of_what_is_resumed(tmp_path: Path, kill: int) -> None:
    whole, stop = descend(tmp_path / "whole")
    with pytest.raises(KilledError):
        descend(tmp_path / "parts", kill=kill)
    weight, resumed = descend(tmp_path / "parts", resume=True)
    assert (weight, resumed.told()) == (whole, stop.told())
    with pytest.raises(KilledError):
        descend(tmp_path / "other", kill=kill)
    with pytest.raises(CheckpointError, match="other optimisation settings"):
        descend(tmp_path / "other", resume=True, patience=4)


def test_a_loss_that_is_no_number_is_never_the_best() -> None:
    stop = EarlyStop(lambda index: {}, 1, Optimisation(patience=2))
    weights = {"x": torch.zeros(1)}
    stop.record(200, float("nan"), weights)
    assert not stop.best
    stop.record(400, 1.0, weights)
    stop.record(600, float("nan"), weights)
    assert not stop.exhausted
    stop.record(800, 2.0, weights)
    assert stop.exhausted
    assert stop.told()["history"][0] == [200, None]


def test_provenance_tells_what_was_held_out(scene: Path, tmp_path: Path) -> None:
    from edgekit_experts.dataset import Dataset

    settings = read_settings(
        TrainSettings,
        None,
        network="edge-150k",
        augmentation__crop=(64, 96),
        optimisation__steps=2,
        optimisation__batch=2,
        optimisation__patience=1,
        optimisation__validate_every=1,
        optimisation__holdout=0.3,
    )
    train(Dataset.open(scene), tmp_path / "run", settings, device="cpu")
    told = read_config(tmp_path / "run").provenance["early_stop"]
    assert told["frames"] == 2
    assert [step for step, _ in told["history"]] == [1, 2]
