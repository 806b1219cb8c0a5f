"""A live source that is too fast gets a smaller network, which is said, and the larger one back when there is time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles import ONNXRUNTIME, OPENVINO, make_bundle

from edgekit_runtime import Loop, Model, Result, Sink, Stats, engines, load, loop, model, open_source, quality
from edgekit_runtime.engines import Engine
from edgekit_runtime.overlay import Overlay
from edgekit_runtime.smoothing import Smoothing

LARGE, SMALL, SMALLEST = (64, 96), (32, 48), (16, 24)
# One that takes 80 ms for the large network takes 20 for the small one.
BUSY = 0.08


class Machine:
    """How long frames take on it, which no test can tell a real one."""

    def __init__(self) -> None:
        self.large_s = 0.0

    def slowed(self, engine: Engine) -> Slowed:
        return Slowed(engine, self)


class Slowed:
    """A real engine, after a time in proportion to its pixels."""

    requests = 1

    def __init__(self, engine: Engine, machine: Machine) -> None:
        self.name, self.device, self.close, self.infer = engine.name, engine.device, engine.close, engine.infer
        self._engine, self._machine = engine, machine

    def start(self, image):
        time.sleep(self._machine.large_s * image.size / (3 * LARGE[0] * LARGE[1]))
        return self._engine.start(image)


class Kept(Sink):
    def __init__(self, pause_s: float = 0.0) -> None:
        self.results: list[Result] = []
        self.pictures: set[tuple[int, ...]] = set()
        self._pause_s = pause_s

    def write(self, picture, result: Result) -> None:
        self.results.append(result)
        self.pictures.add(picture.shape)
        time.sleep(self._pause_s)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Of the class maps, without repetition."""
        shapes = [result.labels.shape for result in self.results]
        return [shape for shape, last in zip(shapes, [None, *shapes], strict=False) if shape != last]


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """With what takes seconds for people in fractions of them."""
    it, opened = Machine(), engines.open_engine
    for module in (engines, model):
        monkeypatch.setattr(module, "open_engine", lambda bundle, variant: it.slowed(opened(bundle, variant)))
    monkeypatch.setattr(loop, "_REPORT_S", 0.1)
    monkeypatch.setattr(quality, "PAUSE_S", 0.5)
    return it


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return make_bundle(tmp_path / "model.edgekit", *LARGE, variants=(OPENVINO,), smaller=(SMALL, SMALLEST))


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """The events of sizes and bundles so far."""

    class Said(list):
        def __iter__(self):
            wanted = ("input_", "bundle_", "engine_", "message")
            events = [getattr(record, "event", "") for record in caplog.records]
            return iter([event for event in events if event.startswith(wanted)])

    with caplog.at_level("INFO", "edgekit_runtime"):
        yield Said()


@contextmanager
def running(model: Model, sink: Sink, uri: str = "test:?fps=25&size=128x96") -> Iterator[Loop]:
    stop = threading.Event()
    with open_source(uri) as source:
        it = Loop(model, source, [sink], smoothing=Smoothing(), overlay=Overlay(model.manifest), stop=stop)
        thread = threading.Thread(target=it.run)
        thread.start()
        try:
            yield it
        finally:
            stop.set()
            thread.join(10)


