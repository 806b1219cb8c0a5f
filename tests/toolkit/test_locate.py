"""What is taken when nothing is said."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgekit import locate
from edgekit_runtime.errors import BundleError, UsageError
from edgekit_student.checkpoint import read_config


def _copy(student: Path, to: Path, age: int) -> Path:
    shutil.copytree(student, to)
    moment = 1_700_000_000 - age
    os.utime(to / "model.safetensors", (moment, moment))
    return to


def test_the_newest_student_below_is_taken(student_folder: Path, tmp_path: Path) -> None:
    _copy(student_folder, tmp_path / "old", age=100)
    new = _copy(student_folder, tmp_path / "runs" / "a" / "student", age=50)
    _copy(student_folder, tmp_path / ".hidden", age=0)
    _copy(student_folder, tmp_path / "env" / "student", age=0)
    (tmp_path / "env" / "pyvenv.cfg").write_text("", encoding="utf-8")
    _copy(student_folder, tmp_path / "a" / "b" / "c" / "d" / "too-deep", age=0)
    assert locate.find_student(tmp_path) == new


def test_other_files_named_config_json_are_passed_over(
    student_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("other", '{"a": 1}'), ("broken", "{"), ("teacher", '{"format": "edgekit-checkpoint"}')):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(text, encoding="utf-8")
        (tmp_path / name / "model.safetensors").write_bytes(b"")
    monkeypatch.setattr(locate, "DEFAULT_STUDENT", student_folder)
    assert locate.find_student(tmp_path) == student_folder
    monkeypatch.setattr(locate, "DEFAULT_STUDENT", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="no student"):
        locate.find_student(tmp_path)


def test_the_data_of_a_student_is_found_where_its_provenance_says(
    student_folder: Path, data: Path, tmp_path: Path
) -> None:
    config = read_config(student_folder)
    assert locate.find_data(config, student_folder) is None
    config.provenance["data"] = str(data)
    assert locate.find_data(config, student_folder) == data
    config.provenance["data"] = str(tmp_path / "moved")
    assert locate.find_data(config, student_folder) is None


def test_without_any_bundle_the_command_to_build_one_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locate, "DEFAULT_BUNDLE", tmp_path / "none.edgekit")
    (tmp_path / "build" / "laptop-cpu").mkdir(parents=True)
    (tmp_path / "build" / "laptop-cpu" / "broken.edgekit").write_bytes(b"no zip")
    with pytest.raises(BundleError, match="no bundle that runs here") as caught:
        locate.find_bundle(tmp_path / "build")
    assert "edgekit build" in caught.value.hint
    (tmp_path / "none.edgekit").write_bytes(b"")
    assert locate.find_bundle(tmp_path / "build") == tmp_path / "none.edgekit"
