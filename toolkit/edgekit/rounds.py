"""`edgekit round`: train, distil, label with the student; each stage what the command of that name does.

ROUND/round.json   what the student is called in the data set, fixed when the round begins
ROUND/phg-mae      the PHG-MAE
ROUND/student      the student
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.commands.training import distilling, find_teacher, say_doubts, say_supervised, step_reporter
from edgekit.console import console, progress
from edgekit_runtime.errors import CheckpointError, UsageError
from edgekit_runtime.files import whole
from edgekit_student.checkpoint import CONFIG, CheckpointConfig, read_config
from edgekit_student.labelling import label, made_by_models, next_free, student_labeller
from edgekit_student.settings import DistillSettings, TrainSettings, differences, read_settings
from edgekit_student.student import load_student
from edgekit_student.train import choose_modalities

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset

NOTES = "round.json"


@dataclass(frozen=True)
class Round:
    """What a round has made: `modality` is the student's name in the data set, `inputs` what its PHG-MAE has seen;
    `listed` says that the settings name the inputs, `labelled` how many frames are new.
    """

    run: Path
    student: Path
    modality: str
    inputs: tuple[str, ...]
    listed: bool
    learnt: dict[str, Any]
    labelled: int


def run_round(
    data: Dataset,
    folder: Path,
    config: Path | None,
    *,
    name: str = "",
    beside: Sequence[str] = (),
    device: str = "cpu",
) -> Round:
    """Raises UsageError where a finished stage was made with other settings, or under another name."""
    train, distil = read_settings(TrainSettings, config), read_settings(DistillSettings, config)
    listed = bool(train.inputs)
    if listed:
        train = train.model_copy(update={"inputs": tuple(dict.fromkeys([*train.inputs, *beside]))})
    run, student = folder / "phg-mae", folder / "student"
    train = _with_target(data, train)
    choose_modalities(data, train)  # what cannot begin leaves nothing behind
    modality = _name(data, folder, name)
    trained = _trained(data, run, train, device)
    _distilled(data, run, student, distil, device)
    model = load_student(student, device)
    with progress(f"Labels {modality}") as advance:
        labelled = label(data, student_labeller(model), modality, on_frame=advance)
    inputs = tuple(each.name for each in trained.inputs)
    return Round(run, student, modality, inputs, listed, model.config.provenance["learnt"], labelled)


def _name(data: Dataset, folder: Path, asked: str) -> str:
    """What the student is called; it may be called otherwise until it has labelled something.

    Raises UsageError where that name is another's, before the hours after which it would be found out.
    """
    notes, ours = folder / NOTES, made_by_models(data)
    name = ""
    if notes.exists():
        try:
            name = str(json.loads(notes.read_text(encoding="utf-8"))["as"])
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{notes} cannot be read: {error!r}.", hint="Choose another -o.") from error
        if asked and asked != name and name in ours:
            raise UsageError(
                f"This round has begun with --as {name}.", hint=f"Leave out --as {asked}, or choose another -o."
            )
    name = asked or name or next_free(data)
    if name not in ours and any(name in data.video(each).modalities for each in data.videos):
        raise UsageError(f"The data set has a modality {name!r} already.", hint="Give another --as.")
    folder.mkdir(parents=True, exist_ok=True)
    with whole(notes) as partial:
        partial.write_text(json.dumps({"as": name}) + "\n", encoding="utf-8")
    return name


def _with_target(data: Dataset, settings: TrainSettings) -> TrainSettings:
    """Earlier students are inputs: the only labels that no model of ours has made are still the target."""
    from edgekit_runtime.modality import Kind
    from edgekit_student.samples import automatic_modalities

    if settings.target:
        return settings
    ours = made_by_models(data)
    found = automatic_modalities(data, split="train").items()
    labels = [name for name, modality in found if modality.kind is Kind.LABELS and name not in ours]
    return settings.model_copy(update={"target": labels[0]}) if len(labels) == 1 else settings


def _trained(data: Dataset, run: Path, settings: TrainSettings, device: str) -> CheckpointConfig:
    from edgekit_student.train import train

    if (run / CONFIG).exists():
        return _finished(run, settings)
    with progress("PHG-MAE", settings.optimisation.steps) as advance:
        return train(data, run, settings, device=device, resume=True, on_progress=step_reporter(advance)).config


def _distilled(data: Dataset, run: Path, folder: Path, settings: DistillSettings, device: str) -> None:
    from edgekit_student.distill import distill

    if (folder / CONFIG).exists():
        _finished(folder, settings)
        return
    teacher = find_teacher(str(run), data, settings, device)
    say_supervised(teacher)
    with distilling(settings.optimisation.steps) as (on_teaching, on_progress):
        student = distill(
            teacher,
            data,
            folder,
            settings,
            device=device,
            resume=True,
            on_teaching=on_teaching,
            on_progress=on_progress,
        )
    say_doubts(student.config.provenance["learnt"]["doubts"])


def _finished(folder: Path, settings: TrainSettings | DistillSettings) -> CheckpointConfig:
    config = read_config(folder)
    if other := differences(config.provenance.get("config", {}), settings.model_dump(mode="json")):
        raise UsageError(
            f"{folder} was made with other settings than those asked for now: {', '.join(other)}.",
            hint="Give the settings that the round began with, or choose another -o.",
        )
    console.print(f"{folder.name}: finished before.", markup=False)
    return config
