"""The frame around all commands: quick help, short errors, exit status, one JSON document on stdout."""

from __future__ import annotations

import errno
import io
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console

from edgekit import cli, console
from edgekit._version import __version__
from edgekit.build import Built
from edgekit.demo import EXPERTS, Demo, Row
from edgekit_runtime.errors import DataError, UsageError

HEAVY = {"numpy", "torch", "cv2", "openvino", "onnx", "onnxruntime", "nncf", "zarr", "av", "lightning", "pydantic"}

COMMANDS = sorted(name for command in cli.app.registered_commands if (name := command.name))


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from edgekit.cli import main; main(['--help']); "
        f"print(sorted({HEAVY!r} & sys.modules.keys()), file=sys.stderr)"
    )
    child = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    assert child.stderr.strip() == "[]"
    assert "Usage: edgekit" in child.stdout


def test_the_version_is_told(edgekit: Callable[..., Any]) -> None:
    assert edgekit("--version").out == f"edgekit {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_documented_options_and_json(name: str, edgekit: Callable[..., Any]) -> None:
    answer = edgekit(name, "--help")
    assert answer.status == 0
    assert "--json" in answer.out
    command = typer.main.get_command(cli.app).commands[name]  # type: ignore[attr-defined]
    assert command.help
    undocumented = [parameter.name for parameter in command.params if not getattr(parameter, "help", "documented")]
    assert undocumented == []


