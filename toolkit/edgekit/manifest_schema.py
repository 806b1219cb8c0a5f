"""The JSON Schema (draft 2020-12) of a bundle's manifest, for whoever reads bundles without edgekit.

What it says is what `Manifest.from_json` checks; that files exist, hashes hold and variants name listed files is for
`edgekit bundle verify`.
"""

from __future__ import annotations

from typing import Any

from edgekit_runtime.manifest import MAX_FILE_BYTES, SCHEMA_VERSION
from edgekit_runtime.modality import Kind

_TEXT = {"type": "string", "minLength": 1, "maxLength": 1000}
_NUMBER = {"type": ["number", "null"]}
_PATH = {"type": "string", "pattern": r"^(?!/)(?!.*(^|/)\.\.(/|$))[^\\:\u0000]+$"}


def manifest_schema() -> dict[str, Any]:
    """What `manifest.json` may hold. More keys may be there: readers pass over what they do not know."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "edgekit bundle manifest",
        "type": "object",
        "required": ["schema", "name", "profile", "created", "input", "outputs", "variants", "files"],
        "properties": {
            "schema": {"const": SCHEMA_VERSION},
            "name": _TEXT,
            "profile": _TEXT,
            "created": {**_TEXT, "description": "UTC, ISO 8601"},
            "input": {"$ref": "#/$defs/tensor", "description": "uint8 [1, H, W, 3], BGR"},
            "outputs": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/output"}},
            "variants": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/variant"}},
            "files": {"type": "object", "propertyNames": _PATH, "additionalProperties": {"$ref": "#/$defs/file"}},
            "candidates": {"type": "array", "items": {"type": "object"}},
            "provenance": {"type": "object"},
            "camera": {
                "type": "object",
                "description": "what cameras are asked for where the user says nothing",
                "propertyNames": {"enum": ["size", "fps", "format"]},
                "additionalProperties": {"type": "string", "pattern": "^[A-Za-z0-9.]{1,20}$"},
            },
            "display": {"type": "object", "description": "how results are shown at first"},
            "smaller": {
                "type": "array",
                "description": "the same network for smaller frames, the largest first",
                "items": {"$ref": "#/$defs/smaller"},
            },
        },
        "$defs": {
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 1, "maximum": 16384}},
            "smaller": {
                "type": "object",
                "required": ["input", "outputs", "variants"],
                "properties": {
                    "input": {"$ref": "#/$defs/shape"},
                    "outputs": {
                        "type": "array",
                        "description": "shapes, in the order of the bundle's outputs",
                        "items": {"$ref": "#/$defs/shape"},
                    },
                    "variants": {"$ref": "#/properties/variants"},
                },
            },
            "tensor": {
                "type": "object",
                "required": ["name", "shape", "dtype"],
                "properties": {
                    "name": _TEXT,
                    "shape": {"$ref": "#/$defs/shape"},
                    "dtype": _TEXT,
                },
            },
            "output": {
                "$ref": "#/$defs/tensor",
                "required": ["modality"],
                "properties": {"modality": {"$ref": "#/$defs/modality"}},
            },
            "modality": {
                "type": "object",
                "required": ["name", "kind"],
                "properties": {
                    "name": {"type": "string"},
                    "kind": {"enum": [kind.value for kind in Kind]},
                    "channels": {"type": "integer", "minimum": 1},
                    "dtype": {"type": "string"},
                    "range": {"type": ["array", "null"], "items": {"type": "number"}, "minItems": 2, "maxItems": 2},
                    "unit": {"type": "string"},
                    "taxonomy": {"oneOf": [{"type": "null"}, {"$ref": "#/$defs/taxonomy"}]},
                    "truth": {"type": "boolean"},
                },
            },
            "taxonomy": {
                "type": "object",
                "required": ["name", "classes", "colours"],
                "properties": {
                    "name": {"type": "string"},
                    "classes": {"type": "array", "items": {"type": "string"}, "minItems": 1, "uniqueItems": True},
                    "colours": {
                        "type": "array",
                        "items": {
                            "type": "array",
                            "items": {"type": "integer", "minimum": 0, "maximum": 255},
                            "minItems": 3,
                            "maxItems": 3,
                        },
                    },
                    "ignore": {"type": "integer", "minimum": 0, "maximum": 255},
                },
            },
            "variant": {
                "type": "object",
                "required": ["engine", "device", "precision", "model"],
                "properties": {
                    "engine": _TEXT,
                    "device": _TEXT,
                    "precision": _TEXT,
                    "model": _PATH,
                    "config": {"type": "object"},
                    "p50_ms": {
                        **_NUMBER,
                        "description": "median of one inference at the build; null: not measured",
                    },
                    "miou": {**_NUMBER, "description": "0 to 1"},
                    "drop": {**_NUMBER, "description": "of mIoU against float32, 0 to 1"},
                    "depth_error": {
                        **_NUMBER,
                        "description": "mean difference from float32, share of the mean",
                    },
                },
            },
            "file": {
                "type": "object",
                "required": ["size", "sha256"],
                "properties": {
                    "size": {"type": "integer", "minimum": 0, "maximum": MAX_FILE_BYTES},
                    "sha256": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                },
            },
        },
    }
