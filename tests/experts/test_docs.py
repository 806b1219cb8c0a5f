"""What docs/experts.md, docs/data.md and docs/importing.md show works as it stands."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydantic.fields import FieldInfo

from edgekit.cli import main
from edgekit_experts.dataset import Dataset
from edgekit_experts.import_frames import FolderEntry
from edgekit_experts.mapping import find_mapping, parse_mapping
from edgekit_experts.taxonomies import CITYSCAPES, find_taxonomy, parse_taxonomy
from edgekit_runtime.errors import ExpertError

DOCS = Path(__file__).parents[2] / "docs"
IMPORTING = (DOCS / "importing.md").read_text(encoding="utf-8")


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


def test_a_table_may_name_taxonomies_by_their_paths(
    blocks: list[tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (taxonomy,) = (text for _, text in blocks if text.startswith('name = "yard"'))
    (table,) = (text for _, text in blocks if text.startswith('from = "cityscapes"'))
    monkeypatch.chdir(tmp_path)
    Path("mine.toml").write_text(taxonomy, encoding="utf-8")
    Path("table.toml").write_text(table.replace('to = "yard"', 'to = "mine.toml"'), encoding="utf-8")
    by_path = find_mapping(CITYSCAPES, "mine.toml", "table.toml")
    assert by_path.target == parse_taxonomy(taxonomy)
    Path("table.toml").write_text(table.replace('to = "yard"', 'to = "camvid"'), encoding="utf-8")
    with pytest.raises(ExpertError, match="`to` is 'camvid', but labels of 'cityscapes' are to become 'yard'"):
        find_mapping(CITYSCAPES, "mine.toml", "table.toml")
    with pytest.raises(ExpertError, match="no table from 'cityscapes' to 'yard' ships") as caught:
        find_mapping(CITYSCAPES, "mine.toml")
    assert 'from = "a", to = "b"' in caught.value.hint


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('classes = ["a"]', "'name' is missing"),
        ('name = "yard"', "either in the table colours or in the list classes"),
        ('name = "yard"\n[colours]\nground = "red"', "colours.ground must be a list, not 'red'"),
        ('name = "yard"\n[colours]\nground = [1, 2, 300]', "colours.ground.2 must be at most 255, not 300"),
        ('name = "yard"\n[colours]\nground = [1, 2]', "colours.ground.2"),
        ('name = "yard"\nclasses = "ground"', "classes must be a list, not 'ground'"),
        ('name = "yard"\nignore = 0\nclasses = ["ground"]', "ignore id 0"),
        ("name = ", "TOML|Invalid value"),
    ],
)
def test_a_malformed_taxonomy_is_refused_with_both_forms_that_there_are(text: str, fault: str, tmp_path: Path) -> None:
    path = tmp_path / "yard.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ExpertError, match=fault) as caught:
        find_taxonomy(str(path))
    assert "[colours]" in caught.value.hint
    assert "classes = [" in caught.value.hint


def test_the_table_of_an_import_is_read_as_the_page_shows_it(tmp_path: Path) -> None:
    (table,) = re.findall(r"```toml\n(.*?)```", IMPORTING, flags=re.DOTALL)
    (tmp_path / "street.toml").write_text(table, encoding="utf-8")
    for place, value in (("rgb", 90), ("labels", 3), ("experts/street_net", 0), ("experts/far_net", 51)):
        folder = tmp_path / "street" / place
        folder.mkdir(parents=True)
        for frame in range(2):
            shape = (48, 64, 3) if place == "rgb" else (48, 64)
            cv2.imwrite(str(folder / f"{frame}.png"), np.full(shape, value, np.uint8))
    arguments = ["import", "frames", tmp_path / "street", "-o", tmp_path / "data", "--table", tmp_path / "street.toml"]
    assert main([str(argument) for argument in arguments]) == 0
    video = Dataset.open(tmp_path / "data").video("street")
    assert set(video.modalities) == {"rgb", "labels", "street", "depth"}
    assert video.modalities["labels"].truth
    assert (video.read("street", 1) == 3).all()  # a road of Cityscapes is one of CamVid
    assert video.read("depth", 1) == pytest.approx(0.2, abs=1e-3)


def test_the_page_lists_all_that_may_stand_in_a_table() -> None:
    written = [line for line in IMPORTING.splitlines() if line.startswith("| `")]
    assert written == list(map(_row, FolderEntry.model_fields.items()))


def _row(item: tuple[str, FieldInfo]) -> str:
    name, field = item
    default = "needed" if field.is_required() else "" if field.default is None else f"`{json.dumps(field.default)}`"
    return f"| `{name}` | {default} | {field.description} |"
