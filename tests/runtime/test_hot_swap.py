"""A new bundle at the path of the one that runs takes over between two frames; a bad one is refused, once."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import bundles
import numpy as np
import pytest
from bundles import OPENVINO, TAXONOMY, make_bundle

from edgekit_runtime import Loop, Model, Result, Sink, Stats, load, open_source, run
from edgekit_runtime.hot_swap import hot_swap

POLL_S = 0.05
DARK = 0


@dataclass
class Running(Sink):
    """A loop over an endless source, in a thread, and what came of it."""

    model: Model
    path: Path

    def __post_init__(self) -> None:
        self.results: list[Result] = []
        self.stop = threading.Event()
        self.stats = Stats()

    def write(self, picture, result: Result) -> None:
        self.results.append(result)
        time.sleep(0.002)

    def loop(self) -> None:
        with open_source("test:?fps=0&size=96x64") as source:
            loop = Loop(self.model, source, [self], stop=self.stop)
            with hot_swap([(self.path, loop.inferences[0], partial(load, self.path))], POLL_S):
                self.stats = loop.run()


@contextmanager
def running(path: Path) -> Iterator[Running]:
    with load(path) as model:
        it = Running(model, path)
        thread = threading.Thread(target=it.loop)
        thread.start()
        try:
            wait_for(lambda: it.results)
            yield it
        finally:
            it.stop.set()
            thread.join(10)


def wait_for(what, patience_s: float = 15.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "model.edgekit", 64, 96, variants=(OPENVINO,))


@pytest.fixture
def events(caplog: pytest.LogCaptureFixture) -> Iterator[list[tuple[str, str]]]:
    """(event, message) of everything that was announced, growing as it is."""
    said: list[tuple[str, str]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append((getattr(record, "event", ""), record.getMessage()))

    handler, log = Keep(), logging.getLogger("edgekit_runtime")
    with caplog.at_level("INFO", "edgekit_runtime"):
        log.addHandler(handler)
        yield said
        log.removeHandler(handler)


def replace_by(path: Path, **settings) -> None:
    """As a careful deployment does it: written beside, then renamed."""
    settings = {"variants": (OPENVINO,), **settings}
    make_bundle(path.with_name("next.edgekit"), 64, 96, **settings).replace(path)


def test_a_new_bundle_takes_over_between_two_frames(path: Path, events: list, monkeypatch: pytest.MonkeyPatch):
    with running(path) as it:
        assert it.results[0].labels.any()
        monkeypatch.setattr(bundles, "_BIAS", np.array([1e6, 0, 0, 0], np.float32))  # to which everything is dark
        replace_by(path, name="night")
        wait_for(lambda: events)
        shown = len(it.results)
        wait_for(lambda: len(it.results) > shown + 20)
        assert it.model.manifest.name == "night"
    assert [result.frame.index for result in it.results] == list(range(len(it.results))), "no frame is lost"
    dark = [not result.labels.any() for result in it.results]
    assert dark == sorted(dark), "first all of the old one, then all of the new one"
    assert dark[-1]
    assert it.stats.bundle_swaps == 1
    assert [event for event, _ in events] == ["bundle_swapped"]


def test_a_bad_bundle_is_refused_once_and_the_old_one_goes_on(path: Path, events: list):
    with running(path) as it:
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        wait_for(lambda: events)
        time.sleep(10 * POLL_S)
        (event, message), *more = events
        assert (event, more) == ("bundle_refused", [])
        assert "the old one goes on" in message
        shown = len(it.results)
        wait_for(lambda: len(it.results) > shown + 20)
        path.unlink()  # none at all is no reason to end either
        time.sleep(4 * POLL_S)
        replace_by(path, name="mended")
        wait_for(lambda: len(events) == 2)
        wait_for(lambda: it.model.manifest.name == "mended")
    assert it.stats.bundle_swaps == 1


def test_one_that_was_only_touched_or_copied_once_more_is_not_new(path: Path, events: list):
    with running(path) as it:
        for _ in range(2):
            path.touch()
            time.sleep(6 * POLL_S)
            path.with_name("copy").write_bytes(path.read_bytes())
            path.with_name("copy").replace(path)
            time.sleep(20 * POLL_S)
        replace_by(path, name="new")
        wait_for(lambda: it.model.manifest.name == "new")
    assert it.stats.bundle_swaps == 1
    assert [event for event, _ in events] == ["bundle_swapped"]


def test_one_with_other_classes_is_refused(path: Path, events: list):
    other = replace(TAXONOMY, classes=("dark", "blue", "green", "crimson"))
    with running(path) as it:
        replace_by(path, taxonomy=other)
        wait_for(lambda: events)
    assert events[0][0] == "bundle_refused"
    assert "other classes" in events[0][1]
    assert it.stats.bundle_swaps == 0


def test_the_newest_bundle_of_a_folder_is_followed(tmp_path: Path, events: list):
    """What `edgekit build` does: the bundle in its folder is written anew."""
    folder = tmp_path / "build"
    folder.mkdir()
    path = make_bundle(folder / "model.edgekit", 64, 96, variants=(OPENVINO,))
    with running(folder) as it:
        make_bundle(tmp_path / "next.edgekit", 64, 96, variants=(OPENVINO,), name="rebuilt").replace(path)
        wait_for(lambda: it.model.manifest.name == "rebuilt")
    assert it.stats.bundle_swaps == 1


def test_many_swaps_leave_no_thread_and_no_file_behind(path: Path, events: list):
    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with running(path) as it:
        replace_by(path, name="swap 0")
        wait_for(lambda: it.model.manifest.name == "swap 0")
        before = threading.active_count(), open_files()
        for number in range(1, 6):
            replace_by(path, name=f"swap {number}")
            wait_for(lambda: it.model.manifest.name == f"swap {number}")  # noqa: B023
        assert (threading.active_count(), open_files()) == before
    assert it.stats.bundle_swaps == 6


def test_the_command_follows_its_bundle(path: Path, tmp_path: Path):
    def swap_soon() -> None:
        time.sleep(0.5)
        replace_by(path, name="new")

    thread = threading.Thread(target=swap_soon)
    thread.start()
    stats = run(path, "test:?fps=30&size=96x64&frames=150", ["null"])
    thread.join()
    assert (stats.bundle_swaps, stats.engine_failures) == (1, 0)
