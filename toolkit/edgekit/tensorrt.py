"""Forms for TensorRT: the ONNX graph that it reads and, for RTX, the engine, built here without a GPU.

An engine that was built ahead of time names the compute capabilities that it is for; one file serves them all, and
whatever is particular to a GPU is compiled there at the first run, in seconds. JetPack's TensorRT times its kernels on
the device itself: for Jetson the graph travels, and `edgekit-run prepare` builds the engine.

Without a GPU an engine cannot be opened. What is verified of it here: the builder's network has the inputs and outputs
of the manifest, and the very graph that it was built from answers as PyTorch does, in ONNX Runtime.
"""

from __future__ import annotations

from edgekit import tensorrt_graph as graphs
from edgekit.candidates import Form
from edgekit.export import Exporter
from edgekit.quantise import Frames, quantise
from edgekit.targets import EngineName, Precision
from edgekit_runtime.engines.tensorrt.builder import build_plan
from edgekit_runtime.engines.tensorrt.library import RTX, load_library
from edgekit_runtime.errors import BuildError, EngineError


def tensorrt_form(exporter: Exporter, engine: EngineName, precision: Precision, calibration: Frames) -> Form:
    """The graph for `tensorrt` or, with an engine for the profile's compute capabilities, `tensorrt-rtx`.

    Raises BuildError.
    """
    model = exporter.for_gpus.onnx()
    graphs.bytes_at_the_ends(model)
    if precision == "int8":
        model = quantise(model, calibration)
        graphs.signed_pairs(model)
    if engine == RTX:
        graphs.argmax_by_reduction(model)
    if precision == "fp16":
        graphs.halve(model)
    if engine != RTX:
        graphs.lower_opset(model)
    stem = f"{engine}/{precision}/model"
    onnx = model.SerializeToString(deterministic=True)
    if engine != RTX:
        return Form(f"{stem}.onnx", {f"{stem}.onnx": onnx})
    plan, version = _built_ahead(exporter, onnx, precision)
    capabilities = list(exporter.profile.compute_capabilities)
    config = {"engine": f"{stem}.engine", "tensorrt": version, "compute_capabilities": capabilities}
    return Form(f"{stem}.onnx", {f"{stem}.onnx": onnx, f"{stem}.engine": plan}, config)


def _built_ahead(exporter: Exporter, onnx: bytes, precision: Precision) -> tuple[bytes, str]:
    """The engine, and the version of the TensorRT that built it."""
    profile = exporter.profile
    if not profile.compute_capabilities:
        raise BuildError(
            f"{profile.name} names no GPUs to build for.", hint='Set compute_capabilities = ["8.6"] or others in it.'
        )
    capabilities = [(int(major), int(minor)) for major, minor in (c.split(".") for c in profile.compute_capabilities)]
    specs = (exporter.input, *exporter.outputs)
    try:
        library = load_library(RTX)
        return build_plan(library, onnx, precision, specs, capabilities=capabilities).engine, library.version
    except EngineError as error:
        raise BuildError(str(error.args[0]), hint=error.hint) from error
