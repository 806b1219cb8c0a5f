"""`manifest.json`: everything that a bundle says about itself.

Paths are relative to the bundle's root, with forward slashes; every file is listed with size and SHA-256.

Deploy graph (one contract for all variants): input uint8 `[1, H, W, 3]` BGR; output `labels` uint8 `[1, h, w]`
class ids; optional output `depth` float `[1, h, w]`, scaled as its modality states.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from edgekit_runtime.errors import BundleError
from edgekit_runtime.modality import Modality, Taxonomy

SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
# No file of a bundle is called so.
RESERVED = (MANIFEST, "manifest.sig")
MAX_FILE_BYTES = 4 << 30
_SHA256 = re.compile(r"[0-9a-f]{64}")
_OPTION = re.compile(r"(size|fps|format)=[A-Za-z0-9.]{1,20}")


@dataclass(frozen=True)
class FileEntry:
    """Size in bytes and SHA-256 (hex) of one file of the bundle."""

    size: int
    sha256: str


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of the deploy graph; `modality` is set on outputs."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    modality: Modality | None = None


@dataclass(frozen=True)
class Variant:
    """One compiled form of the deploy graph.

    `engine` is `openvino`, `onnxruntime`, `tensorrt-rtx` or `tensorrt`; `model` the file that the engine opens, or is
    built from; `config` what the engine is told (threads, hints, providers; with TensorRT for RTX, the engine in the
    bundle and what it was built by and for); `p50_ms`, `miou` and `drop` are what was measured at build time, None
    where it could not be measured.
    """

    engine: str
    device: str
    precision: str
    model: str
    config: Mapping[str, Any] = field(default_factory=dict)
    p50_ms: float | None = None
    miou: float | None = None
    drop: float | None = None
    depth_error: float | None = None


@dataclass(frozen=True)
class Smaller:
    """The same network for smaller frames: the shapes of input and outputs, in their order, and what runs it."""

    input: tuple[int, ...]
    outputs: tuple[tuple[int, ...], ...]
    variants: tuple[Variant, ...]


@dataclass(frozen=True)
class Manifest:
    """A checked manifest. `variants` are in order of preference; `candidates` is the build's whole table.

    `smaller` is what a live source may get that is too fast for `variants`, the largest first.

    `camera` is what cameras are asked for where the user says nothing, as the options of a source (`size`, `fps`,
    `format`), `display` how results are shown at first (`opacity` 0..1, `depth`).
    """

    name: str
    profile: str
    created: str
    input: TensorSpec
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    files: Mapping[str, FileEntry]
    candidates: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    camera: Mapping[str, str] = field(default_factory=dict)
    display: Mapping[str, Any] = field(default_factory=dict)
    smaller: tuple[Smaller, ...] = ()

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the frames that the network reads."""
        return self.input.shape[1], self.input.shape[2]

    @property
    def input_name(self) -> str:
        """The same as people write it, WIDTHxHEIGHT."""
        return f"{self.input.shape[2]}x{self.input.shape[1]}"

    @property
    def taxonomy(self) -> Taxonomy | None:
        """The classes of the `labels` output, if there is one."""
        for output in self.outputs:
            if output.modality and output.modality.taxonomy:
                return output.modality.taxonomy
        return None

    def reduced(self) -> Manifest | None:
        """As if the bundle had been built for the next smaller frames alone; None where it has none."""
        if not self.smaller:
            return None
        first, *rest = self.smaller
        outputs = (replace(spec, shape=shape) for spec, shape in zip(self.outputs, first.outputs, strict=True))
        spec = replace(self.input, shape=first.input)
        return replace(self, input=spec, outputs=tuple(outputs), variants=first.variants, smaller=tuple(rest))

    def to_json(self) -> str:
        table = {
            "schema": SCHEMA_VERSION,
            "name": self.name,
            "profile": self.profile,
            "created": self.created,
            "input": _tensor_table(self.input),
            "outputs": [_tensor_table(output) for output in self.outputs],
            "variants": _variant_tables(self.variants),
            "files": {path: vars(entry) for path, entry in sorted(self.files.items())},
            "candidates": [dict(row) for row in self.candidates],
            "provenance": dict(self.provenance),
            "camera": dict(self.camera),
            "display": dict(self.display),
            "smaller": [{**vars(each), "variants": _variant_tables(each.variants)} for each in self.smaller],
        }
        return json.dumps(table, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes, where: str = MANIFEST) -> Manifest:
        """Parses and checks. Raises BundleError that names the field at fault."""
        try:
            table = json.loads(text)
            if not isinstance(table, dict):
                raise ValueError("not a table")
            schema = table.get("schema")
            if not isinstance(schema, int) or isinstance(schema, bool) or schema < 1:
                raise ValueError(f"schema is {schema!r}, not a version number")
            if schema > SCHEMA_VERSION:
                raise BundleError(
                    f"{where}: the bundle has schema {schema}, this runtime reads up to {SCHEMA_VERSION}.",
                    hint="Update edgekit-runtime, or build the bundle with an older edgekit.",
                )
            return _parse(table)
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
            detail = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
            raise BundleError(
                f"{where} is not a valid manifest: {detail}.",
                hint="Build the bundle again with `edgekit build`.",
            ) from error


