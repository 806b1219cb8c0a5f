"""Bundles are written whole or not at all, and equal contents give equal bytes."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from edgekit.bundle import check_writable, file_entries, write_zip
from edgekit_experts.taxonomies import DRONESCAPES
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import BuildError
from edgekit_runtime.manifest import Manifest, TensorSpec, Variant
from edgekit_runtime.modality import Kind, Modality

FILES = {"openvino/model.xml": b"<net/>", "openvino/model.bin": random.Random(0).randbytes(50_000)}


def _manifest(files: dict[str, bytes]) -> Manifest:
    return Manifest(
        name="edge",
        profile="small",
        created="2026-01-01T00:00:00Z",
        input=TensorSpec("image", (1, 96, 160, 3), "uint8"),
        outputs=(TensorSpec("labels", (1, 24, 40), "uint8", Modality("labels", Kind.LABELS, taxonomy=DRONESCAPES)),),
        variants=(Variant("openvino", "CPU", "int8", "openvino/model.xml"),),
        files=file_entries(files),
    )


def test_the_runtime_opens_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "edge.edgekit"
    write_zip(path, _manifest(FILES), FILES)
    bundle = open_bundle(path)
    assert bundle.manifest == _manifest(FILES)
    assert bundle.read("openvino/model.bin") == FILES["openvino/model.bin"]


def test_equal_contents_give_equal_bytes_in_any_order(tmp_path: Path) -> None:
    turned = dict(reversed(FILES.items()))
    write_zip(tmp_path / "a.edgekit", _manifest(FILES), FILES)
    write_zip(tmp_path / "b.edgekit", _manifest(turned), turned)
    assert (tmp_path / "a.edgekit").read_bytes() == (tmp_path / "b.edgekit").read_bytes()


@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit there")
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(tmp_path: Path) -> None:
    """A limit on the size of files stands in for a full disk: the write fails in the middle."""
    import resource

    path = tmp_path / "edge.edgekit"
    write_zip(path, _manifest(FILES), FILES)
    before = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8192, hard))
    try:
        with pytest.raises(BuildError, match="cannot be written"):
            write_zip(path, replace(_manifest(FILES), name="new"), FILES)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_found_out_beforehand(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(BuildError, match="cannot be written"):
        check_writable(tmp_path / "file" / "edge.edgekit")
    (tmp_path / "edge.edgekit").mkdir()
    with pytest.raises(BuildError, match="is a folder"):
        check_writable(tmp_path / "edge.edgekit")


def test_looking_whether_a_place_can_be_written_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "edge.edgekit"
    path.write_bytes(b"old")
    check_writable(path)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
