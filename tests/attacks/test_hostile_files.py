"""The hostile bundles in `files/` (made by make_files.py): each is refused in words, and harms nothing."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from edgekit_runtime import BundleError, load, open_bundle
from edgekit_runtime.cli import main

FILES = Path(__file__).parent / "files"
KEY = FILES / "maker.pub"
REFUSED = {
    "altered": "SHA-256 differs",
    "future_version": "has schema 99, this runtime reads up to 1",
    "holds_a_link": "'model.bin' is a link",
    "leaves_its_folder": "is not listed",
    "names_a_file_of_the_system": "is not allowed",
    "nested_without_end": "not a valid manifest",
    "truncated": "cannot be read",
    "zip_bomb": "a zip bomb",
    "zip_bomb_that_lies": "model.bin",
}
REFUSED_WITH_A_KEY = {
    "altered_after_signing": "its manifest was altered after it was signed",
    "signed_by_a_stranger": "it was signed by another key",
    "unsigned": "is not signed",
}


def test_every_file_has_its_reason() -> None:
    assert {path.stem for path in FILES.glob("*.edgekit")} == {*REFUSED, *REFUSED_WITH_A_KEY, "signed"}


def test_the_true_one_is_taken() -> None:
    assert open_bundle(FILES / "signed.edgekit", key=KEY).read("model.xml").startswith(b"<?xml")
    with load(FILES / "signed.edgekit", key=KEY) as model:
        assert model.manifest.name == "blobs"


@pytest.mark.parametrize(("name", "reason"), (REFUSED | REFUSED_WITH_A_KEY).items())
def test_it_is_refused_in_words_at_no_cost(
    name: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    path, key = FILES / f"{name}.edgekit", KEY if name in REFUSED_WITH_A_KEY else None
    tracemalloc.start()
    with pytest.raises(BundleError) as caught:
        load(path, key=key)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reason in str(caught.value)
    assert peak < 16 << 20, "far less than a bomb holds"
    command = [str(path), "--source", "test:?frames=1", "--sink", "null", *(["--key", str(key)] if key else [])]
    assert main(command) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) <= 2
    assert told[0].startswith("edgekit-run: ")
    assert list(tmp_path.iterdir()) == []
    assert not (FILES.parent.parent / "evil").exists()
