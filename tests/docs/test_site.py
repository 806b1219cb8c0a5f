"""The pages as a site: built strictly, with nothing fetched from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from blocks import ROOT


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the site is made of, apart from the repository, in which nothing shall be left."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(ROOT / "zensical.toml", folder)
    shutil.copytree(ROOT / "docs", folder / "docs")
    for room in ("runtime", "experts", "student", "toolkit"):
        (folder / room).symlink_to(ROOT / room)
    return folder


def build(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=240, check=False)


def test_the_site_is_built_without_a_warning_and_loads_nothing_from_elsewhere(copy: Path) -> None:
    done = build(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    found = sorted(copy.joinpath("site").rglob("*.html"))
    assert len(found) > 15
    for page in found:
        html = page.read_text(encoding="utf-8")
        loads = re.findall(r"<(?:script|img|iframe|source)[^>]+src=\"?([^\"\s>]+)", html)
        loads += re.findall(r"<link(?![^>]+rel=\"?canonical)[^>]+href=\"?([^\"\s>]+)", html)
        assert [address for address in loads if re.match(r"(https?:)?//", address)] == [], page
    reference = (copy / "site" / "reference" / "runtime" / "index.html").read_text(encoding="utf-8")
    assert "Verifies a bundle and opens the first of its variants" in reference


def test_a_link_that_leads_nowhere_fails_the_build(tmp_path: Path) -> None:
    """With the settings of the site, and two pages of its own."""
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (tmp_path / "zensical.toml").write_text(re.sub(r"^nav = .*?^]$", "", settings, flags=re.M | re.S), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n[there](there.md#place)\n", encoding="utf-8")
    for heading, status in (("Place", 0), ("Elsewhere", 1)):
        (tmp_path / "docs" / "there.md").write_text(f"# There\n\n## {heading}\n", encoding="utf-8")
        done = build(tmp_path)
        assert done.returncode == status, done.stdout + done.stderr
    assert "anchor does not exist" in done.stdout + done.stderr


def test_an_interface_that_is_gone_fails_the_build(tmp_path: Path) -> None:
    settings = (ROOT / "zensical.toml").read_text(encoding="utf-8")
    (tmp_path / "zensical.toml").write_text(re.sub(r"^nav = .*?^]$", "", settings, flags=re.M | re.S), encoding="utf-8")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Here\n\n::: edgekit_runtime.nothing\n", encoding="utf-8")
    (tmp_path / "runtime").symlink_to(ROOT / "runtime")
    done = build(tmp_path)
    assert done.returncode != 0
    assert "edgekit_runtime.nothing" in done.stdout + done.stderr
