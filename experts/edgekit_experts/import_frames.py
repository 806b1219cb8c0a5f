"""Pictures that lie in folders, with what other tools said about them, as a video of a data set.

    DIR/rgb/*                  the frames; their sorted names are time
    DIR/labels/<frame>.png     human labels, if there are any
    DIR/experts/<name>/<frame>.png

A table (TOML) says what each folder holds and what is made of it: `[folders."experts/<name>"]` with `kind`,
and for labels `taxonomy`; then `[modalities.<name>]`, a configuration like any other, in which the folders are
streams of the source. `tables/camvid.toml` is an example.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from edgekit_experts.config import Config, checked_config
from edgekit_experts.dataset.names import closest
from edgekit_experts.taxonomies import TAXONOMIES
from edgekit_experts.video.pictures import PictureFolder, PictureStream
from edgekit_runtime.errors import DataError, SourceError
from edgekit_runtime.modality import Kind, Modality

_PLAIN = """
[modalities.rgb]
expert = "rgb"

[modalities.hsv]
expert = "hsv"

[modalities.canny]
expert = "canny"
"""


@dataclass(frozen=True)
class FrameFolder:
    """What `extract` needs to import a folder."""

    reader: PictureFolder
    config: Config


def open_frames(folder: Path, *, name: str = "", table: Path | None = None, fps: float = 1.0) -> FrameFolder:
    """A folder of the layout above.

    Without a table, the one that ships is taken if its expert folders are those that are there; a folder that
    has pictures only needs none. `fps` is what pictures cannot tell. Raises DataError or SourceError.
    """
    if not (folder / "rgb").is_dir():
        raise SourceError(
            f"{folder} has no folder rgb/ with pictures.",
            hint="The layout is DIR/rgb/*, DIR/labels/*.png, DIR/experts/<name>/*.png.",
        )
    where, text = _find_table(folder, table)
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DataError(f"{where} is not valid TOML: {error}.", hint="See https://toml.io.") from error
    streams, absent = [], set()
    for key, entry in _tables(document, "folders", where).items():
        if (folder / key).is_dir():
            streams.append(_stream(folder, key, entry, where))
        elif entry.get("optional") is True:
            absent.add(key)
        else:
            raise DataError(
                f"{folder} has no folder {key}, which {where} describes.",
                hint="Give another --table, or write `optional = true` there.",
            )
    reader = PictureFolder(folder / "rgb", name=name or folder.resolve().name, fps=fps, beside=streams)
    modalities = {
        key: entry
        for key, entry in _tables(document, "modalities", where).items()
        if absent.isdisjoint([entry["of"]] if isinstance(entry.get("of"), str) else entry.get("of", ()))
    }
    return FrameFolder(reader, checked_config(modalities, where))


def _find_table(folder: Path, table: Path | None) -> tuple[str, str]:
    """Name and text of the table to use."""
    if table is not None:
        try:
            return str(table), table.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"The table {table} cannot be read: {error}.", hint="Check the path.") from error
    experts = folder / "experts"
    present = {f"experts/{path.name}" for path in experts.iterdir() if path.is_dir()} if experts.is_dir() else set()
    if not present and not (folder / "labels").is_dir():
        return "the table for plain pictures", _PLAIN
    for shipped in sorted((files("edgekit_experts") / "tables").iterdir(), key=lambda entry: entry.name):
        text = shipped.read_text(encoding="utf-8")
        described = {key for key in tomllib.loads(text).get("folders", {}) if key.startswith("experts/")}
        if described and described == present:
            return shipped.name, text
    raise DataError(
        f"Nothing says what the pictures in {folder} mean ({', '.join(sorted(present)) or 'labels'}).",
        hint="Write a small table and give it with --table; edgekit_experts/tables/camvid.toml is an example.",
    )


def _tables(document: Mapping[str, Any], key: str, where: str) -> dict[str, dict[str, Any]]:
    tables = document.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(entry, dict) for entry in tables.values()):
        raise DataError(f"{where}: `{key}` must hold tables.", hint="See edgekit_experts/tables/camvid.toml.")
    return tables


def _stream(folder: Path, key: str, entry: Mapping[str, Any], where: str) -> PictureStream:
    try:
        kind = Kind(entry["kind"])
        taxonomy = TAXONOMIES[entry["taxonomy"]] if kind is Kind.LABELS else None
        span = entry.get("range")
        modality = Modality(
            name=key,
            kind=kind,
            channels=int(entry.get("channels", 3 if kind is Kind.IMAGE else 1)),
            dtype=str(np.dtype(entry.get("dtype", "uint8")).name),
            range=(float(span[0]), float(span[1])) if span else None,
            unit=str(entry.get("unit", "")),
            taxonomy=taxonomy,
            truth=bool(entry.get("truth", False)),
        )
        return PictureStream(modality, folder / key, float(entry.get("divide", 1)))
    except KeyError as error:
        missing = str(error.args[0])
        hint = closest(missing, TAXONOMIES) if "taxonomy" in entry else ""
        raise DataError(f"{where}: folder {key!r}: {missing!r} is missing or unknown.", hint=hint) from error
    except (TypeError, ValueError, IndexError) as error:
        raise DataError(f"{where}: folder {key!r}: {error}.", hint="See edgekit_experts/tables/camvid.toml.") from error
