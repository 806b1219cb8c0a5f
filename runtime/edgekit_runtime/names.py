"""Names as enumerations, as Python has them from 3.11 on: JetPack 6 has 3.10, which its TensorRT is for."""

from __future__ import annotations

from enum import Enum


class TextEnum(str, Enum):
    """`enum.StrEnum`: members are their texts, in documents and messages, too."""

    def __str__(self) -> str:
        return str(self.value)

    def __format__(self, specification: str) -> str:
        return format(str(self.value), specification)
