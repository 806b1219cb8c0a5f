"""Checkpoints: `model.safetensors` beside a `config.json`; nothing in them can run code.

A checkpoint folder says what it is (`kind`), how to build its network, what goes in and comes out, and where
it comes from:

    {"format": "edgekit-checkpoint", "version": 1, "kind": "student" | "phg-mae",
     "network": {"name": "edge-430k", ...},          # registry name and constructor arguments
     "inputs": [Modality ...], "outputs": [Modality ...],
     "statistics": {"rgb": {"mean": [...], "std": [...]}, ...},
     "input_size": [H, W],
     "weights_sha256": ...,
     "provenance": {"data": ..., "data_hash": ..., "parent": ..., "seed": ..., "config": {...}}}
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit_runtime.errors import CheckpointError
from edgekit_runtime.files import flush, whole
from edgekit_runtime.modality import Modality

if TYPE_CHECKING:
    from torch import Tensor, nn

FORMAT = "edgekit-checkpoint"
VERSION = 1
WEIGHTS = "model.safetensors"
CONFIG = "config.json"


@dataclass(frozen=True)
class CheckpointConfig:
    """What `config.json` says; sizes are (height, width), statistics in the units of the stored modality."""

    kind: str
    network: dict[str, Any]
    inputs: tuple[Modality, ...]
    outputs: tuple[Modality, ...]
    statistics: dict[str, dict[str, list[float]]]
    input_size: tuple[int, int]
    provenance: dict[str, Any] = field(default_factory=dict)
    weights_sha256: str = ""

    def to_json(self) -> str:
        table = asdict(self)
        table["inputs"] = [modality.to_dict() for modality in self.inputs]
        table["outputs"] = [modality.to_dict() for modality in self.outputs]
        return json.dumps({"format": FORMAT, "version": VERSION, **table}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_json(cls, text: str, where: str) -> CheckpointConfig:
        try:
            table = json.loads(text)
            if table["format"] != FORMAT:
                raise ValueError(f"format is {table['format']!r}, not {FORMAT!r}")
            if table["version"] > VERSION:
                raise ValueError(f"version {table['version']} is newer than this edgekit reads ({VERSION})")
            height, width = table["input_size"]
            return cls(
                kind=str(table["kind"]),
                network=dict(table["network"]),
                inputs=tuple(Modality.from_dict(entry) for entry in table["inputs"]),
                outputs=tuple(Modality.from_dict(entry) for entry in table["outputs"]),
                statistics=dict(table["statistics"]),
                input_size=(int(height), int(width)),
                provenance=dict(table.get("provenance", {})),
                weights_sha256=str(table["weights_sha256"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{where} is not a checkpoint description: {error}",
                hint="Point at a folder that `edgekit train` or `edgekit distill` wrote.",
            ) from error


def save_checkpoint(folder: Path, weights: dict[str, Tensor], config: CheckpointConfig) -> None:
    """Writes weights and description; each file appears whole or not at all."""
    from safetensors.torch import save

    folder.mkdir(parents=True, exist_ok=True)
    payload = save({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()})
    config = replace(config, weights_sha256=sha256(payload).hexdigest())
    for name, data in ((WEIGHTS, payload), (CONFIG, config.to_json().encode())):
        with whole(folder / name) as partial:
            partial.write_bytes(data)
            flush(partial)


def read_config(folder: Path) -> CheckpointConfig:
    """The description alone, without touching the weights. Raises CheckpointError."""
    path = folder / CONFIG
    if not path.is_file():
        raise CheckpointError(
            f"No checkpoint at {folder}: {CONFIG} is missing.",
            hint="Point at a folder that `edgekit train` or `edgekit distill` wrote.",
        )
    return CheckpointConfig.from_json(path.read_text(encoding="utf-8"), str(path))


def read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors on the CPU. Raises CheckpointError when the file is missing, cut short or altered."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / WEIGHTS
    try:
        payload = path.read_bytes()
        if sha256(payload).hexdigest() != read_config(folder).weights_sha256:
            raise ValueError("they are not the ones that config.json was written for")
        return load(payload)
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"The weights {path} cannot be read: {error}",
            hint="The file is missing, was cut short or changed; copy it again or repeat the training.",
        ) from error


def restore(module: nn.Module, folder: Path) -> None:
    """Loads the weights of a checkpoint into the network that its description built.

    Raises CheckpointError when they cannot be read or belong to another network.
    """
    try:
        module.load_state_dict(read_weights(folder))
    except RuntimeError as error:
        raise CheckpointError(
            f"The weights in {folder} do not fit the network of its {CONFIG}.",
            hint="The two files come from different trainings; copy both again.",
        ) from error


def borrow(module: nn.Module, folder: Path) -> str:
    """Begins `module` with the weights of a checkpoint, tensor by tensor, wherever name and shape agree.

    Returns what provenance keeps: the checkpoint and the share of parameters that came from it. Raises
    CheckpointError when it cannot be read or nothing fits.
    """
    given, own = read_weights(folder), module.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if name in own and own[name].shape == tensor.shape}
    total = sum(parameter.numel() for parameter in module.parameters())
    share = sum(parameter.numel() for name, parameter in module.named_parameters() if name in fitting) / total
    if share == 0:
        raise CheckpointError(
            f"No weight in {folder} fits this network.",
            hint="Begin with a checkpoint of the same network, or with none.",
        )
    module.load_state_dict(fitting, strict=False)
    return f"{folder.resolve().name}@{read_config(folder).weights_sha256[:16]}, {share:.0%} of the parameters"
