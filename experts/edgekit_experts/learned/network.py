"""A torch module where it is fastest: compiled by OpenVINO on a CPU, in torch under autocast on CUDA.

For a CPU it is converted once for each size of its inputs and kept in the cache folder.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from edgekit_experts.learned.compiled import Compiled, Precision, cache_folder, read_network
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import ExpertError

Array = npt.NDArray[Any]
Network = Callable[..., list[Array]]
"""Arrays in, all outputs out; may be called from many threads at once."""


@dataclass(frozen=True)
class Execution:
    """How networks are run: `precision` f32 or bf16 (of a CPU), `device` auto, cpu or cuda. Raises ExpertError."""

    precision: Precision = "f32"
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("f32", "bf16") or self.device not in ("auto", "cpu", "cuda"):
            raise ExpertError(
                f"Precision {self.precision!r}, device {self.device!r} make no sense.",
                hint="precision f32 or bf16, device auto, cpu or cuda.",
            )

    @property
    def on_cuda(self) -> bool:
        if self.device != "auto":
            return self.device == "cuda"
        import torch

        return bool(torch.cuda.is_available())

    def network(self, key: str, load: Callable[[], Any], shapes: Sequence[tuple[int, ...]]) -> Network:
        """The module that `load` gives, for float32 inputs of these shapes.

        `key` names what it is (an architecture, a digest of its weights): what is converted is kept under it.
        """
        if self.on_cuda:
            return _in_torch(load().to("cuda"))
        return Compiled(_converted(key, load, shapes), self.precision)


def _converted(key: str, load: Callable[[], Any], shapes: Sequence[tuple[int, ...]]) -> Any:
    """An `openvino.Model`, from the cache where it is there."""
    switch_off()
    import openvino
    import torch

    folder = cache_folder()
    sizes = "-".join("x".join(map(str, shape)) for shape in shapes)
    path = folder / f"{key}-{sizes}-{openvino.__version__.split('-')[0]}.xml" if folder else None
    if path and path.exists() and path.with_suffix(".bin").exists():
        return read_network(path)
    module, example = load(), tuple(torch.zeros(shape) for shape in shapes)
    with warnings.catch_warnings():  # what depends on the sizes of inputs may: they are given
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        model = openvino.convert_model(module, example_input=example)
    model.reshape({number: list(shape) for number, shape in enumerate(shapes)})
    if path:
        _save(model, path)
    return model


def _save(model: Any, path: Path) -> None:
    import openvino

    # The description last: what can be seen is whole.
    partial = path.with_name(f".{path.name}")
    openvino.save_model(model, partial, compress_to_fp16=False)
    partial.with_suffix(".bin").replace(path.with_suffix(".bin"))
    partial.replace(path)


def _in_torch(module: Any) -> Network:
    import torch

    def run(*inputs: Array) -> list[Array]:
        with torch.inference_mode(), torch.autocast("cuda", torch.float16):
            outputs = module(*(torch.from_numpy(each).to("cuda") for each in inputs))
            tensors = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
            return [tensor.float().cpu().numpy() for tensor in tensors]

    return run
