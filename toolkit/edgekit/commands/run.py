"""`edgekit run`: the runtime's own loop, with the newest bundle when none is named."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.commands.training import say_doubts
from edgekit.console import console, emit
from edgekit_runtime.errors import UsageError

if TYPE_CHECKING:
    from edgekit_runtime.manifest import Manifest


def register(app: typer.Typer) -> None:
    app.command("run")(run)


def run(
    camera: Annotated[int | None, typer.Option(min=0, metavar="N", help="Read camera N.")] = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Read a video file, a folder of pictures, a stream, phone:, world:SEED …"),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="BUNDLE",
            help="An .edgekit file, or its folder; else the newest under build/, else the one that edgekit comes with. "
            "Further ones run beside the first, each at its own pace.",
        ),
    ] = None,
    input_size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Size of the raw rgb24 pictures on stdin (--source -).")
    ] = None,
    sink: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SINK",
            help="window (default where there is a screen), web[:PORT] (else), file:OUT.mp4, stdout, png:DIR, "
            "json:PATH or null; may be repeated.",
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option(min=1, metavar="N", help="Stop after N frames.")] = None,
    overlay: Annotated[bool, typer.Option(help="Draw classes, legend and rates over the picture.")] = True,
    smooth: Annotated[
        bool, typer.Option("--smooth", help="Labels that flicker less, for half a millisecond a frame.")
    ] = False,
    engine: Annotated[str | None, typer.Option(metavar="NAME", help="Only this engine of the bundle.")] = None,
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Refuse a bundle that this public key has not signed.")
    ] = None,
    stats_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Keep the figures in FILE, once a second.")
    ] = None,
    log_format: Annotated[
        str, typer.Option(metavar="FORMAT", help="text, or json: one line a happening on stderr, for collectors.")
    ] = "text",
    json: Annotated[bool, typer.Option("--json", help="One JSON document on stdout at the end.")] = False,
) -> None:
    """Run a bundle live on a camera or a video. `edgekit-run` does the same without the toolkit."""
    if camera is None and source is None:
        raise UsageError("Nothing says what to read.", hint="Give --camera 0, or --source FILE, FOLDER or world:7.")
    if camera is not None and source is not None:
        raise UsageError(
            "--camera and --source are two sources; one is read.", hint=f"Leave out --camera {camera}, or --source."
        )
    sinks = sink or []
    if json and any(name.startswith("stdout") for name in sinks):
        raise UsageError("--json and the sink stdout both want standard output.", hint="Use --stats-file instead.")
    from edgekit.locate import find_bundle
    from edgekit_runtime.app import run as run_bundle
    from edgekit_runtime.cli import Progress
    from edgekit_runtime.events import LOG_FORMATS, log_to_stderr
    from edgekit_runtime.sources.piped import with_input_size

    if log_format not in LOG_FORMATS:
        raise UsageError(f"{log_format!r} is no format of a log.", hint=f"There is: {', '.join(LOG_FORMATS)}.")
    if not bundle:
        bundle = [find_bundle()]
        if log_format == "text":
            _introduce(bundle[0])
    log_to_stderr(log_format)
    progress = Progress(log_format)
    stats = run_bundle(
        bundle[0],
        with_input_size(source if source is not None else f"camera:{camera}", input_size),
        sinks,
        beside=bundle[1:],
        frames=frames,
        overlay=overlay,
        smooth=smooth,
        engine=engine,
        key=key,
        stats_file=stats_file,
        on_ready=progress.ready,
        on_stats=progress.stats,
    )
    progress.done(stats)
    if json:
        emit({**(progress.what.to_dict() if progress.what else {}), **stats.to_dict()})


def _introduce(bundle: Path) -> None:
    """Says which bundle was taken, how good it is, and what there is instead if that is little."""
    from edgekit.locate import DEFAULT_BUNDLE
    from edgekit_runtime.bundle import open_bundle

    manifest = open_bundle(bundle).manifest
    own = bundle == DEFAULT_BUNDLE
    which = "the one that comes with edgekit" if own else f"{bundle}, the newest build"
    console.print(f"Bundle: {which} (or --bundle FILE); {_accuracy(manifest)}.", markup=False)
    doubts = manifest.provenance.get("doubts", [])
    say_doubts(doubts)
    if doubts and not own:
        console.print(f"The one that comes with edgekit: --bundle {DEFAULT_BUNDLE}", markup=False)


def _accuracy(manifest: Manifest) -> str:
    best = manifest.variants[0].miou
    metrics = {row.get("accuracy_metric") for row in manifest.candidates}
    if best is None or metrics != {"miou"}:
        return "its accuracy is unknown, as nothing was labelled"
    frames = "the synthetic world" if manifest.provenance.get("data", {}).get("kind") == "world" else "its data set"
    return f"mIoU {100 * best:.1f} % against the labels of {frames}"
