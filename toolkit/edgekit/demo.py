"""`edgekit demo`: the whole road on the synthetic world, scored against its exact truth.

Raw frames, simulated experts, PHG-MAE, ensemble, student, build for this laptop: every stage is what the commands
of the same name do, only shorter. Nothing that is trained here sees the truth. The flights that score are others
than those that teach, over the same country: what a student is distilled for.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.console import console, progress

if TYPE_CHECKING:
    from edgekit_experts.dataset import Dataset
    from edgekit_student.evaluate import Score

SEEDS = range(100, 108)
TRAIN_PATHS, VAL_PATHS = (0, 1), (2,)
SIZE = "480x272"
TRAIN_FRAMES, VAL_FRAMES = 24, 8
# Frames a second of the flight that are kept: neighbours at video rate would show the same again.
FPS = 0.5
TEACHER_STEPS, STUDENT_STEPS = 360, 1600
MEMBERS = 4
# Trainings this short have no time for much variety.
AUGMENTATION = {
    "crop": (192, 320),
    "scale": (0.9, 1.2),
    "brightness": 0.1,
    "contrast": 0.1,
    "saturation": 0.1,
}
OPTIMISATION = {"learning_rate": 4e-3, "ema": 0.98}
EXPERTS = ("simulated_sharp", "simulated_smooth", "simulated_sloppy")


@dataclass(frozen=True)
class Row:
    """One line of the table: `miou` 0..1, `ms` for a frame where that was measured."""

    name: str
    miou: float
    ms: float | None = None


@dataclass(frozen=True)
class Demo:
    """What the demo made and how long each stage took, in seconds."""

    rows: tuple[Row, ...]
    bundle: Path
    student: Path
    seconds: dict[str, float]

    @property
    def beaten(self) -> bool:
        """Whether the student as built is better than each expert that it learnt from."""
        scores = {row.name: row.miou for row in self.rows}
        built = self.rows[-1].miou
        return all(built > scores[name] for name in EXPERTS)


def run_demo(folder: Path) -> Demo:
    """Walks the whole road below `folder`. Finished stages of an earlier, interrupted demo are not repeated."""
    from edgekit.build import build_student
    from edgekit.profiles import load_profile
    from edgekit_experts.dataset import Dataset

    seconds: dict[str, float] = {}
    where, run, student = folder / "data", folder / "phg-mae", folder / "student"
    with _timed(seconds, "extract"):
        _extract(where)
    data = Dataset.open(where)
    with _timed(seconds, "train"):
        _train(data, run)
    with _timed(seconds, "distill"):
        _distill(data, run, student)
    with _timed(seconds, "build"):
        built = build_student(student, load_profile("laptop-cpu"), folder / "build", where, say=console.print)
    with _timed(seconds, "score"):
        rows = _score(data, run, student, built.bundle)
    return Demo(rows, built.bundle, student, seconds)


def show(demo: Demo) -> None:
    """The table, and what to do next."""
    from rich.table import Table

    table = Table(title="Another flight over each landscape, 8 classes")
    for name, justify in (("", "left"), ("mIoU %", "right"), ("ms a frame", "right")):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for row in demo.rows:
        table.add_row(row.name, f"{100 * row.miou:.1f}", "" if row.ms is None else f"{row.ms:.1f}")
    console.print(table)
    console.print(
        f"After so short a training, an ensemble of {MEMBERS} masks may be no better than one pass:\n"
        "each mask hides inputs that the network has hardly learnt to do without."
    )
    if not demo.beaten:
        console.print("Failed: the student as built is not better than each expert that it learnt from.", style="red")
    spent = ", ".join(f"{name} {value:.0f}" for name, value in demo.seconds.items())
    console.print(f"Seconds: {spent}; {sum(demo.seconds.values()):.0f} in all.", markup=False)
    console.print(f"Next: edgekit run --bundle {demo.bundle} --source world:7 --sink file:flight.mp4", markup=False)


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    seconds[name] = time.monotonic() - began


def _extract(where: Path) -> None:
    from edgekit_experts.config import shipped_config
    from edgekit_experts.pipeline import ExtractOptions, extract
    from edgekit_experts.video import open_video

    for split, paths, frames in (("train", TRAIN_PATHS, TRAIN_FRAMES), ("val", VAL_PATHS, VAL_FRAMES)):
        readers = [
            open_video(f"world:{seed}?path={path}&frames={frames}&size={SIZE}&fps={FPS:g}")
            for seed in SEEDS
            for path in paths
        ]
        with progress(f"Experts on {len(readers)} flights ({split})", frames * len(readers)) as advance:
            extract(readers, where, shipped_config("world"), ExtractOptions(split=split), _unit_reporter(advance))


def _unit_reporter(advance: Any) -> Callable[[Any], None]:
    seen: dict[str, int] = {}

    def report(state: Any) -> None:
        advance(state.frames - seen.get(state.video, 0), state.video)
        seen[state.video] = state.frames

    return report


def _train(data: Dataset, run: Path) -> None:
    from edgekit.commands.training import step_reporter
    from edgekit_student.settings import TrainSettings, read_settings
    from edgekit_student.train import train

    if (run / "config.json").exists():
        return
    settings = read_settings(
        TrainSettings,
        None,
        augmentation=AUGMENTATION,
        masking={"hide": 0.25},
        optimisation={**OPTIMISATION, "steps": TEACHER_STEPS},
    )
    with progress("PHG-MAE", TEACHER_STEPS) as advance:
        train(data, run, settings, device="cpu", resume=True, on_progress=step_reporter(advance))


def _distill(data: Dataset, run: Path, student: Path) -> None:
    from edgekit.commands.training import distilling, find_teacher
    from edgekit_student.distill import distill
    from edgekit_student.settings import DistillSettings, read_settings

    if (student / "config.json").exists():
        return
    settings = read_settings(
        DistillSettings,
        None,
        ensemble={"members": MEMBERS, "mirror": False},
        augmentation=AUGMENTATION,
        optimisation={**OPTIMISATION, "steps": STUDENT_STEPS},
    )
    teacher = find_teacher(str(run), data, settings)
    with distilling(STUDENT_STEPS) as (on_teaching, on_progress):
        distill(
            teacher,
            data,
            student,
            settings,
            device="cpu",
            resume=True,
            on_teaching=on_teaching,
            on_progress=on_progress,
        )


def _score(data: Dataset, run: Path, student: Path, bundle: Path) -> tuple[Row, ...]:
    from edgekit.commands.scores import score_model

    def row(name: str, model: str, members: int = 0) -> Row:
        timed: list[float] = []
        result: Score = score_model(model, data, "val", members=members, timings=timed)
        return Row(name, result.miou, None if model.startswith("expert:") else 1e3 * sorted(timed)[len(timed) // 2])

    return (
        *(row(name, f"expert:{name}") for name in EXPERTS),
        row("majority vote", "expert:vote"),
        row("PHG-MAE, one pass", str(run)),
        row(f"PHG-MAE, ensemble of {MEMBERS}", str(run), members=MEMBERS),
        row("student, PyTorch", str(student)),
        row("student, as built", str(bundle)),
    )
