"""`edgekit train` and `distill`."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.location import DataArgument
from edgekit.console import Stages, console, emit, progress
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from edgekit_experts.dataset import Dataset
    from edgekit_student.fit import Progress
    from edgekit_student.settings import DistillSettings
    from edgekit_student.student import Student
    from edgekit_student.teaching import Teacher

Config = Annotated[
    Path | None,
    typer.Option("-c", "--config", metavar="FILE", help="Settings, TOML: `edgekit settings` prints them all."),
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option(min=1, help="Train on so many devices of this machine, a batch on each.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write curves and sample pictures into the output folder.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last state in the output folder.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimisation steps.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples per step.")]
Start = Annotated[
    str | None, typer.Option(metavar="FOLDER", help="Begin with the weights of a checkpoint, where they fit.")
]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("distill")(distill)
    app.command("settings")(print_settings)


def train(
    context: typer.Context,
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder for the checkpoint.")],
    config: Config = None,
    network: Annotated[str | None, typer.Option(help="Network by name, such as edge-900k or safeuav-430k.")] = None,
    target: Annotated[str | None, typer.Option(help="The labels that students will learn.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    start: Start = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Devices = 1,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train PHG-MAE, the multi-modal masked autoencoder, on a data set. No human label is used."""
    _on_devices(context, device, devices)
    from edgekit_student.settings import TrainSettings, read_settings
    from edgekit_student.train import train as fit_phg_mae

    settings = read_settings(
        TrainSettings,
        config,
        network=network,
        target=target,
        start=start,
        optimisation__steps=steps,
        optimisation__batch=batch,
        optimisation__seed=seed,
    )
    with progress("PHG-MAE", settings.optimisation.steps) as advance:
        model = fit_phg_mae(
            open_data(data),
            output,
            settings,
            device=device_name(device),
            resume=resume,
            tensorboard=tensorboard,
            on_progress=step_reporter(advance),
        )
    if _follows():
        return
    document = {
        "run": str(output),
        "network": settings.network,
        "inputs": [modality.name for modality in model.config.inputs],
        "outputs": [modality.name for modality in model.config.outputs],
        "target": model.config.network["target"] or None,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "frames": model.config.provenance["frames"],
    }
    if json:
        emit(document)
    else:
        hidden = settings.masking.never_visible
        seen = ", ".join(name for name in document["inputs"] if name not in hidden)
        learnt = f"; students learn {document['target']}" if document["target"] else ""
        follows = f"{output} {data}" if document["target"] else f"TEACHER DATA --start {output}"
        console.print(
            f"PHG-MAE in {output}: {seen} -> {', '.join(document['outputs'])}{learnt}.\n"
            f"Next: edgekit distill {follows} -o STUDENT_DIR"
        )


