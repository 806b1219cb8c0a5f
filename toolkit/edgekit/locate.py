"""What is taken when nothing is said: the newest student, its data, the newest bundle that runs here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgekit.console import console
from edgekit_experts.dataset import Dataset
from edgekit_runtime.bundle import SUFFIX, open_bundle
from edgekit_runtime.engines import installed
from edgekit_runtime.errors import BundleError, CheckpointError, DataError, UsageError
from edgekit_student.checkpoint import CONFIG, WEIGHTS, CheckpointConfig, read_config

DEFAULT_STUDENT = Path(__file__).parent / "default" / "student"
DEFAULT_BUNDLE = Path(__file__).parent / "default" / f"default{SUFFIX}"
BUILD_FOLDER = Path("build")

_DEPTH = 4
# Checkpoints that belong to benchmarks are nobody's newest student.
_SKIPPED = {"benchmarks", "node_modules", "__pycache__", "site-packages"}


def find_student(below: Path) -> Path:
    """The newest student checkpoint up to four folders below, else the one that edgekit comes with.

    Raises UsageError when there is neither.
    """
    students = [folder for folder in _folders(below, _DEPTH) if _is_student(folder)]
    if students:
        return max(students, key=lambda folder: (folder / WEIGHTS).stat().st_mtime_ns)
    if (DEFAULT_STUDENT / CONFIG).is_file():
        return DEFAULT_STUDENT
    raise UsageError(
        f"There is no student under {below.resolve()}.",
        hint="Distil one (edgekit distill RUN DATA -o STUDENT_DIR), or name one with --student DIR.",
    )


def find_data(config: CheckpointConfig, student: Path) -> Path | str | None:
    """The data set that a student was distilled on, if it is still where it was; None otherwise.

    One behind a URL that cannot be reached from here counts as gone; why is printed.
    """
    recorded = config.provenance.get("data")
    if not isinstance(recorded, str) or not recorded:
        return None
    if "://" in recorded:
        try:
            return recorded if Dataset.exists(recorded) else None
        except DataError as error:
            console.print(f"The data set of the student: {error}", markup=False)
            return None
    places = (Path(recorded), student / recorded, student.parent / recorded)
    return next((place for place in places if (place / "zarr.json").is_file()), None)


def find_bundle(build_folder: Path = BUILD_FOLDER) -> Path:
    """The newest bundle under `build/` with a variant for an engine that is installed, else the embedded one.

    Raises BundleError when there is neither.
    """
    built = [path for path in build_folder.glob(f"*/*{SUFFIX}") if path.is_file()]
    for path in sorted(built, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            manifest = open_bundle(path).manifest
        except BundleError:
            continue  # a damaged one is not a reason to show nothing
        if any(installed(variant.engine) for variant in manifest.variants):
            return path
    if DEFAULT_BUNDLE.is_file():
        return DEFAULT_BUNDLE
    raise BundleError(
        f"There is no bundle that runs here under {build_folder.resolve()}, and none came with edgekit.",
        hint="Build one: edgekit build --profile laptop-cpu",
    )


def _is_student(folder: Path) -> bool:
    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        return False
    try:
        return read_config(folder).kind == "student"
    except (CheckpointError, OSError, UnicodeDecodeError):
        return False  # config.json is a common name


def _folders(root: Path, depth: int) -> Iterator[Path]:
    """`root` and what lies below it, without hidden folders, environments and links."""
    yield root
    if depth == 0:
        return
    try:
        with os.scandir(root) as entries:
            below = [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return
    for folder in sorted(below):
        if not folder.name.startswith(".") and folder.name not in _SKIPPED and not (folder / "pyvenv.cfg").exists():
            yield from _folders(folder, depth - 1)
