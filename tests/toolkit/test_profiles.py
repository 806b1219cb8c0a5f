"""Device profiles: found by name or path, inherited, and refused with file, line and suggestion when wrong."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgekit import profiles
from edgekit.profiles import load_profile, profile_names
from edgekit.targets import Target
from edgekit_runtime.errors import ProfileError


@pytest.mark.parametrize("name", profile_names())
def test_every_shipped_profile_is_valid_and_documented(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.description
    assert all(profile.ladder(target) for target in profile.targets)


def test_a_profile_states_only_what_differs_from_the_one_it_inherits() -> None:
    laptop, generic = load_profile("laptop-cpu"), load_profile("generic-cpu")
    assert laptop.input_size == generic.input_size == (544, 960)
    assert laptop.precisions == ("int8", "mixed", "int8-weights", "bf16", "bf16-mixed", "fp32")
    assert (laptop.target, generic.target) == (Target("openvino"), Target("onnxruntime"))
    assert laptop.allowed_drop_points == 0.5
    assert laptop.target_fps == 30


def test_ones_own_profile_is_a_path_and_may_inherit_from_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text('inherits = "laptop-cpu"\nthreads = 3\n', encoding="utf-8")
    (tmp_path / "mine.toml").write_text('inherits = "base"\ntarget_fps = 10\n', encoding="utf-8")
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
        ("threads = -1\n", r"own\.toml, line 2: threads must be at least 0, not -1", ""),
        ('target = "openvno"\n', r"line 2: target = 'openvno': there are openvino, openvino GPU", ""),
        ('fallbacks = ["onnxruntime TPU"]\n', r"line 2: fallbacks.0 = 'onnxruntime TPU'", ""),
        ('hint = "speed"\n', r"line 2: hint must be 'latency' or 'throughput', not 'speed'", ""),
        ("[machine]\nboards = 3\n", r"line 3: there is no setting 'machine.boards'", "'board'"),
        (
            'smaller_inputs = ["960x544"]\n',
            r"line 2: smaller_inputs = .*: each must be smaller than the one before",
            "",
        ),
        ('smaller_inputs = ["320x176", "480x256"]\n', r"line 2: smaller_inputs = .*: each must be smaller", ""),
        ('smaller_inputs = ["small"]\n', r"line 2: smaller_inputs.0 = 'small': it must be WIDTHxHEIGHT", ""),
        ('smaller_inputs = ["32x32"]\n', r"line 2: smaller_inputs = .*: below 240x136, a quarter of input_size", ""),
        (
            'smaller_inputs = ["480x272"]\nnetwork_size = "96x96"\n',
            r"line 2: smaller_inputs = .*: they say what the",
            "",
        ),
        (
            'smaller_inputs = ["480x272"]\ntarget = "tensorrt"\n',
            r"line 2: smaller_inputs = .*: they are for OpenVINO",
            "",
        ),
        ("precisions = []\n", r"line 2: precisions has too few entries: at least 1", ""),
        ("input_size = 960\n", r"line 2: input_size = 960: it must be WIDTHxHEIGHT such as 960x544, with sides", ""),
        ("input_size = [96]\n", r"line 2: input_size = \[96\]: it must be WIDTHxHEIGHT", ""),
        ('input_size = "960x8"\n', r"line 2: input_size = '960x8': it must be .* with sides from 32 to 8192\.$", ""),
        ('network_size = "big"\n', r"line 2: network_size = 'big': it must be \"student\", \"input\", or WIDTHx", ""),
        ('network_size = "16x16"\n', r"line 2: network_size = '16x16': it must be \"student\"", ""),
        ("network_size = true\n", r"line 2: network_size = True: it must be \"student\"", ""),
        ("target = 3\n", r"line 2: target = 3: there are openvino", ""),
        ('[camera]\nsize = "big"\n', r"line 3: camera.size = 'big': a size is WIDTHxHEIGHT, such as 1280x720", ""),
        ('[camera]\nformat = "MJ"\n', r"line 3: camera.format = 'MJ': a format has four letters", ""),
        ("allowed_drop_points = nan\n", r"line 2: allowed_drop_points", ""),
        ('precisions = ["int4"]\n', r"line 2: precisions", ""),
        ("threads = \n", r"not valid TOML.*line 2", ""),
        ("[threads]\nmany = 1\n", r"line 2: threads", ""),
    ],
)
def test_a_wrong_setting_is_named_with_its_line(text: str, message: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('inherits = "laptop-cpu"\n' + text, encoding="utf-8")
    with pytest.raises(ProfileError, match=message) as caught:
        load_profile(path)
    assert hint in caught.value.hint
    assert not any(word in str(caught.value) for word in ("literal[", "tuple", "pattern", "nput should"))


def test_a_missing_setting_is_named(tmp_path: Path) -> None:
    path = tmp_path / "own.toml"
    path.write_text('description = "nothing else"\n', encoding="utf-8")
    with pytest.raises(ProfileError, match="target is not set") as caught:
        load_profile(path)
    assert "inherits" in caught.value.hint


def test_a_circle_of_profiles_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('inherits = "b"\n', encoding="utf-8")
    (tmp_path / "b.toml").write_text('inherits = "a"\n', encoding="utf-8")
    (tmp_path / "c.toml").write_text('inherits = "a"\n', encoding="utf-8")
    for begun in ("a", "c"):
        with pytest.raises(ProfileError, match=r"circle: \S+a\.toml -> \S+b\.toml -> \S+a\.toml\.") as caught:
            load_profile(tmp_path / f"{begun}.toml")
        assert "inherits" in caught.value.hint


def test_what_is_inherited_and_does_not_fit_says_where_to_set_it(tmp_path: Path) -> None:
    """The raspberry-pi-5's smaller inputs are too small for frames of this size."""
    path = tmp_path / "own.toml"
    path.write_text('inherits = "raspberry-pi-5"\ninput_size = "1920x1080"\n', encoding="utf-8")
    with pytest.raises(
        ProfileError, match=r"raspberry-pi-5\.toml, line \d+: smaller_inputs = .*below 480x270"
    ) as caught:
        load_profile(path)
    assert caught.value.hint == f"It is inherited: set smaller_inputs in {path}."


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
    table = edgekit("profiles").err
    assert "laptop-cpu" in table
    assert max(len(line.rstrip()) for line in table.partition("\n\n")[0].splitlines()) <= 60
    pi = edgekit("profiles", "raspberry-pi-5").err
    assert "Raspberry Pi 5" in pi
    assert "480x256, 320x176" in pi


