"""What an array of a data set is: its modality, the expert that made it, with which parameters, from what."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from edgekit_runtime.modality import Modality


@dataclass(frozen=True)
class Declaration:
    """`inputs` maps each required modality to the hash of its own declaration, so that a change upstream
    changes every hash downstream. `identity` tells versions of the expert's code apart.
    """

    modality: Modality
    expert: str
    params: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    identity: str = ""

    def __post_init__(self) -> None:
        # As JSON gives them back (lists for tuples, float ranges), so that the hash is the same after a reload.
        object.__setattr__(self, "modality", Modality.from_dict(self.modality.to_dict()))
        object.__setattr__(self, "params", json.loads(json.dumps(dict(self.params))))

    @property
    def hash(self) -> str:
        """16 hexadecimal digits over everything that decides the values."""
        text = json.dumps(self._table(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _table(self) -> dict[str, Any]:
        return {
            "modality": self.modality.to_dict(),
            "expert": self.expert,
            "params": dict(self.params),
            "inputs": dict(sorted(self.inputs.items())),
            "identity": self.identity,
        }

    def to_dict(self) -> dict[str, Any]:
        return {**self._table(), "hash": self.hash}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Declaration:
        """Reads what `to_dict` wrote; raises ValueError on anything malformed."""
        try:
            return cls(
                modality=Modality.from_dict(table["modality"]),
                expert=str(table["expert"]),
                params=dict(table["params"]),
                inputs={str(name): str(value) for name, value in table["inputs"].items()},
                identity=str(table.get("identity", "")),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed declaration: {error}") from error
