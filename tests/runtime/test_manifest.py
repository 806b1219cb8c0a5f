"""The manifest parser takes what it wrote and refuses everything else with a BundleError."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from bundles import ONNXRUNTIME, OPENVINO, manifest_for
from hypothesis import given
from hypothesis import strategies as st

from edgekit_runtime.errors import BundleError
from edgekit_runtime.manifest import Manifest, Smaller

FILES = {"model.xml": b"x", "model.bin": b"w", "model.onnx": b"o"}
TRUE = replace(
    manifest_for(FILES, (OPENVINO, ONNXRUNTIME), 64, 96),
    smaller=(Smaller((1, 32, 48, 3), ((1, 8, 12),), (ONNXRUNTIME,)),),
)
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


def test_one_without_smaller_sizes_is_read_as_ever():
    table = json.loads(TRUE.to_json())
    del table["smaller"]
    manifest = Manifest.from_json(json.dumps(table))
    assert manifest == replace(TRUE, smaller=())
    assert manifest.reduced() is None


def test_reduced_it_is_the_manifest_of_the_next_smaller_size():
    reduced = TRUE.reduced()
    assert reduced is not None
    assert (reduced.input_size, reduced.input_name) == ((32, 48), "48x32")
    assert [output.shape for output in reduced.outputs] == [(1, 8, 12)]
    assert (reduced.variants, reduced.taxonomy) == ((ONNXRUNTIME,), TRUE.taxonomy)
    assert reduced.reduced() is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input": [1, 32, 48]}, r"input must be uint8 \[1, H, W, 3\]"),
        ({"outputs": []}, "as many outputs"),
        ({"outputs": [[1, 0, 12]]}, "positive whole numbers"),
        ({"variants": []}, "variants is empty"),
        ({"variants": [{**vars(ONNXRUNTIME), "model": "48x32/model.onnx"}]}, "not among the files"),
    ],
)
def test_a_smaller_size_is_checked_as_the_bundles_own_is(change: dict[str, Any], message: str):
    table = json.loads(TRUE.to_json())
    table["smaller"][0] |= change
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(table))


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
