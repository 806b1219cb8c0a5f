"""Bundles that somebody meddled with: each is refused with a BundleError before a native parser sees a byte."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import random
import stat
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import OPENVINO, make_bundle, manifest_for, openvino_files, write_folder, write_zip

from edgekit_runtime import BundleError, load, open_bundle
from edgekit_runtime.files import digest_bytes
from edgekit_runtime.manifest import MANIFEST

FILES = openvino_files(64, 96)
TRUE = manifest_for(FILES, (OPENVINO,), 64, 96)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "bundle", FILES, TRUE.to_json())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "b.edgekit", FILES, TRUE.to_json())


@pytest.fixture(autouse=True)
def no_engine_may_be_imported(monkeypatch: pytest.MonkeyPatch):
    """If a hostile bundle got past verification, opening an engine would fail in another way than expected."""
    monkeypatch.setitem(sys.modules, "edgekit_runtime.engines.openvino", None)


def refused(path: Path, reason: str) -> None:
    with pytest.raises(BundleError, match=reason):
        load(path)


def rezip(path: Path, change: Callable[[zipfile.ZipInfo, bytes], tuple[zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path) as source:
        entries = [(entry, source.read(entry)) for entry in source.infolist()]
    with zipfile.ZipFile(path, "w") as target:
        for entry, data in entries:
            target.writestr(*change(entry, data))
    return path


def test_true_bundles_are_accepted(folder: Path, archive: Path):
    assert open_bundle(folder).manifest == open_bundle(archive).manifest == TRUE
    assert open_bundle(archive).read("model.xml") == FILES["model.xml"]


@pytest.mark.parametrize("name", sorted(FILES))
def test_one_changed_byte(folder: Path, name: str):
    data = bytearray(FILES[name])
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    refused(folder, rf"{name} is not what the manifest says \(SHA-256 differs\)")


def test_one_changed_byte_in_a_zip_with_true_crc(archive: Path):
    def change(entry: zipfile.ZipInfo, data: bytes):
        return entry, data[:-1] + bytes([data[-1] ^ 1]) if entry.filename == "model.bin" else data

    refused(rezip(archive, change), "SHA-256 differs")


def test_a_file_changed_after_verification(folder: Path):
    bundle = open_bundle(folder)
    (folder / "model.xml").write_bytes(b"<" + FILES["model.xml"][1:][::-1] + b">")
    with pytest.raises(BundleError, match=r"model\.xml is not what the manifest says"):
        bundle.read("model.xml")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_zip(archive: Path, share: float):
    data = archive.read_bytes()
    archive.write_bytes(data[: int(len(data) * share)])
    refused(archive, "cannot be read")


def test_zips_with_damage_anywhere(archive: Path):
    """Whatever byte is hit: the bundle is refused, or the byte did not matter and the contents are true."""
    data, generator = archive.read_bytes(), random.Random(0)
    for _ in range(300):
        broken = bytearray(data)
        for _ in range(generator.randint(1, 4)):
            broken[generator.randrange(len(broken))] = generator.randrange(256)
        archive.write_bytes(broken)
        try:
            bundle = open_bundle(archive)
        except BundleError:
            continue
        assert bundle.manifest == TRUE
        assert {name: bundle.read(name) for name in FILES} == FILES


def test_missing_file(folder: Path):
    (folder / "model.bin").unlink()
    refused(folder, r"model\.bin is missing")


def test_unlisted_file(folder: Path, archive: Path):
    (folder / "extra.so").write_bytes(b"\x7fELF")
    refused(folder, r"'extra\.so' is not listed")
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr("extra.so", b"\x7fELF")
    refused(archive, r"'extra\.so' is not listed")


def test_no_manifest(folder: Path, tmp_path: Path):
    (folder / MANIFEST).unlink()
    refused(folder, r"no manifest\.json")
    empty = tmp_path / "empty.edgekit"
    zipfile.ZipFile(empty, "w").close()
    refused(empty, r"no manifest\.json")


def test_nothing_there(tmp_path: Path):
    refused(tmp_path / "nowhere.edgekit", "no bundle at")


@pytest.mark.parametrize(
    "name",
    ["../evil", "/etc/passwd", "a/../../evil", "C:/evil", r"..\evil", "a//b", "./model.xml", "a/./b", "", "a\0b"],
)
def test_paths_that_leave_the_bundle_in_the_manifest(tmp_path: Path, name: str):
    table = json.loads(TRUE.to_json())
    table["files"][name] = {"size": 1, "sha256": "0" * 64}
    refused(write_folder(tmp_path / "b", FILES, json.dumps(table)), "is not allowed")
    table = json.loads(TRUE.to_json())
    table["variants"][0]["model"] = name
    refused(write_folder(tmp_path / "c", FILES, json.dumps(table)), "is not allowed")


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", r"..\evil", "model.xml/../../evil"])
def test_paths_that_leave_the_bundle_in_the_zip(archive: Path, name: str):
    with zipfile.ZipFile(archive, "a") as target:
        target.writestr(zipfile.ZipInfo(name), b"evil")
    refused(archive, "is not listed")
    assert not (archive.parent.parent / "evil").exists()


def test_symlinks_in_a_folder(folder: Path, tmp_path: Path):
    outside = tmp_path / "outside.bin"
    outside.write_bytes(FILES["model.bin"])
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(outside)
    refused(folder, r"'model\.bin' is a link or a device")


def test_a_folder_that_is_a_symlink(folder: Path, tmp_path: Path):
    (tmp_path / "elsewhere").mkdir()
    (folder / "sub").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    refused(folder, "'sub' is a link or a device")


def test_a_symlink_that_takes_a_files_place_after_verification(folder: Path, tmp_path: Path):
    bundle = open_bundle(folder)
    (tmp_path / "outside").write_bytes(FILES["model.bin"])
    (folder / "model.bin").unlink()
    (folder / "model.bin").symlink_to(tmp_path / "outside")
    with pytest.raises(BundleError, match="cannot be read"):
        bundle.read("model.bin")


def test_a_pipe_that_would_block_for_ever(folder: Path):
    (folder / "model.bin").unlink()
    os.mkfifo(folder / "model.bin")
    refused(folder, "is a link or a device")


def test_symlinks_in_a_zip(archive: Path):
    def change(entry: zipfile.ZipInfo, data: bytes):
        if entry.filename != "model.bin":
            return entry, data
        link = zipfile.ZipInfo("model.bin")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        return link, b"/etc/passwd"

    refused(rezip(archive, change), r"'model\.bin' is a link")


def test_the_same_name_twice_in_a_zip(archive: Path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(archive, "a") as target:
        target.writestr("model.xml", b"another one")
    refused(archive, r"'model\.xml' is there twice")


def test_encrypted_zip(archive: Path):
    data = bytearray(archive.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.find(signature)
        while at >= 0:
            data[at + flags] |= 1
            at = data.find(signature, at + 1)
    archive.write_bytes(data)
    refused(archive, "cannot be read")


def bomb(size: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        with target.open("model.bin", "w", force_zip64=True) as file:
            for _ in range(size >> 20):
                file.write(bytes(1 << 20))
        target.writestr("model.xml", FILES["model.xml"])
        target.writestr(MANIFEST, manifest_text(size))
    return buffer.getvalue()


def manifest_text(size: int) -> str:
    table = json.loads(TRUE.to_json())
    table["files"]["model.bin"]["size"] = size
    return json.dumps(table)


def test_a_zip_bomb_that_its_manifest_admits(tmp_path: Path):
    path = tmp_path / "bomb.edgekit"
    path.write_bytes(bomb(64 << 20))
    assert path.stat().st_size < 1 << 20
    refused(path, "a zip bomb")


def test_a_zip_bomb_that_lies_about_its_size_costs_no_memory(tmp_path: Path):
    data = bytearray(bomb(64 << 20))
    # The central directory says that the bomb has as many bytes as the true file.
    size = len(FILES["model.bin"])
    at = data.find(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, size)
    path = tmp_path / "bomb.edgekit"
    path.write_bytes(bytes(data).replace(manifest_text(64 << 20).encode(), TRUE.to_json().encode()))
    tracemalloc.start()
    with pytest.raises(BundleError):
        open_bundle(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20


def test_a_manifest_without_end(folder: Path):
    with (folder / MANIFEST).open("wb") as file:
        file.truncate(1 << 30)
    refused(folder, "which it never needs")


def test_a_manifest_nested_without_end(folder: Path):
    (folder / MANIFEST).write_text("[" * 100_000, encoding="utf-8")
    refused(folder, "not a valid manifest")


def test_a_bundle_from_the_future(tmp_path: Path):
    table = json.loads(TRUE.to_json()) | {"schema": 2, "something": "new"}
    refused(write_folder(tmp_path / "b", FILES, json.dumps(table)), "has schema 2, this runtime reads up to 1")


def test_too_many_files(folder: Path):
    for number in range(1001):
        (folder / f"{number}").touch()
    refused(folder, "holds more than 1000 files")


def test_sizes_beyond_reason(tmp_path: Path):
    table = json.loads(TRUE.to_json())
    for number in range(3):
        table["files"][f"big{number}"] = {"size": 4 << 30, "sha256": "0" * 64}
    refused(write_folder(tmp_path / "b", FILES, json.dumps(table)), "more than 8 GB")


def test_weights_that_are_not_in_the_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    files = {"model.xml": FILES["model.xml"]}
    manifest = dataclasses.replace(TRUE, files={"model.xml": digest_bytes(files["model.xml"])})
    refused(write_folder(tmp_path / "b", files, manifest.to_json()), r"no model\.bin in the bundle")


def test_a_folder_named_like_a_file(tmp_path: Path):
    path = make_bundle(tmp_path / "b.edgekit", 64, 96)
    with zipfile.ZipFile(path, "a") as target:
        target.mkdir("folder")
    refused(path, r"'folder/' is a link or a folder")
