"""What docs/experts.md and docs/data.md show works as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgekit.cli import main
from edgekit_experts.dataset import Dataset
from edgekit_experts.mapping import parse_mapping
from edgekit_experts.taxonomies import CITYSCAPES, parse_taxonomy

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def blocks() -> list[tuple[str, str]]:
    return blocks_of("experts.md")


def blocks_of(page: str) -> list[tuple[str, str]]:
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL)


def test_the_expert_of_ones_own_runs(
    blocks: list[tuple[str, str]], clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (code,) = (text for language, text in blocks if language == "python")
    (config,) = (text for language, text in blocks if "sharpness.py:Sharpness" in text and language == "toml")
    monkeypatch.chdir(tmp_path)
    Path("sharpness.py").write_text(code, encoding="utf-8")
    Path("mine.toml").write_text(config, encoding="utf-8")
    assert main(["extract", str(clip), "-o", "data", "-c", "mine.toml"]) == 0
    video = Dataset.open(Path("data")).video("clip")
    assert video.done("sharpness").all()
    assert video.read("sharpness", 3).any()


def test_the_taxonomy_and_the_table_fit_each_other(blocks: list[tuple[str, str]]) -> None:
    (taxonomy,) = (text for _, text in blocks if text.startswith('name = "yard"'))
    (table,) = (text for _, text in blocks if text.startswith('from = "cityscapes"'))
    yard = parse_taxonomy(taxonomy)
    lookup = parse_mapping(table, CITYSCAPES, yard, "the page").lookup
    assert set(lookup.tolist()) == {*range(len(yard)), yard.ignore}


def test_a_data_set_is_read_as_the_page_shows(clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["extract", str(clip), "-o", "data", "--only", "rgb"]) == 0
    files = {str(path) for path in Path("data").rglob("*")}
    page = (DOCS / "data.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^    (data/\S+)", page, flags=re.MULTILINE)) <= files
    frames = []
    for _, code in blocks_of("data.md"):
        names: dict[str, Any] = {}
        exec(code, names)
        frames.append(names["frame"])
    assert len(frames) == 2
    np.testing.assert_array_equal(frames[0], frames[1])
