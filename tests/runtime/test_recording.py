"""Recordings: every frame at its own time, playable whenever and however the recording ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pattern_number import read_number

from edgekit_runtime import Frame, Result, SinkError, Timing, UsageError, open_sink, open_source
from edgekit_runtime.sinks.base import Sink, SinkContext
from edgekit_runtime.sources.pattern import Pattern

PATTERN = Pattern(320, 180)


def show(sink: Sink, number: int, time_s: float, picture: np.ndarray | None = None) -> None:
    picture = PATTERN.draw(number) if picture is None else picture
    sink.write(picture, Result(Frame(picture, number, time_s, 0.0), None, None, Timing(0, 0)))


def played(path: Path) -> list[tuple[int | None, float]]:
    """(number in the picture, presentation time in s) of every frame, by a player that is not ours."""
    with av.open(str(path)) as container:
        return [
            (read_number(frame.to_ndarray(format="bgr24")), float(frame.time)) for frame in container.decode(video=0)
        ]


def record(path: Path, times: list[float], fps: float | None = 30.0) -> None:
    sink = open_sink(f"file:{path}", SinkContext(fps=fps))
    for number, time_s in enumerate(times):
        show(sink, number, time_s)
    sink.close()


@pytest.mark.parametrize("fps", [24, 25, 29.97, 30, 60])
def test_a_steady_recording_has_every_frame_at_its_time(tmp_path: Path, fps: float):
    times = [number / fps for number in range(150)]
    record(tmp_path / "out.mp4", times, fps)
    frames = played(tmp_path / "out.mp4")
    assert [number for number, _ in frames] == list(range(150))
    assert [time_s for _, time_s in frames] == pytest.approx(times, abs=1e-4)
    assert os.listdir(tmp_path) == ["out.mp4"]  # noqa: PTH208


def test_uneven_times_are_kept(tmp_path: Path):
    times = list(np.cumsum([0, 0.02, 0.5, 0.033, 5.0, 0.01, 0.1, 0.04]))
    record(tmp_path / "out.mp4", times)
    frames = played(tmp_path / "out.mp4")
    assert [number for number, _ in frames] == list(range(8))
    assert [time_s for _, time_s in frames] == pytest.approx(times, abs=1e-4)


def test_opencv_plays_it_at_the_right_speed(tmp_path: Path):
    record(tmp_path / "out.mp4", [number / 25 for number in range(100)], 25)
    with open_source(tmp_path / "out.mp4") as source:
        assert source.fps == 25
        assert [read_number(frame.image) for frame in source] == list(range(100))


def test_it_is_a_plain_mp4_with_an_index_and_seekable(tmp_path: Path):
    record(tmp_path / "out.mp4", [number / 25 for number in range(200)], 25)
    with av.open(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert stream.frames == 200
        assert stream.average_rate == 25
        assert stream.duration * stream.time_base == Fraction(8)
        container.seek(int(5 * av.time_base))
        frame = next(container.decode(video=0))
        assert 4 < frame.time <= 5
    data = (tmp_path / "out.mp4").read_bytes()
    assert data[4:8] == b"ftyp"
    assert data.count(b"moof") == data.count(b"mfhd")


def test_odd_and_changing_sizes_are_fitted(tmp_path: Path):
    sink = open_sink(f"file:{tmp_path}/out.mp4", SinkContext(fps=30))
    for number, size in enumerate([(161, 121), (161, 121), (320, 180), (64, 48)]):
        show(sink, number, number / 30, Pattern(*size).draw(number))
    sink.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [(f.width, f.height) for f in container.decode(video=0)] == [(160, 120)] * 4


def test_a_recording_without_frames_leaves_no_file(tmp_path: Path):
    open_sink(f"file:{tmp_path}/out.mp4").close()
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_said_at_once(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SinkError, match="cannot be written"):
        open_sink(f"file:{tmp_path}/file/out.mp4")
    (tmp_path / "d.mp4").mkdir()
    with pytest.raises(SinkError, match="is a folder"):
        open_sink(f"file:{tmp_path}/d.mp4")
    with pytest.raises(UsageError, match=r"\.mp4 files"):
        open_sink(f"file:{tmp_path}/out.gif")


RECORD = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
sys.path.insert(0, {here!r})
from test_recording import *
sink = open_sink("file:" + sys.argv[1], SinkContext(fps=30))
noise = np.random.default_rng(0)
try:
    for number in range(400):
        picture = PATTERN.draw(number)
        picture[60:] = noise.integers(0, 255, picture[60:].shape, dtype=np.uint8)
        show(sink, number, number / 30, picture)
    sink.close()
except SinkError as error:
    print(error)
"""


