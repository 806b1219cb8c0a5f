"""`edgekit-run service`: a unit that systemd understands, which runs what was asked for; and what systemd is told."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit_runtime import UsageError
from edgekit_runtime.cli import main
from edgekit_runtime.service import Service, unit_path

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="systemd is on Linux")


def printed(capsys, *arguments: str | Path) -> str:
    assert main(["service", "install", "--print", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def settings(unit: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in unit.splitlines() if "=" in line and not line.startswith("#"))


def check(unit: str, tmp_path: Path, *, system: bool) -> None:
    """By systemd itself where it is, which fails at settings that it does not know or cannot read."""
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd-analyze here (apt install systemd)")
    path = tmp_path / "checked.service"
    path.write_text(unit, encoding="utf-8")
    scope = [] if system else ["--user"]
    environment = {**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)}
    done = subprocess.run([program, *scope, "verify", path], capture_output=True, encoding="utf-8", env=environment)
    complaints = [line for line in done.stderr.splitlines() if "checked.service" in line]
    assert (done.returncode, complaints) == (0, [])


def test_a_users_unit_passes_systemds_own_check(capsys, small_bundle: Path, tmp_path: Path):
    unit = printed(capsys, small_bundle, "--camera", "0", "--sink", "web:0.0.0.0:8090")
    known = settings(unit)
    assert (
        known["ExecStart"] == f"{sys.executable} -m edgekit_runtime {small_bundle} --camera 0 --sink web:0.0.0.0:8090"
    )
    assert known["WorkingDirectory"] == str(Path.cwd())
    assert (known["Type"], known["Restart"], known["WantedBy"]) == ("notify", "on-failure", "default.target")
    assert known["NoNewPrivileges"] == "yes"
    assert "ProtectSystem" not in known, "namespaces are not for a user's systemd to have"
    check(unit, tmp_path, system=False)


def test_the_machines_unit_is_shut_off_and_writes_where_it_must(
    capsys, small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SUDO_USER", "daemon")
    out = tmp_path / "a film" / "out.mp4"
    unit = printed(capsys, "--system", "--name", "porch", small_bundle, "--source", "test:", "--sink", f"file:{out}")
    known = settings(unit)
    assert known["User"] == "daemon"
    assert known["ProtectSystem"] == "strict"
    assert shlex.split(known["ReadWritePaths"]) == [f"-{Path.cwd()}", f"-{out.parent}"]
    assert known["CacheDirectory"] == "porch"
    check(unit, tmp_path, system=True)


def test_strange_arguments_arrive_as_they_were_and_no_password_is_in_a_log(tmp_path: Path):
    odd = ("python", "-m", "edgekit_runtime", "a b.edgekit", 'c"d', "e\\f", "100%", "$HOME", "rtsp://me:secret@h/", "")
    unit = Service("odd", odd, tmp_path).unit()
    known = settings(unit)
    assert known["ExecStart"] == (
        'python -m edgekit_runtime "a b.edgekit" "c\\"d" "e\\\\f" "100%%" "$$HOME" rtsp://me:secret@h/ ""'
    )
    assert "secret" not in known["Description"], "it stands in every log"
    check(unit.replace("=python", f"={sys.executable}"), tmp_path, system=False)


def test_without_a_sink_there_is_the_page(capsys, small_bundle: Path):
    assert settings(printed(capsys, small_bundle, "--camera", "0"))["ExecStart"].endswith("--camera 0 --sink web")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["install", "--camera", "0"], "No bundle was named"),
        (["install", "nowhere.edgekit", "--camera", "0"], "no bundle at nowhere.edgekit"),
        (["install", "BUNDLE", "--source", "test:", "--sink", "hologram"], "Unknown sink"),
        (["install", "BUNDLE", "--source", ""], "source is empty"),
        (["install", "--name", "../evil", "BUNDLE", "--camera", "0"], "no name for a service"),
        (["uninstall", "BUNDLE"], "takes no"),
    ],
)
def test_wrong_usage_is_said_before_anything_is_installed(capsys, small_bundle: Path, arguments: list, message: str):
    arguments = [str(small_bundle) if argument == "BUNDLE" else argument for argument in arguments]
    assert main(["service", *arguments]) == UsageError.exit_status
    assert message in capsys.readouterr().err


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Notes what it is asked, as no systemd runs here. A mock: it would be process 1. Returns where it notes it."""
    notes, folder = tmp_path / "asked", tmp_path / "bin"
    folder.mkdir()
    program = folder / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$*" >> {notes}\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return notes


def test_install_status_uninstall(capsys, small_bundle: Path, systemctl: Path):
    path = unit_path("edgekit-run", system=False)
    assert main(["service", "status"]) == 1
    assert "There is no service edgekit-run" in capsys.readouterr().err
    assert main(["service", "install", str(small_bundle), "--camera", "0"]) == 0
    assert "enable-linger" in capsys.readouterr().err
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert main(["service", "status"]) == 0
    assert main(["service", "uninstall"]) == 0
    assert not path.exists()
    assert main(["service", "uninstall"]) == 1
    asked = systemctl.read_text(encoding="utf-8").splitlines()
    assert asked == [
        "--user --version",
        "--user daemon-reload",
        "--user enable --now edgekit-run.service",
        "--user --no-pager status edgekit-run.service",
        "--user disable --now edgekit-run.service",
        "--user daemon-reload",
    ]


def test_without_systemd_there_is_a_hint_and_no_file(capsys, small_bundle: Path, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert main(["service", "install", str(small_bundle), "--camera", "0"]) == 1
    assert "no systemd here" in capsys.readouterr().err
    assert not unit_path("edgekit-run", system=False).exists()


def test_a_systemd_that_fails_is_quoted(capsys, small_bundle: Path, systemctl: Path):
    program = systemctl.parent / "bin" / "systemctl"
    program.write_text("#!/bin/sh\necho Failed to connect to bus >&2\nexit 1\n", encoding="utf-8")
    assert main(["service", "install", str(small_bundle), "--camera", "0"]) == 1
    assert "Failed to connect to bus" in capsys.readouterr().err
    program.write_text('#!/bin/sh\n[ "$2" = --version ] || exit 1\n', encoding="utf-8")
    assert main(["service", "install", str(small_bundle), "--camera", "0"]) == 1
    path = unit_path("edgekit-run", system=False)
    assert not path.exists()
    # One that is there can be removed all the same.
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    assert main(["service", "uninstall"]) == 0
    assert not path.exists()


def test_systemd_is_told_that_it_is_ready_alive_and_stopping(small_bundle: Path, tmp_path: Path):
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(30)
        environment = {**os.environ, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "300000"}
        command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--source", "test:", "--sink", "null"]
        with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
            said = [listener.recv(100) for _ in range(4)]
            process.send_signal(signal.SIGTERM)
            while said[-1] != b"STOPPING=1":
                said.append(listener.recv(100))
            assert process.wait(5) == 0
    assert said[0] == b"READY=1"
    assert set(said[1:-1]) == {b"WATCHDOG=1"}


def test_a_loop_that_hangs_is_not_said_to_be_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from edgekit_runtime import service

    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", address)
        monkeypatch.setenv("WATCHDOG_USEC", "60000")
        monkeypatch.delenv("WATCHDOG_PID", raising=False)
        with service.watched(lambda: False):
            time.sleep(0.3)
        assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]
