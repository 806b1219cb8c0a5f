"""`edgekit doctor`: findings with what to do, and none of them stops the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgekit import doctor


def test_findings_are_named_and_explained(edgekit: Callable[..., Any]) -> None:
    checks = json.loads(edgekit("doctor", "--json").out)["checks"]
    assert {"python", "cpu", "openvino", "onnxruntime", "opencv wheels", "opencv gui", "disk"} <= {
        check["name"] for check in checks
    }
    for check in checks:
        assert check.keys() == {"name", "ok", "detail", "hint"}
        assert check["detail"]
        assert check["ok"] or check["hint"], check
    openvino = next(check for check in checks if check["name"] == "openvino")
    assert "CPU" in openvino["detail"]


def test_the_status_says_whether_anything_is_wrong(
    edgekit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "ENOUGH_MB", 1 << 60)
    answer = edgekit("doctor")
    assert answer.status == 1
    assert "free some space" in answer.err


def test_a_check_that_fails_is_itself_a_finding() -> None:
    def broken() -> Iterator[doctor.Check]:
        yield doctor.Check("fine", True, "")
        raise ImportError("libGL.so.1: cannot open shared object file")

    (finding,) = doctor._guarded(broken)
    assert not finding.ok
    assert "libGL" in finding.detail


def test_two_opencv_wheels_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_installed", lambda name: name in ("opencv-python", "opencv-python-headless"))
    (finding,) = doctor._opencv_wheels()
    assert not finding.ok
    assert "opencv-python and opencv-python-headless" in finding.detail
    assert finding.hint.startswith("pip uninstall")


def test_what_a_profile_needs_is_looked_for(edgekit: Callable[..., Any], tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('inherits = "laptop-cpu"\ndoctor = ["openvino", "openvino NPU", "a lens"]\n', encoding="utf-8")
    answer = edgekit("doctor", "--profile", own, "--json")
    found = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    assert answer.status == 1
    assert found["openvino"]["ok"]
    assert not found["a lens"]["ok"]
    assert found["a lens"]["detail"] == "asked for by the profile, and not found"
    assert not found["openvino NPU"]["ok"], "nothing makes up for what is not the target's"
    assert "linux-npu-driver" in found["openvino NPU"]["hint"]


def test_a_profile_that_runs_on_its_fallback_is_worth_a_note_and_no_failure(
    edgekit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "absent", lambda target: "" if target.device == "CPU" else "there is no GPU here")
    answer = edgekit("doctor", "--profile", "laptop-igpu", "--json")
    found = {check["name"]: check for check in json.loads(answer.out)["checks"]}
    assert answer.status == 0
    assert found["profile"]["ok"]
    assert found["profile"]["detail"] == ("laptop-igpu: there is no GPU here; its fallback runs instead, openvino CPU")
    assert "intel-opencl-icd" in found["openvino GPU"]["hint"]
    assert "note  openvino GPU " in edgekit("doctor", "--profile", "laptop-igpu").err
    monkeypatch.setattr(doctor, "absent", lambda target: "nothing runs here")
    nothing = edgekit("doctor", "--profile", "laptop-igpu")
    assert nothing.status == 1
    assert "look  profile " in nothing.err
    assert "laptop-igpu: nothing runs here" in nothing.err


def test_a_profile_of_another_machine_is_named_and_fails_nothing(edgekit: Callable[..., Any]) -> None:
    answer = edgekit("doctor", "--profile", "raspberry-pi-5")
    assert answer.status == 0
    assert "raspberry-pi-5: this machine is no Raspberry Pi 5" in answer.err
    assert "docs/devices.md" in answer.err


def test_tensorrt_that_the_environment_does_not_see_is_found_and_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As JetPack installs it: for the system's Python."""
    monkeypatch.setattr(doctor, "_SYSTEM_PYTHONS", tmp_path)
    assert list(doctor._tensorrt_outside()) == []
    (tmp_path / "python3.10" / "dist-packages" / "tensorrt").mkdir(parents=True)
    (finding,) = doctor._tensorrt_outside()
    assert not finding.ok
    assert finding.detail.startswith("outside of this environment, for python3.10")
    assert "python3.10 -m venv --system-site-packages" in finding.hint


def test_a_gpu_without_a_driver_is_told_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from edgekit_runtime.engines.tensorrt import cuda

    monkeypatch.setattr(cuda, "DRIVER", "libcuda-that-is-not-there.so")
    monkeypatch.setattr(doctor, "_PCI", tmp_path)
    assert "nvidia gpu" not in {check.name for check in doctor._nvidia()}
    card = tmp_path / "0000:01:00.0"
    card.mkdir()
    (card / "vendor").write_text("0x10de\n", encoding="utf-8")
    (card / "class").write_text("0x030000\n", encoding="utf-8")
    finding = next(check for check in doctor._nvidia() if check.name == "nvidia gpu")
    assert not finding.ok
    assert "there is one, but there is no NVIDIA driver here" in finding.detail
    assert "nvidia-smi" in finding.hint


def test_tensorrt_for_rtx_is_found_with_its_version() -> None:
    from edgekit_runtime.engines import installed

    if not installed("tensorrt-rtx"):
        pytest.skip("TensorRT for RTX is not installed: pip install edgekit[rtx]")
    import tensorrt_rtx_bindings

    finding = next(check for check in doctor._nvidia() if check.name == "tensorrt-rtx")
    assert (finding.ok, finding.detail) == (True, tensorrt_rtx_bindings.__version__)


def test_what_a_profile_for_nvidia_needs_is_looked_for(edgekit: Callable[..., Any]) -> None:
    found = {
        check["name"]: check for check in json.loads(edgekit("doctor", "-p", "jetson-xavier", "--json").out)["checks"]
    }
    if not found["tensorrt"]["ok"]:
        assert "--system-site-packages" in found["tensorrt"]["hint"]
    if not found["nvidia gpu"]["ok"]:
        assert "JetPack" in found["nvidia gpu"]["hint"]
