"""`edgekit eval`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgekit.commands.location import DataArgument
from edgekit.commands.training import Device, device_name
from edgekit.console import console, emit, progress
from edgekit_runtime.errors import CheckpointError, DataError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgekit_experts.dataset import Dataset
    from edgekit_student.evaluate import Judged, Predictor, Score
    from edgekit_student.samples import Sample
    from edgekit_student.settings import Ensemble

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
    aggregate: Annotated[
        str, typer.Option(metavar="mean|vote", help="PHG-MAE only: average its members, or let them vote.")
    ] = "mean",
    select: Annotated[
        int | None, typer.Option(min=1, help="PHG-MAE only: keep so many of the members, those that agree best.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out borders and consistency over time.")] = False,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write a page: confusion, and the worst frames.")
    ] = None,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Score a model against human labels or exact truth: mIoU, depth, normals (docs/training.md, Scores)."""
    from edgekit.eval_page import Worst, write_eval_page
    from edgekit_experts.dataset import Dataset

    opened = Dataset.open(data)
    worst = Worst()
    with progress(f"Scoring {model}") as advance:

        def on_frame(judged: Judged) -> None:
            worst.add(judged)
            advance()

        result = score_model(
            model,
            opened,
            split,
            members=members,
            mirror=mirror,
            aggregate=aggregate,
            select=select,
            thorough=not quick,
            device=device_name(device),
            on_frame=on_frame,
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
    aggregate: str = "mean",
    select: int | None = None,
    thorough: bool = False,
    device: str = "cpu",
    on_frame: Callable[[Judged], None] = lambda judged: None,
    timings: list[float] | None = None,
) -> Score:
    """Scores whatever `model` names on a split of `data`; see `edgekit_student.evaluate.score`. Checkpoints
    compute on `device`, bundles where they were built for.

    Raises CheckpointError when there is nothing of that name, DataError when the split has no truth to score against,
    UsageError when the ensemble that is asked for cannot be.
    """
    from edgekit_runtime.bundle import SUFFIX
    from edgekit_runtime.manifest import MANIFEST
    from edgekit_runtime.modality import Kind
    from edgekit_student import evaluate as scoring
    from edgekit_student.checkpoint import read_config
    from edgekit_student.ensemble import choose_members
    from edgekit_student.phg_mae import load_phg_mae
    from edgekit_student.samples import ModalityDataset
    from edgekit_student.student import load_student

    path, reads, masked = Path(model), ["rgb"], False
    if not any(data.video(name).split == split for name in data.videos):
        have = sorted({data.video(name).split for name in data.videos})
        raise DataError(f"The split {split!r} has no labels to score against: it has no video.", hint=_choose(have))
    if model.startswith("expert:"):
        stored = model.removeprefix("expert:")
        predict = scoring.modality_predictor(data, stored, split)
        # Consistency over time needs the pictures; depth alone is scored without.
        reads = [stored, "rgb"] if Kind.LABELS in predict.outputs else [stored]
    elif path.suffix == SUFFIX or (path / MANIFEST).is_file() or any(path.glob(f"*{SUFFIX}")):
        predict = _bundle_predictor(path)
    elif not path.exists():
        raise CheckpointError(
            f"There is nothing at {path}.",
            hint="Give a PHG-MAE run, a student folder, a bundle, or expert:NAME.",
        )
    elif read_config(path).kind == "student":
        predict = scoring.student_predictor(load_student(path, device))
    else:
        teacher, masked = load_phg_mae(path, device), True
        reads = ["rgb", *(modality.name for modality in teacher.config.inputs)]
        ensemble = _ensemble(members, mirror, aggregate, select)
        chosen = None
        if members:
            inputs = ModalityDataset(data, reads[1:], split=split)
            chosen = choose_members(teacher, inputs, ensemble, seed=0)
        predict = scoring.phg_mae_predictor(teacher, members=chosen, mirror=mirror, aggregate=ensemble.aggregate)
    if (members or mirror or select) and not masked:
        raise UsageError(
            f"{model} is no PHG-MAE: it has no masks to draw or to choose from.",
            hint="Leave out --members, --mirror and --select.",
        )
    samples = scoring.scored_samples(data, split, predict.outputs, *reads)
    if Kind.LABELS in predict.outputs:
        scoring.same_taxonomy(predict.outputs[Kind.LABELS], samples.modalities[scoring.TRUTH])
    return scoring.score(model, samples, predict, thorough=thorough, on_frame=on_frame, timings=timings)


def _ensemble(members: int, mirror: bool, aggregate: str, select: int | None) -> Ensemble:
    """The settings that options say. Raises UsageError when they contradict each other."""
    from edgekit_student.settings import Ensemble

    if aggregate not in ("mean", "vote"):
        raise UsageError(f"There is no --aggregate {aggregate!r}.", hint="Take mean or vote.")
    if select is not None and select > members:
        raise UsageError(
            f"--select {select} needs at least as many --members to choose from, not {members}.",
            hint="Ask for more members.",
        )
    return Ensemble.model_validate(
        {"members": max(1, members), "mirror": mirror, "aggregate": aggregate, "select": select}
    )


def _bundle_predictor(path: Path) -> Predictor:
    import cv2
    import numpy as np

    from edgekit_runtime import load
    from edgekit_runtime.modality import Kind
    from edgekit_student.evaluate import Prediction, Predictor, declared_outputs

    bundle = load(path)
    outputs = declared_outputs(tuple(output.modality for output in bundle.manifest.outputs if output.modality))
    if Kind.LABELS not in outputs:
        raise DataError(f"The bundle {path} has no labels to score.", hint="Score a bundle that segments.")

    def predict(sample: Sample) -> Prediction:
        result = bundle(cv2.cvtColor(sample["rgb"], cv2.COLOR_RGB2BGR))
        height, width = sample["rgb"].shape[:2]
        ids = cv2.resize(result.labels, (width, height), interpolation=cv2.INTER_NEAREST)
        if result.depth is None:
            return Prediction(ids)
        depth = cv2.resize(np.asarray(result.depth, np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return Prediction(ids, geometry={Kind.DEPTH: depth[..., None]})

    return Predictor(predict, outputs)


def _choose(splits: list[str]) -> str:
    return f"Videos are in {', '.join(splits)}; choose with --split." if splits else "The data set has no video."


def _show(result: Score) -> None:
    from rich.table import Table

    headline = f"mIoU {100 * result.miou:.1f}" if result.taxonomy else ", ".join(result.geometry_truth)
    table = Table(title=f"{result.name}: {headline} over {result.frames} frames")
    table.add_column("class" if result.taxonomy else "measure")
    table.add_column("IoU %" if result.taxonomy else "", justify="right")
    for name, value in result.per_class.items():
        table.add_row(name, "absent" if value is None else f"{100 * value:.1f}")
    table.add_section()
    for name, measure in result.measures.items():
        table.add_row(name, f"{100 * measure:.1f}")
    table.add_section()
    for name, text in result.geometry_words.items():
        table.add_row(name, text)
    console.print(table)
    if result.ensemble:
        console.print("Chosen masks, and their agreement with all:")
        for names, agreement in zip(result.ensemble["masks"], result.ensemble["agreement"], strict=True):
            console.print(f"  {100 * agreement:5.1f} %  {', '.join(names)}", markup=False)
    if result.geometry_truth:
        against = ", ".join(f"{kind} against {name}" for kind, name in result.geometry_truth.items())
        aligned = f"; alignment of depth: {result.depth_alignment}" if result.depth_alignment else ""
        console.print(f"Scored {against}{aligned}.", markup=False)
