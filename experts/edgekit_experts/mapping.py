"""Tables that translate the classes of one taxonomy into another's, as TOML files.

    from = "cityscapes"
    to = "camvid"

    [classes]
    road = "road"
    "traffic light" = "sign"
    ...                          # "" leaves a class out: its pixels are ignored

Every class of the source must be named. Ignored pixels stay ignored.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgekit_experts.dataset.names import closest
from edgekit_experts.taxonomies import TAXONOMIES
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Taxonomy


@dataclass(frozen=True)
class Mapping:
    """`lookup` is uint8 (256,): the target's id for each id of the source."""

    target: Taxonomy
    lookup: npt.NDArray[Any]


def find_mapping(source: Taxonomy, to: str, table: str = "") -> Mapping:
    """The table from `source` to the taxonomy named `to`: the given file, or the one that ships.

    Raises ExpertError when there is none or it does not fit.
    """
    target = TAXONOMIES.get(to)
    if target is None:
        raise ExpertError(f"label_map: unknown taxonomy {to!r}.", hint=closest(to, TAXONOMIES))
    if table:
        path = Path(table)
        if not path.is_file():
            raise ExpertError(f"label_map: there is no table {table}.", hint="Check the path.")
        return parse_mapping(path.read_text(encoding="utf-8"), source, target, where=table)
    name = f"{source.name}-to-{to}.toml"
    shipped = files("edgekit_experts") / "tables" / name
    if not shipped.is_file():
        raise ExpertError(
            f"label_map: no table from {source.name!r} to {to!r} ships with edgekit.",
            hint='Write one (see edgekit_experts/mapping.py) and name it: table = "my.toml".',
        )
    return parse_mapping(shipped.read_text(encoding="utf-8"), source, target, where=name)


def parse_mapping(text: str, source: Taxonomy, target: Taxonomy, where: str) -> Mapping:
    """Raises ExpertError that names the class at fault."""
    try:
        table = tomllib.loads(text)
        classes = dict(table["classes"])
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        raise ExpertError(f"{where} is not a table of classes: {error}.") from error
    for side, taxonomy in (("from", source), ("to", target)):
        if table.get(side) != taxonomy.name:
            raise ExpertError(f"{where}: `{side}` is {table.get(side)!r}, needed is {taxonomy.name!r}.")
    missing = [name for name in source.classes if name not in classes]
    unknown = [name for name in classes if name not in source.classes]
    if missing or unknown:
        raise ExpertError(
            f"{where}: the table lacks {missing or 'nothing'} and has unknown classes {unknown or 'none'}.",
            hint=f"It must name every class of {source.name!r}.",
        )
    lookup = np.full(256, target.ignore, np.uint8)
    for index, name in enumerate(source.classes):
        goal = classes[name]
        if goal == "":
            continue
        if goal not in target.classes:
            raise ExpertError(
                f"{where}: {name!r} maps to {goal!r}, which {target.name!r} does not have.",
                hint=closest(str(goal), target.classes),
            )
        lookup[index] = target.classes.index(goal)
    return Mapping(target, lookup)
