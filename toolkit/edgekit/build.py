"""From a checkpoint to a bundle: export, quantise, compile, measure, judge, write."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from edgekit import candidates as trial
from edgekit import gate
from edgekit.bundle import check_writable, file_entries, write_zip
from edgekit.candidates import Candidate, Measured
from edgekit.console import progress
from edgekit.export import Exporter
from edgekit.machine import cpu_features, cpu_name
from edgekit.material import Material, gather
from edgekit.profiles import Profile
from edgekit_runtime.bundle import SUFFIX
from edgekit_runtime.errors import BuildError, EdgekitError
from edgekit_runtime.manifest import Manifest, Variant
from edgekit_runtime.telemetry import switch_off
from edgekit_student.checkpoint import CONFIG, WEIGHTS
from edgekit_student.metrics import doubts, miou
from edgekit_student.student import load_student

GOLDEN_FRAMES = 8
_TOOLS = ("edgekit", "edgekit-runtime", "torch", "openvino", "nncf", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Skipped:
    """A form that was not measured, and why."""

    engine: str
    precision: str
    reason: str


@dataclass(frozen=True)
class Built:
    """A finished build; `candidates` are the rows of the manifest, see `gate.candidate_table`; `doubts` say in words
    what speaks against the student.
    """

    bundle: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    origin: str
    seconds: float

    @property
    def doubts(self) -> tuple[str, ...]:
        return tuple(self.manifest.provenance["doubts"])

    @property
    def candidates(self) -> tuple[Any, ...]:
        return self.manifest.candidates


def build(
    student_folder: Path,
    profile: Profile,
    output: Path,
    data: Path | str | None,
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """Builds a student for a profile into `output/<network>.edgekit`.

    `data` is the data set to calibrate and judge with; None: the synthetic world. Raises BuildError when nothing
    passes the accuracy gate or the bundle cannot be written, CheckpointError, DataError; nothing is left
    under the final name then but what was there before.
    """
    started = time.monotonic()
    switch_off()
    if reason := profile.missing_engine():
        raise BuildError(f"{profile.name} cannot be built here: {reason}.", hint=f"pip install {profile.engine}")
    student = load_student(student_folder)
    path = output / f"{student.config.network['name']}{SUFFIX}"
    check_writable(path)
    exporter = Exporter(student, profile)
    taxonomy = exporter.graph.outputs["labels"].taxonomy
    assert taxonomy is not None
    material = gather(data, taxonomy, exporter.input_size, profile.calibration_frames, profile.judged_frames)
    say(f"Calibrating and judging with {material.origin}.")

    made, skipped = _make(exporter, material)
    rows, refused = _measure(exporter, made, material)
    skipped += refused
    baseline = next((row for row in rows if row.candidate.key == f"{profile.engine} {trial.BASELINE}"), None)
    if baseline is None:
        reasons = "; ".join(skip.reason for skip in skipped)
        raise BuildError(f"{profile.engine} cannot run the float32 graph here: {reasons}.")
    gate.check_export(baseline)
    chosen = gate.require(rows, profile)
    fallback = gate.choose(rows, profile, profile.engines[1]) if len(profile.engines) > 1 else None

    shipped = [row for row in (chosen, fallback) if row is not None]
    metric = "miou" if material.labelled else "miou against fp32"
    files = {name: data for row in shipped for name, data in row.candidate.files.items()}
    manifest = Manifest(
        name=student.config.network["name"],
        profile=profile.name,
        created=_now(),
        input=exporter.input,
        outputs=exporter.outputs,
        variants=tuple(_variant(row) for row in shipped),
        files=file_entries(files),
        candidates=tuple(gate.candidate_table(rows, profile, chosen, fallback, metric)),
        provenance={
            **_provenance(student_folder, student.config.provenance, exporter, material),
            "doubts": _doubts(student.config.provenance, chosen, material),
        },
        display={"target_fps": profile.target_fps},
    )
    write_zip(path, manifest, files)
    return Built(path, manifest, tuple(skipped), material.origin, time.monotonic() - started)


def _make(exporter: Exporter, material: Material) -> tuple[list[Candidate], list[Skipped]]:
    made: list[Candidate] = []
    skipped: list[Skipped] = []
    profile = exporter.profile
    steps = trial.ladder(profile)
    with progress("Compiling candidates", len(steps)) as advance:
        for engine, precision in steps:
            advance(0, f"{engine} {precision}")
            reason = f"{engine} is not installed" if not find_spec(engine) else trial.unsupported(engine, precision)
            if not reason:
                try:
                    made.append(trial.make_candidate(exporter, engine, precision, material.calibration))
                except BuildError as error:
                    if precision == trial.BASELINE and engine == profile.engine:
                        raise
                    reason = str(error.args[0])
            if reason:
                skipped.append(Skipped(engine, precision, reason))
            advance()
    return made, skipped


def _measure(exporter: Exporter, made: Sequence[Candidate], material: Material) -> tuple[list[Measured], list[Skipped]]:
    """Latency, accuracy and agreement with PyTorch of every candidate that can be opened."""
    images = [frame.image for frame in material.judged]
    golden = images[:: max(1, len(images) // GOLDEN_FRAMES)][:GOLDEN_FRAMES]
    references = [exporter.reference(image) for image in golden]
    taxonomy = exporter.graph.outputs["labels"].taxonomy
    assert taxonomy is not None
    with trial.opened(exporter, made) as (engines, refused):
        spent: dict[str, trial.Milliseconds] = {}
        with progress("Timing", trial.BLOCKS * len(exporter.profile.engines)) as advance:
            for library in exporter.profile.engines:
                group = {key: engine for key, engine in engines.items() if key.startswith(f"{library} ")}
                spent |= trial.time_engines(group, golden, advance)
        with progress("Judging", len(engines)) as advance:
            maps = {}
            for key, engine in engines.items():
                maps[key] = trial.class_maps(engine, images)
                advance()
            agreement = {
                key: _agreement(trial.class_maps(engine, golden), references) for key, engine in engines.items()
            }
    skipped = [
        Skipped(candidate.variant.engine, candidate.variant.precision, refused[candidate.key])
        for candidate in made
        if candidate.key in refused
    ]
    baseline = maps.get(f"{exporter.profile.engine} {trial.BASELINE}")
    if baseline is None:
        return [], skipped
    targets = trial.targets_of(material.judged, baseline)
    best = miou(trial.tally(baseline, targets, taxonomy))
    if not np.isfinite(best):
        raise BuildError(
            "The frames to judge by hold no labelled pixel.", hint="Label some, or remove the empty labels modality."
        )
    rows = []
    for candidate in made:
        if candidate.key in engines:
            table = trial.tally(maps[candidate.key], targets, taxonomy)
            found = miou(table)
            p50, p95 = np.percentile(spent[candidate.key], (50, 95))
            against = doubts(table, taxonomy.classes, "the labels", told_apart=material.labelled)
            rows.append(
                Measured(candidate, float(p50), float(p95), found, best - found, agreement[candidate.key], against)
            )
    return rows, skipped


def _agreement(maps: Sequence[trial.ClassMap], references: Sequence[trial.ClassMap]) -> float:
    return float(np.mean([np.mean(a == b) for a, b in zip(maps, references, strict=True)]))


def _variant(row: Measured) -> Variant:
    """The variant with what was measured of it."""
    return replace(row.candidate.variant, p50_ms=round(row.p50_ms, 3), miou=round(row.miou, 5), drop=round(row.drop, 5))


def _provenance(folder: Path, student: dict[str, Any], exporter: Exporter, material: Material) -> dict[str, Any]:
    return {
        "checkpoint": {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)},
        "student": {key: student[key] for key in ("data_hash", "seed", "parent", "supervised") if key in student},
        "data": material.provenance,
        "tools": _versions(),
        "host": {"cpu": cpu_name(), "features": sorted(cpu_features())},
        "profile": exporter.profile.model_dump(mode="json"),
        "network_size": list(exporter.network_size),
    }


def _doubts(student: dict[str, Any], chosen: Measured, material: Material) -> list[str]:
    """What was found here; where nothing was labelled, what was found when the student was distilled, too."""
    learnt = [] if material.labelled else student.get("learnt", {}).get("doubts", [])
    return [*chosen.doubts, *(doubt for doubt in learnt if doubt not in chosen.doubts)]


def _versions() -> dict[str, str]:
    found = {}
    for name in _TOOLS:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _now() -> str:
    """UTC, to the second; SOURCE_DATE_EPOCH stands in for the clock where builds must be equal."""
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    try:
        moment = datetime.fromtimestamp(int(epoch), UTC) if epoch else datetime.now(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise EdgekitError(f"SOURCE_DATE_EPOCH is {epoch!r}, not seconds since 1970.") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