@pytest.mark.parametrize(("built", "status"), [(0.6, 0), (0.5, 1)])
def test_the_demo_fails_unless_the_student_beats_each_expert(
    built: float, status: int, edgekit: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    rows = (*(Row(name, 0.5) for name in EXPERTS), Row("student, as built", built, 2.0))
    result = Demo(rows, tmp_path / "a.edgekit", tmp_path / "student", {"train": 1.0})
    monkeypatch.setattr("edgekit.demo.run_demo", lambda folder: result)
    answer = edgekit("demo", "-o", tmp_path)
    assert answer.status == status
    assert "student, as built" in answer.err
    assert ("not better" in answer.err) == bool(status)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["biuld"], "'build'"),
        (["build", "--profil", "laptop-cpu"], "--profile"),
        (["build"], "--profile"),
        (["bench"], "BUNDLE"),
        (["run", "--camera", "first"], "--camera"),
        (["run", "--frames", "3"], "--source"),
        (["run", "--source", "a", "--camera", "0"], "Leave out --camera 0"),
        (["run", "--source", "test:", "--sink", "stdout", "--json"], "--stats-file"),
    ],
)
def test_wrong_usage_ends_with_status_2_and_names_what_was_meant(
    arguments: list[str], hint: str, edgekit: Callable[..., Any]
) -> None:
    answer = edgekit(*arguments)
    assert answer.status == 2
    assert hint in answer.err
    assert answer.out == ""
    assert len(answer.err.strip().splitlines()) <= 2


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Adds a command `fail` that raises."""

    def prepare(error: BaseException) -> None:
        app = typer.Typer(pretty_exceptions_enable=False)
        app.callback()(lambda: None)

        @app.command("fail")
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli, "app", app)

    return prepare


@pytest.mark.parametrize(
    ("error", "status", "lines"),
    [
        (DataError("The data is broken.", hint="Mend it."), 1, ["Error: The data is broken.", "Mend it."]),
        (UsageError("That makes no sense."), 2, ["Error: That makes no sense."]),
        (
            KeyboardInterrupt(),
            130,
            ["Interrupted. Nothing half-written is left."],
        ),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            1,
            ["Error: there is no space left on the disk.", "Free some space; nothing half-written was kept."],
        ),
        (
            PermissionError(errno.EACCES, "Permission denied", "/root/out"),
            1,
            ["Error: /root/out: permission denied.", "Choose a place that you may read and write."],
        ),
        (
            NotADirectoryError(errno.ENOTDIR, "Not a directory", "notes.txt/run"),
            1,
            ["Error: notes.txt/run: not a directory.", "Choose a place that you may read and write."],
        ),
        (
            ZeroDivisionError("division by zero\nand more"),
            1,
            [
                "Internal error: ZeroDivisionError: division by zero",
                "Please report it with the output of the same command and --debug.",
            ],
        ),
    ],
)
def test_an_error_is_one_or_two_lines(
    error: BaseException,
    status: int,
    lines: list[str],
    failing: Callable[[BaseException], None],
    edgekit: Callable[..., Any],
) -> None:
    failing(error)
    answer = edgekit("fail")
    assert answer.status == status
    assert answer.err.splitlines() == lines
    assert answer.out == ""


@pytest.mark.parametrize("arguments", [("--debug", "fail"), ("fail", "--debug")])
def test_debug_shows_the_traceback_wherever_it_stands(
    arguments: tuple[str, ...], failing: Callable[[BaseException], None], edgekit: Callable[..., Any]
) -> None:
    failing(DataError("The data is broken."))
    answer = edgekit(*arguments)
    assert answer.status == 1
    assert "Traceback" in answer.err


def test_a_reader_that_leaves_is_no_traceback() -> None:
    command = f"{sys.executable} -m edgekit profiles --json | true"
    child = subprocess.run(["bash", "-c", command], capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert "Traceback" not in child.stderr
    assert "Exception" not in child.stderr


def test_json_has_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="JSON"):
        console.emit({"fps": float("nan")})
    console.emit({"fps": 1.5})
    assert json.loads(capsys.readouterr().out) == {"fps": 1.5}


def test_long_steps_say_how_far_how_fast_and_how_long_still(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 20.0, 100.0, 100.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    with console.progress("Frames", total=1000) as advance:
        advance(20, "clip")
        advance(30)
        advance(950)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["Frames: 20/1000, 2.0/s, 8 min 10 s left clip", "Frames: 50/1000, 3.0/s, 5 min 17 s left"]


def test_progress_without_a_terminal_is_a_line_not_a_bar(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(console.track(range(500), "Counting")) == list(range(500))
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert said[0].startswith("Counting: 500 in ")


def test_a_stage_ends_where_the_next_begins_and_an_error_ends_it_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    with console.Stages() as stages:
        stages.begin("First")
        stages.advance()
        stages.begin("Second", 2)
        assert capsys.readouterr().err.startswith("First: 1 in ")
        stages.advance(2)
    assert capsys.readouterr().err.startswith("Second: 2 in ")

    def fail() -> None:
        with console.Stages() as third:
            third.begin("Third")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capsys.readouterr().err == ""


def test_run_says_which_bundle_it_takes_and_how_good_it_is(
    edgekit: Callable[..., Any], built: Built, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ("run", "--source", "test:?fps=0", "--frames", "2", "--sink", "null")
    said = edgekit(*arguments).err.splitlines()
    assert said[0].startswith("Bundle: the one that comes with edgekit (or --bundle FILE); mIoU ")
    bundle = tmp_path / "build" / "small" / built.bundle.name
    bundle.parent.mkdir(parents=True)
    shutil.copy(built.bundle, bundle)
    said = edgekit(*arguments).err.splitlines()
    assert said[0].startswith(f"Bundle: build/small/{built.bundle.name}, the newest build (or --bundle FILE); mIoU ")
    assert said[0].endswith("% against the labels of its data set.")


def test_run_writes_a_video_and_its_figures(edgekit: Callable[..., Any], built: Built, tmp_path: Path) -> None:
    video = tmp_path / "out.mp4"
    source = "world:5?size=160x96&frames=6"
    answer = edgekit("run", "--source", source, "--bundle", built.bundle, "--sink", f"file:{video}", "--json")
    assert answer.status == 0, answer.err
    document = json.loads(answer.out)
    assert document["frames"] == 6
    assert {"fps", "dropped", "age_p50_ms", "age_p99_ms", "state"} <= document.keys()
    assert video.stat().st_size > 1000


def test_bench_measures_in_a_process_of_its_own(edgekit: Callable[..., Any], built: Built) -> None:
    measured = json.loads(edgekit("bench", built.bundle, "--frames", "20", "--json").out)
    assert {"p50_ms", "p90_ms", "p99_ms", "fps", "cold_start_s", "rss_mb"} <= measured.keys()
    assert measured["p50_ms"] <= measured["p90_ms"] <= measured["p99_ms"]


@pytest.mark.parametrize("command", ["bench", "run"])
def test_a_bundle_with_a_changed_byte_is_refused(
    command: str, edgekit: Callable[..., Any], built: Built, tmp_path: Path
) -> None:
    data = bytearray(built.bundle.read_bytes())
    data[len(data) // 2] ^= 1
    changed = tmp_path / "changed.edgekit"
    changed.write_bytes(data)
    arguments = (changed,) if command == "bench" else ("--bundle", changed, "--source", "test:", "--sink", "null")
    answer = edgekit(command, *arguments)
    assert answer.status == 1
    assert "changed.edgekit" in answer.err
    assert len(answer.err.strip().splitlines()) <= 2


def test_rows_are_folded_on_a_terminal_and_whole_in_a_pipe() -> None:
    rows = [("ok", "engine", "found on this machine"), ("note", "camera", "none\nPlug one in, or take a file")]

    def shown(*, terminal: bool) -> list[str]:
        page = Console(width=41, file=io.StringIO(), color_system=None, force_terminal=terminal)
        console.show_rows(page, rows)
        return page.file.getvalue().splitlines()

    assert shown(terminal=False) == [
        "ok    engine  found on this machine",
        "note  camera  none",
        "              Plug one in, or take a file",
    ]
    assert shown(terminal=True) == [
        "ok    engine  found on this machine",
        "note  camera  none",
        "              Plug one in, or take a file",
    ]
    rows.append(("look", "disk", "so full that nothing fits upon it any more"))
    assert shown(terminal=False)[-1] == "look  disk    so full that nothing fits upon it any more"
    assert shown(terminal=True)[-2:] == ["look  disk    so full that nothing fits", "              upon it any more"]
