"""Device profiles: found by name or path, inherited, and refused with file, line and suggestion when wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit.profiles import load_profile, profile_names
from edgekit_runtime.errors import ProfileError


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_is_valid_and_documented(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert profile.ladder(profile.engine)


def test_a_profile_states_only_what_differs_from_the_one_it_inherits() -> None:
    laptop, generic = load_profile("laptop-cpu"), load_profile("generic-cpu")
    assert laptop.input_size == generic.input_size == (544, 960)
    assert laptop.precisions == ("int8", "bf16", "fp32")
    assert (laptop.engine, generic.engine) == ("openvino", "onnxruntime")
    assert laptop.allowed_drop_points == 0.5
    assert laptop.target_fps == 30


def test_ones_own_profile_is_a_path_and_may_inherit_from_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('inherits = "laptop-cpu"\nthreads = 3\n')
    (tmp_path / "mine.toml").write_text('inherits = "base"\ntarget_fps = 10\n')
    profile = load_profile(tmp_path / "mine.toml")
    assert (profile.name, profile.threads, profile.target_fps) == ("mine", 3, 10)


def test_an_unknown_profile_is_answered_with_the_closest() -> None:
    with pytest.raises(ProfileError, match="no device profile 'laptop-cup'") as caught:
        load_profile("laptop-cup")
    assert "'laptop-cpu'" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("# mine\nthreds = 2\n", r"own\.toml, line 3: there is no setting 'threds'", "'threads'"),
        ("threads = -1\n", r"own\.toml, line 2: threads = -1: input should be greater", ""),
        ('engine = "openvno"\n', r"line 2: engine = 'openvno'", ""),
        ("precisions = []\n", r"line 2: precisions", ""),
        ("input_size = [8, 960]\n", r"line 2: input_size", ""),
        ("allowed_drop_points = nan\n", r"line 2: allowed_drop_points", ""),
        ('precisions = ["int4"]\n', r"line 2: precisions", ""),
        ("threads = \n", r"not valid TOML.*line 2", ""),
        ("[threads]\nmany = 1\n", r"line 2: threads", ""),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('inherits = "laptop-cpu"\n' + text)
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(path)
    assert hint in caught.value.hint


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('description = "nothing else"\n')
    with pytest.raises(ProfileError, match="engine is not set") as caught:
        load_profile(path)
    assert "inherits" in caught.value.hint


def test_a_circle_of_profiles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('inherits = "b"\n')
    (tmp_path / "b.toml").write_text('inherits = "a"\n')
    with pytest.raises(ProfileError, match="inherits from itself"):
        load_profile(tmp_path / "a.toml")


@pytest.mark.parametrize("content", [b"\xff\xfe", None])
def test_an_unreadable_profile_is_an_error_without_traceback(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"own\.toml"):
        load_profile(path)


def test_profiles_are_listed_with_what_this_machine_can_run(edgekit: Callable[..., Any]) -> None:
    listed = json.loads(edgekit("profiles", "--json").out)["profiles"]
    assert {"generic-cpu", "laptop-cpu"} <= {profile["name"] for profile in listed}
    assert all(profile["runs_here"] == (profile["reason"] == "") for profile in listed)
    one = json.loads(edgekit("profiles", "laptop-cpu", "--json").out)["profiles"]
    assert [profile["input_size"] for profile in one] == [[544, 960]]
    assert "laptop-cpu" in edgekit("profiles").err
