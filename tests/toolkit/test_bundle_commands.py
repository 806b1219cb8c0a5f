"""`edgekit bundle`: what people see of a bundle, who signed it, in what two of them differ."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from edgekit.build import Built
from edgekit.bundle import pack
from edgekit.manifest_schema import manifest_schema
from edgekit_runtime import load
from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import BundleError, UsageError
from edgekit_runtime.manifest import MANIFEST, Manifest
from edgekit_runtime.signature import SIGNATURE, Signature

Edgekit = Callable[..., Any]


@pytest.fixture
def bundle(built: Built, tmp_path: Path) -> Path:
    return Path(shutil.copy(built.bundle, tmp_path / "mine.edgekit"))


@pytest.fixture
def keys(edgekit: Edgekit, tmp_path: Path) -> tuple[Path, Path]:
    """A private key and its public one."""
    assert edgekit("bundle", "key", "-o", tmp_path / "my.key").status == 0
    return tmp_path / "my.key", tmp_path / "my.key.pub"


def entries(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_show_tells_what_it_is_and_where_it_comes_from(edgekit: Edgekit, bundle: Path) -> None:
    shown = edgekit("bundle", "show", bundle)
    assert shown.status == 0
    for part in ("edge-150k, for small", "frames of 160x96", "dronescapes: land, forest", "openvino CPU", "nobody"):
        assert part in shown.out, shown.out
    assert re.search(r"mIoU \d+\.\d % against labels, \d+\.\d\d (above|below) fp32", shown.out)
    document = json.loads(edgekit("bundle", "show", bundle, "--json").out)
    assert document["signed_by"] is None
    assert document["variants"][0]["p50_ms"] > 0


def test_show_says_where_miou_is_agreement_with_fp32_and_no_accuracy(edgekit: Edgekit, bundle: Path) -> None:
    files = entries(bundle)
    unlabelled = files[MANIFEST].replace(b'"accuracy_metric": "miou"', b'"accuracy_metric": "miou against fp32"')
    pack(bundle, {**files, MANIFEST: unlabelled})
    shown = edgekit("bundle", "show", bundle).out
    assert re.search(r"mIoU \d+\.\d % with fp32's class maps \(there were no labels\)", shown)
    assert "against labels" not in shown


def test_the_published_schema_holds_for_what_is_built_and_refuses_what_the_runtime_refuses(built: Built) -> None:
    schema = manifest_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    table = json.loads(open_bundle(built.bundle).text)
    jsonschema.validate(table, schema)
    for change in (
        {"schema": 2},
        {"variants": []},
        {"outputs": []},
        {"files": {"../x": {"size": 1, "sha256": "0" * 64}}},
        {"files": {"x": {"size": -1, "sha256": "0" * 64}}},
        {"name": ""},
    ):
        broken = {**table, **change}
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, schema)
        with pytest.raises(BundleError):
            Manifest.from_json(json.dumps(broken))


def test_the_schema_is_printed(edgekit: Edgekit) -> None:
    assert json.loads(edgekit("bundle", "schema").out)["title"] == "edgekit bundle manifest"


def test_a_signed_bundle_runs_where_its_key_is_asked_for(
    edgekit: Edgekit, bundle: Path, keys: tuple[Path, Path]
) -> None:
    private, public = keys
    assert stat.S_IMODE(private.stat().st_mode) == 0o600 or sys.platform == "win32"
    unsigned = edgekit("bundle", "verify", bundle, "--key", public)
    assert (unsigned.status, "is not signed" in unsigned.err) == (1, True)
    assert edgekit("bundle", "sign", bundle, "--key", private).status == 0
    assert "signed by" in edgekit("bundle", "verify", bundle, "--key", public).err
    assert "not checked" in edgekit("bundle", "verify", bundle).err
    with load(bundle, key=public) as model:
        assert model.manifest.name == "edge-150k"
    again = edgekit("bundle", "sign", bundle, "--key", private)
    assert again.status == 0, "an older signature is replaced"
    ran = edgekit("run", "--source", "test:?size=160x96&fps=30", "--sink", "null", "--frames", "2", "--bundle", bundle,
                  "--key", public)  # fmt: skip
    assert ran.status == 0, ran.err


def test_signing_changes_nothing_else_and_may_go_to_another_file(
    edgekit: Edgekit, bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    before = entries(bundle)
    out = tmp_path / "signed.edgekit"
    assert edgekit("bundle", "sign", bundle, "--key", keys[0], "-o", out).status == 0
    after = entries(out)
    assert after.pop(SIGNATURE)
    assert after == before == entries(bundle)


def test_what_was_altered_or_signed_by_another_is_refused(
    edgekit: Edgekit, bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    edgekit("bundle", "sign", bundle, "--key", private)
    files = entries(bundle)
    altered = {**files, MANIFEST: files[MANIFEST].replace(b'"profile": "small"', b'"profile": "large"')}
    pack(bundle, altered)
    with pytest.raises(BundleError, match="altered after it was signed"):
        load(bundle, key=public)
    edgekit("bundle", "key", "-o", tmp_path / "other.key")
    pack(bundle, files)
    edgekit("bundle", "sign", bundle, "--key", tmp_path / "other.key")
    with pytest.raises(BundleError, match="signed by another key"):
        load(bundle, key=public)
    # A signature that claims to be by the right key, but is another's.
    other = Signature.from_json(entries(bundle)[SIGNATURE], "x")
    own = Signature.from_json(files[SIGNATURE], "x")
    pack(bundle, {**files, SIGNATURE: Signature(own.key, other.value).to_json()})
    with pytest.raises(BundleError, match="is not what"):
        load(bundle, key=public)


@pytest.mark.parametrize(
    "text",
    [b"", b"{}", b"[1]", b'{"algorithm": "none", "key": "", "signature": ""}', b"\xff" * 10, b"[" * 3000],
)
def test_a_signature_that_is_none_is_refused_even_where_nobody_asks(text: bytes, bundle: Path) -> None:
    pack(bundle, {**entries(bundle), SIGNATURE: text})
    with pytest.raises(BundleError, match="not a signature"):
        open_bundle(bundle)


def test_a_signature_is_never_large(bundle: Path) -> None:
    pack(bundle, {**entries(bundle), SIGNATURE: b" " * 5000})
    with pytest.raises(BundleError, match="which it never needs"):
        open_bundle(bundle)


def test_keys_are_never_overwritten_and_wrong_ones_are_named(
    edgekit: Edgekit, bundle: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    private, public = keys
    before = private.read_bytes()
    taken = edgekit("bundle", "key", "-o", private)
    assert (taken.status, "never overwritten" in taken.err, private.read_bytes()) == (2, True, before)
    assert "no private Ed25519 key" in edgekit("bundle", "sign", bundle, "--key", public).err
    with pytest.raises(UsageError, match="no public Ed25519 key"):
        load(bundle, key=private)
    assert "cannot be read" in edgekit("bundle", "verify", bundle, "--key", tmp_path / "none").err


def test_diff_shows_what_differs_and_says_so_by_its_status(edgekit: Edgekit, bundle: Path, tmp_path: Path) -> None:
    same = edgekit("bundle", "diff", bundle, bundle)
    assert (same.status, "No difference" in same.err) == (0, True)
    files = entries(bundle)
    pack(
        tmp_path / "other.edgekit", {**files, MANIFEST: files[MANIFEST].replace(b'"name": "edge-150k"', b'"name": "x"')}
    )
    found = edgekit("bundle", "diff", bundle, tmp_path / "other.edgekit", "--json")
    assert found.status == 1
    assert json.loads(found.out)["differences"] == {"name": ["edge-150k", "x"]}
    assert "edge-150k" in edgekit("bundle", "diff", bundle, tmp_path / "other.edgekit").out


def test_an_unpacked_bundle_runs(edgekit: Edgekit, bundle: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    edgekit("bundle", "sign", bundle, "--key", keys[0])
    folder = tmp_path / "unpacked"
    assert edgekit("bundle", "unpack", bundle, "-o", folder).status == 0
    with load(folder, key=keys[1]) as model:
        assert model.path == folder
    there = edgekit("bundle", "unpack", bundle, "-o", folder)
    assert (there.status, "is there already" in there.err) == (2, True)
    unnamed = edgekit("bundle", "sign", folder, "--key", keys[0])
    assert (unnamed.status, "unpacked bundle" in unnamed.err) == (2, True)


@pytest.mark.skipif(os.name == "nt" or os.getuid() == 0, reason="permissions do not bind this user")
def test_a_folder_that_may_not_be_written_to(edgekit: Edgekit, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    closed = edgekit("bundle", "unpack", bundle, "-o", tmp_path / "closed" / "x")
    assert (closed.status, "cannot be written" in closed.err) == (2, True)
