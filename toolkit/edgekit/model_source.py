"""What `--model` may name: a network of transformers, an ONNX file, or a torch module, each with what declares it."""

from __future__ import annotations

from pathlib import Path

from edgekit.deployable import Size
from edgekit.exportable import Exportable
from edgekit.model_signature import ModelSignature, read_signature
from edgekit.profiles import Profile
from edgekit_runtime.errors import BuildError, UsageError

ONNX = ".onnx"
PYTHON = ".py:"


def find_model(model: str, profile: Profile, size: Size | None, signature: Path | None) -> Exportable:
    """The network that `model` names, to be built for a profile.

    `NET.onnx` and `FILE.py:NAME` need a signature: the TOML given, else the one beside the file. `size` (height, width)
    is what the network is to see. Raises UsageError, BuildError, ExpertError.
    """
    from edgekit.export import Exporter

    if model.endswith(ONNX):
        from edgekit.onnx_network import read_onnx
        from edgekit.stitch import OnnxExporter

        path = Path(model)
        return OnnxExporter(read_onnx(path, _signature(path, size, signature)), profile)
    if PYTHON in model:
        from edgekit.torch_module import of_module

        return Exporter(of_module(model, _signature(Path(model.rpartition(":")[0]), size, signature)), profile)
    if model.endswith(".py"):
        raise UsageError(f"{model} may hold several networks.", hint=f"Say which: --model {model}:NAME")
    if signature is not None:
        raise UsageError(
            f"{model} brings its own signature.",
            hint="--signature is of ONNX files (.onnx) and torch modules (.py:NAME).",
        )
    from edgekit.offshelf import of_checkpoint

    return Exporter(of_checkpoint(model, profile.input_size, size), profile)


def _signature(network: Path, size: Size | None, given: Path | None) -> ModelSignature:
    """Raises UsageError where there is none, BuildError where it is wrong, and where there is no network."""
    if not network.is_file():
        raise BuildError(f"There is no network at {network}.", hint="Check the path given with --model.")
    path = given or network.with_suffix(".toml")
    if given is None and not path.is_file():
        raise UsageError(
            f"Nothing says what {network} takes and answers.",
            hint=f"Write its signature to {path} (docs/build.md), or name one with --signature FILE.",
        )
    signature = read_signature(path)
    if size is None:
        return signature
    return signature.model_copy(update={"input": signature.input.model_copy(update={"size": size})})
