"""A training that is watched: held-out frames say when it no longer gets better, TensorBoard shows what it does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from edgekit_student.batches import Batch
from edgekit_student.fit import Progress, fit
from edgekit_student.holdout import EarlyStop, Split
from edgekit_student.settings import Optimisation
from edgekit_student.tensorboard import FOLDER, Look, recorded


def fit_watched(
    model: nn.Module,
    batches: Callable[[int], Batch],
    loss: Callable[[nn.Module, Batch, int], Tensor],
    whole: Callable[[int], Batch],
    split: Split,
    look: Callable[[], Look],
    settings: Optimisation,
    folder: Path,
    *,
    device: str = "auto",
    resume: bool = False,
    tensorboard: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> dict[str, Any]:
    """`fit`, with early stop where `split` holds frames out; returns what provenance keeps of that.

    `whole(index)` is a frame as it is, in a batch of one. With `tensorboard` scalars and what `look` draws go to
    `folder/tensorboard`.
    """
    early_stop = None
    if split.held_out:
        early_stop = EarlyStop(lambda index: whole(split.held_out[index]), len(split.held_out), settings)
    events = folder / FOLDER if tensorboard else None
    with recorded(events, on_progress, look, settings.validate_every) as report:
        fit(
            model,
            batches,
            loss,
            settings,
            folder,
            device=device,
            resume=resume,
            early_stop=early_stop,
            on_progress=report,
        )
    return {"early_stop": early_stop.told()} if early_stop else {}
