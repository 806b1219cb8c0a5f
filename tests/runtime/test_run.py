"""`edgekit-run` as a person or a script uses it."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path
from typing import NoReturn

import cv2
import numpy as np
import pytest
from bundles import OPENVINO, make_bundle
from pattern_number import read_number

from edgekit_runtime import Loop, SinkError, SourceError, UsageError, load, open_source, run
from edgekit_runtime.cli import main
from edgekit_runtime.sinks.base import Sink


def test_a_real_clip_into_a_recording_with_figures_as_json(edgekit_run, bundle: Path, clip: Path, tmp_path: Path):
    out = tmp_path / "out.mp4"
    done = edgekit_run(bundle, "--source", clip, "--sink", f"file:{out}", "--sink", "null", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["frames"], figures["dropped"], figures["state"]) == (221, 0, "ended")
    assert figures["fps"] > 0
    assert 0 < figures["age_p50_ms"] <= figures["age_p99_ms"]
    assert figures["first_result_s"] > 0
    assert figures["engine"].startswith("OpenVINO")
    with open_source(out) as source:
        assert source.fps == 25
        frames = list(source)
    assert len(frames) == 221
    assert frames[-1].timestamp_s == pytest.approx(220 / 25, abs=1e-3)
    with open_source(clip) as source:
        original = source.read(10)
    assert np.abs(frames[0].image.astype(int) - original.image).mean() > 10, "the overlay is on it"


def test_pictures_are_written_whole_and_named_by_frame(edgekit_run, small_bundle: Path, tmp_path: Path):
    source = ("--source", "test:?fps=0&size=320x180", "--frames", "5", "--no-overlay")
    done = edgekit_run(small_bundle, *source, "--sink", f"png:{tmp_path}/out")
    assert done.returncode == 0, done.stderr
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == [f"{number:06d}.png" for number in range(5)]
    assert [read_number(cv2.imread(f"{tmp_path}/out/{name}")) for name in names] == list(range(5))


@pytest.mark.parametrize("pixel_format", ["bgr24", "rgb24"])
def test_raw_frames_on_standard_output(small_bundle: Path, pixel_format: str):
    command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--no-overlay", "--frames", "7"]
    command += ["--source", "test:?fps=0&size=320x180", "--sink", f"stdout:{pixel_format}"]
    done = subprocess.run(command, capture_output=True, check=True)
    frames = np.frombuffer(done.stdout, np.uint8).reshape(-1, 180, 320, 3)
    frames = frames[..., ::-1] if pixel_format == "rgb24" else frames
    assert [read_number(frame) for frame in frames] == list(range(7))


def test_a_reader_that_leaves_ends_the_run(small_bundle: Path):
    command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--source", "test:", "--sink", "stdout"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.read(1000)
        process.stdout.close()
        assert process.wait(30) == 0
        assert b"Traceback" not in process.stderr.read()


@pytest.mark.parametrize("source", ["test:?fps=0", "test:"])
def test_sigterm_ends_a_run_whose_reader_has_stopped_reading(small_bundle: Path, source: str, tmp_path: Path):
    figures = tmp_path / "stats.json"
    command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--source", source]
    command += ["--sink", "stdout", "--stats-file", str(figures)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        process.stdout.read(1000)
        time.sleep(1)  # the pipe fills
        process.send_signal(signal.SIGTERM)
        assert process.wait(2) == 0


def test_a_stalled_reader_of_a_live_source_finds_fresh_pictures(small_bundle: Path):
    class Slow(Sink):
        def __init__(self) -> None:
            self.seen: list[tuple[int, float]] = []

        def write(self, picture, result) -> None:
            self.seen.append((result.frame.index, time.monotonic() - result.frame.captured))
            if len(self.seen) == 3:
                time.sleep(0.6)

    sink = Slow()
    with load(small_bundle) as model, open_source("test:?fps=50&size=320x180") as source:
        stats = Loop(model, source, [sink], frames=20).run()
    indices = [index for index, _ in sink.seen]
    assert indices == sorted(set(indices))
    assert stats.frames == 20
    assert stats.dropped >= 20, "what came during the stall was dropped, not queued"
    # The one that waited in the hand-off may be shown first; it was replaced all the time, so it is no older
    # than a frame and an inference.
    assert indices[3] - indices[2] >= 20


class Slow(Sink):
    """Keeps the numbers of the frames that it gets."""

    def __init__(self) -> None:
        self.numbers: list[int | None] = []

    def write(self, picture, result) -> None:
        self.numbers.append(read_number(picture))
        time.sleep(0.005)


def test_a_file_loses_no_frame_however_slow_the_sink(small_bundle: Path):
    sink = Slow()
    with load(small_bundle) as model, open_source("test:?fps=0&frames=60&size=320x180") as source:
        stats = Loop(model, source, [sink]).run()
    assert sink.numbers == list(range(60))
    assert (stats.frames, stats.dropped, stats.state) == (60, 0, "ended")


@pytest.mark.parametrize("frames", [None, 7])
def test_a_bundle_for_throughput_shows_every_frame_of_a_file_in_order(tmp_path: Path, frames: int | None):
    several = dataclasses.replace(OPENVINO, config={"PERFORMANCE_HINT": "THROUGHPUT", "NUM_STREAMS": 3})
    sink = Slow()
    folder = make_bundle(tmp_path / "b", 64, 96, variants=(several,))
    with load(folder) as model, open_source("test:?fps=0&frames=40&size=320x180") as source:
        assert model.requests >= 2
        stats = Loop(model, source, [sink], frames=frames).run()
    assert sink.numbers == list(range(frames or 40))
    assert stats.dropped == 0


def test_a_camera_is_asked_for_what_the_bundle_was_built_to_see(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """No test machine has a camera: what would be opened is noted, and there is none."""
    asked: list[str] = []

    def note(uri: str) -> NoReturn:
        asked.append(uri)
        raise SourceError("no camera in this test")

    monkeypatch.setattr("edgekit_runtime.app.open_source", note)
    folder = make_bundle(tmp_path / "b", 64, 96)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    manifest["camera"] = {"size": "640x480", "fps": "15"}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    for source in ("camera:0", "camera:0?size=1280x720", "/dev/video3", "test:"):
        with pytest.raises(SourceError):
            run(folder, source, ["null"])
    assert asked == [
        "camera:0?size=640x480&fps=15",
        "camera:0?size=1280x720&fps=15",
        "camera:/dev/video3?size=640x480&fps=15",
        "test:",
    ]


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--source", "nowhere.mp4", "--sink", "null"], 1, "no file or folder nowhere.mp4"),
        (["--camera", "99", "--sink", "null"], 1, "camera"),
        (["--source", "gopher:x", "--sink", "null"], 2, "unknown source 'gopher'"),
        (["--source", "test:", "--sink", "out.mp4"], 2, "Did you mean file:out.mp4?"),
        (["--source", "test:", "--sink", "null", "--sink", "null"], 2, "twice"),
        (["--source", "test:", "--sink", "file:"], 2, "needs a path"),
        (["--source", "test:", "--sink", "stdout", "--json"], 2, "both want standard output"),
        (["--source", "test:", "--sink", "null", "--frames", "0"], 2, "invalid number of frames value: '0'"),
        (["--source", "test:", "--sink", "null", "--engine", "magic"], 1, "no variant for magic"),
        (["--source", "test:", "--camera", "0"], 2, "not allowed with"),
        ([], 2, "required"),
        (["--source", "test:", "--fast"], 2, "unrecognized arguments: --fast"),
    ],
)
def test_bad_input_is_a_short_error(capsys, small_bundle: Path, arguments: list[str], status: int, message: str):
    try:
        returned = main([str(small_bundle), *arguments])
    except SystemExit as exited:  # argparse's way
        returned = exited.code
    out, err = capsys.readouterr()
    assert returned == status
    assert out == ""
    assert message in err
    assert "Traceback" not in err
    assert status == 2 or len(err.strip().splitlines()) <= 2


def test_debug_shows_the_traceback(capsys, small_bundle: Path):
    assert main([str(small_bundle), "--source", "nowhere.mp4", "--sink", "null", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_bundle_with_a_changed_byte_is_refused(capsys, tmp_path: Path):
    folder = make_bundle(tmp_path / "b", 64, 96)
    data = bytearray((folder / "model.bin").read_bytes())
    data[7] ^= 255
    (folder / "model.bin").write_bytes(data)
    assert main([str(folder), "--source", "test:", "--sink", "null"]) == 1
    assert "model.bin is not what the manifest says" in capsys.readouterr().err


def test_a_hostile_file_does_not_take_the_loop_down(capsys, small_bundle: Path, real: Path, tmp_path: Path):
    hostile = real / "hostile" / "demo_48x48_raw_dib.avi"
    status = main([str(small_bundle), "--source", str(hostile), "--sink", f"file:{tmp_path}/out.mp4"])
    err = capsys.readouterr().err
    assert status == (1 if "the decoder crashed on it" in err else 0)


def test_a_source_that_breaks_in_mid_stream_finishes_the_recording(small_bundle: Path, tmp_path: Path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(5):
        cv2.imwrite(f"{frames}/{number}.png", np.full((64, 96, 3), 40 * number, np.uint8))
    (frames / "5.png").write_bytes(b"broken")
    out = tmp_path / "out.mp4"
    with pytest.raises(Exception, match=r"cannot be decoded: 5\.png"):
        run(small_bundle, str(frames), [f"file:{out}"])
    with open_source(out) as source:
        assert sum(1 for _ in source) == 5


def test_a_failing_sink_ends_the_run_and_closes_the_others(small_bundle: Path, tmp_path: Path):
    out, pictures = tmp_path / "out.mp4", tmp_path / "png"
    threading.Timer(1.0, lambda: pictures.rename(tmp_path / "gone")).start()
    with pytest.raises(SinkError, match="cannot be written"):
        run(small_bundle, "test:?fps=30&size=320x180", [f"file:{out}", f"png:{pictures}"])
    with open_source(out) as source:
        assert sum(1 for _ in source) >= 1


def test_stats_file_follows_the_run(small_bundle: Path, tmp_path: Path):
    path = tmp_path / "stats.json"
    stats = run(small_bundle, "test:?fps=0&frames=10", ["null"], stats_file=path)
    assert json.loads(path.read_text(encoding="utf-8")) == stats.to_dict()
    assert stats.frames == 10


def test_usage_errors_come_before_anything_is_opened(tmp_path: Path):
    with pytest.raises(UsageError, match="Unknown sink"):
        run(tmp_path / "nowhere.edgekit", "test:", ["hologram"])
    with pytest.raises(UsageError, match="at least 1"):
        run(tmp_path / "nowhere.edgekit", "test:", ["null"], frames=0)


def test_passed_over_variants_are_said(capsys, tmp_path: Path):
    variants = (dataclasses.replace(OPENVINO, engine="tensorrt", precision="fp16"), OPENVINO)
    bundle = make_bundle(tmp_path / "b", 64, 96, variants=variants)
    assert main([str(bundle), "--source", "test:?fps=0", "--frames", "3", "--sink", "null", "--json"]) == 0
    out, err = capsys.readouterr()
    assert "passed over: tensorrt fp16" in err
    assert len(json.loads(out)["skipped"]) == 1


def test_without_a_screen_a_window_is_a_clear_error(capsys, small_bundle: Path, monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    # Before anything else is opened: the second bundle does not even exist.
    for bundle in (str(small_bundle), "none.edgekit"):
        assert main([bundle, "--sink", "window", "--source", "test:"]) == 1
        said = capsys.readouterr().err
        assert "no screen" in said
        assert "--sink web, file:OUT.mp4" in said


def test_the_folder_that_a_build_wrote_to_will_do_for_its_bundle(capsys, tmp_path: Path):
    folder = tmp_path / "build"
    make_bundle(tmp_path / "unpacked", 64, 96)
    folder.mkdir()
    for name in ("one.edgekit", "two.edgekit"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            for path in (tmp_path / "unpacked").rglob("*"):
                if path.is_file():
                    archive.write(path, path.relative_to(tmp_path / "unpacked"))
        status = main([str(folder), "--source", "test:?fps=0", "--frames", "2", "--sink", "null"])
        said = capsys.readouterr().err
        if name == "one.edgekit":
            assert status == 0, said
            assert "one.edgekit" in said
    assert status == 1
    assert "holds 2 bundles" in said
    assert str(folder / "two.edgekit") in said


def test_every_option_has_help(edgekit_run):
    done = edgekit_run("--help")
    assert done.returncode == 0
    for option in ("--camera", "--source", "--sink", "--frames", "--no-overlay", "--json", "--stats-file", "--debug"):
        assert option in done.stdout


def test_a_source_that_fails_while_the_engine_compiles_ends_in_an_error_not_in_a_crash(bundle: Path, tmp_path: Path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"hello")
    for _ in range(4):  # it crashed three times of four
        command = [sys.executable, "-m", "edgekit_runtime", str(bundle), "--source", str(broken), "--sink", "null"]
        child = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
        assert child.returncode == 1, child.stderr
        assert "not a video" in child.stderr
