"""docs/training.md says what the settings are: all of them, with their defaults, and an example that is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from edgekit_student.networks import NETWORKS
from edgekit_student.settings import DistillSettings, TrainSettings, read_settings

PAGE = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def rows(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """A line of the page for each setting, nested tables by their path."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from rows(type(default), f"{prefix}{name}.")
        else:
            value = "" if default is None else f"`{json.dumps(default)}`"
            yield f"| `{prefix}{name}` | {value} | {field.description} |"


@pytest.mark.parametrize(("kind", "section"), [(TrainSettings, "train"), (DistillSettings, "distill")])
def test_the_page_lists_every_setting_with_its_default(kind: type[BaseModel], section: str) -> None:
    part = PAGE.partition(f"\n## `[{section}]`\n")[2].partition("\n## ")[0]
    written = [line for line in part.splitlines() if line.startswith("| `")]
    assert written == list(rows(kind))


def test_the_example_is_read_and_says_something_else_than_the_defaults(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    path = tmp_path / "train.toml"
    path.write_text(example, encoding="utf-8")
    train, distill = read_settings(TrainSettings, path), read_settings(DistillSettings, path)
    assert (train.augmentation.crop, train.masking.hide, train.optimisation.steps) == ((256, 416), 0.3, 2400)
    assert (distill.augmentation.crop, distill.ensemble.members, distill.optimisation.steps) == ((256, 416), 6, 6000)


def test_the_page_names_every_network() -> None:
    for name in NETWORKS:
        family, _, size = name.partition("-")
        assert re.search(rf"{family}-[^;|]*{size}\b", PAGE), name
