"""Forms for TensorRT: the ONNX graph that it reads and, for RTX, the engine, built here without a GPU.

An engine that was built ahead of time names the compute capabilities that it is for; one file serves them all, and
whatever is particular to a GPU is compiled there at the first run, in seconds. JetPack's TensorRT times its kernels on
the device itself: for Jetson the graph travels, and `edgekit-run prepare` builds the engine.

Without a GPU an engine cannot be opened. What is verified of it here: the builder's network has the inputs and outputs
of the manifest, and the very graph that it was built from answers as PyTorch does, in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgekit import tensorrt_graph as graphs
from edgekit.allowance import Allowance, running_onnx
from edgekit.candidates import Form
from edgekit.exportable import Exportable
from edgekit.material import Material
from edgekit.quantise import WAYS, quantise_network
from edgekit.targets import EngineName, Precision
from edgekit_runtime.engines.tensorrt import RTX, build_plan, load_library
from edgekit_runtime.errors import BuildError, EngineError


def tensorrt_form(
    exporter: Exportable, engine: EngineName, precision: Precision, material: Material, ways: Sequence[str] = WAYS
) -> Form:
    """The graph for `tensorrt` or, with an engine for the profile's compute capabilities, `tensorrt-rtx`; INT8 in one
    of `ways`.

    Raises BuildError.
    """

    def fresh(network: Exportable) -> Any:
        model = network.for_gpus.onnx()
        graphs.bytes_at_the_ends(model)
        return model

    model, way = fresh(exporter), ""
    if precision == "int8":
        allowance = Allowance(exporter, material, running_onnx(exporter, model))

        def spent(quantised: Any) -> float:
            graphs.signed_pairs(quantised)
            return allowance.spent(running_onnx(exporter, quantised))

        model, way, _ = quantise_network(exporter, fresh, material.calibration, ways, spent)
    if engine == RTX:
        graphs.argmax_by_reduction(model)
    if precision == "fp16":
        graphs.halve(model)
    if engine != RTX:
        graphs.lower_opset(model)
    stem = f"{engine}/{precision}/model"
    onnx = model.SerializeToString(deterministic=True)
    if engine != RTX:
        return Form(f"{stem}.onnx", {f"{stem}.onnx": onnx}, way=way)
    plan, version = _built_ahead(exporter, onnx, precision)
    capabilities = list(exporter.profile.compute_capabilities)
    config = {"engine": f"{stem}.engine", "tensorrt": version, "compute_capabilities": capabilities}
    return Form(f"{stem}.onnx", {f"{stem}.onnx": onnx, f"{stem}.engine": plan}, config, way)


def _built_ahead(exporter: Exportable, onnx: bytes, precision: Precision) -> tuple[bytes, str]:
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
