"""What `edgekit eval` measures beside IoU, each on pictures whose answer is known."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from edgekit.cli import app
from edgekit.commands.scores import score_model
from edgekit.eval_page import WORST_FRAMES, Worst, render
from edgekit_experts.dataset import Dataset
from edgekit_student.boundaries import Boundaries
from edgekit_student.calibration import Calibration
from edgekit_student.evaluate import Judged, Prediction
from edgekit_student.metrics import class_f1, confusion
from edgekit_student.samples import FrameRef
from edgekit_student.temporal import carried, correspondence, temporal_loss


def texture(height: int, width: int) -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 256, (height // 4, width // 4, 3), np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


def disc(x: int, y: int, radius: int = 30, size: tuple[int, int] = (120, 160)) -> np.ndarray:
    return np.asarray(cv2.circle(np.zeros(size, np.uint8), (x, y), radius, 1, -1))


def test_predictions_that_move_with_the_picture_are_consistent() -> None:
    world = texture(200, 300)
    before, after = world[40:160, 40:200], world[43:163, 45:205]  # the camera goes 5 right, 3 down
    flow, seen = correspondence(before, after)
    assert np.median(flow[seen], axis=0) == pytest.approx((-5, -3), abs=0.3)
    assert seen[20:-20, 20:-20].mean() > 0.98
    assert not seen[:, 0].any(), "what leaves the picture is not seen in both"
    labels = disc(150, 100, size=(200, 300))
    ids_before, ids_after = labels[40:160, 40:200], labels[43:163, 45:205]
    agree = (carried(ids_after, flow) == ids_before)[seen].mean()
    stays = (carried(ids_before, flow) == ids_before)[seen].mean()
    assert agree > 0.995
    assert stays < 0.98


def test_what_comes_from_behind_something_does_not_count() -> None:
    ground, thing = texture(240, 320), texture(120, 120)[::-1]
    frames = []
    for left in (80, 90):
        frame = ground.copy()
        frame[60:180, left : left + 120] = thing
        frames.append(frame)
    _, seen = correspondence(*frames)
    assert seen[70:170, 100:180].mean() > 0.9, "the thing itself"
    assert seen[70:170, 202:208].mean() < 0.3, "the ground that it covers next"
    assert seen[200:230].mean() > 0.95


def test_borders_may_be_off_by_a_few_pixels_and_no_more() -> None:
    target = disc(80, 60)  # a diagonal of 200 pixels: a tolerance of 2
    for shift, expected in ((0, 1.0), (1, 1.0), (12, 0.35)):
        boundaries = Boundaries(2, 255)
        boundaries.add(disc(80 + shift, 60), target)
        assert boundaries.f1[1] == pytest.approx(expected, abs=0.0 if expected == 1 else 0.3)
    boundaries = Boundaries(3, 255)
    boundaries.add(np.zeros_like(target), target)
    assert boundaries.f1[1] == 0
    assert np.isnan(boundaries.f1[2]), "a class that is not there has no score"


def test_borders_beside_what_nobody_labelled_do_not_count() -> None:
    target = disc(80, 60)
    target[:, 80:] = 255
    boundaries = Boundaries(2, 255)
    boundaries.add(np.where(target == 255, 1, target).astype(np.uint8), target)
    assert boundaries.f1[1] == 1


def test_a_model_is_calibrated_if_it_is_right_as_often_as_it_is_sure() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.3, 1, (400, 400))
    counted = np.ones_like(confidence, bool)
    honest, boaster = Calibration(), Calibration()
    honest.add(confidence, rng.random(confidence.shape) < confidence, counted)
    assert honest.error < 0.01
    boaster.add(np.ones_like(confidence), rng.random(confidence.shape) < 0.6, counted)
    assert boaster.error == pytest.approx(0.4, abs=0.01)
    assert np.isnan(Calibration().error)


def test_f1_counts_a_hit_twice() -> None:
    table = confusion(np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1]), 3, 255)
    assert class_f1(table)[:2].tolist() == pytest.approx([0.8, 2 / 3])
    assert np.isnan(class_f1(table)[2])


def test_the_command_says_all_of_it(scene: Path, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "vote.html"
    result = CliRunner().invoke(app, ["eval", "expert:vote", str(scene), "--json", "--html", str(page)])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["frames"] == 6
    assert 0.9 < document["miou"] < document["f1"] < 1, "the vote ignores a stripe"
    assert 0.5 < document["boundary_f1"] <= 1
    assert 0 < document["temporal_consistency"] <= 1
    assert document["calibration_error"] is None, "labels do not say how sure they are"
    assert np.array(document["confusion"]).shape == (3, 3)
    text = page.read_text(encoding="utf-8")
    assert all(name in text for name in ("ground", "sky", "thing", "data:image/jpeg;base64,"))
    assert "http" not in re.sub(r"http-equiv", "", text), "the page asks nobody for anything"
    quick = json.loads(CliRunner().invoke(app, ["eval", "expert:vote", str(scene), "--json", "--quick"]).stdout)
    assert (quick["boundary_f1"], quick["temporal_consistency"]) == (None, None)
    assert quick["miou"] == document["miou"]


def test_the_page_shows_the_worst_frames_and_escapes_what_it_is_told(scene: Path) -> None:
    data = Dataset.open(scene)
    score = score_model("expert:vote", data, "val")
    video = data.video("val")
    sample = {"rgb": video.read("rgb", 0), "labels": video.read("labels", 0)}
    worst = Worst()
    for index, miou in enumerate(np.random.default_rng(0).permutation(20) / 20):
        prediction = Prediction(sample["labels"][..., 0])
        worst.add(Judged(FrameRef("<b>clip</b>", index), sample, prediction, float(miou)))
    shown = [judged.miou for judged in worst.frames]
    assert shown == sorted(shown) == [number / 20 for number in range(WORST_FRAMES)]
    page = render(score, worst, "<script>alert(1)</script>", "val")
    assert "<script>" not in page
    assert "<b>clip</b>" not in page
    assert html.escape("<b>clip</b>") in page


def test_the_temporal_loss_follows_what_moves() -> None:
    """A picture that moves 3 pixels right and 2 down: nothing is lost along that flow, much is without it."""
    torch.manual_seed(0)
    scene = torch.randn(1, 4, 40, 50).repeat_interleave(4, 2).repeat_interleave(4, 3).mul(4).softmax(dim=1)
    present, following = scene[..., 20:60, 20:80], scene[..., 18:58, 17:77]
    flow = torch.tensor([3.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 40, 60)
    seen = torch.zeros(1, 1, 40, 60)
    seen[..., :38, :57] = 1  # what stays within the picture
    assert temporal_loss(present, following, flow, seen) < 1e-6
    assert temporal_loss(present, following, -flow, seen) > 0.1
    assert temporal_loss(present, following, flow * 0, seen) > 0.1
    assert temporal_loss(present, following, -flow, seen * 0) == 0
