"""What the pages say about the code is so: messages, modules, code in Python and TOML, commands, links."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import commands_page
import pytest
from blocks import DOCS, ROOT, Block, blocks, name_of, pages

from edgekit.locate import DEFAULT_BUNDLE
from edgekit.model_signature import read_signature
from edgekit.profiles import load_profile
from edgekit_experts.registry import find_expert
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings

ROOMS = {name: next((ROOT / name).glob("edgekit*")) for name in ("runtime", "experts", "student", "toolkit")}
TROUBLES = re.findall(r"^### `(.+)`$", (DOCS / "troubleshooting.md").read_text(encoding="utf-8"), flags=re.MULTILINE)


def of_kind(kind: str) -> list[Block]:
    return [block for block in blocks() if block.kind == kind]


@cache
def messages() -> frozenset[str]:
    """All texts of the four rooms, with `…` where something is put in."""
    found = set()
    for room in ROOMS.values():
        for path in room.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                match node:
                    case ast.Constant(value=str() as text):
                        found.add(text)
                    case ast.JoinedStr(values=values):
                        found.add("".join(str(v.value) if isinstance(v, ast.Constant) else "…" for v in values))
    return frozenset(found)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_troubleshooting_quotes_messages_that_there_are(trouble: str) -> None:
    begins = trouble.removesuffix("…") if trouble.endswith("…") else None
    assert any(text == trouble or (begins and text.startswith(begins)) for text in messages())


def test_troubleshooting_knows_each_message_once() -> None:
    assert len(TROUBLES) > 40
    assert sorted(set(TROUBLES)) == sorted(TROUBLES)


def test_the_page_of_commands_is_current() -> None:
    assert commands_page.PAGE.read_text(encoding="utf-8") == commands_page.page(), "run `make docs-commands`"


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_python_imports_and_uses_what_there_is(block: Block) -> None:
    """Each name is imported, and what is asked of it is asked of a class or module that has it."""
    tree = ast.parse(block.text)
    names: dict[str, Any] = {}
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(module=str() as module, names=imported):
                for each in imported:
                    names[each.asname or each.name] = getattr(importlib.import_module(module), each.name)
            case ast.Import(names=imported):
                for each in imported:
                    names[each.asname or each.name] = importlib.import_module(each.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in names:
            assert hasattr(names[node.value.id], node.attr), f"{block}: {node.value.id}.{node.attr}"


@pytest.mark.parametrize("block", [block for block in of_kind("python") if "open_source(" in block.text], ids=str)
def test_the_loop_in_python_runs(
    block: Block, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("model.edgekit", "edge-430k.edgekit"):
        Path(name).write_bytes(DEFAULT_BUNDLE.read_bytes())
    # A camera is not everywhere: the test pattern stands in.
    code = block.text.replace("camera:0", "test:?frames=3").replace("test:?", "test:?size=160x96&fps=0&")
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["frame"].index == 2
    assert names["result"].labels.dtype == "uint8"


@pytest.mark.parametrize("block", of_kind("toml"), ids=str)
def test_toml_says_what_the_code_reads(block: Block, tmp_path: Path) -> None:
    """Settings, profiles and experts are read by what reads them; names of files may be anybody's."""
    table = tomllib.loads(block.text)
    path = tmp_path / "page.toml"
    path.write_text(block.text, encoding="utf-8")
    if table.keys() & {"train", "distill"}:
        read_settings(TrainSettings, path)
        read_settings(DistillSettings, path)
    elif "inherits" in table:
        load_profile(path)
    elif table.keys() & {"input", "weights"}:
        path.write_text(
            block.text if "labels" in table else f"{block.text}[labels]\ntaxonomy = 'camvid'\n", encoding="utf-8"
        )
        read_signature(path)
    for entry in experts_in(table):
        expert = entry.pop("expert")
        if ".py:" not in expert:
            assert set(entry) <= set(parameters_of(expert)), f"{block}: {expert}"
    known = {"train", "distill", "inherits", "project", "colours", "classes", "folders", "modalities", "ignore"}
    known |= {"input", "weights"}
    assert table.keys() & known or list(experts_in(table)), f"{block}: what reads this?"


def experts_in(table: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for entry in [*table.values(), *table.get("modalities", {}).values()]:
        if isinstance(entry, dict) and "expert" in entry:
            yield dict(entry)


def parameters_of(expert: str) -> list[str]:
    return re.findall(r"(\w+)(?=:| =|,|\))", find_expert(expert).usage())


@pytest.mark.parametrize("room", ROOMS)
def test_a_rooms_page_names_modules_that_there_are(room: str) -> None:
    page = (DOCS / "rooms" / f"{room}.md").read_text(encoding="utf-8")
    cells = [line.split("|")[1] for line in page.splitlines() if line.startswith("| `")]
    named = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]
    missing = [name for name in named if not (ROOMS[room] / name).exists() and not (ROOT / name).exists()]
    assert named
    assert missing == []


@pytest.mark.parametrize("page", pages(), ids=name_of)
def test_links_to_files_lead_somewhere(page: Path) -> None:
    """The site's builder looks at docs/ alone, and at anchors there; this also looks at the two READMEs."""
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)#]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_every_page_is_in_the_navigation() -> None:
    site = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))

    def listed(entry: Any) -> Iterator[str]:
        match entry:
            case str():
                yield entry
            case dict() | list():
                for each in entry.values() if isinstance(entry, dict) else entry:
                    yield from listed(each)

    assert sorted(listed(site["project"]["nav"])) == sorted(str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md"))
