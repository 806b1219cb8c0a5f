"""Engines that fail or hang while they run: opened again once, then replaced by the bundle's next; no frame is lost."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from bundles import FRAGILE_ABOVE, ONNXRUNTIME, OPENVINO, expected_labels, make_bundle

from edgekit_runtime import EngineError, Frame, Loop, Result, Sink, Source, SourceState, Stats, inference, load
from edgekit_runtime.engines import Engine
from edgekit_runtime.model import Model
from edgekit_runtime.sources.pattern import Pattern


class Given(Source):
    """These pictures, one after the other; waits for nobody, drops nothing."""

    def __init__(self, images: list[np.ndarray]) -> None:
        super().__init__("given")
        self._left = list(enumerate(images))

    @property
    def state(self) -> SourceState:
        return SourceState.RUNNING if self._left else SourceState.ENDED

    def read(self, timeout_s: float) -> Frame | None:
        if not self._left:
            return None
        number, image = self._left.pop(0)
        return Frame(image, number, number / 25, time.monotonic())

    def close(self) -> None:
        self._left = []


class Kept(Sink):
    """Everything, and the states in between."""

    def __init__(self) -> None:
        self.results: list[Result] = []
        self.states: list[tuple[SourceState, str]] = []

    def write(self, picture, result: Result) -> None:
        self.results.append(result)

    def idle(self, state: SourceState, reason: str) -> None:
        self.states.append((state, reason))

    @property
    def indices(self) -> list[int]:
        return [result.frame.index for result in self.results]


def frames(count: int, *, bright: tuple[int, ...] = ()) -> list[np.ndarray]:
    """The pattern in 96×64; those that are `bright` have one value that a fragile network fails at."""
    images = [np.minimum(Pattern(96, 64).draw(number), FRAGILE_ABOVE) for number in range(count)]
    for number in bright:
        images[number][40, 40] = 255
    return images


def run(model: Model, images: list[np.ndarray]) -> tuple[Stats, Kept]:
    sink = Kept()
    return Loop(model, Given(images), [sink]).run(), sink


def test_an_engine_that_fails_is_opened_again_and_no_frame_is_lost(small_bundle: Path):
    with load(small_bundle) as model:
        model.close()  # and so fails at the first frame
        stats, sink = run(model, frames(20))
        assert model.engine.startswith("OpenVINO")
    assert sink.indices == list(range(20))
    assert stats.engine_failures == 1


def test_one_that_fails_again_is_replaced_by_the_next_of_the_bundle(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = make_bundle(tmp_path / "b", 64, 96, variants=(ONNXRUNTIME, OPENVINO), fragile=True)
    images = frames(20, bright=(7,))
    with load(path) as model, caplog.at_level("INFO", "edgekit_runtime"):
        stats, sink = run(model, images)
        assert model.variant.engine == "openvino"
        assert "ONNX Runtime failed" in model.skipped[0].reason
    assert sink.indices == list(range(20))
    assert stats.engine_failures == 2
    for result, image in zip(sink.results, images, strict=True):
        assert (result.labels == expected_labels(image)).mean() > 0.98
    events = [record.event for record in caplog.records if record.event != "state"]
    assert events == ["engine_failed", "engine_reopened", "engine_failed", "engine_replaced"]


def test_failures_long_ago_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(inference, "_FORGOTTEN_S", -1.0)
    with load(make_bundle(tmp_path / "b", 64, 96, variants=(ONNXRUNTIME, OPENVINO))) as model:
        calls = iter(range(100))

        class FailsNowAndThen(Kept):
            def write(self, picture, result: Result) -> None:
                super().write(picture, result)
                if next(calls) % 5 == 2:
                    model.close()

        sink = FailsNowAndThen()
        stats = Loop(model, Given(frames(20)), [sink]).run()
        assert model.variant.engine == "onnxruntime"
    assert sink.indices == list(range(20))
    assert stats.engine_failures >= 3


def test_none_is_lost_of_several_frames_that_were_at_work_at_once(tmp_path: Path):
    several = dataclasses.replace(OPENVINO, config={"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 3})
    images = frames(30)
    with load(make_bundle(tmp_path / "b", 64, 96, variants=(several,))) as model:
        assert model.requests >= 2

        class FailsInBetween(Kept):
            def write(self, picture, result: Result) -> None:
                super().write(picture, result)
                if len(self.results) == 10:
                    model.close()

        sink = FailsInBetween()
        stats = Loop(model, Given(images), [sink]).run()
        assert model.requests >= 2
    assert sink.indices == list(range(30))
    assert stats.engine_failures == 1
    for result, image in zip(sink.results, images, strict=True):
        assert (result.labels == expected_labels(image)).mean() > 0.98


def test_with_no_engine_left_the_run_ends_and_says_why(tmp_path: Path):
    with (
        load(make_bundle(tmp_path / "b", 64, 96, variants=(ONNXRUNTIME,), fragile=True)) as model,
        pytest.raises(EngineError, match=r"No variant of .* runs here\. onnxruntime fp32: ONNX Runtime failed"),
    ):
        run(model, frames(5, bright=(2,)))


def test_an_engine_that_was_asked_for_is_not_replaced_by_another(tmp_path: Path):
    path = make_bundle(tmp_path / "b", 64, 96, variants=(ONNXRUNTIME, OPENVINO), fragile=True)
    with load(path, engine="onnxruntime") as model, pytest.raises(EngineError, match="No variant"):
        Loop(model, Given(frames(5, bright=(2,))), [], engine="onnxruntime").run()


def test_a_variant_that_opens_and_cannot_infer_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = make_bundle(tmp_path / "b", 64, 96, variants=(ONNXRUNTIME, OPENVINO), fragile=True)
    monkeypatch.setattr(Model, "warm_up", lambda model: model(np.full((64, 96, 3), 255, np.uint8)))
    with load(path) as model:
        assert model.variant.engine == "openvino"
        assert "ONNX Runtime failed" in model.skipped[0].reason


class Hanging:
    """An engine whose driver never answers, from the second frame on. A mock: no driver here can be made to hang."""

    def __init__(self, engine: Engine) -> None:
        self.name, self.device = engine.name, engine.device
        self._engine = engine
        self.calls = 0
        self.release = threading.Event()

    requests = 1

    def start(self, image):
        self.calls += 1
        if self.calls > 1:
            self.release.wait(20)
        return self._engine.start(image)

    def close(self) -> None:
        raise AssertionError("an engine that hangs must not be touched")


@contextmanager
def hanging(model: Model) -> Iterator[Hanging]:
    engine = Hanging(model._engine)
    model._engine = engine
    try:
        yield engine
    finally:
        engine.release.set()
        if model._engine is engine:
            model._engine = engine._engine


def test_an_engine_that_hangs_is_given_up_and_its_late_answer_is_not_shown(
    small_bundle: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(inference, "STALLED_S", 0.2)
    monkeypatch.setattr(inference, "GIVEN_UP_S", 1.0)
    with load(small_bundle) as model, hanging(model) as engine:

        class ReleasesLate(Kept):
            def write(self, picture, result: Result) -> None:
                super().write(picture, result)
                if result.frame.index == 10:
                    engine.release.set()
                    time.sleep(0.3)

        sink = ReleasesLate()
        stats = Loop(model, Given(frames(20)), [sink]).run()
        assert model._engine is not engine
    assert sink.indices == list(range(20))
    assert stats.engine_failures == 1
    stalled = [reason for state, reason in sink.states if state is SourceState.STALLED]
    assert stalled
    assert all("the engine has not answered" in reason for reason in stalled)


def test_a_stop_does_not_wait_for_an_engine_that_hangs(small_bundle: Path):
    stop = threading.Event()
    with load(small_bundle) as model, hanging(model):
        threading.Timer(0.5, stop.set).start()
        began = time.monotonic()
        stats = Loop(model, Given(frames(20)), [], stop=stop).run()
        assert time.monotonic() - began < 2
    assert (stats.state, stats.reason) == ("ended", "stopped")
