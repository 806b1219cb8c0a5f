"""What an array means: one declaration used by storage, losses, metrics, pictures and the bundle.

A frame of any modality is an array `(H, W, C)`; a batch of frames is `(N, H, W, C)`. Labels, masks, edges
and depth have `C = 1`. In float modalities NaN marks a pixel without a value (sky has no depth).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

RGB = tuple[int, int, int]


class Kind(str, Enum):
    """The kinds of modality; each has one loss, one metric and one way to be drawn."""

    __str__ = str.__str__  # as `enum.StrEnum`, which Python has from 3.11 on

    IMAGE = "image"  # uint8, 0..255
    LABELS = "labels"  # uint8 class ids of a taxonomy, the ignore id where unknown
    DEPTH = "depth"  # float, metres or relative, NaN where there is none
    NORMALS = "normals"  # float, unit vectors in the camera frame (x right, y down, z forward), NaN where none
    FLOW = "flow"  # float, pixels (dx, dy) from a frame to the one named by the modality
    EDGES = "edges"  # uint8 strength, 0..255
    MASK = "mask"  # uint8 0 or 1


@dataclass(frozen=True)
class Taxonomy:
    """Class names and colours; a class id is its position. `ignore` marks pixels without a label."""

    name: str
    classes: tuple[str, ...]
    colours: tuple[RGB, ...]
    ignore: int = 255

    def __post_init__(self) -> None:
        if not self.classes:
            raise ValueError(f"taxonomy {self.name!r} has no classes")
        if len(self.classes) != len(set(self.classes)):
            raise ValueError(f"taxonomy {self.name!r} names a class twice")
        if len(self.colours) != len(self.classes):
            raise ValueError(f"taxonomy {self.name!r}: {len(self.classes)} classes, {len(self.colours)} colours")
        if any(len(colour) != 3 or not all(0 <= v <= 255 for v in colour) for colour in self.colours):
            raise ValueError(f"taxonomy {self.name!r}: colours are three numbers from 0 to 255")
        if 0 <= self.ignore < len(self.classes) or not 0 <= self.ignore <= 255:
            raise ValueError(f"taxonomy {self.name!r}: ignore id {self.ignore} must be outside the classes, below 256")

    def __len__(self) -> int:
        return len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "classes": list(self.classes), "colours": [list(colour) for colour in self.colours]}

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Taxonomy:
        """Reads what `to_dict` wrote; raises ValueError on anything malformed."""
        try:
            return cls(
                name=str(table["name"]),
                classes=tuple(str(name) for name in table["classes"]),
                colours=tuple((int(r), int(g), int(b)) for r, g, b in table["colours"]),
                ignore=int(table.get("ignore", 255)),
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"malformed taxonomy: {error}") from error


@dataclass(frozen=True)
class Modality:
    """One named kind of per-pixel data.

    `dtype` is the storage type (a NumPy name), `range` the closed interval of valid values, `unit` what they
    are measured in. `truth` marks human labels and exact ground truth: training never reads them unless it
    is told to by name.
    """

    name: str
    kind: Kind
    channels: int = 1
    dtype: str = "uint8"
    range: tuple[float, float] | None = None
    unit: str = ""
    taxonomy: Taxonomy | None = None
    truth: bool = False

    def __post_init__(self) -> None:
        if (self.kind is Kind.LABELS) != (self.taxonomy is not None):
            raise ValueError(f"modality {self.name!r}: labels, and only labels, have a taxonomy")
        if self.channels < 1:
            raise ValueError(f"modality {self.name!r} needs at least one channel")

    @property
    def near_is_high(self) -> bool:
        """Whether larger values of this depth are nearer: inverse depth, metric (`1/m`) or relative."""
        return self.kind is Kind.DEPTH and (self.unit == "1/m" or self.unit.endswith("inverse depth"))

    @property
    def features(self) -> int:
        """Channels as a network sees them: one per class for labels."""
        return len(self.taxonomy) if self.taxonomy else self.channels

    @property
    def absent(self) -> float:
        """What stands for a value that is not there: the ignore id, NaN, or 0 for pictures and small integers."""
        if self.taxonomy:
            return self.taxonomy.ignore
        return math.nan if self.dtype.startswith("float") and self.kind is not Kind.IMAGE else 0

    def to_dict(self) -> dict[str, Any]:
        return {
            **vars(self),
            "kind": self.kind.value,
            "range": list(self.range) if self.range else None,
            "taxonomy": self.taxonomy.to_dict() if self.taxonomy else None,
        }

    @classmethod
    def from_dict(cls, table: Mapping[str, Any]) -> Modality:
        """Reads what `to_dict` wrote; raises ValueError on anything malformed."""
        try:
            span = table.get("range")
            taxonomy = table.get("taxonomy")
            return cls(
                name=str(table["name"]),
                kind=Kind(table["kind"]),
                channels=int(table.get("channels", 1)),
                dtype=str(table.get("dtype", "uint8")),
                range=(float(span[0]), float(span[1])) if span else None,
                unit=str(table.get("unit", "")),
                taxonomy=Taxonomy.from_dict(taxonomy) if taxonomy else None,
                truth=bool(table.get("truth", False)),
            )
        except (KeyError, TypeError, IndexError) as error:
            raise ValueError(f"malformed modality: {error}") from error
