"""What TensorBoard shows of a training: curves, and pictures of a few frames as it learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import UsageError
from edgekit_student.ranks import leads

if TYPE_CHECKING:
    from edgekit_student.fit import Progress

FOLDER = "tensorboard"


@dataclass(frozen=True)
class Look:
    """Pictures uint8 `(H, W, 3)` RGB and numbers, by name."""

    pictures: Mapping[str, Picture]
    scalars: Mapping[str, float] = field(default_factory=dict)


@contextmanager
def recorded(
    folder: Path | None, on_progress: Callable[[Progress], None], look: Callable[[], Look], every: int
) -> Iterator[Callable[[Progress], None]]:
    """Yields what to call with each step: `on_progress`, and before it a record of the step in `folder`, if any.

    `look` is asked every `every` steps and after the last. A resumed training goes on in the same folder; what an
    interrupted one had written of later steps is hidden by TensorBoard. Process 0 alone writes.
    Raises UsageError when the package tensorboard is missing.
    """
    if folder is None or not leads():
        yield on_progress
        return
    writer_of = _writer_class()
    writer: Any = None

    def record(progress: Progress) -> None:
        nonlocal writer
        step = progress.step
        if writer is None:
            writer = writer_of(str(folder), purge_step=step, flush_secs=20)
        writer.add_scalar("loss", progress.step_loss, step)
        writer.add_scalar("learning_rate", progress.learning_rate, step)
        writer.add_scalar("samples_per_second", progress.rate, step)
        if progress.held_out is not None:
            writer.add_scalar("held_out_loss", progress.held_out, step)
        if step % every == 0 or step == progress.steps:
            seen = look()
            for name, value in seen.scalars.items():
                writer.add_scalar(name, value, step)
            for name, picture in seen.pictures.items():
                writer.add_image(name, picture, step, dataformats="HWC")
        on_progress(progress)

    try:
        yield record
    finally:
        if writer is not None:
            writer.close()


def _writer_class() -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UsageError(
            "--tensorboard needs the package tensorboard.", hint="pip install 'edgekit[tensorboard]'"
        ) from error
    return SummaryWriter