def _parse(table: dict[str, Any]) -> Manifest:
    files = {_path(path): _file(path, entry) for path, entry in dict(table["files"]).items()}
    variants = _variants(table, files)
    outputs = tuple(_tensor(entry, modality=True) for entry in table["outputs"])
    if not outputs:
        raise ValueError("outputs is empty")
    spec = _tensor(table["input"], modality=False)
    smaller = tuple(_smaller(entry, files, outputs) for entry in table.get("smaller", []))
    for shape in (spec.shape, *(each.input for each in smaller)):
        if len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or spec.dtype != "uint8":
            raise ValueError(f"input must be uint8 [1, H, W, 3], not {spec.dtype} {list(shape)}")
    return Manifest(
        name=_text(table, "name"),
        profile=_text(table, "profile"),
        created=_text(table, "created"),
        input=spec,
        outputs=outputs,
        variants=variants,
        files=files,
        candidates=tuple(dict(row) for row in table.get("candidates", [])),
        provenance=dict(table.get("provenance", {})),
        camera=_camera(table.get("camera", {})),
        display=dict(table.get("display", {})),
        smaller=smaller,
    )


def _camera(table: Mapping[str, Any]) -> dict[str, str]:
    """Options of a source; what they may say, the source itself checks."""
    for key, value in table.items():
        if not isinstance(value, str) or not _OPTION.fullmatch(f"{key}={value}"):
            raise ValueError(f"camera.{key} = {value!r} is no option of a camera")
    return dict(table)


def _tensor_table(spec: TensorSpec) -> dict[str, Any]:
    table: dict[str, Any] = {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}
    if spec.modality:
        table["modality"] = spec.modality.to_dict()
    return table


def _variant_tables(variants: tuple[Variant, ...]) -> list[dict[str, Any]]:
    return [{**vars(variant), "config": dict(variant.config)} for variant in variants]


def _text(table: Mapping[str, Any], key: str) -> str:
    value = table[key]
    if not isinstance(value, str) or not value or len(value) > 1000:
        raise ValueError(f"{key} must be a short text")
    return value


def _number(table: Mapping[str, Any], key: str) -> float | None:
    value = table.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{key} must be a number")
    return float(value)


def _path(path: object) -> str:
    if not isinstance(path, str) or not path or "\\" in path or "\0" in path or ":" in path:
        raise ValueError(f"file path {path!r} is not allowed")
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or str(pure) != path or path in RESERVED:
        raise ValueError(f"file path {path!r} is not allowed")
    return path


def _file(path: str, entry: Mapping[str, Any]) -> FileEntry:
    size, sha256 = entry["size"], entry["sha256"]
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_FILE_BYTES:
        raise ValueError(f"size of {path} must be a whole number of bytes")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise ValueError(f"sha256 of {path} must be 64 hexadecimal digits")
    return FileEntry(size, sha256)


def _shape(shape: object) -> tuple[int, ...]:
    if not isinstance(shape, list) or not all(
        isinstance(n, int) and not isinstance(n, bool) and 0 < n <= 16384 for n in shape
    ):
        raise ValueError(f"shape {shape!r} must be a list of positive whole numbers")
    return tuple(shape)


def _tensor(entry: Mapping[str, Any], *, modality: bool) -> TensorSpec:
    return TensorSpec(
        name=_text(entry, "name"),
        shape=_shape(entry["shape"]),
        dtype=_text(entry, "dtype"),
        modality=Modality.from_dict(entry["modality"]) if modality else None,
    )


def _variants(table: Mapping[str, Any], files: Mapping[str, FileEntry]) -> tuple[Variant, ...]:
    variants = tuple(_variant(entry, files) for entry in table["variants"])
    if not variants:
        raise ValueError("variants is empty")
    return variants


def _smaller(entry: Mapping[str, Any], files: Mapping[str, FileEntry], outputs: tuple[TensorSpec, ...]) -> Smaller:
    shapes = tuple(map(_shape, entry["outputs"]))
    if len(shapes) != len(outputs):
        raise ValueError("smaller must have as many outputs as the bundle")
    return Smaller(_shape(entry["input"]), shapes, _variants(entry, files))


def _variant(entry: Mapping[str, Any], files: Mapping[str, FileEntry]) -> Variant:
    model = _path(entry["model"])
    if model not in files:
        raise ValueError(f"variant model {model!r} is not among the files")
    return Variant(
        engine=_text(entry, "engine"),
        device=_text(entry, "device"),
        precision=_text(entry, "precision"),
        model=model,
        config=dict(entry.get("config", {})),
        p50_ms=_number(entry, "p50_ms"),
        miou=_number(entry, "miou"),
        drop=_number(entry, "drop"),
        depth_error=_number(entry, "depth_error"),
    )
