"""`edgekit build`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.commands.outcome import document, show
from edgekit.console import console, emit
from edgekit_runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from edgekit.build import Built
    from edgekit.profiles import Profile


def register(app: typer.Typer) -> None:
    app.command("build")(build)


def build(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="Device profile: a name or a .toml file.")
    ],
    student: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Student checkpoint; else the newest one below this folder.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Instead of a student: dpt-large, depth-anything-small, segformer-b0 ..., a checkpoint of "
            "transformers by name or folder, NET.onnx, or a torch module as FILE.py:NAME.",
        ),
    ] = None,
    signature: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="What NET.onnx or FILE.py:NAME takes and answers, as TOML; else the one beside it."
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WIDTHxHEIGHT", help="With --model: what the network sees; else as published.")
    ] = "",
    data: Annotated[
        str | None, typer.Option(metavar="DATA", help="Data set to calibrate and judge with; else the student's.")
    ] = None,
    fine_tune: Annotated[
        int,
        typer.Option(
            "--fine-tune",
            metavar="STEPS",
            min=0,
            max=100_000,
            help="With a student: where INT8 loses more than the profile allows, fine-tune it for so many steps (300).",
        ),
    ] = 0,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Folder for the bundle; else build/PROFILE.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Turn a student, or a network that others have trained, into the fastest bundle that is as accurate as the profile
    asks.
    """
    from edgekit.profiles import load_profile

    if model is not None and student is not None:
        raise UsageError("--model and --student name two networks.", hint="Give one of them.")
    if size and model is None:
        raise UsageError("--size is of --model.", hint="What a student sees, the profile says: network_size.")
    if signature and model is None:
        raise UsageError("--signature is of --model.", hint="A student knows what it takes and answers.")
    if fine_tune and model is not None:
        raise UsageError(
            "--fine-tune is for students, not for --model.",
            hint="Of other networks, leave the layers that INT8 ruins in float: add mixed to the profile's precisions.",
        )
    target = load_profile(profile)
    # Only now what takes seconds to import: a misspelt profile is answered at once.
    from edgekit.locate import BUILD_FOLDER
    from edgekit_experts.dataset import Dataset

    if data is not None and not Dataset.exists(data):
        raise DataError(f"There is no data set at {data}.", hint="Check the path given with --data.")
    folder = output or BUILD_FOLDER / target.name
    if model is None:
        built = _build_student(student, target, folder, data, fine_tune)
    else:
        built = _build_model(model, signature, size, target, folder, data)
    if json:
        emit(document(built))
    else:
        show(built)


def _build_student(
    student: Path | None, target: Profile, output: Path, data: str | None, fine_tune_steps: int
) -> Built:
    from edgekit.build import build_student
    from edgekit.locate import DEFAULT_STUDENT, find_data, find_student
    from edgekit_student.checkpoint import read_config

    folder = student or find_student(Path.cwd())
    if folder == DEFAULT_STUDENT:
        console.print("Student: the one that comes with edgekit; there is none below this folder (or --student DIR).")
    elif student is None:
        console.print(f"Student: {_short(folder)}, the newest below this folder (or --student DIR).", markup=False)
    material = data if data is not None else find_data(read_config(folder), folder)
    return build_student(folder, target, output, material, _say, fine_tune_steps)


def _build_model(
    model: str, signature: Path | None, size: str, target: Profile, output: Path, data: str | None
) -> Built:
    from edgekit.build import build as build_bundle
    from edgekit.model_source import find_model
    from edgekit_experts.video import checked_size

    try:
        wanted = checked_size(size) if size else None
    except ValueError:
        raise UsageError(f"{size!r} is not a size.", hint="Write WIDTHxHEIGHT, such as 512x288.") from None
    return build_bundle(find_model(model, target, wanted, signature), output, data, _say)


def _say(text: str) -> None:
    console.print(text, markup=False)


def _short(path: Path) -> Path:
    """Relative to the working directory where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
