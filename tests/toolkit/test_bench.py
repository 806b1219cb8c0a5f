"""`edgekit bench`: figures of a bundle here, of two in turns, and of the layers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import bench
from edgekit.build import Built
from edgekit_runtime.errors import EngineError


def test_two_bundles_are_measured_in_turns(
    edgekit: Callable[..., Any], built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copy(built.bundle, tmp_path / "other.edgekit"))
    asked: list[str] = []
    probe = bench._probe
    monkeypatch.setattr(bench, "_probe", lambda path, frames: asked.append(path.name) or probe(path, frames))
    document = json.loads(edgekit("bench", built.bundle, other, "--frames", "40", "--json").out)
    assert asked == [built.bundle.name, other.name] * bench.ROUNDS
    assert document["bundle"] == str(built.bundle)
    assert document["other"]["bundle"] == str(other)
    assert document["frames"] == document["other"]["frames"] == 40
    assert document["ratio_p50"] == pytest.approx(document["other"]["p50_ms"] / document["p50_ms"], rel=0.01)
    assert document["p50_ms"] <= document["p90_ms"] <= document["p99_ms"]
    assert document["cold_start_s"] > 0
    assert document["passed_over"] == []


def test_the_slowest_layers_are_shown(edgekit: Callable[..., Any], built: Built) -> None:
    document = json.loads(edgekit("bench", built.bundle, "--frames", "10", "--layers", "5", "--json").out)
    layers = document["layers"]
    assert len(layers) == 5
    assert [layer["ms"] for layer in layers] == sorted((layer["ms"] for layer in layers), reverse=True)
    assert any("Convolution" in layer["name"] for layer in layers)
    shown = edgekit("bench", built.bundle, "--frames", "10", "--layers", "2").err
    assert layers[0]["name"] in shown or "Convolution" in shown


def test_a_measuring_process_that_ends_badly_says_why(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.sys, "executable", "/bin/false")
    with pytest.raises(EngineError, match="measuring process failed: exit status 1"):
        bench.measure(built.bundle, 10)
