"""A phone as the camera: pictures from a page become frames, from one device at a time, whatever else is sent."""

from __future__ import annotations

import http.client
import io
import json
import socket
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from browser import Page, browsing
from hypothesis import given
from hypothesis import strategies as st
from pattern_number import read_number
from web_page import ask, port_of, read_part, serving, wait_for
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from edgekit_runtime import Source, UsageError, open_source
from edgekit_runtime.sinks import check_sinks, default_sink
from edgekit_runtime.sinks.web import WebSink
from edgekit_runtime.sinks.web_server import MAX_CONNECTIONS
from edgekit_runtime.sinks.websocket import ClosedError, WebSocket
from edgekit_runtime.sources.base import SourceState
from edgekit_runtime.sources.pattern import Pattern
from edgekit_runtime.sources.phone import MAX_PICTURE_BYTES, PhoneCamera, decode_jpeg, jpeg_size
from edgekit_runtime.sources.uri import parse_uri

PATTERN = Pattern(320, 180)


def jpeg(number: int = 0, *parameters: int) -> bytes:
    return cv2.imencode(".jpg", PATTERN.draw(number), [cv2.IMWRITE_JPEG_QUALITY, 90, *parameters])[1].tobytes()


@contextmanager
def phone_page(argument: str = "0") -> Iterator[tuple[PhoneCamera, WebSink]]:
    with open_source("phone:") as source, serving(argument, phone=source) as sink:
        assert isinstance(source, PhoneCamera)
        yield source, sink


def sender(sink: WebSink, **options: object) -> ClientConnection:
    where = f"127.0.0.1:{port_of(sink)}"
    return connect(f"ws://{where}/camera", **{"origin": f"http://{where}", "compression": None, **options})


def read_numbers(source: Source, count: int) -> list[int | None]:
    frames = [source.read(5) for _ in range(count)]
    return [read_number(frame.image) for frame in frames if frame is not None]


# The source.


def test_what_a_device_sends_becomes_frames_and_only_the_newest_is_kept() -> None:
    with phone_page() as (source, sink):
        assert (source.live, source.state, source.reason) == (True, SourceState.STALLED, "no device sends its camera")
        with sender(sink) as device:
            for number in range(3):
                device.send(jpeg(number))
                assert device.recv(5) == str(number + 1)
            assert read_numbers(source, 1) == [2]
            assert (source.state, source.reason, source.dropped) == (SourceState.RUNNING, "", 2)
            device.send(jpeg(3))
            frame = source.read(5)
        assert frame is not None
        assert (frame.index, frame.image.shape) == (3, (180, 320, 3))
        assert frame.captured - frame.timestamp_s <= time.monotonic()
        wait_for(lambda: source.state is SourceState.STALLED)


def test_one_device_at_a_time_and_the_next_one_is_told() -> None:
    with phone_page() as (source, sink):
        with sender(sink) as first:
            first.send(jpeg(1))
            assert first.recv(5) == "1"
            with sender(sink) as second, pytest.raises(ConnectionClosedError) as closed:
                second.recv(5)
            assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1008, "another device is sending its camera")
            status, said, _ = ask(sink, "/camera", "POST", jpeg(2), X_Edgekit="1", X_Edgekit_Sender="third")
            assert (status, said) == (409, b"another device is sending its camera")
            first.send(jpeg(3))
            assert first.recv(5) == "2"
        wait_for(lambda: source.claim("nobody"))
        source.release("nobody")
        with sender(sink) as second:
            second.send(jpeg(4))
            assert second.recv(5) == "1"


def test_a_device_that_falls_silent_keeps_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.sources.phone._LEASE_S", 0.2)
    with phone_page() as (_, sink), sender(sink) as first, sender(sink, open_timeout=5) as _:
        first.send(jpeg())
        assert first.recv(5) == "1"
        time.sleep(0.3)
        with sender(sink) as second:
            second.send(jpeg())
            assert second.recv(5) == "1"
            first.send(jpeg())
            with pytest.raises(ConnectionClosedError, match="another device"):
                first.recv(5)


def test_pictures_may_be_posted_and_may_change_their_size() -> None:
    with phone_page() as (source, sink):
        for size in ((320, 180), (180, 320)):
            data = cv2.imencode(".jpg", Pattern(*size).draw(7))[1].tobytes()
            assert ask(sink, "/camera", "POST", data, X_Edgekit="1", X_Edgekit_Sender="me")[0] == 204
            assert source.read(5).image.shape[1::-1] == size
        too_big = b"\xff" * (MAX_PICTURE_BYTES + 1)
        with suppress(OSError):  # answered before all was read
            assert ask(sink, "/camera", "POST", too_big, X_Edgekit="1", X_Edgekit_Sender="me")[0] == 409
        assert ask(sink, "/camera", "POST", jpeg())[0] == 403, "a form of another site"


