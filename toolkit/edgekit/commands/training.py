"""`edgekit train`, `distill` and `eval`."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.commands.location import DataArgument
from edgekit.console import Stages, console, emit, progress
from edgekit_runtime.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from edgekit_experts.dataset import Dataset
    from edgekit_runtime.modality import Modality
    from edgekit_student.evaluate import Judged, Score
    from edgekit_student.fit import Progress

Config = Annotated[
    Path | None, typer.Option("-c", "--config", metavar="FILE", help="Settings, TOML: see docs/training.md.")
]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
Devices = Annotated[int, typer.Option(min=1, help="Train on so many devices of this machine, a batch on each.")]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Write curves and sample pictures into the output folder.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last state in the output folder.")]
Steps = Annotated[int | None, typer.Option(min=1, help="Optimisation steps.")]
Batch = Annotated[int | None, typer.Option(min=1, help="Samples per step.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]


def register(app: typer.Typer) -> None:
    app.command("train")(train)
    app.command("distill")(distill)
    app.command("eval")(evaluate)


def train(
    context: typer.Context,
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="RUN", help="Folder for the checkpoint.")],
    config: Config = None,
    network: Annotated[str | None, typer.Option(help="Network by name, such as edge-900k or safeuav-430k.")] = None,
    target: Annotated[str | None, typer.Option(help="The labels that students will learn.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Devices = 1,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Train PHG-MAE, the multi-modal masked autoencoder, on a data set. No human label is used."""
    _on_devices(context, device, devices)
    from edgekit_student.settings import TrainSettings, read_settings
    from edgekit_student.train import train as fit_phg_mae

    settings = read_settings(
        TrainSettings,
        config,
        network=network,
        target=target,
        optimisation__steps=steps,
        optimisation__batch=batch,
        optimisation__seed=seed,
    )
    with progress("PHG-MAE", settings.optimisation.steps) as advance:
        model = fit_phg_mae(
            _open(data),
            output,
            settings,
            device=_device(device),
            resume=resume,
            tensorboard=tensorboard,
            on_progress=step_reporter(advance),
        )
    if _follows():
        return
    document = {
        "run": str(output),
        "network": settings.network,
        "inputs": [modality.name for modality in model.config.inputs],
        "target": model.target.name,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "frames": model.config.provenance["frames"],
    }
    if json:
        emit(document)
    else:
        console.print(
            f"PHG-MAE in {output}: {', '.join(document['inputs'])} -> {document['target']}.\n"
            f"Next: edgekit distill {output} {data} -o STUDENT_DIR"
        )


def distill(
    context: typer.Context,
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A PHG-MAE that `edgekit train` made.")],
    data: DataArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="STUDENT_DIR", help="Folder for the student.")],
    config: Config = None,
    student: Annotated[str | None, typer.Option(help="Network by name, such as edge-430k.")] = None,
    members: Annotated[int | None, typer.Option(min=1, help="Random masks that the ensemble averages.")] = None,
    steps: Steps = None,
    batch: Batch = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Devices = 1,
    resume: Resume = False,
    tensorboard: TensorBoard = False,
    json: Json = False,
) -> None:
    """Distil the ensemble of a PHG-MAE into an RGB-only student."""
    _on_devices(context, device, devices)
    from edgekit_student.distill import distill as fit_student
    from edgekit_student.phg_mae import load_phg_mae
    from edgekit_student.settings import DistillSettings, read_settings

    settings = read_settings(
        DistillSettings,
        config,
        network=student,
        ensemble__members=members,
        optimisation__steps=steps,
        optimisation__batch=batch,
        optimisation__seed=seed,
    )
    teacher = load_phg_mae(run)
    with distilling(settings.optimisation.steps) as (on_teaching, on_progress):
        model = fit_student(
            teacher,
            _open(data),
            output,
            settings,
            parent=f"{run.resolve().name}@{teacher.config.weights_sha256[:16]}",
            device=_device(device),
            resume=resume,
            tensorboard=tensorboard,
            on_teaching=on_teaching,
            on_progress=on_progress,
        )
    if _follows():
        return
    learnt = model.config.provenance["learnt"]
    document = {
        "student": str(output),
        "network": settings.network,
        "parameters": model.parameter_count(),
        "learnt": learnt,
    }
    say_doubts(learnt["doubts"])
    if json:
        emit(document)
    else:
        console.print(
            f"Student in {output}: {settings.network}, {document['parameters']:,} parameters, "
            f"mIoU {100 * learnt['miou']:.1f} % against the ensemble that taught it.\n"
            f"Next: edgekit build --profile laptop-cpu --student {output} --data {data}",
            markup=False,
        )


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

    opened = _open(data)
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


def _on_devices(context: typer.Context, device: str, devices: int) -> None:
    """Does the command in a process for each device and leaves it, unless there is one, or this is one of several."""
    from edgekit.launch import check_devices, run_on_devices
    from edgekit_student.ranks import world

    if devices == 1 or world() > 1:
        return
    check_devices(_device(device), devices)
    # The first process has said all that is to be said, of an interruption as well.
    raise SystemExit(run_on_devices(context.obj, devices))


def _follows() -> bool:
    from edgekit_student.ranks import leads

    return not leads()


def _open(location: str) -> Dataset:
    from edgekit_experts.dataset import Dataset

    return Dataset.open(location)


def _device(name: str) -> str:
    if name not in ("auto", "cpu", "cuda"):
        raise UsageError(f"There is no device {name!r}.", hint="Devices: auto, cpu, cuda.")
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device is available here.", hint="Use --device auto or --device cpu.")
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return name


@contextmanager
def distilling(steps: int) -> Iterator[tuple[Callable[[int, int], None], Callable[[Progress], None]]]:
    """Shows the two stages of a distillation, one after the other: what to call for each frame taught and each step."""
    with Stages() as stages:
        stages.begin("Pseudo-labels")

        def on_teaching(done: int, total: int) -> None:
            stages.advance(1, f"of {total} frames")
            if done == total:
                stages.begin("Student", steps)

        yield on_teaching, step_reporter(stages.advance)


def say_doubts(doubts: Sequence[str]) -> None:
    """Warns of a student that has learnt little."""
    for doubt in doubts:
        console.print(f"Warning: this student has learnt little: {doubt}.", style="yellow", markup=False)
    if doubts:
        console.print("Look at what taught it (edgekit view), take more or other frames, or train longer (--steps).")


def step_reporter(advance: Any) -> Callable[[Progress], None]:
    """Shows each optimisation step on a progress bar."""

    def report(state: Progress) -> None:
        advance(1, f"loss {state.loss:.3f}, {state.rate:.0f} samples/s")

    return report


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
