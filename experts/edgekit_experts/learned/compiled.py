"""A network compiled by OpenVINO, called from many threads at once."""

from __future__ import annotations

import os
import tempfile
import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import ExpertError

Array = npt.NDArray[Any]
Precision = Literal["f32", "bf16"]

FORMATS = (".onnx", ".xml", ".tflite")


# The library's first inference initialises things while it waits for Python's lock: a second thread that comes to the
# same place at that moment holds the one and waits for the other, for ever.
_FIRST = threading.Lock()
_begun = threading.Event()


class Compiled:
    """One or more inputs in, all outputs out; each calling thread has a request of its own.

    `precision` is what the network computes in: `f32` gives the values of the library that it comes from, `bf16`
    is about twice as fast where the processor has it.
    """

    def __init__(self, model: Any, precision: Precision = "f32") -> None:
        """`model` is an `openvino.Model`; raises ExpertError when it cannot be compiled."""
        core = _core()
        config = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": precision}
        cache = cache_folder()
        if cache:
            config["CACHE_DIR"] = str(cache)
        try:
            self._network = core.compile_model(model, "CPU", config)
        except RuntimeError as error:
            raise ExpertError(f"The network cannot be compiled: {_first_line(error)}") from error
        self.outputs = len(self._network.outputs)
        self._threads = threading.local()

    def __call__(self, *inputs: Array) -> list[Array]:
        """Outputs in the network's order; they are the caller's own."""
        request = getattr(self._threads, "request", None)
        if request is None:
            request = self._threads.request = self._network.create_infer_request()
        if _begun.is_set():
            results = request.infer(list(inputs))
        else:
            with _FIRST:
                results = request.infer(list(inputs))
                _begun.set()
        return [np.array(results[index]) for index in range(self.outputs)]


def read_network(path: Path) -> Any:
    """An `openvino.Model` from ONNX, OpenVINO IR or TFLite. Raises ExpertError."""
    if not path.is_file():
        raise ExpertError(f"There is no network at {path}.", hint="Check the path.")
    if path.suffix not in FORMATS:
        raise ExpertError(f"{path} is of a format that cannot be read.", hint=f"Formats: {', '.join(FORMATS)}.")
    try:
        model = _core().read_model(path)
        return _rewritten(model) if path.suffix == ".tflite" else model
    except RuntimeError as error:
        raise ExpertError(
            f"{path} cannot be read as a network: {_first_line(error)}", hint="It may be cut short."
        ) from error


def _rewritten(model: Any) -> Any:
    """The same network by way of OpenVINO's own format.

    As it comes from TFLite, a network with float16 weights that is compiled for more than one stream answers with
    noise in about four of ten runs (OpenVINO 2026.4.1); written and read again, in none.
    """
    import openvino

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        path = Path(folder) / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        core = _core()
        core.set_property({"ENABLE_MMAP": False})  # the file goes away
        return core.read_model(path)


def cache_folder() -> Path | None:
    """Where compiled networks are kept between runs; None when the home folder cannot be written."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = base / "edgekit" / "experts"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError:
        return None
    return folder


def _core() -> Any:
    switch_off()
    import openvino

    return openvino.Core()


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
