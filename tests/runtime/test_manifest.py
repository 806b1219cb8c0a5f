"""The manifest parser takes what it wrote and refuses everything else with a BundleError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from bundles import ONNXRUNTIME, OPENVINO, manifest_for
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import BundleError
from edgekit_runtime.manifest import Manifest

FILES = {"model.xml": b"x", "model.bin": b"w", "model.onnx": b"o"}
TRUE = manifest_for(FILES, (OPENVINO, ONNXRUNTIME), 64, 96)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


def _places(table: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    here = [path] if path else []
    if isinstance(table, dict):
        return here + [place for key, value in table.items() for place in _places(value, (*path, key))]
    if isinstance(table, list):
        return here + [place for n, value in enumerate(table) for place in _places(value, (*path, n))]
    return here


PLACES = _places(json.loads(TRUE.to_json()))


def test_what_is_written_is_read_back():
    assert Manifest.from_json(TRUE.to_json()) == TRUE


def test_a_newer_schema_says_so():
    table = json.loads(TRUE.to_json()) | {"schema": 99}
    with pytest.raises(BundleError, match="schema 99") as caught:
        Manifest.from_json(json.dumps(table))
    assert "Update edgekit-runtime" in caught.value.hint


@pytest.mark.parametrize("camera", [{"size": "640x480&index=1"}, {"fps": 30}, {"path": "x"}, ["size"], 3])
def test_what_cameras_are_asked_for_is_nothing_but_their_options(camera: Any):
    table = json.loads(TRUE.to_json())
    assert Manifest.from_json(json.dumps({**table, "camera": {"size": "640x480"}})).camera == {"size": "640x480"}
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps({**table, "camera": camera}))


@given(JSON)
def test_any_json_is_a_manifest_or_a_bundle_error(table: Any):
    with pytest.raises(BundleError):
        Manifest.from_json(json.dumps(table))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_bundle_error(data: bytes):
    with pytest.raises(BundleError):
        Manifest.from_json(data)


@given(st.sampled_from(PLACES), JSON)
def test_a_manifest_with_one_value_replaced_is_read_or_refused(place: tuple[Any, ...], value: Any):
    table = json.loads(TRUE.to_json())
    inner = table
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    try:
        manifest = Manifest.from_json(json.dumps(table))
    except BundleError:
        return
    assert manifest.input.shape[3] == 3
    assert all(variant.model in manifest.files for variant in manifest.variants)
