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
from edgekit.deployable import Deployable, of_student
from edgekit.export import Arrays, Exporter
from edgekit.machine import cpu_features, cpu_name
from edgekit.material import Material, gather
from edgekit.profiles import Profile
from edgekit_runtime.bundle import SUFFIX
from edgekit_runtime.errors import BuildError, EdgekitError
from edgekit_runtime.manifest import Manifest, Variant
from edgekit_runtime.modality import Taxonomy
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


def build_student(
    folder: Path,
    profile: Profile,
    output: Path,
    data: Path | str | None,
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """`build` of the student in a folder. Raises CheckpointError, too."""
    _check_engine(profile)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    return build(of_student(load_student(folder), checkpoint=files), profile, output, data, say)


def build(
    source: Deployable,
    profile: Profile,
    output: Path,
    data: Path | str | None,
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """Builds a network for a profile into `output/<name>.edgekit`.

    `data` is the data set to calibrate and judge with; None: the synthetic world. Raises BuildError when nothing
    passes the accuracy gate or the bundle cannot be written, DataError; nothing is left under the final name
    then but what was there before.
    """
    started = time.monotonic()
    switch_off()
    _check_engine(profile)
    path = output / f"{source.name}{SUFFIX}"
    check_writable(path)
    exporter = Exporter(source, profile)
    material = gather(data, exporter.taxonomy, exporter.input_size, profile.calibration_frames, profile.judged_frames)
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
        name=source.name,
        profile=profile.name,
        created=_now(),
        input=exporter.input,
        outputs=exporter.outputs,
        variants=tuple(_variant(row) for row in shipped),
        files=file_entries(files),
        candidates=tuple(gate.candidate_table(rows, profile, chosen, fallback, metric)),
        provenance={
            **_provenance(exporter, material),
            "doubts": _doubts(source, chosen, material),
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
    with trial.opened(exporter, made) as (engines, refused):
        spent: dict[str, trial.Milliseconds] = {}
        with progress("Timing", trial.BLOCKS * len(exporter.profile.engines)) as advance:
            for library in exporter.profile.engines:
                group = {key: engine for key, engine in engines.items() if key.startswith(f"{library} ")}
                spent |= trial.time_engines(group, golden, advance)
        with progress("Judging", len(engines)) as advance:
            said, pytorch = {}, {}
            for key, engine in engines.items():
                said[key] = trial.answers(engine, images)
                pytorch[key] = trial.fidelity(trial.answers(engine, golden), references)
                advance()
    skipped = [
        Skipped(candidate.variant.engine, candidate.variant.precision, refused[candidate.key])
        for candidate in made
        if candidate.key in refused
    ]
    baseline = said.get(f"{exporter.profile.engine} {trial.BASELINE}")
    if baseline is None:
        return [], skipped
    judge = _judge_of(exporter.taxonomy, material, baseline)
    rows = []
    for candidate in made:
        if (key := candidate.key) in engines:
            p50, p95 = np.percentile(spent[key], (50, 95))
            found, drop, against = judge(said[key])
            nearness = trial.fidelity(said[key], baseline)
            rows.append(Measured(candidate, float(p50), float(p95), found, drop, nearness, pytorch[key], against))
    return rows, skipped


Verdict = tuple[float | None, float | None, tuple[str, ...]]
"""mIoU, how far that lies below the baseline's, doubts."""


def _judge_of(
    taxonomy: Taxonomy | None, material: Material, baseline: Sequence[Arrays]
) -> Callable[[Sequence[Arrays]], Verdict]:
    """What says how good class maps are. Raises BuildError where the labels to judge by are empty."""
    if taxonomy is None:
        return lambda said: (None, None, ())
    classes = taxonomy
    targets = trial.targets_of(material.judged, trial.class_maps(baseline))
    best = miou(trial.tally(trial.class_maps(baseline), targets, classes))
    if not np.isfinite(best):
        raise BuildError(
            "The frames to judge by hold no labelled pixel.", hint="Label some, or remove the empty labels modality."
        )

    def judge(said: Sequence[Arrays]) -> Verdict:
        table = trial.tally(trial.class_maps(said), targets, classes)
        found = miou(table)
        return found, best - found, doubts(table, classes.classes, "the labels", told_apart=material.labelled)

    return judge


def _check_engine(profile: Profile) -> None:
    if reason := profile.missing_engine():
        raise BuildError(f"{profile.name} cannot be built here: {reason}.", hint=f"pip install {profile.engine}")


def _variant(row: Measured) -> Variant:
    """The variant with what was measured of it."""

    def rounded(value: float | None) -> float | None:
        return None if value is None else round(value, 5)

    return replace(
        row.candidate.variant,
        p50_ms=round(row.p50_ms, 3),
        miou=rounded(row.miou),
        drop=rounded(row.drop),
        depth_error=rounded(row.baseline.depth_error),
    )


def _provenance(exporter: Exporter, material: Material) -> dict[str, Any]:
    return {
        **exporter.source.provenance,
        "data": material.provenance,
        "tools": _versions(),
        "host": {"cpu": cpu_name(), "features": sorted(cpu_features())},
        "profile": exporter.profile.model_dump(mode="json"),
        "network_size": list(exporter.network_size),
    }


def _doubts(source: Deployable, chosen: Measured, material: Material) -> list[str]:
    """What was found here; where nothing was labelled, what was found when the network learnt, too."""
    learnt = () if material.labelled else source.doubts
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