def test_without_its_page_the_source_makes_no_sense() -> None:
    with pytest.raises(UsageError, match="gets its pictures through the page"):
        check_sinks(["null"], parse_uri("phone:"))
    check_sinks(["null", "web:0"], parse_uri("phone:"))
    assert default_sink("phone") == "web"
    with serving() as sink:
        assert ask(sink, "/camera")[0] == 404
        assert ask(sink, "/camera", "POST", jpeg(), X_Edgekit="1")[0] == 400
    with pytest.raises(UsageError, match="no option"):
        open_source("phone:?colour=red")


# What is sent.


def test_only_sequential_pictures_of_a_sane_size_are_decoded() -> None:
    assert read_number(decode_jpeg(jpeg(77))) == 77
    assert jpeg_size(jpeg()) == (320, 180)
    assert decode_jpeg(jpeg(0, cv2.IMWRITE_JPEG_PROGRESSIVE, 1)) is None
    assert decode_jpeg(cv2.imencode(".png", PATTERN.draw(0))[1].tobytes()) is None
    bomb = bytearray(jpeg())
    at = bomb.index(b"\xff\xc0") + 5
    bomb[at : at + 4] = b"\xff\xff\xff\xff"
    assert jpeg_size(bytes(bomb)) == (65535, 65535)
    assert decode_jpeg(bytes(bomb)) is None, "12 GB"
    for cut in (0, 1, 3, 20, 200):
        assert decode_jpeg(jpeg()[:cut]) is None


@given(st.integers(0, 5000), st.binary(min_size=1, max_size=8), st.booleans())
def test_damaged_pictures_are_decoded_or_refused(where: int, what: bytes, cut: bool) -> None:
    data = bytearray(jpeg())
    where %= len(data)
    data[where : where + len(what)] = what
    image = decode_jpeg(bytes(data[:where] if cut else data))
    assert image is None or (image.dtype == np.uint8 and image.ndim == 3 and image.shape[0] * image.shape[1] <= 4096**2)


@given(st.binary(max_size=400))
def test_any_bytes_have_a_size_or_none(data: bytes) -> None:
    for text in (data, b"\xff\xd8\xff" + data, b"\xff\xd8\xff\xc0" + data):
        size = jpeg_size(text)
        assert size is None or all(0 <= side <= 65535 for side in size)


@pytest.mark.parametrize(
    ("junk", "code", "reason"),
    [
        (b"", 1008, "no JPEG"),
        (b"junk" * 1000, 1008, "no JPEG"),
        ("text", 1003, "only binary"),
        (b"x" * (MAX_PICTURE_BYTES + 1), 1009, "at most"),
        ([b"x" * 65536] * 100, 1009, "at most"),
    ],
    ids=["empty", "junk", "text", "oversize", "oversize in fragments"],
)
def test_junk_ends_its_sender_and_nothing_else(junk: object, code: int, reason: str) -> None:
    with phone_page() as (source, sink):
        with sender(sink) as device:
            with suppress(ConnectionClosedError):
                device.send(junk)
            with pytest.raises(ConnectionClosedError) as closed:
                device.recv(5)
        assert closed.value.rcvd.code == code
        assert reason in closed.value.rcvd.reason
        wait_for(lambda: source.claim("nobody"))
        source.release("nobody")
        with sender(sink) as device:
            device.send(jpeg(5))
            assert device.recv(5) == "1"
        assert read_numbers(source, 1) == [5]


# The protocol.


def test_fragments_are_put_together_and_pings_answered_between_them() -> None:
    with phone_page() as (source, sink), sender(sink) as device:
        data = jpeg(9)

        def pieces() -> Iterator[bytes]:
            for start in range(0, len(data), 1000):
                if start == 2000:
                    assert device.ping().wait(5), "a pong"
                yield data[start : start + 1000]

        device.send(pieces())
        assert device.recv(5) == "1"
        assert read_numbers(source, 1) == [9]
        device.close(1000, "done")
        assert device.close_code == 1000


def raw_sender(sink: WebSink) -> socket.socket:
    where = f"127.0.0.1:{port_of(sink)}"
    raw = socket.create_connection(("127.0.0.1", port_of(sink)), timeout=5)
    raw.sendall(
        f"GET /camera HTTP/1.1\r\nHost: {where}\r\nOrigin: http://{where}\r\nUpgrade: websocket\r\n"
        "Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n".encode()
    )
    answer = b""
    while not answer.endswith(b"\r\n\r\n"):
        answer += raw.recv(1)
    assert b" 101 " in answer
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer, "the example of RFC 6455"
    return raw


