"""`edgekit settings`: a file to begin with that says what the defaults say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from edgekit.cli import app
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings


@pytest.mark.parametrize("uncommented", [False, True])
def test_what_is_printed_is_read_as_the_defaults(tmp_path: Path, uncommented: bool) -> None:
    printed = CliRunner().invoke(app, ["settings"]).stdout
    if uncommented:
        printed = re.sub(r"^# (\w+ = (?!\.\.\.))", r"\1", printed, flags=re.MULTILINE)
        assert "\nlearning_rate = 0.002 " in printed
    path = tmp_path / "train.toml"
    path.write_text(printed, encoding="utf-8")
    for kind in (TrainSettings, DistillSettings):
        assert read_settings(kind, path) == kind()


def test_every_setting_is_there_with_its_meaning() -> None:
    printed = CliRunner().invoke(app, ["settings"]).stdout
    assert printed.index("[train]") < printed.index("[distill]")
    assert re.search(r"^# visible = \.\.\. +# so many inputs are visible", printed, re.MULTILINE), "no default"
    assert "\n# by_class = 0.0               # share of the frames that are drawn for a class" in printed
