"""Several bundles on one source: each at its own pace, the latest of all drawn together."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import ONNXRUNTIME, OPENVINO, make_bundle, manifest_for

from edgekit_runtime import Loop, Model, Overlay, Result, Sink, load, open_source
from edgekit_runtime.cli import main
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.modality import Kind
from edgekit_runtime.model import Beside, Timing
from edgekit_runtime.overlay import Status, View
from edgekit_runtime.sources.base import Frame


@pytest.fixture(scope="module")
def depth_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(
        tmp_path_factory.mktemp("depth") / "d.edgekit", 32, 48, variants=(OPENVINO,), depth=True, name="far"
    )


class Kept(Sink):
    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, picture, result: Result) -> None:
        self.results.append(result)
        time.sleep(0.005)


def slowed(model: Model, seconds: float) -> Model:
    """Takes so much longer a frame, as a larger network does."""
    start = model._engine.start

    def slow(image):
        time.sleep(seconds)
        return start(image)

    model._engine.start = slow
    return model


def test_each_runs_at_its_own_pace_and_no_frame_of_the_first_waits(small_bundle: Path, depth_bundle: Path):
    sink = Kept()
    with (
        load(small_bundle) as first,
        load(depth_bundle) as second,
        open_source("test:?fps=0&frames=100&size=96x64") as source,
    ):
        Loop(first, source, [sink], beside=[slowed(second, 0.05)]).run()
    assert [result.frame.index for result in sink.results] == list(range(100))
    said = [(result.frame.index, each.result) for result in sink.results for each in result.beside]
    numbers = [result.frame.index for _, result in said]
    assert 2 <= len(set(numbers)) < 60, "it takes the newest frame when it is done, not each"
    assert numbers == sorted(numbers)
    assert all(number <= index for index, number in ((at, each.frame.index) for at, each in said))
    assert said[-1][1].depth.shape == (32, 48)


def test_one_whose_last_engine_fails_is_left_out_and_the_first_goes_on(
    small_bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    fragile = make_bundle(tmp_path / "f", 64, 96, variants=(ONNXRUNTIME,), fragile=True, name="fragile")
    sink = Kept()
    with (
        load(small_bundle) as first,
        load(fragile) as second,  # the numbers in the pattern are white, which it cannot bear
        open_source("test:?fps=0&frames=60&size=96x64") as source,
        caplog.at_level("INFO", "edgekit_runtime"),
    ):
        stats = Loop(first, source, [sink], beside=[second]).run()
    assert stats.frames == 60
    assert sink.results[-1].beside == ()
    lost = [record.getMessage() for record in caplog.records if record.event == "bundle_lost"]
    assert len(lost) == 1
    assert "fragile is left out" in lost[0]


def test_the_command_takes_several_and_a_line_of_json_has_them_all(
    capsys, small_bundle: Path, depth_bundle: Path, tmp_path: Path
):
    out = tmp_path / "out.jsonl"
    arguments = [str(small_bundle), "--source", "test:?fps=30&frames=30&size=96x64", "--json", "--sink", f"json:{out}"]
    assert main([*arguments, str(depth_bundle)]) == 0
    said = capsys.readouterr()
    assert "beside it: " in said.err
    (beside,) = json.loads(said.out)["beside"]
    assert beside.startswith(str(depth_bundle))
    last = json.loads(out.read_text(encoding="utf-8").splitlines()[-1])
    (far,) = last["beside"]
    assert far["bundle"] == "far"
    assert far["index"] <= last["index"]
    assert 0 <= far["depth"]["min"] <= far["depth"]["median"] <= far["depth"]["max"] <= 255


def manifest_of(kind: Kind, unit: str = "relative") -> Manifest:
    manifest = manifest_for({}, (), 64, 96, depth=True, name="far")
    outputs = [output for output in manifest.outputs if output.modality.kind is kind]
    return replace(
        manifest, outputs=tuple(replace(each, modality=replace(each.modality, unit=unit)) for each in outputs)
    )


def result_of(labels: bool = False, depth: np.ndarray | None = None, beside: tuple[Beside, ...] = ()) -> Result:
    frame = Frame(np.full((540, 960, 3), 100, np.uint8), 0, 0.0, time.monotonic())
    classes = np.ones((135, 240), np.uint8) if labels else None
    return Result(frame, classes, depth, Timing(0, 1), beside)


RAMP = np.repeat(np.linspace(1, 9, 240, dtype=np.float32)[None], 135, axis=0)
STATUS = Status(30.0, 8.0, "engine")


def test_depth_of_a_second_bundle_is_an_inset_in_the_corner():
    beside = Beside(manifest_of(Kind.DEPTH), result_of(depth=RAMP), 3.0)
    overlay = Overlay(manifest_of(Kind.LABELS))
    plain = overlay.draw(result_of(labels=True), STATUS).copy()
    both = overlay.draw(result_of(labels=True, beside=(beside,)), STATUS)
    changed = (plain != both).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert rows[0] > 540 / 2
    assert columns[0] > 960 / 2
    inset = both[rows[0] + 40 : rows[-1] - 5, columns[0] + 5 : columns[-1] - 5].astype(int)
    near, far = inset[:, :20].mean(axis=(0, 1)), inset[:, -20:].mean(axis=(0, 1))
    assert near[2] > near[0], "red is near"
    assert far[0] > far[2], "blue is far"


def test_inverse_depth_is_red_where_it_is_high():
    beside = Beside(manifest_of(Kind.DEPTH, "relative inverse depth"), result_of(depth=RAMP), 3.0)
    overlay = Overlay(manifest_of(Kind.LABELS), View(opacity=1.0, depth=True))
    picture = overlay.draw(result_of(labels=True, beside=(beside,)), STATUS)
    assert picture[100, 940, 2] > picture[100, 940, 0], "with the switch the whole picture shows it"
    own = Overlay(manifest_of(Kind.DEPTH, "relative inverse depth"), View(opacity=1.0))
    picture = own.draw(result_of(depth=RAMP), STATUS)
    assert picture[100, 940, 2] > picture[100, 940, 0]


@pytest.mark.parametrize("size", [(16, 16), (48, 32), (2000, 300)])
def test_pictures_too_small_for_an_inset_are_left_alone(size: tuple[int, int]):
    frame = Frame(np.full((size[1], size[0], 3), 100, np.uint8), 0, 0.0, time.monotonic())
    beside = Beside(manifest_of(Kind.DEPTH), result_of(depth=RAMP), 3.0)
    result = replace(result_of(labels=True, beside=(beside,) * 9), frame=frame)
    assert Overlay(manifest_of(Kind.LABELS)).draw(result, STATUS).shape == (size[1], size[0], 3)
