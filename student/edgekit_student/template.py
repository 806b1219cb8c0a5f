"""A `train.toml` to begin with: every setting, what it means, and its default, commented out."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from edgekit_student.settings import DistillSettings, TrainSettings


def template() -> str:
    """TOML that says nothing until a line is uncommented: a setting that is left alone follows the default."""
    tables = {"train": TrainSettings(), "distill": DistillSettings()}
    return "".join(f"{line}\n" for name, settings in tables.items() for line in _table(name, settings))


def _table(name: str, settings: BaseModel) -> Iterator[str]:
    """Its own keys first: in TOML they end where the first table within begins."""
    fields = type(settings).model_fields
    within = {key: value for key in fields if isinstance(value := getattr(settings, key), BaseModel)}
    yield f"[{name}]"
    for key, field in fields.items():
        if key not in within:
            yield f"# {key} = {_toml(getattr(settings, key)):{24 - len(key)}}  # {field.description}"
    yield ""
    for key, value in within.items():
        yield from _table(f"{name}.{key}", value)


def _toml(value: Any) -> str:
    """What has no default has no value in TOML either: `...` is what to fill in."""
    return "..." if value is None else json.dumps(value)