MASK = b"\0\0\0\0"


@pytest.mark.parametrize(
    "frame",
    [
        b"\x82\x01x",
        b"\xc2\x81" + MASK + b"x",
        b"\x83\x81" + MASK + b"x",
        b"\x80\x81" + MASK + b"x",
        b"\x02\x81" + MASK + b"x\x82\x81" + MASK + b"x",
        b"\x09\x80" + MASK,
        b"\x89\xfe\x00\x7e" + MASK,
        b"\x8b\x80" + MASK,
        b"\x82\xfe\x00\x05" + MASK + b"12345",
        b"\x82\xff" + b"\0" * 7 + b"\x05" + MASK + b"12345",
    ],
    ids=[
        "not masked",
        "an extension",
        "a reserved kind",
        "a continuation of nothing",
        "a message within a message",
        "a ping in fragments",
        "a long ping",
        "a reserved control frame",
        "a length too long by two bytes",
        "a length too long by eight bytes",
    ],
)
def test_what_the_protocol_forbids_is_a_protocol_error(frame: bytes) -> None:
    with phone_page() as (_, sink), raw_sender(sink) as raw:
        raw.sendall(frame)
        answer = raw.recv(1000)
        assert answer[0] == 0x88
        assert int.from_bytes(answer[2:4], "big") == 1002


def test_a_length_without_end_is_refused_before_it_is_read() -> None:
    with phone_page() as (_, sink), raw_sender(sink) as raw:
        raw.sendall(b"\x82\xff" + b"\x7f" + b"\xff" * 7 + MASK)
        assert int.from_bytes(raw.recv(1000)[2:4], "big") == 1009


def test_a_message_that_drips_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgekit_runtime.sinks.web_server.PATIENCE_S", 0.3)
    with phone_page() as (_, sink), raw_sender(sink) as raw:
        raw.sendall(b"\x82\xfe\x10\x00" + MASK)
        raw.settimeout(0.05)
        deadline = time.monotonic() + 5
        answer = b""
        while not answer and time.monotonic() < deadline:
            raw.sendall(b"x")
            with suppress(TimeoutError):
                answer = raw.recv(1000)
        assert int.from_bytes(answer[2:4], "big") == 1008


@given(st.binary(max_size=60), st.lists(st.binary(max_size=30), max_size=4))
def test_any_bytes_are_messages_or_the_end(junk: bytes, payloads: list[bytes]) -> None:
    frames = b"".join(bytes([0x82, 0x80 | len(payload)]) + MASK + payload for payload in payloads)
    answers = io.BytesIO()
    connection = WebSocket(io.BufferedReader(io.BytesIO(frames + junk)), answers, max_bytes=40, patience_s=5)
    assert [connection.receive() for _ in payloads] == payloads
    more: list[bytes] = []
    with pytest.raises(ClosedError):
        more += iter(connection.receive, None)
    assert all(len(message) <= 40 for message in more)


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"origin": "http://evil.example"}, 421),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"origin": None}, 403),
    ],
)
def test_another_sites_page_cannot_send_its_camera_here(options: dict[str, object], status: int) -> None:
    with phone_page() as (_, sink), pytest.raises(InvalidStatus) as refused:
        sender(sink, **options)
    assert refused.value.response.status_code == status


def test_another_machine_needs_the_token() -> None:
    with phone_page("0.0.0.0:0?tls=0") as (_, sink):
        with pytest.raises(InvalidStatus) as refused:
            sender(sink)
        assert refused.value.response.status_code == 403
        assert ask(sink, "/camera", "POST", jpeg(), X_Edgekit="1", X_Edgekit_Sender="me")[0] == 403
        token = sink.address.partition("token=")[2]
        with sender(sink, additional_headers={"Cookie": f"edgekit={token}"}) as device:
            device.send(jpeg())
            assert device.recv(5) == "1"


def test_what_is_no_websocket_is_told_so() -> None:
    with phone_page() as (_, sink):
        where = f"http://127.0.0.1:{port_of(sink)}"
        status, _, headers = ask(sink, "/camera", Origin=where)
        assert (status, headers["Sec-WebSocket-Version"]) == (426, "13")


def test_a_crowd_of_senders_holds_nothing_up() -> None:
    with phone_page() as (source, sink), sender(sink) as device:
        crowd = [socket.create_connection(("127.0.0.1", port_of(sink))) for _ in range(100)]
        for number in range(MAX_CONNECTIONS):
            device.send(jpeg(number))
            assert device.recv(5) == str(number + 1)
        assert read_numbers(source, 1) == [MAX_CONNECTIONS - 1]
        for one in crowd:
            one.close()


