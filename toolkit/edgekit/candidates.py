"""Candidates: forms of one deploy graph, each compiled, timed and scored exactly as the runtime would run it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit.allowance import Allowance, Run, running_onnx, running_openvino
from edgekit.bundle import file_entries, temporary_files, write_folder
from edgekit.exportable import Exportable
from edgekit.half import keep_float32
from edgekit.judging import LABELS, Arrays, Fidelity
from edgekit.material import Material
from edgekit.profiles import Profile
from edgekit.quantise import WAYS, compress_weights, quantise_network, quantise_partly
from edgekit.targets import CPU, TENSORRT, EngineName, Precision, Target, absent, settings
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.engines import Engine, open_engine
from edgekit_runtime.engines.tensorrt.cuda import find_gpu
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import Manifest, Variant
from edgekit_runtime.prepare import prepare_variant

BASELINE: Precision = "fp32"


@dataclass(frozen=True)
class Form:
    """One form of the graph for an engine: `model` is the file to open, `files` all by name in the bundle, `config`
    what the engine has to know about them; `way` says how it was quantised.
    """

    model: str
    files: Mapping[str, bytes] = field(repr=False)
    config: Mapping[str, Any] = field(default_factory=dict)
    way: str = ""


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
    way: str = ""

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
    exporter: Exportable,
    engine: EngineName,
    precision: Precision,
    material: Material,
    int8: Form | None = None,
    ways: Sequence[str] = WAYS,
) -> Form:
    """Exports (and quantises) one form; INT8 in one of `ways`. Mixed precision begins with the `int8` form of the same
    engine, made anew where it is not given. Raises BuildError, also where mixed precision is not needed.
    """
    if engine in TENSORRT:
        from edgekit.tensorrt import tensorrt_form

        return tensorrt_form(exporter, engine, precision, material, ways)
    if engine == "onnxruntime":
        return _onnx_form(exporter, precision, material, ways)
    return _openvino_form(exporter, precision, material, int8, ways)


def make_candidate(form: Form, target: Target, precision: Precision, profile: Profile) -> Candidate:
    """A form as a target runs it."""

    def variant(on: Target) -> Variant:
        told = settings(on, precision, threads=profile.threads, hint=profile.hint, spinning=profile.spinning)
        if on == target:
            told |= form.config
        return Variant(on.engine, on.device, precision, form.model, told)

    stand_in = variant(target.stand_in) if absent(target) else None
    return Candidate(target, variant(target), form.files, profile.missing(target), stand_in, form.way)


def _openvino_form(
    exporter: Exportable, precision: Precision, material: Material, int8: Form | None, ways: Sequence[str]
) -> Form:
    import openvino

    model, way = exporter.openvino(), ""

    def run(form: Any, **told: str) -> Run:
        return running_openvino(exporter, openvino.compile_model(form, CPU, told))

    if precision in ("int8", "mixed"):
        allowance = Allowance(exporter, material, run(model, INFERENCE_PRECISION_HINT="f32"))
    if precision == "int8":
        model, way, _ = quantise_network(
            exporter,
            lambda network: network.openvino(),
            material.calibration,
            ways,
            lambda form: allowance.spent(run(form)),
        )
    elif precision == "mixed":
        int8 = int8 or _openvino_form(exporter, "int8", material, None, ways)
        weights = int8.files[int8.model.removesuffix(".xml") + ".bin"]
        whole = openvino.Core().read_model(model=int8.files[int8.model], weights=weights)

        def spent(compiled: Any) -> float:
            return allowance.spent(running_openvino(exporter, compiled))

        model = quantise_partly(model, whole, material.calibration, allowance.images, spent)
    elif precision == "int8-weights":
        model = compress_weights(model)
    _name_plainly(model)
    # Half precisions are asked of the engine; their files are the same.
    stem = f"openvino/{'half' if precision in ('bf16', 'fp16') else precision}/model"
    with tempfile.TemporaryDirectory() as folder, temporary_files():
        path = Path(folder) / "model.xml"
        openvino.save_model(model, path, compress_to_fp16=precision != "fp32")
        files = {f"{stem}{part}": path.with_suffix(part).read_bytes() for part in (".xml", ".bin")}
    if precision == "bf16-mixed":
        files[f"{stem}.xml"] = keep_float32(files[f"{stem}.xml"])
    return Form(f"{stem}.xml", files, way=way)


def _name_plainly(model: Any) -> None:
    """Names by position: the automatic ones count on through a process, so no two builds would be equal."""
    model.set_friendly_name("edgekit")
    for number, operation in enumerate(model.get_ordered_ops()):
        operation.set_friendly_name(f"{operation.get_type_name()}_{number}")
    for section in list(model.get_rt_info()):
        del model.get_rt_info()[section]


def _onnx_form(exporter: Exportable, precision: Precision, material: Material, ways: Sequence[str]) -> Form:
    model, way = exporter.onnx(), ""
    if precision == "int8":
        allowance = Allowance(exporter, material, running_onnx(exporter, model))
        model, way, _ = quantise_network(
            exporter,
            lambda network: network.onnx(),
            material.calibration,
            ways,
            lambda form: allowance.spent(running_onnx(exporter, form)),
        )
    name = f"onnxruntime/{precision}/model.onnx"
    return Form(name, {name: model.SerializeToString(deterministic=True)}, way=way)


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
                    if candidate.target.engine == "tensorrt" and candidate.stand_in is None:
                        prepare_variant(bundle, candidate.variant, find_gpu())
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
