"""Candidates: forms of one deploy graph, each compiled, timed and scored exactly as the runtime would run it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from edgekit.bundle import file_entries, temporary_files, write_folder
from edgekit.export import Arrays
from edgekit.exportable import Exportable
from edgekit.material import Judged, Material
from edgekit.profiles import Profile
from edgekit.quantise import Frames, quantise, quantise_partly
from edgekit.targets import CPU, EngineName, Precision, Target, absent, settings
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import open_engine
from edgekit_runtime.engines.base import Engine
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import Manifest, Variant
from edgekit_runtime.modality import Taxonomy
from edgekit_student.metrics import Confusion, confusion, miou

BASELINE: Precision = "fp32"
# Outputs of the deploy graph.
LABELS, DEPTH = "labels", "depth"

ClassMap = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Form:
    """One form of the graph for an engine: `model` is the file to open, `files` all by name in the bundle."""

    model: str
    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True)
class Candidate:
    """A form on a target; several targets may run the same files. `absent` says why this machine cannot run it, and
    `stand_in` is then the variant that is opened to verify what can be verified.
    """

    target: Target
    variant: Variant
    files: Mapping[str, bytes] = field(repr=False)
    absent: str = ""
    stand_in: Variant | None = None

    @property
    def key(self) -> str:
        return f"{self.target} {self.variant.precision}"

    @property
    def size(self) -> int:
        return sum(len(data) for data in self.files.values())


@dataclass(frozen=True)
class Skipped:
    """A candidate that was not tried, and why."""

    candidate: str
    reason: str


@dataclass(frozen=True)
class Fidelity:
    """How near a candidate comes to something else that answers the same question, None for what it does not answer.

    `agreement` is the share of pixels of the same class, `depth_error` the mean difference of depth as a share of
    the mean depth; both 0..1.
    """

    agreement: float | None = None
    depth_error: float | None = None


@dataclass(frozen=True)
class Measured:
    """What was found out about a candidate on this machine.

    `miou` is 0..1, against labels or, without any, against the baseline's class maps; `drop` is what it lies below
    the baseline. `baseline` compares it with the baseline on the judged frames, `original` with the network as it came
    (in PyTorch, or an ONNX file in ONNX Runtime) on the golden ones. `doubts` say in words what speaks against what the
    network has learnt. `fps` is with as many frames at once as the engine takes. `ran_on` is the library and the
    devices, or execution providers, that it really used. Where this machine has no such device, latencies and `fps` are
    None, and the rest was found out on another (`Candidate.stand_in`).
    """

    candidate: Candidate
    p50_ms: float | None
    p95_ms: float | None
    miou: float | None
    drop: float | None
    baseline: Fidelity
    original: Fidelity
    doubts: tuple[str, ...] = ()
    fps: float | None = None
    ran_on: str = ""


def make_form(
    exporter: Exportable, engine: EngineName, precision: Precision, material: Material, int8: Form | None = None
) -> Form:
    """Exports (and quantises) one form. Mixed precision begins with the `int8` form of the same engine, made anew where
    it is not given. Raises BuildError, also where mixed precision is not needed.
    """
    if engine == "onnxruntime":
        return _onnx_form(exporter, precision, material.calibration)
    return _openvino_form(exporter, precision, material, int8)


def make_candidate(form: Form, target: Target, precision: Precision, profile: Profile) -> Candidate:
    """A form as a target runs it."""

    def variant(on: Target) -> Variant:
        told = settings(on, precision, threads=profile.threads, hint=profile.hint, spinning=profile.spinning)
        return Variant(on.engine, on.device, precision, form.model, told)

    stand_in = variant(target.stand_in) if absent(target) else None
    return Candidate(target, variant(target), form.files, profile.missing(target), stand_in)


def _openvino_form(exporter: Exportable, precision: Precision, material: Material, int8: Form | None) -> Form:
    import openvino

    model = exporter.openvino()
    if precision == "int8":
        model = quantise(model, material.calibration)
    elif precision == "mixed":
        int8 = int8 or _openvino_form(exporter, "int8", material, None)
        weights = int8.files[int8.model.removesuffix(".xml") + ".bin"]
        whole = openvino.Core().read_model(model=int8.files[int8.model], weights=weights)
        judged = [frame.image for frame in material.judged]
        spent = _allowance(exporter, model, material)
        model = quantise_partly(model, whole, material.calibration, judged, spent)
    _name_plainly(model)
    # Half precisions are asked of the engine; their files are the same.
    stem = f"openvino/{'half' if precision in ('bf16', 'fp16') else precision}/model"
    with tempfile.TemporaryDirectory() as folder, temporary_files():
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=precision != "fp32")
        files = {f"{stem}{part}": path.with_suffix(part).read_bytes() for part in (".xml", ".bin")}
    return Form(f"{stem}.xml", files)


def _allowance(exporter: Exportable, fp32: Any, material: Material) -> Callable[[Any], float]:
    """How much of what the profile allows a compiled form has lost: 0 for float32, 1 at the limit."""
    import openvino

    profile, taxonomy = exporter.profile, exporter.taxonomy
    images = [frame.image for frame in material.judged]
    names = [output.name for output in exporter.outputs]

    def said(compiled: Any) -> list[Arrays]:
        results = (compiled(image[None]) for image in images)
        return [{name: np.array(result[name][0]) for name in names} for result in results]

    baseline = said(openvino.compile_model(fp32, CPU, {"INFERENCE_PRECISION_HINT": "f32"}))
    targets = targets_of(material.judged, class_maps(baseline)) if taxonomy else []

    def reached(answers: Sequence[Arrays]) -> float:
        return miou(tally(class_maps(answers), targets, taxonomy)) if taxonomy else 0.0

    best = reached(baseline)

    def spent(compiled: Any) -> float:
        answers = said(compiled)
        parts = [100 * (best - reached(answers)) / max(profile.allowed_drop_points, 1e-6)]
        if (error := fidelity(answers, baseline).depth_error) is not None:
            parts.append(100 * error / max(profile.allowed_depth_error_percent, 1e-6))
        return max(parts)

    return spent


def _name_plainly(model: Any) -> None:
    """Names by position: the automatic ones count on through a process, so no two builds would be equal."""
    model.set_friendly_name("edgekit")
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    for section in list(model.get_rt_info()):
        del model.get_rt_info()[section]


def _onnx_form(exporter: Exportable, precision: Precision, calibration: Frames) -> Form:
    model = exporter.onnx()
    if precision == "int8":
        model = quantise(model, calibration)
    name = f"onnxruntime/{precision}/model.onnx"
    return Form(name, {name: model.SerializeToString(deterministic=True)})


@contextmanager
def opened(exporter: Exportable, candidates: Sequence[Candidate]) -> Iterator[tuple[dict[str, Engine], dict[str, str]]]:
    """Every candidate, or what stands in for it here, opened by the runtime's own engines from a trial bundle; and why
    others could not be.

    Yields engines and reasons by `Candidate.key`.
    """
    files = {name: data for candidate in candidates for name, data in candidate.files.items()}
    manifest = Manifest(
        name="trial",
        profile=exporter.profile.name,
        created="now",
        input=exporter.input,
        outputs=exporter.outputs,
        variants=tuple(candidate.stand_in or candidate.variant for candidate in candidates),
        files=file_entries(files),
    )
    engines: dict[str, Engine] = {}
    refused: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="edgekit-trial-") as folder:
        with temporary_files():
            write_folder(Path(folder) / "bundle", manifest, files)
        bundle = open_bundle(Path(folder) / "bundle")
        try:
            for candidate in candidates:
                try:
                    engines[candidate.key] = open_engine(bundle, candidate.stand_in or candidate.variant)
                except EngineError as error:
                    refused[candidate.key] = str(error.args[0])
            yield engines, refused
        finally:
            for engine in engines.values():
                engine.close()


def answers(engine: Engine, images: Sequence[npt.NDArray[np.uint8]]) -> list[Arrays]:
    """The outputs by name, `(h, w)`, for each image; copies, the engine's memory is its own."""
    return [
        {
            name: array[0].astype(np.uint8 if name == LABELS else np.float32)
            for name, array in engine.infer(image[None]).items()
        }
        for image in images
    ]


