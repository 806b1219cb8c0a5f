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

from edgekit_experts.dataset.names import closest
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Taxonomy

_SHIPPED = ("dronescapes", "camvid", "cityscapes", "ade20k", "coco-panoptic", "mapillary")


def find_taxonomy(name: str) -> Taxonomy:
    """The taxonomy of a name, or of the TOML file at a path. Raises ExpertError."""
    if name in TAXONOMIES:
        return TAXONOMIES[name]
    if not name.endswith(".toml"):
        raise ExpertError(f"There is no taxonomy {name!r}.", hint=closest(name, TAXONOMIES))
    try:
        return parse_taxonomy(Path(name).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ExpertError(
            f"{name} is no taxonomy: {error}.",
            hint='It needs `name = "mine"` and `classes = ["a", "b"]`.',
        ) from error


def parse_taxonomy(text: str) -> Taxonomy:
    """Raises ValueError for anything malformed."""
    table = tomllib.loads(text)
    try:
        if "colours" in table:
            classes = tuple(table["colours"])
            colours = tuple(tuple(colour) for colour in table["colours"].values())
        else:
            classes = tuple(table["classes"])
            colours = numbered_colours(len(classes))
        return Taxonomy(str(table["name"]), classes, colours, int(table.get("ignore", 255)))
    except (KeyError, TypeError) as error:
        raise ValueError(f"{error} is missing or of the wrong type") from error


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
