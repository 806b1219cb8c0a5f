"""From a data set in the store to a scored student: the road that `train`, `distill` and `eval` take."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.cli import main
from edgekit.commands.scores import score_model
from edgekit_experts.dataset import Dataset, VideoInfo
from edgekit_runtime.errors import CheckpointError, DataError, UsageError
from edgekit_runtime.modality import Kind, Modality
from edgekit_student.batches import collate
from edgekit_student.checkpoint import CONFIG, WEIGHTS, read_config, read_weights
from edgekit_student.distill import distill
from edgekit_student.fit import STATE, Progress, fit
from edgekit_student.phg_mae import PHGMAE, load_phg_mae
from edgekit_student.samples import ModalityDataset
from edgekit_student.settings import DistillSettings, Optimisation, TrainSettings, read_settings
from edgekit_student.student import load_student
from edgekit_student.teaching import EnsembleTeacher, StoredTeacher
from edgekit_student.train import modality_losses, reconstruction_loss, train
from edgekit_student.weighting import LearnedWeights

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:lightning", "ignore::UserWarning:lightning")


def short(steps: int, **more: object) -> TrainSettings:
    return read_settings(
        TrainSettings,
        None,
        network="edge-150k",
        augmentation__crop=(64, 96),
        optimisation__steps=steps,
        optimisation__batch=4,
        optimisation__ema=0.9,
        **more,
    )


def trained(scene: Path, run: Path, settings: TrainSettings, **options: object) -> PHGMAE:
    return train(Dataset.open(scene), run, settings, device="cpu", **options)


def test_the_road_from_experts_to_a_student_that_beats_a_blind_one(scene: Path, tmp_path: Path) -> None:
    data = Dataset.open(scene)
    run, folder = tmp_path / "run", tmp_path / "student"
    model = trained(scene, run, short(60))
    assert "labels" not in [modality.name for modality in model.config.inputs + model.config.outputs]
    settings = read_settings(
        DistillSettings,
        None,
        network="edge-150k",
        ensemble__members=3,
        augmentation__crop=(64, 96),
        optimisation__steps=80,
        optimisation__batch=4,
        optimisation__ema=0.9,
    )
    teacher = EnsembleTeacher(load_phg_mae(run), settings.ensemble, parent="run")
    distill(teacher, data, folder, settings, device="cpu")
    student = load_student(folder)
    assert student.config.outputs[0].name == "labels"
    assert student.config.provenance["parent"] == "run"
    blind = score_model("expert:blind_expert", data, "val")
    score = score_model(str(folder), data, "val")
    assert blind.per_class["thing"] == 0
    assert score.miou > blind.miou
    assert score_model(str(run), data, "val", members=4, mirror=True).miou > blind.miou


def test_a_resumed_training_ends_with_the_same_weights(scene: Path, tmp_path: Path) -> None:
    settings = short(6, optimisation__checkpoint_every=3)
    trained(scene, tmp_path / "whole", settings)

    class KilledError(Exception):
        pass

    def kill(state: Progress) -> None:
        if state.step == 5:
            raise KilledError

    with pytest.raises(KilledError):
        trained(scene, tmp_path / "parts", settings, on_progress=kill)
    assert (tmp_path / "parts" / STATE).exists()
    trained(scene, tmp_path / "parts", settings, resume=True)
    whole, parts = read_weights(tmp_path / "whole"), read_weights(tmp_path / "parts")
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_gradients_of_several_batches_make_one_step(tmp_path: Path) -> None:
    seen: list[int] = []

    def batches(number: int) -> dict[str, torch.Tensor]:
        seen.append(number)
        return {"x": torch.tensor([[1.0 + number % 2]])}

    def gradients(accumulate: int) -> list[float]:
        line, found = torch.nn.Linear(1, 1, bias=False), []
        settings = Optimisation(steps=3, batch=1, accumulate=accumulate, precision="32-true")

        def look(progress: Progress) -> None:
            assert line.weight.grad is not None
            found.append(line.weight.grad.item())

        run = tmp_path / str(accumulate)
        fit(line, batches, lambda module, batch, _: module(batch["x"]).sum(), settings, run, on_progress=look)
        return found

    assert gradients(1) == [1, 2, 1]
    assert seen == [0, 1, 2]
    seen.clear()
    assert gradients(2) == [1.5, 1.5, 1.5]
    assert seen == list(range(6))


def test_a_training_begins_with_the_weights_that_fit(scene: Path, tmp_path: Path) -> None:
    first = trained(scene, tmp_path / "first", short(1, inputs=("rgb", "blind_expert"), outputs=("vote",)))
    start = str(tmp_path / "first")
    # No step worth its name: what comes out is what it began with.
    still = {"optimisation__learning_rate": 1e-12, "optimisation__weight_decay": 0.0}
    settings = short(1, inputs=("rgb", "blind_expert", "depth"), outputs=("vote",), start=start, **still)
    model = trained(scene, tmp_path / "second", settings)
    told = model.config.provenance["start"]
    assert told.startswith("first@")
    given, begun = first.state_dict(), model.state_dict()
    same = [name for name in given if given[name].shape == begun[name].shape]
    reader = "network.stem.0.conv.weight"
    assert reader not in same, "another number of inputs"
    channels = sum(modality.features for modality in first.config.inputs)
    assert torch.allclose(begun[reader][:, :channels], given[reader])
    assert begun[reader].shape[1] == channels + 1
    assert all(torch.allclose(begun[name], given[name]) for name in same if "conv.weight" in name)
    finer = short(1, inputs=("rgb", "blind_expert"), outputs=("vote",), start=start, **still)
    finer = trained(scene, tmp_path / "finer", finer.model_copy(update={"network": "edge-150k-s2"}))
    assert len(finer.state_dict()["network.head.bias"]) == 4 * len(given["network.head.bias"])
    assert torch.allclose(finer.state_dict()[reader], given[reader])
    assert not torch.isin(finer.state_dict()["network.head.bias"], given["network.head.bias"]).any()
    with pytest.raises(CheckpointError, match="Hardly a weight"):
        trained(scene, tmp_path / "third", short(1, start=start).model_copy(update={"network": "safeuav-150k"}))
    with pytest.raises(CheckpointError, match=r"No checkpoint|cannot be read"):
        trained(scene, tmp_path / "fourth", short(1, start=str(tmp_path / "nowhere")))


def test_the_certainty_of_the_target_is_a_stored_modality(scene: Path, tmp_path: Path) -> None:
    trained(scene, tmp_path / "run", short(1, certainty="depth"))
    with pytest.raises(UsageError, match="one value a pixel"):
        trained(scene, tmp_path / "other", short(1, certainty="rgb"))
    with pytest.raises(DataError, match="no modality"):
        trained(scene, tmp_path / "third", short(1, certainty="agreement"))


def test_a_place_that_cannot_be_written_is_refused_before_the_first_step(scene: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    def never(state: Progress) -> None:
        raise AssertionError("it began")

    with pytest.raises(UsageError, match="file is no folder"):
        trained(scene, tmp_path / "file" / "run", short(1), on_progress=never)


def test_ensembles_mask_as_the_training_did(scene: Path, tmp_path: Path) -> None:
    settings = short(1, masking__hide=0.9, masking__always_visible=("rgb",))
    trained(scene, tmp_path / "run", settings)
    model = load_phg_mae(tmp_path / "run")
    names = [modality.name for modality in model.config.inputs]
    masks = model.masks(500, torch.Generator().manual_seed(0))
    assert masks[:, names.index("rgb")].all()
    others = [index for index, name in enumerate(names) if name != "rgb"]
    assert masks[:, others].float().mean() == pytest.approx(0.1, abs=0.03)


@pytest.mark.parametrize("damage", [{"target": "nothing"}, {"masking": {"hide": 2}}])
def test_a_checkpoint_that_contradicts_itself_is_refused(
    scene: Path, tmp_path: Path, damage: dict[str, object]
) -> None:
    trained(scene, tmp_path / "run", short(1))
    config = tmp_path / "run" / CONFIG
    table = json.loads(config.read_text(encoding="utf-8"))
    table["network"] |= damage
    config.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(CheckpointError, match="does not say how"):
        load_phg_mae(tmp_path / "run")


def test_resuming_with_other_settings_is_refused(scene: Path, tmp_path: Path) -> None:
    def kill(state: Progress) -> None:
        if state.step == 2:
            raise KeyError

    settings = short(4, optimisation__checkpoint_every=1)
    with pytest.raises(KeyError):
        trained(scene, tmp_path / "run", settings, on_progress=kill)
    with pytest.raises(CheckpointError, match="other optimisation settings"):
        trained(scene, tmp_path / "run", short(5, optimisation__checkpoint_every=1), resume=True)


def test_a_full_disk_loses_no_state_and_leaves_nothing_half_written(scene: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(state: Progress) -> None:
        if state.step == 2:
            raise KilledError

    settings = short(4, optimisation__checkpoint_every=1)
    with pytest.raises(KilledError):
        trained(scene, tmp_path / "run", settings, on_progress=kill)
    before = (tmp_path / "run" / STATE).read_bytes()
    with pytest.raises(UsageError, match="interrupted"):  # what is there is never lost by a slip
        trained(scene, tmp_path / "run", settings)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, unlimited[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            trained(scene, tmp_path / "run", settings, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == {STATE: before}
    assert trained(scene, tmp_path / "run", settings, resume=True)


def test_a_student_of_an_unknown_network_is_refused_before_anything_is_taught(scene: Path, tmp_path: Path) -> None:
    trained(scene, tmp_path / "run", short(1))
    settings = read_settings(DistillSettings, None, network="edge-431k")
    with pytest.raises(UsageError, match="no network"):
        distill(
            EnsembleTeacher(load_phg_mae(tmp_path / "run"), settings.ensemble, parent="run"),
            Dataset.open(scene),
            tmp_path / "student",
            settings,
            on_teaching=lambda done, total: pytest.fail("taught"),
        )


def test_a_finished_training_is_not_overwritten(scene: Path, tmp_path: Path) -> None:
    trained(scene, tmp_path / "run", short(1))
    with pytest.raises(UsageError, match="finished"):
        trained(scene, tmp_path / "run", short(1))


@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_damaged_weights_are_refused(scene: Path, tmp_path: Path, damage: str) -> None:
    trained(scene, tmp_path / "run", short(1))
    path = tmp_path / "run" / WEIGHTS
    payload = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(payload[: len(payload) // 2])
    elif damage == "changed":
        payload[-5] ^= 1
        path.write_bytes(payload)
    else:
        path.unlink()
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_phg_mae(tmp_path / "run")


def test_a_phg_mae_is_no_student_and_the_hint_says_what_to_do(scene: Path, tmp_path: Path) -> None:
    trained(scene, tmp_path / "run", short(1))
    with pytest.raises(CheckpointError, match="distill"):
        load_student(tmp_path / "run")
    assert read_config(tmp_path / "run").kind == "phg-mae"


def test_a_split_without_labels_cannot_be_scored(scene: Path) -> None:
    with pytest.raises(DataError, match="no labels") as caught:
        score_model("expert:vote", Dataset.open(scene), "test")
    assert "are in train, val" in caught.value.hint


def test_where_nothing_is_labelled_no_other_split_is_offered(scene: Path, tmp_path: Path) -> None:
    for video in ("train", "val"):
        shutil.rmtree(scene / video / "labels")
    with pytest.raises(DataError, match="no labels") as caught:
        score_model("expert:vote", Dataset.open(scene), "val")
    assert "docs/importing.md" in caught.value.hint


def test_an_unknown_modality_is_named_with_what_there_is(scene: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="blind_expert"):
        trained(scene, tmp_path / "run", short(1, target="votes"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[train.optimisation]\nstep = 3", "Did you mean 'steps'"),
        ("[train]\nnetwrk = 'x'", "Did you mean 'network'"),
        ("[train.optimisation]\nbatch = 0", "optimisation.batch"),
        ("[train", "not valid TOML"),
        ("train = 3", r"train must be a table, \[train\]"),
        ("[train]\noptimisation = 3", "optimisation must be a table, not 3|optimisation = 3: input should be"),
        ("[train]\nmasking = 'half'", "masking"),
        ("[train.augmentation]\ncrop = '416'", "crop = '416': a size is written WIDTHxHEIGHT"),
        ("[train.augmentation]\nscale = [2.0, 0.5]", "augmentation.scale = .*the smallest comes first"),
        ("[train.augmentation]\ncrop = 416", "augmentation.crop must be a list"),
        ("[train.optimisation]\nlearning_rate = 'fast'", "optimisation.learning_rate must be a number, not 'fast'"),
    ],
)
def test_a_mistake_in_the_settings_is_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "train.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=message) as caught:
        read_settings(TrainSettings, path, optimisation__steps=3)
    assert len(str(caught.value).splitlines()) <= 2


def test_sizes_are_written_as_width_by_height(tmp_path: Path) -> None:
    path = tmp_path / "train.toml"
    path.write_text('[train.augmentation]\ncrop = "416x256"', encoding="utf-8")
    assert read_settings(TrainSettings, path).augmentation.crop == (256, 416)


def test_what_is_no_label_map_nor_depth_nor_normals_cannot_be_scored_and_the_error_says_why(scene: Path) -> None:
    with pytest.raises(UsageError, match="'rgb' is of kind image: only labels, depth and normals") as caught:
        score_model("expert:rgb", Dataset.open(scene), "val")
    assert "label_map" not in str(caught.value)


def test_a_student_tells_how_well_it_has_learnt(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(scene, tmp_path / "run", short(40))
    settings = '[augmentation]\ncrop = "96x64"\n[ensemble]\nmembers = 2\n[optimisation]\nbatch = 4\nema = 0.9\n'
    (tmp_path / "distill.toml").write_text(settings, encoding="utf-8")

    def distilled(folder: Path, steps: int) -> tuple[dict[str, Any], list[str]]:
        capsys.readouterr()
        arguments = ["distill", tmp_path / "run", scene, "-o", folder, "--student", "edge-150k", "--steps", steps]
        status = main([*map(str, arguments), "-c", str(tmp_path / "distill.toml"), "--device", "cpu", "--json"])
        said = capsys.readouterr()
        assert status == 0, said.err
        return json.loads(said.out)["learnt"], said.err.splitlines()

    learnt, said = distilled(tmp_path / "good", 60)
    assert learnt == read_config(tmp_path / "good").provenance["learnt"]
    assert learnt["doubts"] == []
    assert 0.3 < learnt["miou"] <= 1
    # Each stage shows its own count and time: the second begins when the first has ended.
    assert [line.split(" in ")[0] for line in said] == ["Pseudo-labels: 6", "Student: 60"]


def test_a_student_that_answers_one_class_everywhere_is_warned_of(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = Dataset.open(scene)
    with data.writing("train") as video:
        video.write("vote", 0, np.zeros_like(video.read_many("vote", 0, video.frames)))
    trained(scene, tmp_path / "run", short(20))
    arguments = ["distill", tmp_path / "run", scene, "-o", tmp_path / "bad", "--student", "edge-150k", "--steps", 20]
    assert main([*map(str, arguments), "--batch", "4", "--members", "2", "--device", "cpu"]) == 0
    said = capsys.readouterr().err
    assert "Warning: this student has learnt little: it answers 'ground' for " in said
    assert read_config(tmp_path / "bad").provenance["learnt"]["doubts"]


def test_a_student_begins_as_the_part_of_its_teacher_that_sees_rgb_alone(scene: Path, tmp_path: Path) -> None:
    trained(scene, tmp_path / "run", short(3, masking__always_visible=("rgb",)))
    settings = read_settings(
        DistillSettings,
        None,
        network="edge-150k",
        start=str(tmp_path / "run"),
        ensemble__members=1,
        augmentation__crop=(64, 96),
        optimisation={"steps": 1, "batch": 4, "learning_rate": 1e-12, "weight_decay": 0.0, "ema": 0.0},
    )
    teacher = load_phg_mae(tmp_path / "run")
    data = Dataset.open(scene)
    lesson = EnsembleTeacher(teacher, settings.ensemble, parent="run")
    student = distill(lesson, data, tmp_path / "student", settings, device="cpu")
    assert student.config.provenance["start"].endswith("100% of the parameters")
    # Batch statistics move in a step, even one that changes no weight: those of the teacher are put back to compare.
    given = read_weights(tmp_path / "run")
    student.load_state_dict({n: given[n] for n in student.state_dict() if "running" in n}, strict=False)
    sample = {m.name: torch.zeros(1, 64, 96, m.channels, dtype=torch.uint8) for m in teacher.config.inputs}
    sample["rgb"] = torch.randint(0, 256, (1, 64, 96, 3), dtype=torch.uint8)
    alone = torch.tensor([[m.name == "rgb" for m in teacher.config.inputs]])
    with torch.no_grad():
        expected = teacher(sample, alone)[teacher.target.name]
        found = student.eval()(sample["rgb"].permute(0, 3, 1, 2).float())[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)


def test_an_autoencoder_of_pictures_alone_is_what_others_begin_with(
    scene: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, clips = Dataset.open(scene), tmp_path / "clips"
    unlabelled = Dataset.create(clips)
    for video in map(data.video, data.videos):
        frames = video.read_many("rgb", 0, video.frames)
        copy = unlabelled.add_video(video.name, VideoInfo(video.frames, (64, 96), 10.0, "train", {"uri": video.name}))
        copy.declare(Modality("rgb", Kind.IMAGE, channels=3), expert="made by hand")
        copy.write("rgb", 0, frames)
    (tmp_path / "train.toml").write_text(
        '[train]\nnetwork = "edge-150k"\ninputs = ["rgb"]\noutputs = ["rgb"]\n[train.masking]\nhide = 0.0\n'
        'patches = 0.5\npatch_size = 16\n[train.augmentation]\ncrop = "96x64"\n[train.optimisation]\nsteps = 3\n'
        "batch = 2\n[distill]\nnetwork = 'edge-150k'\n[distill.optimisation]\nsteps = 1\nlearning_rate = 1e-12\n",
        encoding="utf-8",
    )
    run, config = str(tmp_path / "mae"), str(tmp_path / "train.toml")
    assert main(["train", str(clips), "-o", run, "-c", config]) == 0
    assert f"edgekit distill TEACHER DATA --start {run}" in capsys.readouterr().err
    student = str(tmp_path / "student")
    assert main(["distill", "expert:vote", str(scene), "-o", student, "-c", config, "--start", run]) == 0
    assert read_config(Path(student)).provenance["start"].startswith("mae@")
    stem = "network.stem.0.conv.weight"
    torch.testing.assert_close(read_weights(Path(student))[stem], read_weights(Path(run))[stem])
    capsys.readouterr()
    for command in (["eval", run, str(scene), "--split", "val"], ["distill", run, str(scene), "-o", f"{student}2"]):
        assert main(command) == 2
        assert "This PHG-MAE predicts no labels." in capsys.readouterr().err
    # Without `outputs` it is a slip, not a wish.
    assert main(["train", str(clips), "-o", f"{run}2", "--steps", "1"]) == 2
    assert "no labels that a student could learn" in capsys.readouterr().err


def test_patches_are_hidden_of_whole_frames_too_where_some_are_held_out(scene: Path, tmp_path: Path) -> None:
    asked = short(4, masking__patches=0.5, optimisation__patience=5, optimisation__validate_every=2)
    settings = asked.model_copy(update={"augmentation": asked.augmentation.model_copy(update={"crop": (32, 48)})})
    held_out = trained(scene, tmp_path / "run", settings).config.provenance["early_stop"]
    assert held_out


def test_each_modality_has_a_loss_of_its_own_while_weights_are_learnt(scene: Path, tmp_path: Path) -> None:
    model = trained(scene, tmp_path / "run", short(2))
    samples = ModalityDataset(Dataset.open(scene), [m.name for m in model.config.inputs + model.config.outputs])
    batch = collate([samples[0]])
    settings = short(2, weighting="learned")
    fixed = {modality.name: 1.0 for modality in model.config.outputs}
    with torch.no_grad():
        predictions = model(batch, model.everything())
        losses, _ = modality_losses(model, predictions, batch, settings, None)
        model.weighting = LearnedWeights(fixed)
        again, counted = modality_losses(model, predictions, batch, settings, None)
        total = reconstruction_loss(model, predictions, batch, settings, None)
    assert len({round(value.item(), 6) for value in losses.values()}) == len(losses) > 2
    assert {name: value.item() for name, value in again.items()} == {n: v.item() for n, v in losses.items()}
    torch.testing.assert_close(total, sum(value for name, value in losses.items() if counted[name]))


def test_outputs_without_labels_are_a_wish_also_where_there_are_labels(scene: Path, tmp_path: Path) -> None:
    model = trained(scene, tmp_path / "run", short(1, inputs=("rgb",), outputs=("rgb", "depth")))
    assert [modality.name for modality in model.config.outputs] == ["rgb", "depth"]
    assert not model.config.network["target"]
    with pytest.raises(UsageError, match="nothing that certainty and paste could be about"):
        trained(
            scene,
            tmp_path / "other",
            short(1, inputs=("rgb",), outputs=("rgb",), certainty="depth", augmentation__paste=0.5),
        )


def test_masks_are_asked_only_of_what_has_masks(scene: Path) -> None:
    with pytest.raises(UsageError, match="no masks to draw"):
        score_model("expert:vote", Dataset.open(scene), "val", members=3)


@pytest.mark.filterwarnings("error")
def test_whole_numbers_are_probabilities_too() -> None:
    settings = read_settings(TrainSettings, None, masking__hide=0)
    assert settings.model_dump(mode="json")["masking"]["hide"] == 0.0


def test_a_slip_in_the_table_of_the_other_command_is_found_before_a_training(tmp_path: Path) -> None:
    config = tmp_path / "train.toml"
    config.write_text('[train]\nnetwork = "edge-150k"\n[distill]\nstepps = 3\n', encoding="utf-8")
    with pytest.raises(UsageError, match=r"\[distill\] there is no setting 'stepps'"):
        read_settings(TrainSettings, config)
    config.write_text("[trian]\n[train.optimisation]\nsteps = 3\n", encoding="utf-8")
    with pytest.raises(UsageError, match="there is no table 'trian'"):
        read_settings(TrainSettings, config)
    config.write_text("[trian]\nseed = 3\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        read_settings(TrainSettings, config)
    assert "Did you mean 'train'?" in caught.value.hint


def test_a_student_has_no_weights_for_what_it_does_not_learn(scene: Path, tmp_path: Path) -> None:
    settings = read_settings(DistillSettings, None, network="edge-150k", loss_weights={"foo": 1.0})
    data = Dataset.open(scene)
    with pytest.raises(UsageError, match="loss_weights names 'foo', which is no output"):
        distill(StoredTeacher(data, "vote", ()), data, tmp_path / "student", settings, device="cpu")
