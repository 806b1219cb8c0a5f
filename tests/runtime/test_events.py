"""The log: a line for a person, or a line of JSON for a collector; each change of state is said once."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

import pytest

from edgekit_runtime import Frame, Loop, Sink, Source, SourceState, load, open_source, stats
from edgekit_runtime.sources.pattern import Pattern
from edgekit_runtime.stats import Backlog


def lines_of(done) -> list[dict]:
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        datetime.fromisoformat(line["time"])
        assert line["level"] in ("info", "warning", "error")
        assert line["message"]
    return lines


def test_a_run_in_lines_of_json(edgekit_run, small_bundle: Path):
    arguments = ("--source", "test:?fps=30&frames=20&size=96x64", "--sink", "null", "--log-format", "json", "--json")
    done = edgekit_run(small_bundle, *arguments)
    assert done.returncode == 0
    ready, *_, end = lines_of(done)
    assert (ready["event"], ready["precision"], ready["source"]) == ("ready", "fp32", arguments[1])
    assert (end["event"], end["state"]) == ("done", "ended")
    assert end["frames"] == json.loads(done.stdout)["frames"]


def test_a_failure_is_a_line_of_json_too_and_hides_passwords(edgekit_run, small_bundle: Path):
    source = "rtsp://me:secret@127.0.0.1:9/live"
    done = edgekit_run(small_bundle, "--source", source, "--sink", "null", "--log-format", "json")
    assert done.returncode == 1
    (failed,) = lines_of(done)
    assert (failed["event"], failed["level"], failed["exit_status"]) == ("failed", "error", 1)
    assert failed["hint"]
    assert "secret" not in done.stderr


def test_a_source_that_is_too_fast_is_said_once_and_so_is_its_end(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(100))
    monkeypatch.setattr(stats.time, "monotonic", lambda: next(clock))
    backlog = Backlog()
    shown, dropped, said = 0, 0, []
    for skipped in [0] * 8 + [15] * 12 + [0] * 12:
        shown, dropped = shown + 30 - skipped, dropped + skipped
        share = backlog.look(shown, dropped)
        if share is not None:
            said.append((backlog.skipping, share))
    assert [skipping for skipping, _ in said] == [True, False]
    assert said[0][1] > 0.1
    assert said[1][1] < 0.02


def test_a_loop_that_is_too_slow_for_its_camera_says_so(small_bundle: Path, caplog: pytest.LogCaptureFixture):
    class Slow(Sink):
        def write(self, picture, result) -> None:
            time.sleep(0.05)

    with (
        load(small_bundle) as model,
        open_source("test:?fps=60&frames=420&size=96x64") as source,
        caplog.at_level("INFO", "edgekit_runtime"),
    ):
        Loop(model, source, [Slow()]).run()
    said = [record.getMessage() for record in caplog.records if record.event == "skipping"]
    assert len(said) == 1
    assert "of its frames are skipped" in said[0]


class Scripted(Source):
    """A live source whose states are told; no camera can be unplugged by a test."""

    live = True

    def __init__(self, script: list[tuple[SourceState, str]]) -> None:
        super().__init__("scripted")
        self._script = script
        self._at = self._frames = 0

    @property
    def state(self) -> SourceState:
        return self._script[self._at][0] if self._at < len(self._script) else SourceState.ENDED

    @property
    def reason(self) -> str:
        return self._script[self._at][1] if self._at < len(self._script) else ""

    def read(self, timeout_s: float) -> Frame | None:
        time.sleep(0.15)
        state = self.state
        self._at += 1
        if state is not SourceState.RUNNING:
            return None
        self._frames += 1
        return Frame(Pattern(96, 64).draw(self._frames), self._frames, 0.0, time.monotonic())

    def close(self) -> None:
        return


def test_each_change_of_state_is_said_once(small_bundle: Path, caplog: pytest.LogCaptureFixture):
    good, lost = (SourceState.RUNNING, ""), (SourceState.RETRYING, "the camera is gone")
    script = [good, good, lost, lost, lost, (SourceState.RETRYING, "still gone"), lost, good, good]
    with load(small_bundle) as model, caplog.at_level("INFO", "edgekit_runtime"):
        Loop(model, Scripted(script), []).run()
    said = [record.getMessage() for record in caplog.records if record.event == "state"]
    assert said == ["retrying: the camera is gone", "running"]
