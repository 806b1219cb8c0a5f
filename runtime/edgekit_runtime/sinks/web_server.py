"""The HTTP side of the web sink: a page, a stream of JPEGs, figures, a few switches, and the way in for a camera."""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edgekit_runtime import __version__
from edgekit_runtime.sinks.tls import reachable_address
from edgekit_runtime.sinks.web import LOOPBACK, Board
from edgekit_runtime.sinks.websocket import VERSION, WebSocket, accept_key
from edgekit_runtime.sources.phone import MAX_PICTURE_BYTES, PhoneCamera, take_picture, take_pictures

MAX_CONNECTIONS = 24
# A client that takes or sends nothing for so long is gone.
PATIENCE_S = 10.0
MAX_BODY = 4096
_NO_NEWS_S = 1.0
_HEAR_OUT_S = 1.0
_COOKIE = "edgekit"
_BOUNDARY = "edgekit-picture"
_HANDSHAKE = b"\x16"
_PLAIN = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 24\r\n\r\n"
    b"Write https, not http.\r\n"
)
_CAREFUL = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
_SWITCHES = {"opacity": float, "depth": bool, "paused": bool, "hidden": list}


class Server:
    """Serves a board until `stop`, with https where `tls` is given. Raises OSError where the address cannot be had."""

    def __init__(self, host: str, port: int, board: Board, tls: ssl.SSLContext | None = None) -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET

        class Bound(_Http):
            address_family = family

        self._http = Bound((host, port), board, tls)
        shown = f"[{host}]" if ":" in host else host
        if host in ("0.0.0.0", "::"):  # noqa: S104  (asked for by name)
            shown = reachable_address()
        suffix = f"/?token={board.token}" if board.token else "/"
        self.address = f"{self._http.scheme}://{shown}:{self._http.server_address[1]}{suffix}"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.1,), name="web", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(1.0)


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, address: tuple[str, int], board: Board, tls: ssl.SSLContext | None) -> None:
        super().__init__(address, _Handler)
        self.board = board
        self._tls = tls
        self.scheme = "https" if tls else "http"
        self.room = threading.BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.room.acquire(blocking=False):
            with suppress(OSError):
                request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self.room.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """In the connection's own thread: who dawdles over a handshake holds up nobody else."""
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        request.settimeout(PATIENCE_S)
        if request.recv(1, socket.MSG_PEEK) != _HANDSHAKE:
            request.sendall(_PLAIN)
            return
        with self._tls.wrap_socket(request, server_side=True) as secured:
            super().finish_request(secured, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that goes away is nothing to talk about."""


class _Handler(BaseHTTPRequestHandler):
    server: _Http
    protocol_version = "HTTP/1.1"
    server_version = f"edgekit-run/{__version__}"
    sys_version = ""
    timeout = PATIENCE_S

    def do_GET(self) -> None:
        path, query = self._address()
        if not self._welcome():
            return
        if self._board.token and path == "/" and self._token_matches(query.get("token", [""])[0]):
            self._enter()
            return
        if not self._allowed():
            self._say(HTTPStatus.FORBIDDEN, b"Open the address that edgekit-run printed: it carries the token.\n")
            return
        phone = self._board.context.phone
        match path:
            case "/":
                self._page()
            case "/stream":
                self._stream()
            case "/state":
                self._say(HTTPStatus.OK, json.dumps(self._board.figures()).encode(), "application/json")
            case "/picture.jpg":
                self._picture()
            case "/camera" if phone is not None:
                self._camera(phone)
            case "/metrics":
                self._say(HTTPStatus.OK, _metrics(self._board.figures()), "text/plain; version=0.0.4")
            case _:
                self._say(HTTPStatus.NOT_FOUND, b"There is nothing here.\n")

    def do_POST(self) -> None:
        path, _ = self._address()
        if not self._welcome():
            return
        # A header of one's own cannot be sent across sites without asking first, and nobody is told yes.
        if not self._allowed() or self.headers.get("X-Edgekit") != "1":
            self._say(HTTPStatus.FORBIDDEN, b"Not from here.\n")
            return
        phone = self._board.context.phone
        if path == "/camera" and phone is not None:
            self._picture_from(phone)
            return
        body = self._table()
        if body is None:
            self._say(HTTPStatus.BAD_REQUEST, b"A JSON object is expected.\n")
        elif path == "/view" and self._set_view(body):
            self._say(HTTPStatus.NO_CONTENT)
        elif path in ("/snapshot", "/record"):
            self._board.wish(path.removeprefix("/"))
            self._say(HTTPStatus.NO_CONTENT)
        else:
            self._say(HTTPStatus.BAD_REQUEST, b"Unknown switch or value.\n")

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are not logged: addresses carry the token."""

    @property
    def _board(self) -> Board:
        return self.server.board

    def _address(self) -> tuple[str, dict[str, list[str]]]:
        parts = urlsplit(self.path)
        return parts.path, parse_qs(parts.query, max_num_fields=8)

    def _welcome(self) -> bool:
        """Whether the request is meant for this server: names that are made to point here are not (DNS rebinding)."""
        host = f"//{self.headers.get('Host', '')}"
        named = (urlsplit(address).hostname for address in (host, self.headers.get("Origin", host)))
        if self._board.token or all(name in LOOPBACK for name in named):
            return True
        self._say(HTTPStatus.MISDIRECTED_REQUEST, b"This is not that host.\n")
        return False

    def _allowed(self) -> bool:
        if not self._board.token:
            return True
        scheme, _, given = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._token_matches(given.strip()):
            return True  # a program, such as Prometheus
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(_COOKIE)
        except CookieError:
            return False
        return cookie is not None and self._token_matches(cookie.value)

    def _token_matches(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self._board.token.encode())

    def _enter(self) -> None:
        """The token moves from the address into a cookie, out of the sight of whoever looks over the shoulder."""
        secure = "; Secure" if self.server.scheme == "https" else ""
        cookie = f"{_COOKIE}={self._board.token}; HttpOnly; SameSite=Strict; Path=/{secure}"
        self._say(HTTPStatus.SEE_OTHER, more={"Location": "/", "Set-Cookie": cookie})

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(12)
        context = self._board.context
        told = {
            "classes": [{"name": name, "colour": f"rgb{colour}"} for name, colour in context.legend],
            "depth": context.depth_unit is not None,
            "camera": asdict(context.phone.wanted) if context.phone else None,
        }
        text = (files("edgekit_runtime") / "sinks" / "page.html").read_text(encoding="utf-8")
        page = text.replace("{{nonce}}", nonce).replace("{{told}}", json.dumps(told).replace("<", "\\u003c"))
        policy = (
            f"default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'nonce-{nonce}'; "
            f"script-src 'nonce-{nonce}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._say(HTTPStatus.OK, page.encode(), "text/html; charset=utf-8", {"Content-Security-Policy": policy})

    def _stream(self) -> None:
        """JPEG after JPEG, always the newest: a client that is slow misses some, and holds nothing up."""
        kind = f"multipart/x-mixed-replace; boundary={_BOUNDARY}"
        self._head(HTTPStatus.OK, {"Content-Type": kind, "Cache-Control": "no-store", "Connection": "close"})
        board = self._board
        with board.watched_from() as before:
            number = before
            while not board.context.stop.is_set():
                jpeg, number = board.next_jpeg(number, _NO_NEWS_S)
                if number > before:
                    head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(head.encode() + jpeg + b"\r\n")

    def _picture(self) -> None:
        with self._board.watched_from() as before:
            jpeg, _ = self._board.next_jpeg(before, 2.0)
        if jpeg:
            self._say(HTTPStatus.OK, jpeg, "image/jpeg")
        else:
            self._say(HTTPStatus.SERVICE_UNAVAILABLE, b"There is no picture yet.\n")

    def _camera(self, phone: PhoneCamera) -> None:
        """Becomes a WebSocket. Other sites' pages may open one here, too: they are told by their Origin."""
        accept = accept_key(self.headers)
        if urlsplit(self.headers.get("Origin", "")).netloc != self.headers.get("Host"):
            self._say(HTTPStatus.FORBIDDEN, b"Not from here.\n")
        elif accept is None:
            more = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": VERSION}
            self._say(HTTPStatus.UPGRADE_REQUIRED, b"A WebSocket is expected.\n", more=more)
        else:
            self.close_connection = True
            agreed = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
            self._head(HTTPStatus.SWITCHING_PROTOCOLS, agreed)
            pictures = WebSocket(self.rfile, self.wfile, max_bytes=MAX_PICTURE_BYTES, patience_s=PATIENCE_S)
            take_pictures(pictures, phone, self._board.context.stop)
            self._hear_out()

    def _hear_out(self) -> None:
        """Throws away what still comes, for a moment: a connection that is closed with bytes unread is reset, and the
        other side may lose what it was told last.
        """
        deadline = time.monotonic() + _HEAR_OUT_S
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self.connection.settimeout(_HEAR_OUT_S)
            while self.connection.recv(1 << 16) and time.monotonic() < deadline:
                pass

    def _picture_from(self, phone: PhoneCamera) -> None:
        data = self._body(MAX_PICTURE_BYTES)
        sender = self.headers.get("X-Edgekit-Sender", "")[:64]
        refusal = "a picture has at most 4 MB" if data is None else take_picture(data, sender, phone)
        if refusal:
            self._say(HTTPStatus.CONFLICT, refusal.encode())
        else:
            self._say(HTTPStatus.NO_CONTENT)

    def _body(self, most: int) -> bytes | None:
        """What was posted; None where it is more than that, or cut short."""
        length = self.headers.get("Content-Length", "0")
        if not (length.isascii() and length.isdigit()) or int(length) > most:
            self.close_connection = True
            return None
        data = self.rfile.read(int(length))
        return data if len(data) == int(length) else None

    def _table(self) -> dict[str, Any] | None:
        data = self._body(MAX_BODY)
        try:
            table = None if data is None else json.loads(data or b"{}")
        except (ValueError, RecursionError):
            return None
        return table if isinstance(table, dict) else None

    def _set_view(self, table: dict[str, Any]) -> bool:
        view = self._board.context.view
        for name, value in table.items():
            wanted = _SWITCHES.get(name)
            if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1:
                view.opacity = float(value)
            elif wanted is bool and isinstance(value, bool):
                setattr(view, name, value)
            elif wanted is list and isinstance(value, list) and all(type(n) is int and 0 <= n < 256 for n in value):
                view.hidden = frozenset(value)
            else:
                return False
        return True

    def _say(
        self,
        status: HTTPStatus,
        body: bytes = b"",
        kind: str = "text/plain; charset=utf-8",
        more: Mapping[str, str] | None = None,
    ) -> None:
        about = {"Content-Type": kind, "Content-Length": str(len(body))}
        self._head(status, {**about, **_CAREFUL, **(more or {})})
        self.wfile.write(body)

    def _head(self, status: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _metrics(figures: dict[str, Any]) -> bytes:
    """Prometheus text: https://prometheus.io/docs/instrumenting/exposition_formats/"""
    rows = [
        ("frames_total", "Frames shown.", figures["frames"]),
        ("frames_dropped_total", "Frames that newer ones replaced.", figures["dropped"]),
        ("engine_failures_total", "How often an engine failed.", figures["engine_failures"]),
        ("bundle_swaps_total", "How often a new bundle took over.", figures["bundle_swaps"]),
        ("frames_per_second", "Over the last frames.", figures["fps"]),
        ("age_p50_milliseconds", "From capture to here, median.", figures["age_p50_ms"]),
        ("age_p99_milliseconds", "From capture to here, 99th percentile.", figures["age_p99_ms"]),
        ("inference_p50_milliseconds", "The engine alone, median.", figures["inference_p50_ms"]),
        ("paused", "1 while somebody has paused it.", int(figures["paused"])),
        ("up", "1 while the source runs, or is paused.", int(figures["state"] in ("running", "paused"))),
    ]
    text = ""
    for short, about, value in rows:
        name, kind = f"edgekit_{short}", "counter" if short.endswith("_total") else "gauge"
        text += f"# HELP {name} {about}\n# TYPE {name} {kind}\n{name} {value}\n"
    return text.encode()
