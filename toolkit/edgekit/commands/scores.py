"""`edgekit eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.location import DataArgument
from edgekit.console import console, emit, progress
from edgekit_runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgekit_experts.dataset import Dataset
    from edgekit_runtime.modality import Modality
    from edgekit_student.evaluate import Judged, Score

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    app.command("eval")(evaluate)


def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A PHG-MAE run, a student folder, a bundle, or expert:NAME for a stored modality."
        ),
    ],
    data: DataArgument,
    split: Annotated[str, typer.Option(help="Which split to score.")] = "val",
    members: Annotated[
        int, typer.Option(min=0, help="PHG-MAE only: random masks to average (1Rand, NRand); 0: all visible (1All).")
    ] = 0,
    mirror: Annotated[bool, typer.Option("--mirror", help="PHG-MAE only: average with the mirrored frame.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out borders and consistency over time.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page: confusion, and the worst frames.")
    ] = None,
    json: Json = False,
) -> None:
    """Score a model against human labels or exact truth: mIoU and more (docs/training.md, Scores)."""
    from edgekit.eval_page import Worst, write_eval_page
    from edgekit_experts.dataset import Dataset

    opened = Dataset.open(data)
    worst = Worst()
    with progress(f"Scoring {model}") as advance:

        def on_frame(judged: Judged) -> None:
            worst.add(judged)
            advance()

        result = score_model(
            model, opened, split, members=members, mirror=mirror, thorough=not quick, on_frame=on_frame
        )
    if html is not None:
        write_eval_page(result, worst, opened.location, split, html)
    if json:
        emit(result.to_dict())
    else:
        _show(result)
        if html is not None:
            console.print(f"Page: {html}", markup=False)


def score_model(
    model: str,
    data: Dataset,
    split: str,
    *,
    members: int = 0,
    mirror: bool = False,
    thorough: bool = False,
    on_frame: Callable[[Judged], None] = lambda judged: None,
    timings: list[float] | None = None,
) -> Score:
    """Scores whatever `model` names on a split of `data`; see `edgekit_student.evaluate.score`.

    Raises CheckpointError when there is nothing of that name, DataError when the split has no labels.
    """
    from edgekit_runtime.bundle import SUFFIX
    from edgekit_runtime.manifest import MANIFEST
    from edgekit_student import evaluate as scoring
    from edgekit_student.checkpoint import read_config
    from edgekit_student.phg_mae import load_phg_mae
    from edgekit_student.student import load_student

    if model.startswith("expert:"):
        name = model.removeprefix("expert:")
        samples = scoring.labelled_samples(data, split, name, "rgb")
        _only_labels(name, samples.modalities)
        predict = scoring.modality_predictor(name, samples.modalities[name], samples.modalities[scoring.TRUTH])
        return scoring.score(model, samples, predict, thorough=thorough, on_frame=on_frame, timings=timings)
    path = Path(model)
    if path.suffix == SUFFIX or (path / MANIFEST).is_file() or any(path.glob(f"*{SUFFIX}")):
        samples = scoring.labelled_samples(data, split, "rgb")
        predict = _bundle_predictor(path, samples)
        return scoring.score(model, samples, predict, thorough=thorough, on_frame=on_frame, timings=timings)
    if not path.exists():
        raise CheckpointError(
            f"There is nothing at {path}.",
            hint="Give a PHG-MAE run, a student folder, a bundle, or expert:NAME.",
        )
    if read_config(path).kind == "student":
        samples = scoring.labelled_samples(data, split, "rgb")
        predict = scoring.student_predictor(load_student(path), samples.modalities[scoring.TRUTH])
    else:
        teacher = load_phg_mae(path)
        samples = scoring.labelled_samples(data, split, "rgb", *(m.name for m in teacher.config.inputs))
        truth = samples.modalities[scoring.TRUTH]
        predict = scoring.phg_mae_predictor(teacher, truth, members=members, mirror=mirror)
    return scoring.score(model, samples, predict, thorough=thorough, on_frame=on_frame, timings=timings)


def _only_labels(name: str, modalities: Mapping[str, Modality]) -> None:
    """Raises UsageError where there is nothing that labels could be compared with."""
    from edgekit_runtime.modality import Kind

    if (kind := modalities[name].kind) is not Kind.LABELS:
        raise UsageError(
            f"{name!r} is of kind {kind.value}: only labels can be scored against labels.",
            hint="`edgekit status DATA` lists the modalities, `edgekit view DATA -o x.png` draws them all.",
        )


def _bundle_predictor(path: Path, samples: Any) -> Any:
    import cv2

    from edgekit_runtime import load
    from edgekit_runtime.errors import DataError
    from edgekit_student.evaluate import TRUTH, Prediction, same_taxonomy

    bundle = load(path)
    labels = next((o.modality for o in bundle.manifest.outputs if o.modality and o.modality.taxonomy), None)
    if labels is None:
        raise DataError(f"The bundle {path} has no labels to score.", hint="Score a bundle that segments.")
    same_taxonomy(labels, samples.modalities[TRUTH])

    def predict(sample: Any) -> Any:
        ids = bundle(cv2.cvtColor(sample["rgb"], cv2.COLOR_RGB2BGR)).labels
        height, width = sample[TRUTH].shape[:2]
        return Prediction(cv2.resize(ids, (width, height), interpolation=cv2.INTER_NEAREST))

    return predict


def _show(result: Score) -> None:
    from rich.table import Table

    table = Table(title=f"{result.name}: mIoU {100 * result.miou:.1f} over {result.frames} frames")
    table.add_column("class")
    table.add_column("IoU %", justify="right")
    for name, value in result.per_class.items():
        table.add_row(name, "absent" if value is None else f"{100 * value:.1f}")
    table.add_section()
    for name, value in result.measures.items():
        table.add_row(name, f"{100 * value:.1f}")
    console.print(table)