def distill(
    context: typer.Context,
    teacher: Annotated[
        str,
        typer.Argument(
            metavar="TEACHER", help="A PHG-MAE that `edgekit train` made, or expert:NAME for labels that are stored."
        ),
    ],
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="STUDENT_DIR", help="Folder for the student.")],
    config: Config = None,
    student: Annotated[str | None, typer.Option(help="Network by name, such as edge-430k.")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Random masks that the ensemble averages.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    start: Start = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Devices = 1,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Distil the ensemble of a PHG-MAE, or stored labels, into an RGB-only student."""
    _on_devices(context, device, devices)
    from edgekit_student.distill import distill as fit_student
    from edgekit_student.settings import DistillSettings, read_settings

    settings = read_settings(
        DistillSettings,
        config,
        network=student,
        ensemble__members=members,
        start=start,
        optimisation__steps=steps,
        optimisation__batch=batch,
        optimisation__seed=seed,
    )
    opened = open_data(data)
    where = device_name(device)
    teaches = find_teacher(teacher, opened, settings, where)
    say_supervised(teaches)
    with distilling(settings.optimisation.steps) as (on_teaching, on_progress):
        model = fit_student(
            teaches,
            opened,
            output,
            settings,
            device=where,
            resume=resume,
            tensorboard=tensorboard,
            on_teaching=on_teaching,
            on_progress=on_progress,
        )
    if _follows():
        return
    document = student_document(model, output)
    say_doubts(document["learnt"]["doubts"])
    if json:
        emit(document)
    else:
        console.print(
            f"Student in {output}: {settings.network}, {document['parameters']:,} parameters, "
            f"mIoU {100 * document['learnt']['miou']:.1f} % against {_said(teacher)}.\n"
            f"Next: edgekit build --profile laptop-cpu --student {output} --data {data}",
            markup=False,
        )


def print_settings(json: Json = False) -> None:
    """Print a train.toml: every setting of train and distill with its default, to uncomment and change."""
    from edgekit_student.settings import DistillSettings, TrainSettings
    from edgekit_student.template import template

    if json:
        emit({"train": TrainSettings().model_dump(mode="json"), "distill": DistillSettings().model_dump(mode="json")})
    else:
        typer.echo(template(), nl=False)


def find_teacher(name: str, data: Dataset, settings: DistillSettings, device: str = "cpu") -> Teacher:
    """A PHG-MAE run, which answers on `device`, or `expert:NAME` for what is stored.

    Raises CheckpointError, DataError or UsageError.
    """
    from edgekit_student.phg_mae import load_phg_mae
    from edgekit_student.ranks import own_device
    from edgekit_student.teaching import STORED, EnsembleTeacher, StoredTeacher

    if name.startswith(STORED):
        return StoredTeacher(data, name.removeprefix(STORED), settings.outputs)
    model = load_phg_mae(Path(name), own_device(device))
    parent = f"{Path(name).resolve().name}@{model.config.weights_sha256[:16]}"
    return EnsembleTeacher(model, settings.ensemble, settings.outputs, parent=parent)


def student_document(student: Student, folder: Path) -> dict[str, Any]:
    """What `--json` says of a student that was distilled."""
    config = student.config
    return {
        "student": str(folder),
        "network": config.network["name"],
        "parameters": student.parameter_count(),
        "outputs": [modality.name for modality in config.outputs],
        "parent": config.provenance["parent"],
        "supervised": config.provenance["supervised"],
        "learnt": config.provenance["learnt"],
    }


def say_supervised(teacher: Teacher) -> None:
    """Says so where a student does not learn from experts alone."""
    if teacher.supervised:
        console.print("Human labels or exact truth are used: this student is supervised.", style="yellow")


def _said(teacher: str) -> str:
    return f"{teacher}, which taught it" if teacher.startswith("expert:") else "the ensemble that taught it"


def _on_devices(context: typer.Context, device: str, devices: int) -> None:
    """Does the command in a process for each device and leaves it, unless there is one, or this is one of several."""
    from edgekit.launch import check_devices, run_on_devices
    from edgekit_student.ranks import world

    if devices == 1 or world() > 1:
        return
    check_devices(device_name(device), devices)
    # The first process has said all that is to be said, of an interruption as well.
    raise SystemExit(run_on_devices(context.obj, devices))


def _follows() -> bool:
    from edgekit_student.ranks import leads

    return not leads()


def open_data(location: str) -> Dataset:
    from edgekit_experts.dataset import Dataset

    return Dataset.open(location)


def device_name(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"There is no device {name!r}.", hint="Devices: auto, cpu, cuda.")
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device is available here.", hint="Use --device auto or --device cpu.")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@contextmanager
def distilling(steps: int) -> Iterator[tuple[Callable[[int, int], None], Callable[[Progress], None]]]:
    """Shows the stages of a distillation, one after the other: what to call for each frame taught and each step."""
    with Stages() as stages:
        begun: list[str] = []

        def begin(title: str, total: int | None = None) -> None:
            if title not in begun:
                begun.append(title)
                stages.begin(title, total)

        def on_teaching(done: int, total: int) -> None:
            begin("Pseudo-labels", total)
            stages.advance(1, f"of {total} frames")

        def on_progress(state: Progress) -> None:
            begin("Student", steps)
            report(state)

        report = step_reporter(stages.advance)
        yield on_teaching, on_progress


def say_doubts(doubts: Sequence[str]) -> None:
    """Warns of a student that has learnt little."""
    for doubt in doubts:
        console.print(f"Warning: this student has learnt little: {doubt}.", style="yellow", markup=False)
    if doubts:
        console.print("Look at what taught it (edgekit view), take more or other frames, or train longer (--steps).")


def step_reporter(advance: Any) -> Callable[[Progress], None]:
    """Shows each optimisation step on a progress bar; the first says how many a resumed training had behind it."""
    last: int | None = None

    def report(state: Progress) -> None:
        nonlocal last
        note = f"loss {state.loss:.3f}, {state.rate:.0f} samples/s"
        advance(1, note, before=state.step - 1 if last is None else 0)
        last = state.step

    return report
