"""Network streams, from real servers: MJPEG over HTTP from another edgekit-run, RTSP from GStreamer."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest
from pattern_number import read_number

from edgekit_runtime import SourceError, UsageError, open_source
from edgekit_runtime.sources import base
from edgekit_runtime.sources.base import SourceState

SYSTEM_PYTHON = "/usr/bin/python3"


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def page(bundle: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """A page with the numbered pattern; its stream is what is read."""
    command = [sys.executable, "-m", "edgekit_runtime", str(bundle), "--source", "test:?size=320x180&fps=25"]
    command += ["--no-overlay", "--sink", f"web:{port}"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert any(line.startswith("watch at ") for line in process.stderr)
            threading.Thread(target=process.stderr.read, daemon=True).start()
            yield process
        finally:
            process.kill()


def wait_for(what, patience_s: float = 20.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shown(port: int) -> int:
    """How many pictures the page has had."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/state", timeout=5) as answer:
        return int(json.load(answer)["frames"])


def numbers(source, count: int) -> list[int]:
    """Numbers of the next frames that can be read."""
    found: list[int] = []
    deadline = time.monotonic() + 20
    while len(found) < count and time.monotonic() < deadline:
        frame = source.read(0.5)
        if frame is not None and (number := read_number(frame.image)) is not None:
            found.append(number)
    return found


def test_an_mjpeg_stream_stays_fresh_and_comes_back_after_its_server(small_bundle: Path) -> None:
    port = free_port()
    address = f"http://127.0.0.1:{port}/stream"
    with page(small_bundle, port):
        source = open_source(address)
        assert source.live
        first = numbers(source, 5)
        assert first == sorted(set(first))
        begun = shown(port)
        wait_for(lambda: shown(port) >= begun + 20)  # a reader that was away finds what is new
        now = shown(port)
        source.read(0.5)
        assert numbers(source, 1)[0] >= now - 3, "of a live source no picture has a number below the count"
    wait_for(lambda: retries(source))
    assert "trying again" in source.reason
    with page(small_bundle, port):
        assert len(numbers(source, 3)) == 3
        assert source.state is SourceState.RUNNING
        began = time.monotonic()
        source.close()
        assert time.monotonic() - began < 2


def test_closing_while_nothing_answers_takes_no_time(small_bundle: Path) -> None:
    port = free_port()
    with page(small_bundle, port):
        source = open_source(f"http://127.0.0.1:{port}/stream")
        numbers(source, 1)
    wait_for(lambda: retries(source))
    began = time.monotonic()
    source.close()
    assert time.monotonic() - began < 2
    assert source.state is SourceState.ENDED


@contextmanager
def rtsp(port: int) -> Iterator[subprocess.Popen[str]]:
    script = Path(__file__).with_name("rtsp_server.py")
    with subprocess.Popen([SYSTEM_PYTHON, str(script), str(port)], stdout=subprocess.PIPE, encoding="utf-8") as process:
        try:
            assert process.stdout.readline().strip() == "ready"
            yield process
        finally:
            process.send_signal(signal.SIGKILL)


def gstreamer() -> None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not shutil.which(SYSTEM_PYTHON) or subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True).returncode:
        pytest.skip("no RTSP server here (apt install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good)")


def read_some(source, count: int) -> list:
    deadline, found = time.monotonic() + 20, []
    while len(found) < count and time.monotonic() < deadline:
        if (frame := source.read(0.5)) is not None:
            found.append(frame)
    return found


def retries(source) -> bool:
    return source.read(0.1) is None and source.state is SourceState.RETRYING


def test_an_rtsp_stream_is_read() -> None:
    gstreamer()
    port = free_port()
    with rtsp(port), open_source(f"rtsp://127.0.0.1:{port}/live") as source:
        frames = read_some(source, 5)
        assert [frame.image.shape for frame in frames] == [(184, 320, 3)] * 5
        assert source.state is SourceState.RUNNING


def test_a_password_is_never_shown() -> None:
    port = free_port()
    with pytest.raises(SourceError) as caught:
        open_source(f"rtsp://admin:hunter2@127.0.0.1:{port}/live")
    assert "hunter2" not in str(caught.value)
    assert "does not answer" in str(caught.value)
    assert "password" in caught.value.hint


class _Lying(BaseHTTPRequestHandler):
    """A server that answers a request for a stream with something else."""

    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/vnd.apple.mpegurl")
        self.end_headers()
        with suppress(OSError):
            self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        return


@contextmanager
def lying(body: bytes) -> Iterator[str]:
    handler = type("Handler", (_Lying,), {"body": body})
    server = HTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/stream"
    finally:
        server.shutdown()
        server.server_close()


def test_a_server_cannot_make_the_decoder_read_a_local_file(clip: Path) -> None:
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    with lying(playlist.encode()) as address, pytest.raises(SourceError, match="does not answer, or has no video"):
        open_source(address)


def test_a_page_that_is_no_stream_is_an_error() -> None:
    with lying(b"<html>not found</html>") as address, pytest.raises(SourceError, match="no video that OpenCV decodes"):
        open_source(address)


@pytest.mark.parametrize("uri", ["rtsp:///live", "http://", "http://:80/x", "http://host:99999/x", "rtsp://[::1/x"])
def test_an_address_without_a_host_is_wrong_usage(uri: str) -> None:
    with pytest.raises(UsageError, match="names no host"):
        open_source(uri)


def test_a_file_on_a_server_has_an_end(clip: Path) -> None:
    handler = partial(SimpleHTTPRequestHandler, directory=str(clip.parent))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        with open_source(f"http://127.0.0.1:{server.server_address[1]}/{clip.name}") as source:
            assert not source.live
            assert sum(1 for _ in source) == 221
        server.shutdown()


def test_pauses_grow() -> None:
    assert list(base.PAUSES_S) == sorted(base.PAUSES_S)
    assert base.PAUSES_S[-1] <= 5


class _Whole(SimpleHTTPRequestHandler):
    """Sends no parts of files."""

    def log_message(self, *_: object) -> None:
        return None


def test_a_clip_with_its_index_at_the_end_is_told_how_to_be_sent(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "late.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 30, (640, 360))
    for _ in range(30):
        writer.write(np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8))
    writer.release()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Whole, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(SourceError) as caught, open_source(f"http://127.0.0.1:{server.server_port}/late.mp4"):
            pass
    finally:
        server.shutdown()
        server.server_close()
    assert "-movflags +faststart" in caught.value.hint
