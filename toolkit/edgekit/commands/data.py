"""`edgekit extract`, `import`, `export`, `status` and `view`: raw video to a data set, and a look at it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.commands.location import DataArgument, DataOutput
from edgekit.console import Advance, console, emit, progress, stdout
from edgekit_runtime.errors import ExpertError, SourceError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgekit_experts.config import Config
    from edgekit_experts.jury import Jury
    from edgekit_experts.pipeline import ExtractOptions, ExtractReport, Progress
    from edgekit_experts.status import ModalityStatus, Status, VideoStatus
    from edgekit_experts.video import VideoReader

ConfigFile = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Which experts, TOML: see docs/experts.md.")
]
Split = Annotated[str, typer.Option(help="What the frames are for: train, val or test.")]
Workers = Annotated[int, typer.Option(min=0, help="Units computed at a time; 0: one per core.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]

_SHOWN_FAILURES = 5
_TITLES = ("modality", "expert", "done", "not made", "failed", "stale", "MB")


class Engine(StrEnum):
    """Where an extraction runs."""

    local = "local"
    ray = "ray"


def register(app: typer.Typer) -> None:
    imports = typer.Typer(no_args_is_help=True, help="Put what other tools wrote into a data set.")
    imports.command("frames")(import_frames)
    imports.command("vre")(import_vre)
    app.command("extract")(extract)
    app.command("derive")(derive)
    app.command("jury")(jury)
    app.add_typer(imports, name="import")
    app.command("export")(export)
    app.command("status")(status)


def extract(
    videos: Annotated[
        list[str], typer.Argument(metavar="VIDEO...", help="Files, folders of pictures, or world:SEED?frames=40")
    ],
    output: DataOutput,
    config: ConfigFile = None,
    only: Annotated[str, typer.Option(help="Modalities to make, with what they need: a,b")] = "",
    frames: Annotated[str, typer.Option(metavar="FIRST:END", help="Only these frames, such as 0:500.")] = "",
    size: Annotated[str, typer.Option(metavar="WIDTHxHEIGHT", help="Bring every frame to this size.")] = "",
    split: Split = "train",
    workers: Workers = 0,
    engine: Annotated[
        Engine, typer.Option(help="local: this machine; ray: a cluster, see docs/extract.md.")
    ] = Engine.local,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs per worker of a cluster; 0.5: two on one.")] = 0.0,
    json: Json = False,
) -> None:
    """Make every modality of raw video: decode once, run all experts, write a data set. Resumes by itself."""
    from edgekit_experts.pipeline import ExtractOptions
    from edgekit_experts.video import open_video

    options = ExtractOptions(name_list(only), frame_span(frames), workers, split, engine.value, gpus)
    wanted_size = _size(size)
    readers = [open_video(uri, wanted_size) for uri in videos]
    _run(readers, output, configuration(config, videos), options, json)


def derive(
    data: DataArgument,
    config: Annotated[
        Path, typer.Option("-c", "--config", metavar="FILE", help="What to make, TOML: see docs/experts.md.")
    ],
    only: Annotated[str, typer.Option(help="Modalities to make, with what they need: a,b")] = "",
    video: Annotated[
        list[str] | None, typer.Option("--video", metavar="NAME", help="Only this video; may be given again.")
    ] = None,
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Make more modalities from those that are stored, without the video. Resumes by itself.

    A vote in which a student takes part, a mask of a class, edges of the stored frames.
    """
    from edgekit_experts.config import load_config
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.pipeline import ExtractOptions
    from edgekit_experts.video.stored import stored_videos

    chosen = load_config(config)
    opened = Dataset.open(data)
    readers = stored_videos(opened, chosen, tuple(video or ()))
    _run(readers, data, chosen, ExtractOptions(name_list(only), split="", workers=workers), json)


def jury(
    data: DataArgument,
    of: Annotated[str, typer.Option(metavar="A,B,C", help="Label maps that are stored, a student's among them.")],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.toml", help="What derive takes; FILE.json beside it.")
    ],
    name: Annotated[str, typer.Option(help="What the verdict will be called in the data set.")] = "",
    split: Annotated[str, typer.Option(help="The frames to learn from.")] = "train",
    json: Json = False,
) -> None:
    """Find out how far each label map can be trusted for each class, without a true label (Dawid and Skene 1979).

    It takes maps whose errors differ: a student that learnt from the vote of the others knows more than one of them.
    """
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.dataset.names import check_name
    from edgekit_experts.files import output_file
    from edgekit_experts.jury import fit_jury

    if output.suffix != ".toml":
        raise UsageError(f"{output} is no .toml file.", hint="Name one: -o jury.toml")
    verdict = name or output.stem
    check_name(verdict, "modality")
    opened = Dataset.open(data)
    with progress("Jury") as advance:
        found = fit_jury(opened, name_list(of), split=split, on_frame=advance)
    table = output.with_suffix(".json")
    names = ", ".join(f'"{each}"' for each in found.of)
    settings = (
        f'[{verdict}]\nexpert = "jury_verdict"\nof = [{names}]\njury = "{table.as_posix()}"\n\n'
        f'[{verdict}_agreement]\nexpert = "vote_agreement"\nof = [{names}]\n'
    )
    for path, text in ((table, found.to_json()), (output, settings)):
        with output_file(path) as partial:
            partial.write_text(text, encoding="utf-8")
    if json:
        emit({"config": str(output), "jury": str(table), "modality": verdict, **found.provenance})
        return
    _show_jury(found)
    console.print(f"Next: edgekit derive {data} -c {output}", markup=False)


