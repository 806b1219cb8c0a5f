"""What is said about experts: read off them, the same in the table, in JSON and in the docs."""

from __future__ import annotations

import inspect
import io
import json
import re
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from edgekit.cli import app
from edgekit.commands.experts import table
from edgekit_experts import speed
from edgekit_experts.catalogue import catalogue
from edgekit_experts.registry import BUILTIN, find_expert
from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.modality import Kind

PAGE = (Path(__file__).parents[2] / "docs" / "experts.md").read_text(encoding="utf-8")
NEEDS_WEIGHTS = {
    "jury_verdict",
    "bundle",
    "marigold_depth",
    "model",
    "pretrained_depth",
    "pretrained_labels",
    "pretrained_masks",
    "raft_flow",
}


def edgekit(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_facts_are_those_of_the_experts() -> None:
    entries = {entry.name: entry for entry in catalogue()}
    assert entries.keys() == BUILTIN.keys()
    assert {name for name, entry in entries.items() if entry.weights} == NEEDS_WEIGHTS
    for entry in entries.values():
        assert entry.makes == "any" or {Kind(kind) for kind in entry.makes.split(", ")}, entry.name
        assert entry.needs, entry.name
    facts = {name: (entry.makes, entry.needs, entry.weights) for name, entry in entries.items()}
    assert facts["canny"] == ("edges", ("frame",), "")
    assert facts["raft_flow"] == ("flow", ("frames",), "torchvision")
    assert facts["nearby"] == ("mask", ("mask", "depth"), "")
    assert facts["majority_vote"] == ("labels", ("labels",), "")
    assert facts["temporal_median"] == ("any", ("any",), "")
    assert facts["pretrained_depth"] == ("depth", ("frame",), "Intel/dpt-large")


def test_a_plug_in_that_cannot_be_built_without_being_asked_is_listed_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "demanding.py"
    package.write_text(
        "from edgekit_experts.classical.edges import Canny\n"
        "class Demanding(Canny):\n    def __init__(self, low):\n        super().__init__(low)\n"
        "class Easy(Canny):\n    pass\n",
        encoding="utf-8",
    )
    (tmp_path / "demanding-1.dist-info").mkdir()
    (tmp_path / "demanding-1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: demanding\nVersion: 1\n", encoding="utf-8"
    )
    (tmp_path / "demanding-1.dist-info" / "entry_points.txt").write_text(
        "[edgekit.experts]\ndemanding = demanding:Demanding\neasy = demanding:Easy\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    entries = {entry.name: entry for entry in catalogue()}
    assert (entries["demanding"].makes, entries["demanding"].needs) == ("", ())
    assert (entries["easy"].makes, entries["easy"].needs) == ("edges", ("frame",))


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_docstring_says_what_comes_out_and_whose_method_it_is(name: str) -> None:
    text = inspect.getdoc(find_expert(name).cls) or ""
    assert re.search(r"uint8|float16|dtype|its own", text), "no dtype"
    assert re.search(r"\(H, W, \d\)|[Ss]hape|size of the frame", text), "no shape"
    assert re.search(r"[Mm]ethod|arXiv|\b(19|20)\d\d\b|decoded|OpenVINO", text), "no source"


def test_the_table_fits_into_80_columns_and_json_says_the_same() -> None:
    entries = catalogue()
    figures = speed.Figures({"canny": 1.25, "normals": 1034.5}, (540, 960), "here", "2026-01-01")
    drawn = io.StringIO()
    Console(file=drawn, width=80).print(table(entries, figures))
    lines = drawn.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    rows = {line.split()[0]: line for line in lines[1:] if line[1] != " "}
    assert rows.keys() == BUILTIN.keys()
    assert rows["canny"].split() == ["canny", "edges", "frame", "none", "1.2"]
    assert rows["normals"].endswith(" 1034 ")
    assert rows["hsv"].endswith("– ")
    document = json.loads(edgekit("experts", "--json"))
    assert document["speed"] is None
    listed = {row["name"]: row for row in document["experts"]}
    assert listed.keys() == BUILTIN.keys()
    assert (listed["nearby"]["makes"], listed["nearby"]["needs"]) == ("mask", ["mask", "depth"])
    assert listed["canny"]["ms"] is None


def test_what_was_measured_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(speed, "SIZE", (48, 64))  # what counts here is what is measured, not how fast it is
    document = json.loads(edgekit("experts", "--measure", "--json"))
    assert document["speed"]["size"] == [48, 64]
    measured = {row["name"] for row in document["experts"] if row["ms"] is not None}
    assert measured == BUILTIN.keys() - NEEDS_WEIGHTS | {"bundle"}  # the one that comes with edgekit
    assert json.loads(edgekit("experts", "--json")) == document
    (tmp_path / "cache" / "edgekit" / "experts" / "speed.json").write_text("{", encoding="utf-8")
    assert json.loads(edgekit("experts", "--json"))["speed"] is None


def test_one_expert_is_shown() -> None:
    text = edgekit("experts", "show", "dis_flow")
    assert text.startswith("dis_flow(gap: int = 1")
    assert "ECCV 2016" in text
    assert json.loads(edgekit("experts", "show", "canny", "--json"))["usage"].startswith("canny(low: float")
    with pytest.raises(EdgekitError, match="no expert 'cany'"):
        edgekit("experts", "show", "cany")


def test_the_page_lists_every_expert_as_it_is() -> None:
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in PAGE.splitlines() if line[:3] == "| `"]
    listed = {row[0].strip("`"): tuple(row[1:4]) for row in rows if len(row) == 5}
    facts = {one.name: (one.makes, ", ".join(one.needs), one.weights or "none") for one in catalogue()}
    assert listed == facts


def test_the_configuration_on_the_page_is_one() -> None:
    text = next(block for block in re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL) if "experts.toml" in block)
    config = tomllib.loads(text)
    assert len(config) > 5
    for entry in config.values():
        find_expert(entry.pop("expert")).build(entry)


def test_the_tables_on_the_page_ship() -> None:
    (sentence,) = re.findall(r"Tables\s+for `label_map` ship from (.*?)\.", PAGE, flags=re.DOTALL)
    sources, targets = (re.findall(r"`(.*?)`", part) for part in sentence.split(" to ", 1))
    promised = {f"{source}-to-{target}.toml" for source in sources for target in targets}
    assert promised == {entry.name for entry in (files("edgekit_experts") / "tables").iterdir() if "-to-" in entry.name}
