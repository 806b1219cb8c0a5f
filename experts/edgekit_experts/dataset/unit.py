"""The state of one work unit: which of its frames are done, which failed and why, under which declaration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UnitState:
    """Frames are numbered from the unit's first. `hash` is the declaration's when they were computed.

    `done` holds frames whose bytes are on the disk; `failed` the message of each frame that could not be made; `old`
    frames that are on the disk, too, but were made under some other declaration.
    """

    hash: str
    done: frozenset[int] = frozenset()
    failed: Mapping[int, str] = field(default_factory=dict)
    old: frozenset[int] = frozenset()

    def to_json(self) -> bytes:
        table = {
            "hash": self.hash,
            "done": _mask(self.done),
            "failed": {str(place): self.failed[place] for place in sorted(self.failed)},
        }
        if self.old:
            table["old"] = _mask(self.old)
        return json.dumps(table, sort_keys=True).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> UnitState:
        """Reads what `to_json` wrote; raises ValueError on anything malformed."""
        try:
            table = json.loads(data)
            failed = {int(place): str(message) for place, message in table["failed"].items()}
            done, old = (_places(table.get(name, "0")) for name in ("done", "old"))
            return cls(str(table["hash"]), done, dict(sorted(failed.items())), old)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"malformed state: {error}") from error


def _mask(places: frozenset[int]) -> str:
    return f"{sum(1 << place for place in places):x}"


def _places(mask: str) -> frozenset[int]:
    bits = int(mask, 16)
    return frozenset(place for place in range(bits.bit_length()) if bits >> place & 1)
