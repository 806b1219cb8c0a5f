"""The checkpoints that results rest on: they are what the page says, carry no trace of a machine, and just work."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.locate import find_student
from edgekit_student.checkpoint import WEIGHTS, read_config
from edgekit_student.student import load_student

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "benchmarks" / "checkpoints"
CAMVID = ROOT.parent / "shared" / "real" / "camvid"
MOST_BYTES = 4_000_000


@pytest.mark.parametrize("folder", sorted(KEPT.iterdir()), ids=lambda folder: folder.name)
def test_each_has_a_card_and_loads(folder: Path) -> None:
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert "benchmarks" in card
    assert "CC BY-NC" in card
    assert (folder / WEIGHTS).stat().st_size <= MOST_BYTES
    text = (folder / "config.json").read_text(encoding="utf-8")
    assert '"/' not in text, "a path of a machine"
    student = load_student(folder)
    assert f"{student.parameter_count():,}" in card
    assert student.parameter_count() < 1_000_000


def test_the_student_of_camvid_is_better_than_the_experts_and_their_vote(
    edgekit: Callable[..., Any], tmp_path: Path
) -> None:
    if not CAMVID.is_dir():
        pytest.skip(f"real data is absent ({CAMVID})")
    data = tmp_path / "data"
    imported = edgekit("import", "frames", CAMVID / "val", "-o", data, "--name", "val", "--fps", "15", "--split", "val")
    assert imported.status == 0, imported.err
    folder = KEPT / "camvid-edge-900k-s2"
    assert read_config(folder).provenance["supervised"] is False
    scored = json.loads(edgekit("eval", folder, data, "--json", "--quick").out)
    assert scored["frames"] == 101
    assert scored["miou"] >= 0.627
    vote = json.loads(edgekit("eval", "expert:vote", data, "--json", "--quick").out)
    assert scored["miou"] > vote["miou"]


def test_no_build_takes_one_by_itself() -> None:
    assert KEPT not in find_student(ROOT).parents
