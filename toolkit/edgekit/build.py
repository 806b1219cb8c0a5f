"""From a checkpoint to a bundle: export, quantise, compile, measure, judge, write."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgekit import candidates as forms
from edgekit import gate
from edgekit.bundle import check_writable, file_entries, write_zip
from edgekit.candidates import Candidate, Form, Measured, Skipped
from edgekit.console import progress
from edgekit.deployable import of_student
from edgekit.export import Exporter
from edgekit.exportable import Exportable, Source
from edgekit.fine_tune import FineTuning
from edgekit.machine import cpu_features, cpu_name
from edgekit.material import Material, gather
from edgekit.profiles import Profile
from edgekit.quantise import TUNED, WAYS
from edgekit.report import write_report
from edgekit.smaller import make_smaller
from edgekit.targets import EngineName, Precision, unbuildable, unsupported
from edgekit.trial import measure
from edgekit_runtime.bundle import SUFFIX
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import BuildError, EdgekitError
from edgekit_runtime.manifest import Manifest
from edgekit_student.checkpoint import CONFIG, WEIGHTS
from edgekit_student.student import load_student

_BRINGS = {
    "openvino": "pip install openvino",
    "onnxruntime": "pip install onnxruntime",
    "tensorrt-rtx": "pip install 'edgekit[rtx]'",
    "tensorrt": "pip install onnxruntime",
}
_TOOLS = ("edgekit", "edgekit-runtime", "torch", "openvino", "nncf", "onnx", "onnxruntime", "tensorrt_rtx_cu13_libs")


@dataclass(frozen=True)
class Built:
    """A finished build; `candidates` are the rows of the manifest, see `gate.candidate_table`; `doubts` say in words
    what speaks against the network; `report` is a page about it.
    """

    bundle: Path
    manifest: Manifest
    skipped: tuple[Skipped, ...]
    origin: str
    seconds: float
    report: Path

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
    fine_tune_steps: int = 0,
) -> Built:
    """`build` of the student in a folder, which is fine-tuned for so many steps where INT8 loses more than is allowed
    in every other way. Raises CheckpointError, too.
    """
    _check_engine(profile)
    files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    student = of_student(load_student(folder), checkpoint=files)
    tuning = FineTuning(fine_tune_steps) if fine_tune_steps else None
    return build(Exporter(student, profile, fine_tuning=tuning), output, data, say)


def build(
    exporter: Exportable,
    output: Path,
    data: Path | str | None,
    say: Callable[[str], None] = lambda text: None,
) -> Built:
    """Builds a network for its profile into `output/<name>.edgekit`.

    `data` is the data set to calibrate and judge with; None: the synthetic world. Raises BuildError when nothing
    passes the accuracy gate or the bundle cannot be written, DataError; nothing is left under the final name
    then but what was there before.
    """
    started = time.monotonic()
    switch_off()
    source, profile = exporter.source, exporter.profile
    _check_engine(profile)
    path = output / f"{source.name}{SUFFIX}"
    check_writable(path)
    material = gather(data, exporter.taxonomy, exporter.input_size, profile.calibration_frames, profile.judged_frames)
    say(f"Calibrating and judging with {material.origin}.")

    made, skipped = _make(exporter, material)
    if exporter.fine_tuning and not exporter.fine_tuning.done:
        skipped.append(Skipped(TUNED, "no INT8 of this profile loses too much"))
    trial = measure(exporter, made, material)
    rows, skipped = trial.rows, [*skipped, *trial.refused]
    baseline = next((row for row in rows if row.candidate.key == forms.baseline_key(profile)), None)
    if baseline is None:
        reasons = "; ".join(skip.reason for skip in skipped)
        raise BuildError(f"{profile.target.engine} cannot run the float32 graph here: {reasons}.")
    gate.check_export(baseline, exporter.original)
    chosen = gate.require(rows, profile)
    tried = (gate.choose(rows, profile, target) for target in profile.targets[1:])
    fallbacks = [row for row in tried if row is not None]

    shipped = [chosen, *fallbacks]
    metric = "miou" if material.labelled else "miou against fp32"
    files = {name: data for row in shipped for name, data in row.candidate.files.items()}
    smaller, more = make_smaller(exporter, shipped, material, say)
    files |= more
    manifest = Manifest(
        name=source.name,
        profile=profile.name,
        created=_now(),
        input=exporter.input,
        outputs=exporter.outputs,
        variants=tuple(map(gate.variant, shipped)),
        files=file_entries(files),
        candidates=tuple(gate.candidate_table(rows, profile, chosen, fallbacks, metric)),
        provenance={
            **_provenance(exporter, material, rows),
            "doubts": _doubts(source, chosen, material),
        },
        camera=profile.camera.options,
        display={"target_fps": profile.target_fps, **profile.display.model_dump()},
        smaller=smaller,
    )
    write_zip(path, manifest, files)
    report = write_report(path, manifest, tuple(skipped), trial, chosen)
    return Built(path, manifest, tuple(skipped), material.origin, time.monotonic() - started, report)


def _make(exporter: Exportable, material: Material) -> tuple[list[Candidate], list[Skipped]]:
    made: list[Candidate] = []
    skipped: list[Skipped] = []
    profile = exporter.profile
    ready: dict[tuple[EngineName, Precision], Form] = {}
    steps = forms.ladder(profile)
    with progress("Compiling candidates", len(steps)) as advance:
        for target, precision in steps:
            name = f"{target} {precision}"
            advance(0, name)
            reason = unbuildable(target) or unsupported(target, precision)
            key = target.engine, precision
            try:
                if not reason and key not in ready:
                    ready[key] = forms.make_form(
                        exporter, *key, material, ready.get((target.engine, "int8")), _ways(ready.values())
                    )
            except BuildError as error:
                if (target, precision) == forms.baseline(profile):
                    raise
                reason = str(error.args[0])
            if reason:
                skipped.append(Skipped(name, reason))
            else:
                made.append(forms.make_candidate(ready[key], target, precision, profile))
            advance()
    return made, skipped


def _ways(made: Iterable[Form]) -> tuple[str, ...]:
    """How to quantise: as another engine's form of the same network was found to lose least, where there is one."""
    return next(((form.way,) for form in made if form.way), WAYS)


def _check_engine(profile: Profile) -> None:
    """A device may be missing: what can be verified without it is. The engine's library may not."""
    reason = unbuildable(profile.target)
    if reason:
        raise BuildError(f"{profile.name} cannot be built here: {reason}.", hint=_BRINGS[profile.target.engine])


def _provenance(exporter: Exportable, material: Material, rows: Sequence[Measured]) -> dict[str, Any]:
    tuned = None
    if any(row.candidate.way == TUNED for row in rows):
        tuned = exporter.fine_tuned(material.calibration)
    return {
        **(tuned or exporter).source.provenance,
        "data": material.provenance,
        "tools": _versions(),
        "host": {"cpu": cpu_name(), "features": sorted(cpu_features())},
        "profile": exporter.profile.model_dump(mode="json"),
        "network_size": list(exporter.network_size),
    }


def _doubts(source: Source, chosen: Measured, material: Material) -> list[str]:
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
