"""`edgekit doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from edgekit.console import console, emit


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="Also look for what this device profile needs.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Look at this machine: engines, devices, CPU, OpenCV, cameras, disk; exit status 1 if something is wrong."""
    from edgekit.doctor import examine
    from edgekit.profiles import load_profile

    checks = examine(load_profile(profile).doctor if profile else ())
    if json:
        emit({"checks": [asdict(check) for check in checks]})
    else:
        for check in checks:
            mark = "[green]ok  [/green]" if check.ok else "[red]look[/red]"
            console.print(mark, end=" ")
            console.print(f"{check.name:16} {check.detail}", markup=False)
            if check.hint:
                console.print(f"{'':22}{check.hint}", markup=False)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)
