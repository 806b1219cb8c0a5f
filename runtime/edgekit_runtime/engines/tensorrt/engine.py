"""Running a TensorRT engine, whichever TensorRT it is of."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines import Array, Image, Pending, check_ports, check_settings
from edgekit_runtime.engines.tensorrt import DTYPES, RTX, Library, load_library
from edgekit_runtime.engines.tensorrt.cuda import Device, Gpu, find_gpu
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import Variant
from edgekit_runtime.prepare import Key, read_blob, read_prepared, write_blob

# What a manifest may say of an engine that lies in the bundle: its file, who built it, and for what.
ALLOWED_SETTINGS = frozenset({"engine", "tensorrt", "compute_capabilities"})


class TensorRtEngine:
    """One execution context with its buffers on the GPU; a frame is copied there, the answers are copied back."""

    requests = 1

    def __init__(
        self, library: Library, plan: bytes, device: Device, gpu: Gpu, bundle: Bundle, kernels: Path | None
    ) -> None:
        """Takes the device over: it is closed with the engine, and where this raises EngineError."""
        self.name = library.name
        self.device = gpu.name
        self._library = library
        self._device: Device | None = device
        self._kernels = kernels
        self._runtime: Any = None
        self._engine: Any = None
        self._cache: Any = None
        self._context: Any = None
        self._addresses: dict[str, int] = {}
        self._arrays: dict[str, Array] = {}
        try:
            self._open(plan)
            self._bind(bundle, device)
        except BaseException:
            self.close()
            raise
        self._input = self._addresses[bundle.manifest.input.name]
        self._outputs = {spec.name: self._arrays[spec.name] for spec in bundle.manifest.outputs}

    def start(self, image: Image) -> Pending:
        outputs = self.infer(image)
        return lambda: outputs

    def infer(self, image: Image) -> Mapping[str, Array]:
        device = self._device
        if device is None:
            raise EngineError(f"The engine of {self.name} was closed.")
        device.activate()
        device.upload(image, self._input)
        if not self._context.execute_async_v3(device.stream):
            raise EngineError(f"{self.name} failed on {self.device}: {self._library.reason()}")
        for name, array in self._outputs.items():
            device.download(self._addresses[name], array)
        device.synchronise()
        if self._cache is not None:  # the first run has compiled what it needed
            write_blob(self._kernels, bytes(self._cache.serialize()))
            self._cache = None
        return self._outputs

    def close(self) -> None:
        if self._device is None:
            return
        self._device.activate()
        self._context = self._engine = self._runtime = self._cache = None
        self._device.close()
        self._device = None

    def _open(self, plan: bytes) -> None:
        """Makes the engine and a context of it.

        TensorRT for RTX compiles its kernels at the first run, for seconds; it judges itself whether those that were
        kept still fit. `_cache` is what remains to be kept.
        """
        trt, logger = self._library.module, self._library.logger
        self._runtime = trt.Runtime(logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{self.name} refuses the engine: {self._library.reason()}")
        if self._library.engine == RTX:
            config = self._engine.create_runtime_config()
            cache = config.create_runtime_cache()
            kept = read_blob(self._kernels)
            fits = bool(kept) and cache.deserialize(kept)
            config.set_runtime_cache(cache)
            self._cache = None if fits else cache
            self._context = self._engine.create_execution_context(config)
        else:
            self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError(f"{self.name} cannot set up the engine: {self._library.reason()}")

    def _bind(self, bundle: Bundle, device: Device) -> None:
        """Compares inputs and outputs with the manifest's, and gives each its memory on the GPU."""
        engine, specs = self._engine, (bundle.manifest.input, *bundle.manifest.outputs)
        names = [engine.get_tensor_name(number) for number in range(engine.num_io_tensors)]
        dtypes = {name: engine.get_tensor_dtype(name).name for name in names}
        shapes = {name: tuple(engine.get_tensor_shape(name)) for name in names}
        check_ports(specs, shapes, {name: DTYPES.get(dtype, dtype) for name, dtype in dtypes.items()})
        for spec in specs:
            self._arrays[spec.name] = array = np.zeros(spec.shape, spec.dtype)
            self._addresses[spec.name] = device.allocate(array.nbytes)
            self._context.set_tensor_address(spec.name, self._addresses[spec.name])


def open_variant(bundle: Bundle, variant: Variant) -> TensorRtEngine:
    """Opens the engine in the bundle where it fits this GPU, else the one that was prepared on this device.

    Raises EngineError, which names the command that builds one: nothing is ever built here.
    """
    check_settings(variant, ALLOWED_SETTINGS)
    gpu = find_gpu()
    library = load_library(variant.engine)
    plan = find_plan(bundle, variant, library, gpu)
    kernels = Key.of(bundle, variant, library, gpu).path(".kernels")
    return TensorRtEngine(library, plan, Device(), gpu, bundle, kernels)


def find_plan(bundle: Bundle, variant: Variant, library: Library, gpu: Gpu) -> bytes:
    """The engine for a GPU: of the bundle where that fits, else as prepared. Raises EngineError that says why not."""
    shipped = ""
    if "engine" in variant.config:
        shipped = shipped_misfit(variant, library, gpu)
        if not shipped:
            return bundle.read(str(variant.config["engine"]))
    try:
        return read_prepared(Key.of(bundle, variant, library, gpu))
    except EngineError as error:
        reasons = "; ".join(filter(None, (shipped, str(error.args[0]))))
        raise EngineError(f"{reasons}: run `edgekit-run prepare {bundle.path}`") from error


def shipped_misfit(variant: Variant, library: Library, gpu: Gpu) -> str:
    """Why the engine in the bundle does not fit, empty where it does."""
    config = variant.config
    if config.get("tensorrt") != library.version:
        return f"the bundle's engine was built by version {config.get('tensorrt')}; this is {library.name}"
    capabilities = config.get("compute_capabilities")
    if not isinstance(capabilities, list) or gpu.version not in capabilities:
        listed = ", ".join(map(str, capabilities)) if isinstance(capabilities, list) else "none"
        return f"the bundle's engine was built for compute capabilities {listed}; this is {gpu}"
    return ""
