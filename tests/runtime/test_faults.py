"""What goes wrong in the field: damaged files, garbage on the wire, sizes that change, clocks that jump, passwords."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from pattern_number import read_number
from test_network import free_port, gstreamer, rtsp, wait_for

from edgekit_runtime import Frame, Result, SourceError, SourceState, Timing, open_sink, open_source, run
from edgekit_runtime.sinks.base import SinkContext
from edgekit_runtime.sources.pattern import Pattern

PATTERN = Pattern(320, 180)


def jpeg(number: int) -> bytes:
    return cv2.imencode(".jpg", PATTERN.draw(number), [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """40 numbered frames in three containers, by FFmpeg."""
    folder, films = tmp_path_factory.mktemp("films"), {}
    for name, codec in (("film.mp4", "mpeg4"), ("film.avi", "mjpeg"), ("film.ts", "mpeg2video")):
        with av.open(str(folder / name), "w") as container:
            stream = container.add_stream(codec, rate=25)
            stream.width, stream.height = 320, 180
            stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
            for number in range(40):
                frame = av.VideoFrame.from_ndarray(PATTERN.draw(number), format="bgr24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        films[name] = (folder / name).read_bytes()
    return films


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("name", ["film.mp4", "film.avi", "film.ts"])
def test_a_damaged_file_gives_what_can_be_had_or_an_error(
    films: dict[str, bytes], name: str, seed: int, tmp_path: Path
) -> None:
    data, generator = bytearray(films[name]), random.Random(seed)
    for _ in range(12):
        at = generator.randrange(len(data))
        data[at : at + 40] = generator.randbytes(len(data[at : at + 40]))
    (tmp_path / name).write_bytes(data)
    began, frames = time.monotonic(), []
    with suppress(SourceError), open_source(tmp_path / name) as source:
        frames += iter(source)
    assert time.monotonic() - began < 30
    assert len(frames) <= 45
    assert all(frame.image.ndim == 3 for frame in frames)
    assert [frame.timestamp_s for frame in frames] == sorted({frame.timestamp_s for frame in frames})


@contextmanager
def mjpeg_server(parts: list[bytes | float]) -> Iterator[str]:
    """Sends these parts as a stream of pictures; a number is a pause in seconds."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=part")
            self.end_headers()
            with suppress(OSError):
                for part in parts:
                    if isinstance(part, float):
                        time.sleep(part)
                        continue
                    head = f"--part\r\nContent-Type: image/jpeg\r\nContent-Length: {len(part)}\r\n\r\n"
                    self.wfile.write(head.encode() + part + b"\r\n")

        def log_message(self, format: str, *args: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/stream"
        server.shutdown()


def test_garbage_between_the_pictures_of_a_stream_costs_those_pictures_and_no_others() -> None:
    noise = np.random.default_rng(0).bytes(5000)
    garbage = [noise, b"", jpeg(500)[:300], b"\xff\xd8\xff\xd9", jpeg(501)[:200] + noise]
    parts: list[bytes | float] = []
    for number in range(30):
        parts += [jpeg(number), 0.03, garbage[number % len(garbage)]]
    seen: list[int] = []
    with mjpeg_server(parts) as address, open_source(address) as source:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and len(seen) < 15:
            frame = source.read(0.5)
            number = read_number(frame.image) if frame is not None else None
            if number is not None:
                seen.append(number)
    assert len(seen) == 15
    assert set(seen) <= set(range(30))


def test_a_slow_stream_is_stalled_between_its_pictures_and_is_not_given_up() -> None:
    parts: list[bytes | float] = [jpeg(1), jpeg(1), 1.6, jpeg(2), jpeg(2), 1.6, jpeg(3), jpeg(3), 0.5]
    with mjpeg_server(parts) as address, open_source(address) as source:
        seen, states = [], set()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and 3 not in seen:
            frame = source.read(0.1)
            states.add(source.state)
            if frame is not None:
                seen.append(read_number(frame.image))
                assert source.state is SourceState.RUNNING
        assert seen == sorted(seen)
        assert states == {SourceState.RUNNING, SourceState.STALLED}


def test_sizes_that_change_go_through_the_whole_loop(small_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    sizes = [(320, 180), (180, 320), (64, 48), (641, 361), (320, 180)] * 2
    for number, size in enumerate(sizes):
        cv2.imwrite(str(folder / f"{number:02d}.png"), Pattern(*size).draw(number))
    sinks = [f"file:{tmp_path}/out.mp4", f"json:{tmp_path}/out.jsonl?masks=1", f"png:{tmp_path}/png", "web:0"]
    stats = run(small_bundle, str(folder), sinks)
    assert (stats.frames, stats.state) == (len(sizes), "ended")
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert {(frame.width, frame.height) for frame in container.decode(video=0)} == {(320, 180)}
    shapes = [cv2.imread(str(path)).shape[1::-1] for path in sorted((tmp_path / "png").iterdir())]
    assert shapes == sizes
    assert len((tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()) == len(sizes)


def test_an_rtsp_server_is_killed_and_started_ten_times(monkeypatch: pytest.MonkeyPatch) -> None:
    gstreamer()
    monkeypatch.setattr("edgekit_runtime.sources.base.PAUSES_S", (0.1,))
    port, threads = free_port(), threading.active_count()
    with rtsp(port):
        source = open_source(f"rtsp://127.0.0.1:{port}/live")
        wait_for(lambda: source.read(0.5) is not None)
    indices = []
    for _ in range(10):
        wait_for(lambda: source.read(0.05) is None and source.state is SourceState.RETRYING)
        with rtsp(port):
            wait_for(lambda: indices.append(frame.index) or True if (frame := source.read(0.5)) else False)
            assert source.state is SourceState.RUNNING
    source.close()
    assert indices == sorted(set(indices)), "frames are counted through"
    assert threading.active_count() <= threads, "nothing is left of ten connections"


def test_a_clock_that_is_set_back_changes_no_time_of_a_frame(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, ticks = time.time, iter(range(10**9))
    monkeypatch.setattr(time, "time", lambda: real() + (-1) ** next(ticks) * 86_400)
    path = tmp_path / "out.jsonl"
    stats = run(small_bundle, "test:?fps=100&size=320x180", [f"json:{path}", f"file:{tmp_path}/out.mp4"], frames=30)
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for name in ("timestamp_s", "unix_s"):
        times = [line[name] for line in lines]
        assert times == sorted(times)
        assert times[-1] - times[0] < 60
    assert 0 <= stats.age_p50_ms <= stats.age_p99_ms < 60_000
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert float(container.streams.video[0].duration * container.streams.video[0].time_base) < 60


def test_a_password_reaches_no_log_no_figures_and_no_traceback(small_bundle: Path, tmp_path: Path) -> None:
    gstreamer()
    port, figures = free_port(), tmp_path / "stats.json"
    source = f"rtsp://admin:hunter2@127.0.0.1:{port}/live"
    command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--source", source, "--debug", "--json"]
    command += ["--sink", "null", "--sink", f"json:{tmp_path}/out.jsonl", "--stats-file", str(figures)]
    failed = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=60, check=False)
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    with rtsp(port):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8")
        wait_for(lambda: _state(figures) == "running")
        others = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if _child_of(path, process.pid)]
    wait_for(lambda: _state(figures) == "retrying")
    process.terminate()
    said = "".join(process.communicate(timeout=10))
    assert others, "the decoding process"
    written = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    for text in (failed.stdout, failed.stderr, said, written, *(each.decode() for each in others)):
        assert "hunter2" not in text
        assert "admin" not in text
    assert f"rtsp://***@127.0.0.1:{port}/live" in said


def _state(figures: Path) -> str:
    return str(json.loads(figures.read_text(encoding="utf-8"))["state"]) if figures.exists() else ""


def _child_of(path: Path, parent: int) -> bool:
    with suppress(OSError):
        return f"\nPPid:\t{parent}\n" in path.with_name("status").read_text(encoding="utf-8")
    return False


def test_a_disk_that_is_full_ends_a_recording_and_the_page_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the page's record button does it: what is shown goes on, and the page says that nothing is recorded."""
    monkeypatch.chdir(tmp_path)
    sink = open_sink("web:0", SinkContext(live=True, fps=25))

    def show(number: int) -> None:
        picture = PATTERN.draw(number)
        sink.write(picture, Result(Frame(picture, number, number / 25, time.monotonic()), None, None, Timing(0, 0)))

    sink._board.wish("record")
    show(0)
    assert sink._board.recording is not None
    _no_more_room(monkeypatch)
    for number in range(1, 130):
        show(number)
    assert sink._board.recording is None
    sink.close()


def _no_more_room(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edgekit_runtime.sinks.mp4.Mp4Writer.add", full)