def test_tables_of_a_profile_are_inherited_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        'inherits = "raspberry-pi-5"\n[machine]\nboard = "Raspberry Pi 500"\n', encoding="utf-8"
    )
    machine = load_profile(tmp_path / "mine.toml").machine
    assert (machine.board, machine.architectures) == ("Raspberry Pi 500", ("aarch64",))


def test_figures_of_another_machine_are_not_those_of_a_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "board_name", lambda: "")
    pi = load_profile("raspberry-pi-5")
    assert pi.missing() == "this machine is no Raspberry Pi 5"
    monkeypatch.setattr(profiles, "board_name", lambda: "Raspberry Pi 5 Model B Rev 1.0")
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert pi.missing() == "this machine is riscv64"
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    assert pi.missing() == ""


@pytest.mark.parametrize(
    ("system", "architecture", "board", "present", "expected"),
    [
        ("Linux", "x86_64", "", {"openvino", "onnxruntime"}, "laptop-cpu"),
        ("Windows", "AMD64", "", {"openvino", "openvino GPU", "onnxruntime"}, "laptop-igpu"),
        ("Linux", "x86_64", "", {"onnxruntime"}, "generic-cpu"),
        ("Linux", "aarch64", "Raspberry Pi 5 Model B Rev 1.0", {"onnxruntime"}, "raspberry-pi-5"),
        ("Linux", "aarch64", "", {"onnxruntime"}, "generic-cpu"),
        ("Darwin", "arm64", "", {"onnxruntime", "onnxruntime CoreML"}, "apple-silicon"),
        ("Linux", "x86_64", "", {"openvino", "openvino GPU", "onnxruntime", "tensorrt-rtx"}, "nvidia-rtx"),
        ("Linux", "aarch64", "NVIDIA Jetson Orin Nano Developer Kit", {"onnxruntime", "tensorrt"}, "jetson-orin-nano"),
        ("Linux", "aarch64", "NVIDIA Jetson AGX Orin Developer Kit", {"onnxruntime", "tensorrt"}, "jetson-agx-orin"),
        ("Linux", "aarch64", "Jetson-AGX", {"onnxruntime", "tensorrt"}, "jetson-xavier"),
    ],
)
def test_the_profile_that_is_proposed_fits_the_machine(
    system: str, architecture: str, board: str, present: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(profiles, "board_name", lambda: board)
    monkeypatch.setattr(profiles, "absent", lambda target: "" if str(target) in present else "not here")
    proposed, able = profiles.detect()
    assert proposed.name == expected
    assert proposed in able


def test_detect_proposes_what_this_machine_can_run(edgekit: Callable[..., Any]) -> None:
    document = json.loads(edgekit("profiles", "--detect", "--json").out)
    assert document["profile"] in document["runs_here"]
    assert "Next: edgekit build --profile" in edgekit("profiles", "--detect").err