@pytest.mark.parametrize("limit", [2_000_000, 3_500_000, 5_000_000])
def test_a_full_disk_ends_the_recording_with_a_clear_error_and_what_was_written_plays(tmp_path: Path, limit: int):
    """A limit on the size of files stands for a full disk: the same calls fail."""
    path = tmp_path / "out.mp4"
    code = RECORD.format(limit=limit, here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, encoding="utf-8", check=True)
    first, second = done.stdout.strip().splitlines()
    assert first.startswith(f"{path} cannot be written: ")
    assert "frames were saved and play. Free some space" in second
    numbers = [number for number, _ in played(path)]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 60
    assert os.listdir(tmp_path) == ["out.mp4"]  # noqa: PTH208


def wait_for(condition, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def start(bundle: Path, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "edgekit_runtime", str(bundle), *arguments], stderr=subprocess.DEVNULL
    )


def test_a_killed_recording_plays_up_to_its_last_seconds(small_bundle: Path, tmp_path: Path):
    path, partial = tmp_path / "out.mp4", tmp_path / "out.partial.mp4"
    sink = ("--source", "test:?fps=120&size=320x180", "--no-overlay", "--sink", f"file:{path}")
    with start(small_bundle, *sink) as process:
        wait_for(lambda: partial.exists() and partial.stat().st_size > 150_000)
        process.kill()
    numbers = [number for number, _ in played(partial)]
    assert len(numbers) >= 60
    assert numbers == sorted(numbers)
    # The next recording to the same name does not write over it.
    record(path, [0, 0.04, 0.08])
    assert len(played(path)) == 3
    assert [number for number, _ in played(tmp_path / "out.recovered-1.mp4")] == numbers


def test_an_earlier_recording_of_that_name_stays(tmp_path: Path):
    path = tmp_path / "out.mp4"
    record(path, [0, 0.04, 0.08, 0.12])
    record(path, [0, 0.04])
    record(path, [0])
    lengths = {each.name: len(played(each)) for each in tmp_path.iterdir()}
    assert lengths == {"out.mp4": 1, "out.before-1.mp4": 4, "out.before-2.mp4": 2}


def test_what_another_process_records_into_is_left_alone(tmp_path: Path):
    path = tmp_path / "out.mp4"
    first = open_sink(f"file:{path}", SinkContext(fps=30))
    for number in range(70):
        show(first, number, number / 30)
    with pytest.raises(SinkError, match="another edgekit-run records into it"):
        open_sink(f"file:{path}", SinkContext(fps=30))
    first.close()
    assert len(played(path)) == 70
    record(path, [0])


@pytest.mark.parametrize("sink", ["file:{}/clip.mp4", "png:{}/pictures"])
def test_what_is_read_is_not_written_over(edgekit_run, small_bundle: Path, tmp_path: Path, sink: str):
    record(tmp_path / "clip.mp4", [0, 0.04])
    (tmp_path / "pictures").mkdir()
    cv2.imwrite(str(tmp_path / "pictures" / "000000.png"), np.zeros((64, 96, 3), np.uint8))
    before = {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()}
    source = tmp_path / ("clip.mp4" if sink.startswith("file") else "pictures")
    done = edgekit_run(small_bundle, "--source", source, "--sink", sink.format(tmp_path))
    assert done.returncode == 2
    assert "would write over what is read" in done.stderr
    assert {each: each.read_bytes() for each in tmp_path.rglob("*") if each.is_file()} == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_finishes_the_recording(small_bundle: Path, tmp_path: Path, number: signal.Signals):
    path, figures = tmp_path / "out.mp4", tmp_path / "stats.json"
    sink = ("--source", "test:?fps=60&size=320x180", "--no-overlay", "--sink", f"file:{path}")
    with start(small_bundle, *sink, "--stats-file", str(figures)) as process:
        wait_for(figures.exists)
        process.send_signal(number)
        assert process.wait(2) == 0
    numbers = [number for number, _ in played(path)]
    assert len(numbers) >= 10
    assert not (tmp_path / "out.partial.mp4").exists()
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == len(numbers)
    capture.release()
