"""Pictures that lie in folders, with what other tools said about them, as a video of a data set.

    DIR/rgb/*                  the frames; their sorted names are time
    DIR/labels/<frame>.png     human labels, if there are any
    DIR/experts/<name>/<frame>.png

A table (TOML) says what each folder holds and what is made of it: `[folders."experts/<name>"]` with `kind`,
and for labels `taxonomy`; then `[modalities.<name>]`, a configuration like any other, in which the folders are
streams of the source. docs/importing.md shows one, `tables/camvid.toml` is another.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekit_experts.config import Config, checked_config
from edgekit_experts.files import read_text
from edgekit_experts.taxonomies import find_taxonomy
from edgekit_experts.validation import first_fault
from edgekit_experts.video.pictures import PictureFolder, PictureStream
from edgekit_runtime.errors import DataError, EdgekitError, SourceError
from edgekit_runtime.modality import Kind, Modality

_PLAIN = """
[modalities.rgb]
expert = "rgb"

[modalities.hsv]
expert = "hsv"

[modalities.canny]
expert = "canny"
"""


_PAGE = "docs/importing.md shows a table and lists what may stand in it"


class FolderEntry(BaseModel):
    """`[folders."..."]` of a table: what the pictures of one folder mean."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind = Field(description="image, labels, depth, normals, flow, edges or mask")
    taxonomy: str = Field("", description="for labels, and needed there: a name, or the path of a taxonomy of yours")
    channels: int | None = Field(None, ge=1, description="channels of the pictures; else 3 for images, 1 for the rest")
    dtype: Literal["uint8", "uint16", "float16", "float32"] = Field("uint8", description="the type to store")
    divide: float = Field(1.0, gt=0, description="what stored values are divided by: 255 makes 0..255 into 0..1")
    range: tuple[float, float] | None = Field(None, description="the smallest and the largest value, after `divide`")
    unit: str = Field("", description='such as "m" or "relative inverse depth"')
    truth: bool = Field(False, description="human labels or exact truth, which no training reads")
    optional: bool = Field(False, description="the folder may be absent; so are modalities made from it, then")


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
    folders, modalities = (_tables(document, key, where) for key in ("folders", "modalities"))
    if unknown := document.keys() - {"folders", "modalities"}:
        raise DataError(
            f"{where}: there is no table {min(unknown)!r}.",
            hint="There are two: folders and modalities; " + _PAGE + ".",
        )
    streams, absent = [], set()
    for key, table_entry in folders.items():
        entry = _entry(key, table_entry, where)
        if (folder / key).is_dir():
            streams.append(_stream(folder, key, entry, where))
        elif entry.optional:
            absent.add(key)
        else:
            raise DataError(
                f"{folder} has no folder {key}, which {where} describes.",
                hint="Give another --table, or write `optional = true` there.",
            )
    reader = PictureFolder(folder / "rgb", name=name or folder.resolve().name, fps=fps, beside=streams)
    wanted = {
        key: entry
        for key, entry in modalities.items()
        if absent.isdisjoint([entry["of"]] if isinstance(entry.get("of"), str) else entry.get("of", ()))
    }
    return FrameFolder(reader, checked_config(wanted, where))


def _find_table(folder: Path, table: Path | None) -> tuple[str, str]:
    """Name and text of the table to use."""
    if table is not None:
        return str(table), read_text(table, "The table", DataError)
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
        hint=f"Say it in a small file and give it with --table: {_PAGE}.",
    )


def _tables(document: Mapping[str, Any], key: str, where: str) -> dict[str, dict[str, Any]]:
    tables = document.get(key, {})
    if not isinstance(tables, dict) or not all(isinstance(entry, dict) for entry in tables.values()):
        raise DataError(f"{where}: `{key}` must hold tables, such as [{key}.rgb].", hint=f"{_PAGE}.")
    return tables


def _entry(key: str, table: Mapping[str, Any], where: str) -> FolderEntry:
    try:
        return FolderEntry.model_validate(table)
    except ValidationError as error:
        raise DataError(f"{where}: folder {key!r}: {first_fault(error)}.", hint=f"{_PAGE}.") from error


def _stream(folder: Path, key: str, entry: FolderEntry, where: str) -> PictureStream:
    try:
        modality = Modality(
            name=key,
            kind=entry.kind,
            channels=entry.channels or (3 if entry.kind is Kind.IMAGE else 1),
            dtype=entry.dtype,
            range=entry.range,
            unit=entry.unit,
            taxonomy=find_taxonomy(entry.taxonomy) if entry.taxonomy else None,
            truth=entry.truth,
        )
    except EdgekitError as error:
        raise DataError(f"{where}: folder {key!r}: {error.args[0]}", hint=error.hint) from error
    except ValueError as error:
        raise DataError(
            f"{where}: folder {key!r}: labels, and only labels, need a taxonomy.", hint=f"{_PAGE}."
        ) from error
    return PictureStream(modality, folder / key, entry.divide)
