"""Tables that translate the classes of one taxonomy into another's, as TOML files.

    from = "cityscapes"
    to = "camvid"
    ignored = []                                # classes that are none of the target's

    [classes]
    sign = ["traffic light", "traffic sign"]    # each class of the target with those of the source that become it
    ...

Every class of the source must be named once. Ignored pixels stay ignored. `from` and `to` are names, or paths of
taxonomies of one's own.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit_experts.dataset.names import closest
from edgekit_experts.files import read_text
from edgekit_experts.taxonomies import find_taxonomy
from edgekit_experts.validation import first_fault
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Taxonomy

_FORM = 'from = "a", to = "b", ignored = [...], and under [classes] for each class of b a list of those of a'


class _Document(BaseModel):
    """A file as it is written."""

    model_config = ConfigDict(extra="forbid")

    source: str = Field(alias="from")
    to: str
    ignored: list[str] = []
    classes: dict[str, list[str]]


@dataclass(frozen=True)
class Mapping:
    """`lookup` is uint8 (256,): the target's id for each id of the source."""

    target: Taxonomy
    lookup: npt.NDArray[Any]


def find_mapping(source: Taxonomy, to: str, table: str = "") -> Mapping:
    """The table from `source` to the taxonomy `to` (a name or a file): the given one, or the one that ships.

    Raises ExpertError when there is none or it does not fit.
    """
    target = find_taxonomy(to)
    if table:
        return parse_mapping(read_text(Path(table), "label_map: the table", ExpertError), source, target, where=table)
    name = f"{source.name}-to-{target.name}.toml"
    shipped = files("edgekit_experts") / "tables" / name
    if not shipped.is_file():
        raise ExpertError(
            f"label_map: no table from {source.name!r} to {target.name!r} ships with edgekit.",
            hint=f'Write one and name it, table = "mine.toml": {_FORM}.',
        )
    return parse_mapping(shipped.read_text(encoding="utf-8"), source, target, where=name)


def parse_mapping(text: str, source: Taxonomy, target: Taxonomy, where: str) -> Mapping:
    """Raises ExpertError that names the class at fault."""
    try:
        document = _Document.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, ValidationError) as error:
        fault = first_fault(error) if isinstance(error, ValidationError) else str(error)
        raise ExpertError(f"{where} is not a table of classes: {fault}.", hint=f"Needed is {_FORM}.") from error
    groups, ignored = document.classes, document.ignored
    for side, spoken, taxonomy in (("from", document.source, source), ("to", document.to, target)):
        # A taxonomy is named as everywhere, by its name or by the path of its file.
        if spoken != taxonomy.name and not (spoken.endswith(".toml") and find_taxonomy(spoken) == taxonomy):
            raise ExpertError(
                f"{where}: `{side}` is {spoken!r}, but labels of {source.name!r} are to become {target.name!r}.",
                hint="Give the table for these two, or change `to` of label_map.",
            )
    for goal in groups:
        if goal not in target.classes:
            raise ExpertError(
                f"{where}: there is no class {goal!r} in {target.name!r}.", hint=closest(goal, target.classes)
            )
    named = [*ignored, *chain.from_iterable(groups.values())]
    for name in named:
        if name not in source.classes:
            raise ExpertError(
                f"{where}: there is no class {name!r} in {source.name!r}.", hint=closest(str(name), source.classes)
            )
    wrong = [name for name in source.classes if named.count(name) != 1]
    if wrong:
        raise ExpertError(
            f"{where} must name every class of {source.name!r} once; not so: {', '.join(wrong)}.",
            hint="Classes that are to be left out belong into `ignored`.",
        )
    lookup = np.full(256, target.ignore, np.uint8)
    for goal, names in groups.items():
        lookup[[source.classes.index(name) for name in names]] = target.classes.index(goal)
    return Mapping(target, lookup)
