"""`edgekit view`: what modalities hold, side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.commands.data import Json, frame_span, name_list
from edgekit.commands.location import DataArgument
from edgekit.console import console, emit, progress
from edgekit_runtime.errors import DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgekit_experts.dataset import Video


def register(app: typer.Typer) -> None:
    app.command("view")(view)


def view(
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="A .png or an .mp4 file.")],
    video: Annotated[str, typer.Option(help="Which video; else the first.")] = "",
    only: Annotated[str, typer.Option(help="Modalities to show: a,b")] = "",
    frame: Annotated[int | None, typer.Option(min=0, help="For a picture: which; else one in the middle.")] = None,
    frames: Annotated[str, typer.Option(metavar="FIRST:END", help="For a video: only these.")] = "",
    json: Json = False,
) -> None:
    """Draw all modalities side by side, as a picture or a video."""
    from edgekit_experts.collage import frames_made, shown, write_mp4, write_png
    from edgekit_experts.dataset import Dataset

    opened = Dataset.open(data)
    if not opened.videos:
        raise DataError(f"{data} has no video yet.", hint="Run `edgekit extract` first.")
    chosen = opened.video(video or opened.videos[0])
    names = shown(chosen, name_list(only))
    if output.suffix.lower() == ".png":
        made = frames_made(chosen, names)
        index = made[len(made) // 2] if frame is None else frame
        if index not in made:
            raise _not_there(chosen, f"Frame {index} is not there", made)
        write_png(chosen, index, names, output)
        span = range(index, index + 1)
    elif output.suffix.lower() == ".mp4":
        first, end = frame_span(frames)
        made = frames_made(chosen, names)
        span = range(chosen.frames)[first:end] if frames else range(made[0], made[-1] + 1)
        if not set(made).intersection(span):
            raise _not_there(chosen, f"None of the frames {frames} is there", made)
        with progress("View", len(span)) as advance:
            write_mp4(chosen, span, names, output, advance)
    else:
        raise UsageError(f"{output} is neither .png nor .mp4.", hint="The ending decides what is written.")
    holes = {name: count for name in names if (count := int((~chosen.done(name)[span.start : span.stop]).sum()))}
    if json:
        emit(
            {
                "output": str(output),
                "video": chosen.name,
                "frames": [span.start, span.stop],
                "modalities": names,
                "missing": holes,
            }
        )
        return
    drawn = f"frame {span.start}" if len(span) == 1 else f"frames {span.start} to {span.stop - 1}"
    console.print(f"{output}: {drawn} of {chosen.name}: {', '.join(names)}", markup=False)
    if holes:
        listed = ", ".join(name if len(span) == 1 else f"{name} ({count} frames)" for name, count in holes.items())
        console.print(f"Not there, so left black: {listed}.", markup=False)


def _not_there(video: Video, what: str, made: Sequence[int]) -> UsageError:
    from edgekit_experts.status import spans

    return UsageError(
        f"{what}: {video.name} has {video.frames} frames.",
        hint=f"Made are {spans(made, 8)}; `edgekit extract` makes others.",
    )
