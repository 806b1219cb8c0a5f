"""The web sink: a page that a browser really shows, figures, switches, and who may see them."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import cv2
import pytest
from browser import browsing
from bundles import TAXONOMY
from hypothesis import given
from hypothesis import strategies as st
from web_page import SIZE, ask, feeding, picture, port_of, read_part, result, serving, wait_for

from edgekit_runtime import Loop, load, open_source
from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.overlay import View
from edgekit_runtime.sinks import check_sinks, default_sink, open_sink
from edgekit_runtime.sinks.base import SinkContext
from edgekit_runtime.sinks.web import WebAddress, parse
from edgekit_runtime.sinks.web_server import MAX_CONNECTIONS, PATIENCE_S
from edgekit_runtime.sources.base import SourceState
from edgekit_runtime.stats import Stats


def test_a_stream_shows_what_is_written_and_only_then_is_anything_encoded() -> None:
    with serving() as sink:
        sink.write(picture(10), result())
        assert ask(sink, "/state")[0] == 200
        assert sink._board._number == 0, "nobody watches"
        connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
        with feeding(sink):
            connection.request("GET", "/stream")
            stream = connection.getresponse()
            assert stream.getheader("Content-Type").startswith("multipart/x-mixed-replace")
            shown = [read_part(stream) for _ in range(3)]
        connection.close()
        assert all(image.shape == (*SIZE, 3) for image in shown)
        assert abs(int(shown[-1].mean()) - 120) <= 2


def test_a_new_visitor_is_not_shown_what_an_earlier_one_saw_last() -> None:
    with serving() as sink:
        for grey in (200, 50):
            connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
            with feeding(sink, grey):
                connection.request("GET", "/stream")
                assert abs(int(read_part(connection.getresponse()).mean()) - grey) <= 2
            connection.close()
            wait_for(lambda: not sink._board.watched or sink.write(picture(grey), result()))  # noqa: B023


def test_figures_legend_and_metrics() -> None:
    with serving() as sink:
        for index in range(5):
            sink.write(picture(1), result(index))
        figures = json.loads(ask(sink, "/state")[1])
        assert (figures["frames"], figures["state"], figures["title"]) == (5, "running", "edgekit: blobs")
        assert figures["areas"] == [0.75, 0.0, 0.0, 0.25]
        assert figures["inference_p50_ms"] == pytest.approx(2.0, rel=0.03)
        sink.idle(SourceState.STALLED, "no frame for 3 s")
        figures = json.loads(ask(sink, "/state")[1])
        assert (figures["state"], figures["reason"]) == ("stalled", "no frame for 3 s")
        sink.report(Stats(dropped=7, engine_failures=2, bundle_swaps=1))
        text = ask(sink, "/metrics")[1].decode()
        for line in (
            "frames_total 5",
            "frames_dropped_total 7",
            "engine_failures_total 2",
            "bundle_swaps_total 1",
            "up 0",
        ):
            assert f"\nedgekit_{line}\n" in text
        counters = re.findall(r"# TYPE (\w+) counter", text)
        assert counters == re.findall(r"# TYPE (\w+_total) \w+", text), "counters, and only they, end in _total"
        assert all(re.fullmatch(r"(# (HELP|TYPE) .*|edgekit_\w+ [\d.]+)", line) for line in text.splitlines())


def test_an_engine_that_fails_while_it_runs_is_counted(small_bundle: Path) -> None:
    stop = threading.Event()
    with load(small_bundle) as model, open_source("test:?fps=30&size=96x64") as source, serving() as sink:
        model.close()  # and so fails at the first frame
        loop = threading.Thread(target=Loop(model, source, [sink], stop=stop).run)
        loop.start()
        wait_for(lambda: b"\nedgekit_engine_failures_total 1\n" in ask(sink, "/metrics")[1])
        stop.set()
        loop.join()


def test_a_stalled_source_never_shows_its_last_picture_as_if_it_were_new() -> None:
    with serving() as sink:
        connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
        with feeding(sink, 200):
            connection.request("GET", "/stream")
            stream = connection.getresponse()
            assert read_part(stream).mean() > 190
        sink.idle(SourceState.STALLED, "no frame for 2 s")
        darkest = min(read_part(stream).mean() for _ in range(3))
        connection.close()
        assert darkest < 100


def test_switches_change_the_view_and_nonsense_does_not() -> None:
    view = View()
    with serving(view=view) as sink:
        sent = {"opacity": 0.25, "depth": True, "hidden": [1, 3]}
        assert ask(sink, "/view", "POST", sent, X_Edgekit="1")[0] == 204
        assert (view.opacity, view.depth, view.hidden) == (0.25, True, frozenset({1, 3}))
        before = (view.opacity, view.depth, view.paused, view.hidden)
        for wrong in (
            {"opacity": 2},
            {"opacity": True},
            {"opacity": "1"},
            {"depth": 1},
            {"hidden": [1.5]},
            {"hidden": [True]},
            {"hidden": [-1]},
            {"hidden": {}},
            {"legend": []},
            {"__class__": "x"},
        ):
            assert ask(sink, "/view", "POST", wrong, X_Edgekit="1")[0] == 400, wrong
        for body in (b"", b"[]", b"nothing", b"[" * 4000, b"{" + b" " * 5000 + b"}"):
            status = ask(sink, "/view", "POST", body, X_Edgekit="1")[0]
            assert status == (204 if not body else 400), body[:10]
        assert (view.opacity, view.depth, view.paused, view.hidden) == before


def test_what_another_site_makes_a_browser_send_is_refused() -> None:
    view = View()
    with serving(view=view) as sink:
        assert ask(sink, "/view", "POST", {"opacity": 0.1})[0] == 403, "a form sends no header of its own"
        assert ask(sink, "/view", "POST", {"opacity": 0.1}, X_Edgekit="1", Origin="http://evil.example")[0] == 421
        assert ask(sink, "/state", Host="evil.example")[0] == 421, "a name that was made to point here"
        assert ask(sink, "/state", Host="localhost")[0] == 200
        assert view.opacity == 0.5
        _, _, headers = ask(sink, "/")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "Access-Control-Allow-Origin" not in headers


def test_other_machines_need_the_token() -> None:
    with serving("0.0.0.0:0") as sink:
        token = sink.address.partition("token=")[2]
        assert len(token) >= 16
        for path in ("/", "/state", "/stream", "/metrics", "/picture.jpg", "/?token=wrong", "/?token="):
            assert ask(sink, path)[0] == 403, path
        assert ask(sink, "/view", "POST", {"opacity": 0.1}, X_Edgekit="1")[0] == 403
        status, _, headers = ask(sink, f"/?token={token}")
        assert (status, headers["Location"]) == (303, "/")
        cookie = headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        kept = cookie.partition(";")[0]
        assert ask(sink, "/state", Cookie=kept)[0] == 200
        assert ask(sink, "/", Cookie=kept)[0] == 200
        assert ask(sink, "/state", Cookie="edgekit=wrong")[0] == 403
        # Programs, such as Prometheus, keep no cookies.
        assert ask(sink, "/metrics", Authorization=f"Bearer {token}")[0] == 200
        assert ask(sink, "/metrics", Authorization="Bearer wrong")[0] == 403
        assert ask(sink, "/state", Cookie="\x01;;==")[0] == 403


def test_a_token_of_ones_own_lasts_and_is_in_no_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = "a-token-that-lasts"
    monkeypatch.setenv("EDGEKIT_TOKEN", token)
    with caplog.at_level("INFO", "edgekit_runtime"), serving("0.0.0.0:0") as sink:
        assert ask(sink, "/metrics", Authorization=f"Bearer {token}")[0] == 200
        assert ask(sink, "/metrics", Authorization="Bearer another")[0] == 403
        assert ask(sink, f"/?token={token}")[0] == 303
    assert token not in caplog.text
    assert "/?token=$EDGEKIT_TOKEN" in caplog.text
    for weak in ("short", "a b c d e f g h i j k l", "x" * 15 + ";"):
        monkeypatch.setenv("EDGEKIT_TOKEN", weak)
        with pytest.raises(UsageError, match="at least 16 letters") as caught:
            open_sink("web:0.0.0.0:0", SinkContext())
        assert weak not in str(caught.value)
    open_sink("web:0", SinkContext()).close()  # nobody needs one on this machine


def test_loopback_is_what_is_bound_unless_a_host_is_named() -> None:
    with serving() as sink:
        assert sink.address.startswith("http://127.0.0.1:")
        assert "token" not in sink.address
        assert sink._server._http.server_address[0] == "127.0.0.1"


def test_a_hundred_connections_and_a_client_that_stops_reading_hold_nothing_up() -> None:
    with serving() as sink:
        lazy = [socket.create_connection(("127.0.0.1", port_of(sink))) for _ in range(100)]
        with suppress(OSError):
            for one in lazy[: MAX_CONNECTIONS // 2]:
                one.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
        began = time.monotonic()
        for index in range(200):
            sink.write(picture(index), result(index))
        assert time.monotonic() - began < 2
        for one in lazy:
            one.close()
        deadline = time.monotonic() + PATIENCE_S + 5
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if ask(sink, "/state")[0] == 200:
                    break
            time.sleep(0.2)
        else:
            pytest.fail("no room was made")


@pytest.mark.parametrize(
    "junk",
    [
        b"\x00" * 2000,
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"X" * 70_000,
        b"POST /view HTTP/1.1\r\n" + b"A: b\r\n" * 300,
    ],
)
def test_junk_is_answered_or_dropped_and_nothing_else_suffers(junk: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    with serving() as sink:
        with socket.create_connection(("127.0.0.1", port_of(sink)), timeout=5) as raw, suppress(OSError):
            raw.sendall(junk)
            raw.shutdown(socket.SHUT_WR)
            while raw.recv(65536):
                pass
        assert ask(sink, "/state")[0] == 200
    assert "Traceback" not in capfd.readouterr().err


def test_snapshot_and_recording_are_made_where_the_program_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with serving() as sink, feeding(sink):
        assert ask(sink, "/snapshot", "POST", {}, X_Edgekit="1")[0] == 204
        assert ask(sink, "/record", "POST", {}, X_Edgekit="1")[0] == 204
        wait_for(lambda: json.loads(ask(sink, "/state")[1])["recording"].endswith(".mp4"))
        time.sleep(0.5)
        assert ask(sink, "/record", "POST", {}, X_Edgekit="1")[0] == 204
        wait_for(lambda: json.loads(ask(sink, "/state")[1])["recording"] == "")
    (snapshot,) = tmp_path.glob("edgekit-*.png")
    assert cv2.imread(str(snapshot)).shape == (*SIZE, 3)
    (film,) = tmp_path.glob("edgekit-*.mp4")
    reader = cv2.VideoCapture(str(film))
    assert reader.read()[0]
    assert abs(int(reader.read()[1].mean()) - 120) < 6


def test_a_pause_is_one_of_the_loop_and_its_last_picture_may_be_saved(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    stop, view = threading.Event(), View()
    with (
        load(small_bundle) as model,
        open_source("test:?fps=0&size=96x64") as source,
        serving(view=view, live=False) as sink,
    ):
        loop = Loop(model, source, [sink], stop=stop, view=view)
        thread = threading.Thread(target=loop.run)
        thread.start()
        wait_for(lambda: loop.stats().frames > 5)
        assert ask(sink, "/view", "POST", {"paused": True}, X_Edgekit="1")[0] == 204
        wait_for(lambda: json.loads(ask(sink, "/state")[1])["state"] == "paused")
        frames = loop.stats().frames
        text = ask(sink, "/metrics")[1]
        assert b"\nedgekit_paused 1\n" in text
        assert b"\nedgekit_up 1\n" in text
        for _ in range(2):
            assert ask(sink, "/picture.jpg")[0] == 200, "whoever comes sees it"
        assert ask(sink, "/snapshot", "POST", {}, X_Edgekit="1")[0] == 204
        wait_for(lambda: list(tmp_path.glob("edgekit-*.png")))
        assert (loop.stats().frames, loop.stats().state) == (frames, "paused")
        view.paused = False
        wait_for(lambda: json.loads(ask(sink, "/state")[1])["state"] == "running")
        wait_for(lambda: loop.stats().frames > frames)
        stop.set()
        thread.join()


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("", WebAddress("127.0.0.1", 8090)),
        ("80", WebAddress("127.0.0.1", 80)),
        ("0.0.0.0:1", WebAddress("0.0.0.0", 1)),
        ("[::1]:9", WebAddress("::1", 9)),
        ("0.0.0.0:1?tls=1", WebAddress("0.0.0.0", 1, tls=True)),
        ("?tls=0", WebAddress("127.0.0.1", 8090, tls=False)),
    ],
)
def test_addresses(argument: str, expected: WebAddress) -> None:
    assert parse(argument) == expected


@pytest.mark.parametrize("argument", ["?tls=2", "?cert=a.pem", "?key=a.pem", "?tls=0&cert=a&key=b", "?ssl=1"])
def test_options_that_make_no_sense_are_refused(argument: str) -> None:
    with pytest.raises(UsageError):
        check_sinks([f"web:{argument}"])


@pytest.mark.parametrize("argument", ["x", "99999", "-1", "a b:80", "http://x:80", ":80"])
def test_what_is_no_address_is_refused_before_anything_is_opened(argument: str) -> None:
    with pytest.raises(UsageError, match="is not an address"):
        check_sinks([f"web:{argument}"])


@given(st.text(max_size=40))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    with suppress(UsageError):
        assert 0 <= parse(text).port <= 65535


def test_a_port_that_is_taken_is_named_with_another() -> None:
    with serving() as sink:
        with pytest.raises(SinkError, match="Nothing can be served") as caught:
            open_sink(f"web:{port_of(sink)}", SinkContext())
        assert f"web:{port_of(sink) + 1}" in caught.value.hint


def test_without_a_screen_there_is_a_page(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if sys.platform == "linux":
        assert default_sink() == "web"


def test_a_browser_shows_picture_legend_and_figures(small_bundle: Path, tmp_path: Path) -> None:
    """The page as a person sees it: the moving pattern, coloured, with its classes and a frame rate."""
    command = [sys.executable, "-m", "edgekit_runtime", str(small_bundle), "--source", "test:?size=320x180"]
    with (
        browsing(tmp_path / "profile") as page,
        subprocess.Popen([*command, "--sink", "web:0"], stderr=subprocess.PIPE, encoding="utf-8") as process,
    ):
        try:
            page.open(next(line.split()[-1] for line in process.stderr if line.startswith("watch at ")))
            page.until("document.getElementById('picture').naturalWidth == 320")
            page.until("document.getElementById('share0').textContent != ''")
            assert page.text("state") == "running"
            assert re.fullmatch(r"\d+ fps", page.text("rate"))
            assert page.text("legend").startswith("dark")
            assert all(name in page.text("legend") for name in TAXONOMY.classes)
            assert re.fullmatch(r"\d+ %", page.text("share0"))
            for state in ("paused", "running"):
                page.press("pause")
                page.until(f"document.getElementById('state').textContent == '{state}'")
                assert page.run("document.getElementById('state').className") == state
        finally:
            process.terminate()
            process.wait(10)
