"""Pictures out to an RTSP server: a real one of GStreamer that takes a stream and asks for a password."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from pattern_number import read_number
from test_network import SYSTEM_PYTHON, free_port, gstreamer, wait_for

from edgekit_runtime import Frame, Result, SinkError, Timing, UsageError, open_sink
from edgekit_runtime.sinks import check_sinks
from edgekit_runtime.sinks.base import Sink, SinkContext
from edgekit_runtime.sources.base import SourceState
from edgekit_runtime.sources.pattern import Pattern

PATTERN = Pattern(320, 180)


@pytest.fixture(autouse=True)
def parts_are_here() -> None:
    if not shutil.which("ffmpeg"):
        pytest.skip("no ffmpeg here (apt install ffmpeg)")
    gstreamer()


@contextmanager
def server(port: int, kept: Path) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("rtsp_server.py")
    command = [SYSTEM_PYTHON, str(script), str(port), str(kept)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout.readline().strip() == "ready"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def address(port: int, password: str = "hunter2") -> str:
    return f"rtsp://user:{password}@127.0.0.1:{port}/live"


def show(sink: Sink, number: int, picture: np.ndarray | None = None) -> None:
    picture = PATTERN.draw(number) if picture is None else picture
    sink.write(picture, Result(Frame(picture, number, number / 25, time.monotonic()), None, None, Timing(0, 0)))


@contextmanager
def sending(port: int, **options: str) -> Iterator[Sink]:
    """A sink that gets 25 frames a second until the end of the block."""
    sink = open_sink(address(port, **options), SinkContext(live=True, fps=25))
    done = threading.Event()

    def feed() -> None:
        number = 0
        while not done.wait(0.04):
            show(sink, number)
            number += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield sink
    finally:
        done.set()
        thread.join()


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kept_numbers(path: Path) -> list[int]:
    with av.open(str(path), format="h264") as container:
        read = (read_number(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0))
        return [number for number in read if number is not None]


def test_what_is_shown_arrives_and_comes_back_after_the_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    port, first, second = free_port(), tmp_path / "first.h264", tmp_path / "second.h264"
    with caplog.at_level(logging.INFO, "edgekit_runtime"), sending(port) as sink:
        with server(port, first):
            wait_for(lambda: size_of(first) > 20_000)
        wait_for(lambda: "trying again" in caplog.text)
        with server(port, second):
            wait_for(lambda: size_of(second) > 20_000)
            sink.idle(SourceState.STALLED, "no frame for 2 s")
    began = time.monotonic()
    sink.close()
    assert time.monotonic() - began < 2
    for path in (first, second):
        numbers = kept_numbers(path)
        assert len(numbers) > 10
        assert numbers == sorted(numbers)
    assert kept_numbers(second)[0] > kept_numbers(first)[-1]
    assert "hunter2" not in caplog.text
    assert f"rtsp://***@127.0.0.1:{port}/live: " in caplog.text


def test_what_was_never_sent_is_an_error_that_says_why_without_the_password(tmp_path: Path) -> None:
    port = free_port()
    with server(port, tmp_path / "out.h264"), sending(port, password="hunter3") as sink:
        wait_for(lambda: sink._trouble)
    with pytest.raises(SinkError, match=r"nothing was sent: .*401") as caught:
        sink.close()
    assert "hunter3" not in str(caught.value)


def test_a_server_that_never_reads_holds_nothing_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as lazy:
        sink = open_sink(address(lazy.getsockname()[1]), SinkContext(live=True, fps=25))
        noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), dtype=np.uint8)
        began = time.monotonic()
        for number in range(50):
            show(sink, number, noise)
        assert time.monotonic() - began < 3
        wait_for(lambda: sink._program is not None)
        began = time.monotonic()
        with pytest.raises(SinkError, match="nothing was sent"):
            sink.close()
        assert time.monotonic() - began < 2
        assert sink._program.poll() is not None


def test_frames_of_any_size_are_fitted_to_the_first(tmp_path: Path) -> None:
    port, kept = free_port(), tmp_path / "out.h264"
    with server(port, kept):
        sink = open_sink(address(port), SinkContext(live=True, fps=25))
        sizes = [(161, 121), (320, 180), (64, 48)]
        deadline = time.monotonic() + 20
        while size_of(kept) < 3000 and time.monotonic() < deadline:
            for number, size in enumerate(sizes):
                show(sink, number, Pattern(*size).draw(number))
                time.sleep(0.04)
        sink.close()
    with av.open(str(kept), format="h264") as container:
        assert {(frame.width, frame.height) for frame in container.decode(video=0)} == {(160, 120)}


def test_without_ffmpeg_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SinkError, match="the program ffmpeg is needed"):
        open_sink("rtsp://host/live")


@pytest.mark.parametrize("text", ["rtsp:", "rtsp:host/live", "rtsp:///live", "rtsp://:554/live", "rtsp://a b/live"])
def test_an_address_without_a_host_is_wrong_usage(text: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        check_sinks([text])


def test_a_sink_that_does_not_exist_does_not_tell_its_password() -> None:
    with pytest.raises(UsageError) as caught:
        check_sinks(["rtmp://user:hunter2@host/live.mp4"])
    assert "hunter2" not in str(caught.value)