def wait_for(what, patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_it_goes_down_when_it_is_too_slow_and_back_when_there_is_time(
    path: Path, machine: Machine, said: list[str], caplog: pytest.LogCaptureFixture
):
    sink = Kept()
    machine.large_s = BUSY
    with load(path) as model, running(model, sink) as it:
        wait_for(lambda: list(said) == ["input_reduced"])
        assert it.stats().input_size == "48x32"
        time.sleep(3)  # which is six pauses: there is no time for the large one, and the small one is fast enough
        assert list(said) == ["input_reduced"]
        machine.large_s = 0.0
        wait_for(lambda: len(list(said)) == 2)
        shown = len(sink.results)
        wait_for(lambda: len(sink.results) > shown + 5)
        assert it.stats().input_size == "96x64"
    assert list(said) == ["input_reduced", "input_restored"]
    messages = [record.getMessage() for record in caplog.records if record.event in list(said)]
    assert messages[0] == "too slow for the source: the network now sees 48x32 instead of 96x64"
    assert messages[1] == "fast enough for the source again: the network now sees 96x64 instead of 48x32"
    assert sink.sizes == [(16, 24), (8, 12), (16, 24)]
    assert sink.pictures == {(96, 128, 3)}
    assert it.stats().bundle_swaps == 0


def test_it_goes_down_as_often_as_it_has_to(path: Path, machine: Machine, said: list[str]):
    machine.large_s = 6 * BUSY
    with load(path) as model, running(model, Kept()) as it:
        wait_for(lambda: list(said) == ["input_reduced"] * 2)
        assert it.stats().input_size == "24x16"
        machine.large_s = 0.0
        wait_for(lambda: it.stats().input_size == "96x64")
    assert list(said) == ["input_reduced"] * 2 + ["input_restored"] * 2


def test_a_slow_sink_is_no_reason(path: Path, machine: Machine, said: list[str]):
    sink = Kept(pause_s=0.1)
    with load(path) as model, running(model, sink) as it:
        wait_for(lambda: it.stats().dropped > 30)
    assert list(said) == []


def test_a_file_is_never_reduced_and_loses_no_frame(path: Path, machine: Machine, said: list[str]):
    machine.large_s = BUSY
    sink = Kept()
    with load(path) as model, open_source("test:?fps=0&frames=30&size=128x96") as source:
        assert not source.live
        stats: Stats = Loop(model, source, [sink]).run()
    assert [result.frame.index for result in sink.results] == list(range(30))
    assert (stats.input_size, list(said)) == ("96x64", [])


def test_a_bundle_without_smaller_sizes_skips_as_ever(tmp_path: Path, machine: Machine, said: list[str]):
    machine.large_s = BUSY
    with load(make_bundle(tmp_path / "b", *LARGE, variants=(OPENVINO,))) as model, running(model, Kept()) as it:
        assert model.smaller() is None
        wait_for(lambda: it.stats().dropped > 40)
    assert list(said) == []


def test_a_size_that_cannot_be_opened_is_said_once_and_the_other_goes_on(path: Path, machine: Machine, said: list[str]):
    machine.large_s = BUSY
    with load(path) as model, running(model, Kept()) as it:
        path.unlink()
        wait_for(lambda: list(said) == ["message"])
        dropped = it.stats().dropped
        wait_for(lambda: it.stats().dropped > dropped + 40)
    assert list(said) == ["message"]


@pytest.mark.parametrize("first", ["bundle", "size"])
def test_a_new_bundle_has_the_right_of_way(path: Path, tmp_path: Path, said: list[str], first: str):
    other = make_bundle(tmp_path / "other.edgekit", *LARGE, variants=(OPENVINO,), smaller=(SMALL,), name="other")
    with load(path) as model, open_source("test:?fps=0&frames=5&size=128x96") as source:
        it, new, small = Loop(model, source, [Kept()]), load(other), model.smaller()()
        for each in (new, small) if first == "bundle" else (small, new):
            it.inferences[0].swap(each)
        stats = it.run()
        assert (model.manifest.name, stats.input_size) == ("other", "96x64")
    assert list(said) == ["bundle_swapped"]


def test_a_size_of_what_no_longer_runs_is_not_taken(tmp_path: Path, said: list[str]):
    path = make_bundle(tmp_path / "b", *LARGE, smaller=(SMALL,))
    with load(path) as model, open_source("test:?fps=0&frames=5&size=128x96") as source:
        small = model.smaller()()
        model.become(model.fallen_back("it failed"))
        it = Loop(model, source, [Kept()])
        it.inferences[0].swap(small)
        stats = it.run()
        assert (model.variant, stats.input_size) == (ONNXRUNTIME, "96x64")
    assert list(said) == []


def test_a_smaller_size_that_fails_is_replaced_by_the_bundles_own(tmp_path: Path):
    path = make_bundle(tmp_path / "b", *LARGE, smaller=(SMALL, SMALLEST))
    with load(path) as model, model.smaller()() as small, small.smaller()() as smallest:
        assert [each.manifest.input_size for each in (model, small, smallest)] == [LARGE, SMALL, SMALLEST]
        assert smallest.smaller() is None
        assert model.larger() is None
        with smallest.larger()() as again, smallest.reopened() as same, smallest.fallen_back("it failed") as whole:
            assert (again.manifest.input_size, same.manifest.input_size) == (SMALL, SMALLEST)
            assert (whole.manifest.input_size, whole.variant) == (LARGE, OPENVINO)
            assert whole.skipped[0].reason == "it failed"
