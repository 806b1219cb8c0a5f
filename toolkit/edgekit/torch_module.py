"""A torch module of one's own, `path/to/net.py:Net`, with its signature, ready to be built."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit.deployable import Deployable
from edgekit.model_signature import ModelSignature
from edgekit_experts.dataset.names import plain_name
from edgekit_experts.registry import from_file
from edgekit_runtime.errors import BuildError
from edgekit_runtime.modality import Kind, Modality

# What a module is asked to find out what it answers, where the signature names no size.
_PROBE = (256, 256)
_MULTIPLE = 32


def of_module(spec: str, signature: ModelSignature) -> Deployable:
    """The module that `spec` names, or that the class or function there makes when it is called without arguments.

    Its weights are those of the signature, else its own. Raises ExpertError where the file cannot be imported,
    BuildError where what is there is no module, does not fit its weights, or answers otherwise than declared.
    """
    found, digest = from_file(spec)
    module = _made(spec, found)
    checkpoint = {Path(spec.rpartition(":")[0]).name: digest}
    if signature.weights:
        checkpoint[signature.weights.name] = _load_weights(module, spec, signature.weights)
    declared, wanted = signature.input, signature.outputs
    network = _Declared(module, signature).eval()
    size = declared.size or _PROBE
    try:
        with torch.no_grad():
            answer = network(torch.zeros(1, 3, *size))
    except BuildError:
        raise
    except Exception as error:  # the code of others
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BuildError(
            f"{spec} fails with a picture of {size[1]}x{size[0]}: {reason}.",
            hint="Say under [input] of the signature what it takes: size, layout.",
        ) from error
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (declared.mean, declared.std))
    backwards = declared.colour == "bgr"
    return Deployable(
        name=plain_name(spec.rpartition(":")[2]),
        network=network,
        mean=mean.flip(1) if backwards else mean,
        std=std.flip(1) if backwards else std,
        outputs=tuple(modality for _, modality in wanted.values()),
        stride=max(1, round(size[0] / answer.shape[2])),
        input_size=declared.size,
        multiple=_MULTIPLE,
        fixed=declared.size is not None,
        statistics={"depth": {"mean": [0.0], "std": [1.0]}},
        provenance={"model": Path(spec).name, "checkpoint": checkpoint, "signature": signature.told()},
    )


class _Declared(nn.Module):
    """Normalised RGB `(1, 3, h, w)` to `(1, features, h', w')`, whatever order and layout the module itself has."""

    def __init__(self, module: nn.Module, signature: ModelSignature) -> None:
        super().__init__()
        self.module = module
        self.backwards = signature.input.colour == "bgr"
        self.last = signature.input.layout == "nhwc"
        self.wanted = list(signature.outputs.values())
        self.depth = signature.depth

    def forward(self, picture: Tensor) -> Tensor:
        picture = picture.flip(1) if self.backwards else picture
        said = self.module(picture.permute(0, 2, 3, 1) if self.last else picture)
        parts = [self._in_unit(_planar(said, output, modality), modality) for output, modality in self.wanted]
        size = max(part.shape[2:] for part in parts)
        same = (part if part.shape[2:] == size else F.interpolate(part, size=size, mode="bilinear") for part in parts)
        return torch.cat(list(same), dim=1)

    def _in_unit(self, answer: Tensor, modality: Modality) -> Tensor:
        if self.depth is None or modality.kind is not Kind.DEPTH:
            return answer
        depth = answer * self.depth.scale + self.depth.offset
        return depth.clamp(*self.depth.range) if self.depth.range else depth


def _answers(said: Any) -> dict[int | str, Any]:
    """What a module answers, by the numbers or names that a signature may have for it."""
    if isinstance(said, Tensor):
        return {0: said}
    if isinstance(said, Mapping):
        return dict(said)
    if isinstance(said, tuple) and hasattr(said, "_asdict"):
        return dict(said._asdict())
    return dict(enumerate(said)) if isinstance(said, Sequence) else dict(getattr(said, "__dict__", {}))


def _picked(said: Any, output: int | str) -> Tensor:
    """One tensor of what a module answers; names may be counted, too."""
    there = _answers(said)
    number = isinstance(output, int) and output < len(there)
    found = list(there.values())[int(output)] if number else there.get(output)
    if not isinstance(found, Tensor):
        contents = ", ".join(f"{name}: {_kind(value)}" for name, value in there.items())
        raise BuildError(
            f"The module answers with {_kind(said)}{f' ({contents})' if not isinstance(said, Tensor) else ''}; "
            f"there is no tensor as output {output!r}.",
            hint=_choose(said),
        )
    return found


def _kind(value: Any) -> str:
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def _choose(said: Any) -> str:
    """How a signature says which tensor is meant."""
    tensors = [name for name, value in _answers(said).items() if isinstance(value, Tensor)]
    if not tensors:
        return "Name a function that makes a module whose forward returns the tensor itself."
    choices = " or ".join(f'output = "{name}"' if isinstance(name, str) else f"output = {name}" for name in tensors)
    return f"Say which it is under [labels] or [depth] of the signature: {choices}."


def _planar(said: Any, output: int | str, modality: Modality) -> Tensor:
    """One of a module's answers as `(1, features, h, w)`."""
    answer = _picked(said, output)
    features = modality.features
    if answer.dim() == 3 and modality.kind is Kind.DEPTH:
        answer = answer.unsqueeze(1)
    if answer.dim() == 4 and answer.shape[1] != features and answer.shape[3] == features:
        answer = answer.permute(0, 3, 1, 2)
    if answer.dim() != 4 or answer.shape[1] != features:
        wanted = f"{features} classes" if modality.taxonomy else "one channel"
        other = " Or name the taxonomy that it has." if modality.taxonomy else ""
        raise BuildError(
            f"The module answers with {list(answer.shape)} where {modality.name} should have {wanted}.",
            hint=_choose(said) + other,
        )
    return answer.float()


def _made(spec: str, found: Any) -> nn.Module:
    if not isinstance(found, nn.Module):
        if not callable(found):
            raise BuildError(f"{spec} is no torch module, and nothing that makes one.")
        try:
            found = found()
        except Exception as error:  # the code of others
            raise BuildError(
                f"{spec} cannot be called without arguments: {error}.",
                hint="Name a function that makes the module as it is to be built.",
            ) from error
    if not isinstance(found, nn.Module):
        raise BuildError(f"{spec} makes {type(found).__name__}, no torch module.")
    return found.eval()


def _load_weights(module: nn.Module, spec: str, path: Path) -> str:
    """Loads them; returns their digest."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        data = path.read_bytes()
        missing, unexpected = module.load_state_dict(load(data), strict=False)
    except OSError as error:
        raise BuildError(f"The weights {path} cannot be read: {(error.strerror or str(error)).lower()}.") from error
    except SafetensorError as error:
        raise BuildError(
            f"{path} is no safetensors file: {error}.",
            hint="safetensors.torch.save_file(module.state_dict(), PATH) writes one.",
        ) from error
    except RuntimeError as error:  # shapes that differ
        raise BuildError(f"The weights {path} do not fit {spec}: {str(error).splitlines()[-1].strip()}") from error
    if missing or unexpected:
        names = ", ".join([*(f"no {name}" for name in missing), *unexpected][:4])
        raise BuildError(f"The weights {path} do not fit {spec}: {names}.", hint="They are of another architecture.")
    return hashlib.sha256(data).hexdigest()[:16]
