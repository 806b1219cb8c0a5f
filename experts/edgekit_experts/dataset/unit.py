"""The state of one work unit: which of its frames are done, which failed and why, under which declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UnitState:
    """Frames are numbered from the unit's first. `hash` is the declaration's when they were computed.

    `done` holds frames whose bytes are on the disk; `failed` the message of each frame that could not be made.
    """

    hash: str
    done: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        mask = sum(1 << place for place in self.done)
        table = {
            "hash": self.hash,
            "done": f"{mask:x}",
            "failed": {str(place): self.failed[place] for place in sorted(self.failed)},
        }
        return json.dumps(table, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> UnitState:
        """Reads what `to_json` wrote; raises ValueError on anything malformed."""
        try:
            table = json.loads(data)
            mask = int(table["done"], 16)
            done = frozenset(place for place in range(mask.bit_length()) if mask >> place & 1)
            failed = {int(place): str(message) for place, message in table["failed"].items()}
            return cls(str(table["hash"]), done, failed)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed state: {error}") from error