def _show_jury(found: Jury) -> None:
    """How often each map says a class where the jury finds it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
    table.add_column("class")
    for name in (*found.of, "pixels"):
        table.add_column(f"{name} %", justify="right")
    for number, label in enumerate(found.classes):
        table.add_row(
            label,
            *(f"{100 * matrix[number, number]:.1f}" for matrix in found.confusion),
            f"{100 * found.prior[number]:.1f}",
        )
    stdout().print(table)
    frames, rounds = found.provenance["frames"], found.provenance["iterations"]
    console.print(f"How often each names a class where the jury finds it; {frames} frames, {rounds} iterations.")


def import_frames(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="DIR/rgb/*, DIR/labels/*, DIR/experts/<name>/*")],
    output: DataOutput,
    name: Annotated[str, typer.Option(help="Name of the video; else that of the folder.")] = "",
    table: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What the folders hold, TOML: see docs/importing.md.")
    ] = None,
    fps: Annotated[float, typer.Option(min=0.001, help="Pictures per second.")] = 1.0,
    split: Split = "train",
    workers: Workers = 0,
    json: Json = False,
) -> None:
    """Import a folder of pictures with what other tools said about them, as one video."""
    from edgekit_experts.import_frames import open_frames
    from edgekit_experts.pipeline import ExtractOptions

    opened = open_frames(folder, name=name, table=table, fps=fps)
    _run([opened.reader], output, opened.config, ExtractOptions(split=split, workers=workers), json)


def import_vre(
    folder: Annotated[Path, typer.Argument(metavar="SRC", help="<SRC>/<representation>/npz/<frame>.npz")],
    output: DataOutput,
    taxonomy: Annotated[
        list[str] | None, typer.Option(metavar="REPRESENTATION=NAME", help="The classes of a label map.")
    ] = None,
    split: Annotated[str, typer.Option(help="train, val or test; else what the folder says.")] = "",
    json: Json = False,
) -> None:
    """Import the per-frame npz files of VRE and Dronescapes."""
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.status import read_status
    from edgekit_experts.vre import import_vre as read

    taxonomies = dict(_pair(text) for text in taxonomy or ())
    if not folder.is_dir():
        raise SourceError(f"There is no folder {folder}.", hint="Check the path.")
    data = Dataset.create(output)
    with data.nothing_left_empty(), progress("Import") as advance:
        read(folder, data, split=split, taxonomies=taxonomies, on_frames=advance)
    _report(read_status(Dataset.open(output)), None, json)


def export(
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="A new folder.")],
    layout: Annotated[str, typer.Option("--format", help="vre: one npz file per frame.")] = "vre",
    json: Json = False,
) -> None:
    """Write a data set as files for other tools."""
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.vre import export_vre

    if layout != "vre":
        raise UsageError(f"Unknown format {layout!r}.", hint="There is one: vre.")
    opened = Dataset.open(data)
    total = sum(
        int(opened.video(name).done(modality).sum())
        for name in opened.videos
        for modality in opened.video(name).modalities
    )
    with progress("Export", total) as advance:
        written = export_vre(opened, output, advance)
    if json:
        emit({"output": str(output), "files": written})
    else:
        console.print(f"{written} files in {output}", markup=False)


def status(
    data: DataArgument,
    html: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with pictures, too.")] = None,
    json: Json = False,
) -> None:
    """Show how many frames of each modality are done, not made, failed and stale.

    Not made: not asked for (extract --frames), not reached, or not in the source.

    Failed: the expert raised an error, which is shown.

    Stale: made with parameters, tables or networks that have changed since.

    The next extract makes what can be made of all these.
    """
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.status import read_status

    opened = Dataset.open(data)
    found = read_status(opened)
    if html is not None:
        from edgekit_experts.status_page import write_status_page

        write_status_page(opened, found, html)
    _report(found, None, json, html)


def configuration(path: Path | None, sources: Sequence[str]) -> Config:
    from edgekit_experts.config import DEFAULT, WORLD, load_config, shipped_config
    from edgekit_experts.video import is_world

    if path is not None:
        return load_config(path)
    return shipped_config(WORLD if sources and all(map(is_world, sources)) else DEFAULT)


def _run(readers: Sequence[VideoReader], output: str, config: Config, options: ExtractOptions, json: bool) -> None:
    from edgekit_experts.dataset import Dataset
    from edgekit_experts.pipeline import extract as run
    from edgekit_experts.status import read_status

    expected = {reader.name: len(range(reader.frames)[slice(*options.frames)]) for reader in readers}
    with progress("Frames", sum(expected.values())) as advance:
        report = run(readers, output, config, options, _progress_reporter(advance, expected))
    status = read_status(Dataset.open(output))
    _report(status, report, json)
    if hopeless := _never_made(status, report):
        raise ExpertError(f"Not one frame could be made of {hopeless}.", hint="The failures above say why.")


def _never_made(status: Status, run: ExtractReport) -> str:
    """What the run failed in altogether: a script must not go on."""
    rows = [(video.name, row) for video in status.videos if video.name in run.videos for row in video.modalities]
    return ", ".join(f"{row.name} ({video})" for video, row in rows if row.failed and not row.done)


def _progress_reporter(advance: Advance, expected: dict[str, int]) -> Callable[[Progress], None]:
    """`expected` frames of each video, until the run knows better."""
    gone: dict[str, int] = {}

    def report(state: Progress) -> None:
        waits = f"; bottleneck: {state.bottleneck}" if state.bottleneck else ""
        expected[state.video] = state.total
        advance(state.frames - gone.get(state.video, 0), f"{state.video}{waits}", sum(expected.values()))
        gone[state.video] = state.frames

    return report


def _report(status: Status, run: ExtractReport | None, json: bool, page: Path | None = None) -> None:
    from edgekit_experts.status import grouped_failures

    if json:
        document = status.to_dict()
        document["fps"] = round(run.fps, 2) if run else None
        if page:
            document["html"] = str(page)
        if run:
            document |= {"frames": run.frames, "written": run.written, "seconds": round(run.seconds, 3)}
            document |= {"bottleneck": run.spent.bottleneck, "notes": run.notes}
        emit(document)
        return
    # What other runs have made is what `edgekit status` is for.
    videos = [video for video in status.videos if run is None or video.name in run.videos]
    _show_tables(videos)
    for video in videos:
        for row in video.modalities:
            failures = grouped_failures(video.name, row)
            for failure in failures[:_SHOWN_FAILURES]:
                console.print(f"failed: {video.name}, {row.name}, {failure.frames}: {failure.message}", markup=False)
            if len(failures) > _SHOWN_FAILURES:
                console.print(f"… and {len(failures) - _SHOWN_FAILURES} more kinds of {row.name}", markup=False)
    if run and run.frames:
        waited = f"; bottleneck: {run.spent.bottleneck}" if run.spent.bottleneck else ""
        console.print(f"{run.frames} frames in {run.seconds:.1f} s, {run.fps:.1f} a second{waited}", markup=False)
    elif run:
        console.print("Nothing was missing.", markup=False)
    for note in run.notes if run else ():
        console.print(f"Note: {note}", markup=False)
    if page:
        console.print(f"Page: {page}", markup=False)


def _show_tables(videos: Sequence[VideoStatus]) -> None:
    """One table for each video, all with the same columns; readable at 80 columns."""
    from rich.table import Table

    out = stdout()
    rows = [row for video in videos for row in video.modalities]
    widths = [max((len(text) for text in column), default=0) for column in zip(*_cells(rows), strict=True)]
    for video in videos:
        height, width = video.size
        out.print(
            f"{video.name}: {video.frames} frames, {width}x{height}, {video.fps:.4g} fps, {video.split}", markup=False
        )
        table = Table(box=None, pad_edge=False, padding=(0, 0, 0, 2))
        for title, least in zip(_TITLES, widths, strict=False):
            left = title in ("modality", "expert")
            table.add_column(title, min_width=least, justify="left" if left else "right", overflow="fold")
        for cells in _cells(video.modalities):
            table.add_row(*cells)
        out.print(table)
    if any(row.missing for row in rows):
        console.print("Not made: not asked for, not reached, or not in the source (status --help).")


def _cells(rows: Sequence[ModalityStatus]) -> list[tuple[str, ...]]:
    return [
        (
            row.name,
            row.expert,
            str(row.done),
            *(str(count or "") for count in (row.missing, row.failed, row.stale)),
            f"{row.bytes / 1e6:.1f}",
        )
        for row in rows
    ]


def name_list(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def frame_span(text: str) -> tuple[int, int | None]:
    """(first, end) from `FIRST:END`, either of which may be left out."""
    if not text:
        return 0, None
    first, colon, end = text.partition(":")
    try:
        if not colon:
            raise ValueError
        span = int(first or 0), int(end) if end else None
    except ValueError:
        raise UsageError(f"{text!r} is not a span of frames.", hint="Write FIRST:END, such as 0:500.") from None
    if span[0] < 0 or (span[1] is not None and span[1] <= span[0]):
        raise UsageError(f"{text!r} holds no frame.", hint="Write FIRST:END with FIRST < END.")
    return span


def _size(text: str) -> tuple[int, int] | None:
    from edgekit_experts.video import checked_size

    if not text:
        return None
    try:
        return checked_size(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a size.", hint="Write WIDTHxHEIGHT, such as 480x272.") from None


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise UsageError(f"{text!r} names no taxonomy.", hint="Write REPRESENTATION=NAME, such as semantic=camvid.")
    return name, value
