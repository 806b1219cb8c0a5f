"""ONNX Runtime: the fallback that runs nearly everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnxruntime

from edgekit_runtime.bundle import Bundle
from edgekit_runtime.engines import Array, Image, Pending, check_ports, check_settings, said
from edgekit_runtime.errors import EngineError
from edgekit_runtime.manifest import Variant

ALLOWED_SETTINGS = frozenset({"intra_op_threads", "inter_op_threads", "providers", "spinning"})
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider", "gpu": "CUDAExecutionProvider"}


class OnnxRuntimeEngine:
    """One session, which gives all its threads to one frame at a time; frames are read in place, without a copy."""

    requests = 1

    def __init__(self, session: onnxruntime.InferenceSession, variant: Variant, bundle: Bundle) -> None:
        self.name = f"ONNX Runtime {onnxruntime.__version__}"
        # Those that took part of the network come first; the CPU has the rest.
        self.device = ", ".join(name.removesuffix("ExecutionProvider") for name in session.get_providers())
        found = {
            tensor.name: tuple(n if isinstance(n, int) else -1 for n in tensor.shape)
            for tensor in (*session.get_inputs(), *session.get_outputs())
        }
        check_ports((bundle.manifest.input, *bundle.manifest.outputs), found, {})
        self._session = session
        self._input = bundle.manifest.input.name
        self._names = [output.name for output in bundle.manifest.outputs]

    def start(self, image: Image) -> Pending:
        outputs = self.infer(image)
        return lambda: outputs

    def infer(self, image: Image) -> Mapping[str, Array]:
        if self._session is None:
            raise EngineError("The ONNX Runtime engine was closed.")
        try:
            outputs: list[Array] = self._session.run(self._names, {self._input: image})
        except Exception as error:  # the library's errors share no base class
            raise EngineError(f"ONNX Runtime failed: {said(error, 0)}") from error
        return dict(zip(self._names, outputs, strict=True))

    def close(self) -> None:
        self._session = None


def open_variant(bundle: Bundle, variant: Variant) -> OnnxRuntimeEngine:
    """Opens an ONNX model from memory. Raises EngineError."""
    check_settings(variant, ALLOWED_SETTINGS)
    settings: Mapping[str, Any] = variant.config
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # its errors are raised; on stderr they would be said twice
    model = bundle.read(variant.model)
    try:
        options.intra_op_num_threads = int(settings.get("intra_op_threads", 0))
        options.inter_op_num_threads = int(settings.get("inter_op_threads", 0))
        if not settings.get("spinning", True):
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        default = [_PROVIDERS.get(variant.device.lower(), "CPUExecutionProvider")]
        wanted = [str(name) for name in settings.get("providers", default)]
        available = onnxruntime.get_available_providers()
        providers = [name for name in wanted if name in available]
        if not providers:
            raise EngineError(f"none of {', '.join(wanted)} is available (there is {', '.join(available)})")
        session = onnxruntime.InferenceSession(model, options, providers=providers)
    except EngineError:
        raise
    except Exception as error:  # the library's errors share no base class
        raise EngineError(f"ONNX Runtime cannot open it: {said(error, 0)}") from error
    return OnnxRuntimeEngine(session, variant, bundle)
