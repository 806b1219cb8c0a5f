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
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from itertools import accumulate
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
# Another network may share a bias with this one by chance: less than this share of the parameters is no beginning.
LEAST_BORROWED = 0.05


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


def borrow(module: nn.Module, folder: Path, own: CheckpointConfig) -> str:
    """Begins `module`, whose description is `own`, with the weights of a checkpoint, tensor by tensor, where they fit.

    Of the layer that reads the inputs and of the one that answers, the channels of the modalities that both have are
    taken. So a student may begin as that part of a PHG-MAE which sees RGB alone and answers with its target.

    Returns what provenance keeps: the checkpoint and the share of parameters that came from it. Raises
    CheckpointError when it cannot be read or hardly anything fits.
    """
    config, given, state = read_config(folder), read_weights(folder), module.state_dict()
    parameters = dict(module.named_parameters())
    reader = next(name for name, tensor in state.items() if tensor.dim() == 4)
    taken = 0
    for name, tensor in state.items():
        source = given.get(name)
        if source is None or source.dim() != tensor.dim():
            continue
        parts: Sequence[tuple[Any, Any]] = [(..., ...)]
        if name == reader:
            parts = _shared(_named(own.inputs), _named(config.inputs))
            tensor, source = tensor.transpose(0, 1), source.transpose(0, 1)
        elif ".head." in name:
            answers = _named(own.outputs, own), _named(config.outputs, config)
            finer, theirs_finer = (len(t) // sum(a.values()) for t, a in zip((tensor, source), answers, strict=True))
            # Answers of another resolution are other channels, however many there are.
            parts = _shared(*answers, finer=finer) if finer == theirs_finer else []
        for mine, theirs in parts:
            if tensor[mine].shape == source[theirs].shape:
                tensor[mine].copy_(source[theirs])
                taken += tensor[mine].numel() if name in parameters else 0
    total = sum(parameter.numel() for parameter in parameters.values())
    if taken < LEAST_BORROWED * total:
        raise CheckpointError(
            f"Hardly a weight in {folder} fits this network: {config.network.get('name')} there, "
            f"{own.network.get('name')} here.",
            hint="Begin with a checkpoint of the same network, or with none.",
        )
    return f"{folder.resolve().name}@{config.weights_sha256[:16]}, {taken / total:.0%} of the parameters"


def _named(modalities: Sequence[Modality], config: CheckpointConfig | None = None) -> dict[str, int]:
    """Channels by name, in order; what students learn is `labels` to them, whatever it was called (`config`)."""
    target = config.network.get("target") if config else None
    return {"labels" if m.name == target else m.name: m.features for m in modalities}


def _shared(mine: dict[str, int], theirs: dict[str, int], *, finer: int = 1) -> list[tuple[slice, slice]]:
    """Where the modalities that both have lie in each; `finer` is how many channels a feature takes."""

    def places(features: dict[str, int]) -> dict[str, slice]:
        ends = list(accumulate(features.values()))
        return {
            name: slice((end - count) * finer, end * finer)
            for (name, count), end in zip(features.items(), ends, strict=True)
        }

    own, given = places(mine), places(theirs)
    return [(own[name], given[name]) for name in own if name in given]
