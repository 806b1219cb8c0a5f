"""Configurations: one TOML table per modality to make, which names the expert and its parameters.

[edges]
expert = "canny"
low = 40

[vote]
expert = "majority_vote"
of = ["net_a", "net_b", "net_c"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

from edgekit_experts.dataset.names import check_name
from edgekit_experts.files import read_text
from edgekit_runtime.errors import DataError, ExpertError

Config = Mapping[str, Mapping[str, Any]]

DEFAULT, WORLD = "default", "world"


def load_config(path: Path) -> Config:
    """A configuration file. Raises ExpertError that says what is wrong with it."""
    hint = "Check the path; docs/experts.md shows what such a file holds."
    return parse_config(read_text(path, "The configuration", ExpertError, hint), str(path))


def shipped_config(name: str) -> Config:
    """A set that ships with edgekit: `default` for raw video, `world` for the synthetic world."""
    source = files("edgekit_experts") / "configs" / f"{name}.toml"
    return parse_config(source.read_text(encoding="utf-8"), f"{name}.toml")


def parse_config(text: str, where: str) -> Config:
    """Raises ExpertError unless the text is TOML with one table per modality."""
    try:
        return checked_config(tomllib.loads(text), where)
    except tomllib.TOMLDecodeError as error:
        raise ExpertError(f"{where} is not valid TOML: {error}.", hint="See https://toml.io.") from error


def checked_config(tables: Mapping[str, Any], where: str) -> Config:
    """Raises ExpertError unless every entry is a table that names an expert."""
    for name, table in tables.items():
        if not isinstance(table, dict) or not isinstance(table.get("expert"), str):
            raise ExpertError(
                f"{where}: {name!r} does not say which expert makes it.",
                hint=f'Write [{name}] and below it expert = "...". `edgekit experts` lists them.',
            )
        try:
            check_name(name, "modality")
        except DataError as error:
            raise ExpertError(f"{where}: {error.args[0]}", hint=error.hint) from error
    if not tables:
        raise ExpertError(f"{where} names no modality.", hint="`edgekit experts` lists the experts.")
    return tables
