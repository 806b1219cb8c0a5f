"""`edgekit demo`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from edgekit.console import emit


def register(app: typer.Typer) -> None:
    app.command("demo")(demo)


def demo(
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for all results.")] = Path(
        "demo"
    ),
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")] = False,
) -> None:
    """Walk the whole road on the synthetic world: extract, train, distil, build, score. About six minutes.

    Fails if the student as built is not better than each of the experts that it learnt from.
    """
    from edgekit.demo import run_demo, show

    result = run_demo(output)
    if json:
        rows = [asdict(row) for row in result.rows]
        emit({"rows": rows, "bundle": str(result.bundle), "seconds": result.seconds, "beaten": result.beaten})
    else:
        show(result)
    if not result.beaten:
        raise typer.Exit(1)