# In a browser.


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the browser takes for its camera: 300 numbered frames as MJPEG, over and over."""
    path = tmp_path_factory.mktemp("film") / "pattern.mjpeg"
    pattern = Pattern(640, 360)
    path.write_bytes(b"".join(cv2.imencode(".jpg", pattern.draw(number))[1].tobytes() for number in range(300)))
    return path


@contextmanager
def camera_page(bundle: Path, film: Path, profile: Path, sink: str, *flags: str) -> Iterator[tuple[Page, str]]:
    """`edgekit-run` with the source phone: in a process of its own, and a browser with a camera."""
    command = [sys.executable, "-m", "edgekit_runtime", str(bundle), "--source", "phone:?size=640x360", "--no-overlay"]
    fake = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
    with (
        browsing(profile, *fake, f"--use-file-for-fake-video-capture={film}", *flags) as page,
        subprocess.Popen([*command, "--sink", sink], stderr=subprocess.PIPE, encoding="utf-8") as process,
    ):
        try:
            address = next(line.split()[-1] for line in process.stderr if line.startswith("watch at "))
            threading.Thread(target=process.stderr.read, daemon=True).start()
            page.open(address)
            yield page, address
        finally:
            process.terminate()
            assert process.wait(10) == 0


WAITING = "document.getElementById('state').textContent == 'stalled: no device sends its camera'"
SENDING = "document.getElementById('camera-said').textContent.startsWith('sending 640×360')"


def numbers_sent_and_shown(page: Page, address: str) -> tuple[int, int]:
    """The frame number that the page sent last, and the one in the next picture of the result."""
    connection = http.client.HTTPConnection(address.split("/")[2], timeout=10)
    connection.request("GET", "/stream")
    stream = connection.getresponse()
    read_part(stream)
    sent = b64decode(page.run("camera.canvas.toDataURL('image/png')").partition(",")[2])
    shown = read_part(stream)
    connection.close()
    return read_number(cv2.imdecode(np.frombuffer(sent, np.uint8), cv2.IMREAD_COLOR)), read_number(shown)


def test_a_browser_sends_its_camera_and_shows_fresh_results(small_bundle: Path, film: Path, tmp_path: Path) -> None:
    with camera_page(small_bundle, film, tmp_path / "profile", "web:0") as (page, address):
        page.until(WAITING)
        page.press("camera")
        page.until(SENDING)
        page.until("document.getElementById('state').textContent == 'running'")
        page.until("document.getElementById('picture').naturalWidth == 640")
        behind = []
        for _ in range(3):
            sent, shown = numbers_sent_and_shown(page, address)
            behind.append((sent - shown + 150) % 300 - 150)
        assert min(behind, key=abs) in range(-15, 16), "half a second of frames"
        page.press("camera")
        page.until(WAITING)
        page.open(address, (390, 844), phone=True)
        page.press("camera")
        page.until(SENDING)
        assert page.run("document.documentElement.scrollWidth") == 390, "nothing sticks out on a phone"
        box = page.run("document.getElementById('camera').getBoundingClientRect().toJSON()")
        assert box["bottom"] < 844, "the button is in sight"
        assert box["height"] >= 40, "and large enough for a thumb"
        metrics = json.loads(page.run("fetch('/state').then((answer) => answer.text())"))
        assert metrics["frames"] > 10


def test_over_https_and_where_the_browser_opens_no_websocket(small_bundle: Path, film: Path, tmp_path: Path) -> None:
    """Safari on iPhones is not here: a browser whose sockets fail at once stands for it."""
    flags = ["--ignore-certificate-errors"]
    with camera_page(small_bundle, film, tmp_path / "profile", "web:0.0.0.0:0", *flags) as (page, address):
        assert address.startswith("https://")
        assert page.run("location.search") == "", "the token is out of sight"
        page.press("camera")
        page.until(SENDING)
        page.press("camera")
        page.run("WebSocket = class { constructor() { setTimeout(() => this.onclose({reason: ''})) } close() {} }, 0")
        page.run("camera.canvas.width = 1, 0")
        page.press("camera")
        page.until(SENDING)
        page.until("document.getElementById('state').textContent == 'running'")


def test_a_second_browser_is_told_who_is_sending(small_bundle: Path, film: Path, tmp_path: Path) -> None:
    with camera_page(small_bundle, film, tmp_path / "profile", "web:0") as (page, address):
        where = address.removeprefix("http://").rstrip("/")
        with connect(f"ws://{where}/camera", origin=address.rstrip("/"), compression=None) as device:
            device.send(jpeg())
            assert device.recv(5) == "1"
            page.press("camera")
            page.until("document.getElementById('camera-said').textContent == 'another device is sending its camera'")
            assert page.text("camera") == "use this device's camera"
