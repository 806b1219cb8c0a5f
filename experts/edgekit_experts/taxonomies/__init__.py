"""The taxonomies that experts and data sets speak, as TOML files, and a person's own in the same form.

    name = "camvid"
    ignore = 11                      # 255 where nothing is said

    [colours]                        # the classes in the order of their ids
    sky = [128, 128, 128]
    ...

or, where colours do not matter, `classes = ["wall", "building", ...]`.
"""

from __future__ import annotations

import colorsys
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, Strict, ValidationError

from edgekit_experts.dataset.names import closest
from edgekit_experts.files import read_text
from edgekit_experts.validation import first_fault
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Taxonomy

_SHIPPED = ("dronescapes", "camvid", "cityscapes", "ade20k", "coco-panoptic", "mapillary")


_Level = Annotated[int, Strict(), Field(ge=0, le=255)]


class _Document(BaseModel):
    """A file as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str
    ignore: Annotated[int, Strict()] = 255
    classes: tuple[str, ...] | None = None
    colours: dict[str, tuple[_Level, _Level, _Level]] | None = None


def find_taxonomy(name: str) -> Taxonomy:
    """The taxonomy of a name, or of the TOML file at a path. Raises ExpertError."""
    if name in TAXONOMIES:
        return TAXONOMIES[name]
    if not name.endswith(".toml"):
        hint = f"{closest(name, TAXONOMIES)} One of your own is the path of a .toml."
        raise ExpertError(f"There is no taxonomy {name!r}.", hint=hint)
    text = read_text(Path(name), "The taxonomy", ExpertError)
    try:
        return parse_taxonomy(text)
    except ValueError as error:
        raise ExpertError(
            f"{name} is no taxonomy: {error}.",
            hint='It needs name = "mine" and, under [colours], a line like ground = [120, 160, 80] for each class; '
            'or name and classes = ["ground", "sky"].',
        ) from error


def parse_taxonomy(text: str) -> Taxonomy:
    """Raises ValueError for anything malformed."""
    try:
        document = _Document.model_validate(tomllib.loads(text))
    except ValidationError as error:
        raise ValueError(first_fault(error)) from error
    if (document.colours is None) == (document.classes is None):
        raise ValueError("its classes stand either in the table colours or in the list classes")
    if document.colours is not None:
        return Taxonomy(document.name, tuple(document.colours), tuple(document.colours.values()), document.ignore)
    assert document.classes is not None
    return Taxonomy(document.name, document.classes, numbered_colours(len(document.classes)), document.ignore)


def numbered_colours(count: int) -> tuple[tuple[int, int, int], ...]:
    """Colours that are far apart for numbers that are near: hues in golden steps, in three shades."""

    def colour(number: int) -> tuple[int, int, int]:
        saturation, value = ((0.85, 0.95), (0.55, 0.85), (0.7, 0.6))[number % 3]
        red, green, blue = colorsys.hsv_to_rgb(number * 0.618034 % 1, saturation, value)
        return round(255 * red), round(255 * green), round(255 * blue)

    return tuple(colour(number) for number in range(count))


def _shipped(name: str) -> Taxonomy:
    return parse_taxonomy((files(__package__) / f"{name}.toml").read_text(encoding="utf-8"))


TAXONOMIES = {name: _shipped(name) for name in _SHIPPED}
DRONESCAPES, CAMVID, CITYSCAPES, ADE20K = (
    TAXONOMIES[name] for name in ("dronescapes", "camvid", "cityscapes", "ade20k")
)
