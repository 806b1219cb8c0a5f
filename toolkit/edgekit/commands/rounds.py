"""`edgekit label` and `round`: a model becomes one more expert."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.location import DataArgument
from edgekit.commands.training import Config, Device, Json, device_name, open_data
from edgekit.console import console, emit, progress
from edgekit_runtime.errors import CheckpointError

if TYPE_CHECKING:
    from edgekit_student.labelling import Labeller

Splits = Annotated[list[str] | None, typer.Option("--split", help="Only this split; may be given again. Else all.")]


def register(app: typer.Typer) -> None:
    app.command("label")(label)
    app.command("round")(semi_supervised_round)


def label(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A PHG-MAE run or a student folder.")],
    data: DataArgument,
    name: Annotated[str, typer.Option(metavar="NAME", help="What the new modality is called, such as student_1.")],
    split: Splits = None,
    members: Annotated[int, typer.Option(min=1, help="PHG-MAE only: random masks that the ensemble averages.")] = 10,
    mirror: Annotated[
        bool, typer.Option("--mirror/--no-mirror", help="PHG-MAE only: average with the mirrored frame.")
    ] = True,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write NAME_uncertainty: 0 sure, 255 no idea.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what another checkpoint has said.")] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Write what a model says about every frame into the data set, as one more expert. Resumes by itself."""
    from edgekit_student.labelling import UNCERTAINTY
    from edgekit_student.labelling import label as write

    opened, labeller = open_data(data), find_labeller(model, members, mirror, device_name(device))
    with progress(f"Labels {name}") as advance:
        made = write(
            opened,
            labeller,
            name,
            splits=tuple(split or ()),
            uncertainty=uncertainty,
            overwrite=overwrite,
            on_frame=advance,
        )
    names = [name, *([name + UNCERTAINTY] if uncertainty else [])]
    if json:
        emit({"data": data, "modalities": names, "frames": made, "model": labeller.kind, **labeller.params})
    else:
        console.print(
            f"{made} frames labelled, as {' and '.join(names)}, by {labeller.kind} {labeller.weights}.\n"
            f"Next: edgekit eval expert:{name} {data}",
            markup=False,
        )


def find_labeller(model: Path, members: int, mirror: bool, device: str) -> Labeller:
    """One that computes on `device`. Raises CheckpointError when there is no model."""
    from edgekit_student.checkpoint import read_config
    from edgekit_student.labelling import ensemble_labeller, student_labeller
    from edgekit_student.phg_mae import load_phg_mae
    from edgekit_student.settings import Ensemble
    from edgekit_student.student import load_student

    if not model.exists():
        raise CheckpointError(f"There is nothing at {model}.", hint="Give a PHG-MAE run or a student folder.")
    if read_config(model).kind == "student":
        return student_labeller(load_student(model, device))
    return ensemble_labeller(load_phg_mae(model, device), Ensemble(members=members, mirror=mirror))


def semi_supervised_round(
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="ROUND", help="Folder for PHG-MAE and student.")],
    config: Config = None,
    name: Annotated[
        str, typer.Option("--as", metavar="NAME", help="The student as a modality; else student_1 or the next free.")
    ] = "",
    beside: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME", help="One more input for a list of [train].inputs; may be given again."),
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """One semi-supervised round: train, distil, label the data set with the student. Finished stages stay."""
    from edgekit.rounds import run_round

    result = run_round(
        open_data(data), output, config, name=name, beside=tuple(beside or ()), device=device_name(device)
    )
    document: dict[str, Any] = {
        "phg_mae": str(result.run),
        "student": str(result.student),
        "modality": result.modality,
        "inputs": list(result.inputs),
        "learnt": result.learnt,
        "labelled": result.labelled,
    }
    if json:
        emit(document)
        return
    number = output.name
    following = output.with_name(str(int(number) + 1) if number.isdecimal() else f"{number}-next")
    settings = f" -c {config}" if config else ""
    extra = "".join(f" --with {each}" for each in (*(beside or ()), result.modality)) if result.listed else ""
    console.print(
        f"Round in {output}: {', '.join(result.inputs)} -> {result.student}, as {result.modality} in {data}.\n"
        f"Next: edgekit eval {result.student} {data}\n"
        f"  or: edgekit round {data} -o {following}{settings}{extra}",
        markup=False,
    )
