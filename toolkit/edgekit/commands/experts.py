"""`edgekit experts`: what experts there are, and how fast they are here."""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.data import ConfigFile, Json, configuration, name_list
from edgekit.console import console, emit, stdout
from edgekit_runtime.errors import ExpertError

if TYPE_CHECKING:
    from edgekit_experts.catalogue import Entry
    from edgekit_experts.config import Config
    from edgekit_experts.graph import Graph
    from edgekit_experts.speed import Figures

_UNKNOWN = "–"


def register(app: typer.Typer) -> None:
    experts = typer.Typer(invoke_without_command=True, help="The experts that there are.")
    experts.callback()(list_experts)
    experts.command("show")(show)
    experts.command("graph")(graph)
    app.add_typer(experts, name="experts")


def list_experts(
    context: typer.Context,
    measure: Annotated[
        bool, typer.Option("--measure", help="Time those that need no download, on this machine; takes seconds.")
    ] = False,
    json: Json = False,
) -> None:
    """List the experts that configurations may name: kind of modality, needs, weights, speed."""
    if context.invoked_subcommand:
        return
    from edgekit_experts.catalogue import catalogue

    figures = _figures(measure)
    entries = catalogue()
    if json:
        rows = [_row(entry, figures) for entry in entries]
        facts = {"size": list(figures.size), "measured": figures.measured} if figures else None
        emit({"experts": rows, "speed": facts})
        return
    stdout().print(table(entries, figures))
    if figures:
        height, width = figures.size
        console.print(
            f"ms: of one thread for a frame of {width}×{height}, measured here on {figures.measured}.", markup=False
        )
    else:
        console.print("`edgekit experts --measure` measures how fast they are here.", markup=False)
    console.print("`edgekit experts show NAME` says more about one.", markup=False)


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An expert, or path/to/file.py:Class.")],
    json: Json = False,
) -> None:
    """Say what an expert takes and makes, its parameters, and where its method comes from."""
    from edgekit_experts.registry import find_expert

    expert = find_expert(name)
    text = inspect.getdoc(expert.cls) or ""
    if json:
        emit({"name": expert.name, "usage": expert.usage(), "text": text})
    else:
        # Paragraphs and lists keep their lines, all others are as long as the terminal is wide.
        flowing = re.sub(r"(?<!\n)\n *(?!\n|- )", " ", text)
        stdout().print(f"{expert.usage()}\n\n{flowing}", markup=False)


def graph(
    config: ConfigFile = None,
    world: Annotated[bool, typer.Option("--world", help="With what flights (world:SEED) bring along.")] = False,
    only: Annotated[str, typer.Option(help="Modalities to make, with what they need: a,b")] = "",
    json: Json = False,
) -> None:
    """Draw a configuration as a mermaid graph."""
    from edgekit_experts.graph import build_graph
    from edgekit_experts.world.modalities import TRUTH

    chosen, wanted = configuration(config, ["world:0"] if world else []), name_list(only)
    try:
        built = build_graph(chosen, TRUTH if world else (), wanted)
    except ExpertError as error:
        built = _flight_graph(chosen, wanted, error)
    if json:
        nodes = {node.name: {"expert": node.declaration.expert, "needs": list(node.inputs)} for node in built.nodes}
        emit({"modalities": nodes, "mermaid": built.mermaid()})
    else:
        typer.echo(built.mermaid(), nl=False)


def _flight_graph(config: Config, only: Sequence[str], otherwise: ExpertError) -> Graph:
    """The graph with what flights bring along; raises `otherwise` where that is not what was missing."""
    from edgekit_experts.graph import build_graph
    from edgekit_experts.world.modalities import TRUTH

    try:
        built = build_graph(config, TRUTH, only)
    except ExpertError:
        raise otherwise from None
    console.print("Drawn for flights (world:SEED): this configuration needs what they bring along.")
    return built


def table(entries: Sequence[Entry], figures: Figures | None) -> Any:
    """A rich table that fits into 80 columns."""
    from rich.table import Table

    shown = Table("expert", "makes", "needs", box=None)
    shown.add_column("weights", overflow="fold")
    shown.add_column("ms", justify="right", no_wrap=True)
    for entry in entries:
        row = _row(entry, figures)
        speed = _UNKNOWN if row["ms"] is None else f"{row['ms']:.1f}" if row["ms"] < 100 else f"{row['ms']:.0f}"
        needs = ", ".join(entry.needs) or _UNKNOWN
        shown.add_row(entry.name, entry.makes or _UNKNOWN, needs, entry.weights or "none", speed)
    for column in shown.columns[:3]:
        column.no_wrap = True
    return shown


def _figures(measure: bool) -> Figures | None:
    from edgekit_experts import speed

    if not measure:
        return speed.kept()
    from edgekit.locate import DEFAULT_BUNDLE

    with console.status("Measuring ..."):
        figures = speed.measure({"bundle": {"path": str(DEFAULT_BUNDLE)}} if DEFAULT_BUNDLE.is_file() else None)
    speed.keep(figures)
    return figures


def _row(entry: Entry, figures: Figures | None) -> dict[str, Any]:
    return {
        "name": entry.name,
        "makes": entry.makes,
        "needs": list(entry.needs),
        "weights": entry.weights,
        "ms": figures.ms.get(entry.name) if figures else None,
        "usage": entry.usage,
        "summary": entry.summary,
    }