def fidelity(found: Sequence[Arrays], expected: Sequence[Arrays]) -> Fidelity:
    """Of what was found for some images to what was expected."""
    pairs = list(zip(found, expected, strict=True))
    agreement = depth_error = None
    if LABELS in found[0]:
        agreement = float(np.mean([np.mean(a[LABELS] == b[LABELS]) for a, b in pairs]))
    if DEPTH in found[0]:
        scale = float(np.mean([np.abs(b[DEPTH]).mean() for _, b in pairs]))
        difference = float(np.mean([np.abs(a[DEPTH] - b[DEPTH]).mean() for a, b in pairs]))
        depth_error = difference / max(scale, 1e-9)
    return Fidelity(agreement, depth_error)


def class_maps(said: Sequence[Arrays]) -> list[ClassMap]:
    return [each[LABELS] for each in said]


def tally(maps: Sequence[ClassMap], targets: Sequence[ClassMap], taxonomy: Taxonomy) -> Confusion:
    """Confusion at the targets' resolution: class maps are enlarged as the overlay does it, by nearest pixel."""
    classes = len(taxonomy)
    total: Confusion = np.zeros((classes, classes + 1), np.int64)
    for found, target in zip(maps, targets, strict=True):
        enlarged = found
        if found.shape != target.shape:
            size = (target.shape[1], target.shape[0])
            enlarged = np.asarray(cv2.resize(found, size, interpolation=cv2.INTER_NEAREST))
        total = total + confusion(enlarged, target, classes, taxonomy.ignore)
    return total


def targets_of(judged: Sequence[Judged], baseline: Sequence[ClassMap]) -> list[ClassMap]:
    """Labels where every frame has them, else the baseline's own class maps."""
    labels = [frame.labels for frame in judged if frame.labels is not None]
    return labels if len(labels) == len(judged) else list(baseline)


def ladder(profile: Profile) -> list[tuple[Target, Precision]]:
    """What to try, in the profile's order; the baseline is always there, to compare with."""
    steps = [(target, precision) for target in profile.targets for precision in profile.ladder(target)]
    if baseline(profile) not in steps:
        steps.append(baseline(profile))
    return steps


def baseline(profile: Profile) -> tuple[Target, Precision]:
    """float32 on the CPU, by the engine that the profile is for: what everything is compared with."""
    return profile.target.stand_in, BASELINE


def baseline_key(profile: Profile) -> str:
    target, precision = baseline(profile)
    return f"{target} {precision}"
