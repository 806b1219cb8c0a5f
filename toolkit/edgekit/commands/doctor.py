"""`edgekit doctor`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.console import console, emit, show_rows

if TYPE_CHECKING:
    from edgekit.doctor import Check


def register(app: typer.Typer) -> None:
    app.command("doctor")(doctor)


def doctor(
    profile: Annotated[
        str, typer.Option("--profile", "-p", metavar="NAME", help="Also look for what this device profile needs.")
    ] = "",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Look at this machine: engines, devices, CPU, OpenCV, cameras, disk. `note` works and could be better; `look` is
    wrong, and the exit status then 1. A profile that runs on its fallback is a note.
    """
    from edgekit.doctor import examine
    from edgekit.profiles import load_profile

    checks = examine(load_profile(profile) if profile else None)
    if json:
        emit({"checks": [asdict(check) for check in checks]})
    else:
        rows = [(_mark(check), check.name, "\n".join(filter(None, (check.detail, check.hint)))) for check in checks]
        show_rows(console, rows, {"ok": "green", "note": "yellow", "look": "red"})
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


def _mark(check: Check) -> str:
    if not check.ok:
        return "look"
    return "note" if check.hint else "ok"
