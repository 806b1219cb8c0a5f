"""`web[:[HOST:]PORT][?OPTIONS]`: one page with the live picture, legend, figures and switches; for browsers and phones.

Served on the loopback address unless a host is named; then every request needs a token. Requests that a browser sends
on behalf of another site are refused (`Host`, `Origin`), and what changes something is a POST that no form can send.
"""

from __future__ import annotations

import os
import re
import secrets
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edgekit_runtime.colour import Picture
from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.events import say, warn
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Sink, SinkContext, Viewer
from edgekit_runtime.sinks.frames import save_png
from edgekit_runtime.sinks.recording import RecordingSink
from edgekit_runtime.sinks.tls import Certificate, own_certificate
from edgekit_runtime.sources.base import SourceState
from edgekit_runtime.sources.uri import parse_uri
from edgekit_runtime.stats import Meter, Stats

DEFAULT_PORT = 8090
LOOPBACK = ("127.0.0.1", "::1", "localhost")
JPEG_QUALITY = 85
_LASTING = "EDGEKIT_TOKEN"
_AREAS_EVERY_S = 0.25
_DRAIN_S = 0.5


@dataclass(frozen=True)
class WebAddress:
    """Where to serve, and how: `tls` None leaves that to what the page is for."""

    host: str = LOOPBACK[0]
    port: int = DEFAULT_PORT
    tls: bool | None = None
    certificate: Certificate | None = None

    @property
    def local(self) -> bool:
        return self.host in LOOPBACK

    def certificate_for(self, *, camera: bool) -> Certificate | None:
        """What to serve with, None for plain http. Raises SinkError when one is needed and cannot be made."""
        if self.certificate or self.tls is False:
            return self.certificate
        # On the loopback address browsers trust plain http with a camera; elsewhere they do not.
        return own_certificate(self.host) if self.tls or (camera and not self.local) else None


class Board:
    """What the loop leaves for whoever looks: the newest picture as JPEG, and the figures. Shared by all threads."""

    def __init__(self, context: SinkContext) -> None:
        self.context = context
        self.token = ""
        self._changed = threading.Condition()
        self._jpeg, self._number = b"", 0
        self._watching = self.visits = 0
        self._meter = Meter(time.monotonic())
        self._loop = Stats()
        self._state, self._reason = SourceState.RUNNING, ""
        self._areas: list[float] = []
        self.recording: Path | None = None
        self._wishes: list[str] = []

    # What the loop says.

    def note(self, result: Result) -> None:
        with self._changed:
            self._meter.add(result.frame.captured, result.timing.inference_ms)
            self._state, self._reason = SourceState.RUNNING, ""

    def note_areas(self, areas: list[float]) -> None:
        self._areas = areas

    def note_loop(self, stats: Stats) -> None:
        self._loop = stats

    def become(self, state: SourceState, reason: str) -> None:
        with self._changed:
            self._state, self._reason = state, reason

    def publish(self, jpeg: bytes) -> None:
        with self._changed:
            self._jpeg, self._number = jpeg, self._number + 1
            self._changed.notify_all()

    @property
    def watched(self) -> bool:
        """Whether anybody wants pictures: else none is encoded."""
        return self._watching > 0

    # What a page asks.

    @contextmanager
    def watched_from(self) -> Iterator[int]:
        """Somebody wants pictures: the number of the last that an earlier visitor had, which is old."""
        with self._changed:
            self._watching, self.visits = self._watching + 1, self.visits + 1
            number = self._number
        try:
            yield number
        finally:
            with self._changed:
                self._watching -= 1

    def next_jpeg(self, after: int, timeout_s: float) -> tuple[bytes, int]:
        """The newest picture and its number; the one that is there after `timeout_s` without a newer one."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self.context.stop.is_set(), timeout_s)
            return self._jpeg, self._number

    def wish(self, what: str) -> None:
        """`snapshot` or `record`: done by the loop's thread with the next picture."""
        with self._changed:
            if len(self._wishes) < 8:
                self._wishes.append(what)

    def wishes(self) -> list[str]:
        with self._changed:
            taken, self._wishes = self._wishes, []
            return taken

    def figures(self) -> dict[str, Any]:
        """What the page shows, and `/metrics` with it."""
        with self._changed:
            stats = replace(
                self._meter.stats(self._loop.dropped, self._state.value, self._reason),
                engine_failures=self._loop.engine_failures,
                bundle_swaps=self._loop.bundle_swaps,
                fps=self._meter.recent_fps,
            )
        view = self.context.view
        return {
            **stats.to_dict(),
            "title": self.context.title,
            "areas": self._areas,
            "opacity": round(view.opacity, 2),
            "depth": view.depth,
            "paused": view.paused,
            "hidden": sorted(view.hidden),
            "recording": self.recording.name if self.recording else "",
        }


class WebSink(Viewer):
    """Encodes in a thread of its own, and only while somebody watches."""

    def __init__(self, at: WebAddress, context: SinkContext) -> None:
        from edgekit_runtime.sinks.web_server import Server

        super().__init__(context)
        self._board = Board(context)
        self._counted, self._visits = 0.0, 0
        self._recorder: RecordingSink | None = None
        lasting = "" if at.local else _lasting_token()
        if not at.local:
            self._board.token = lasting or secrets.token_urlsafe(12)
        certificate = at.certificate_for(camera=context.phone is not None)
        try:
            self._server = Server(at.host, at.port, self._board, certificate.context() if certificate else None)
        except OSError as error:
            raise SinkError(
                f"Nothing can be served at {at.host}:{at.port}: {(error.strerror or str(error)).lower()}.",
                hint=f"Another port: --sink web:{at.port + 1}",
            ) from error
        self.address = self._server.address
        self._queue: Handoff[Picture] = Handoff(1)
        self._encoder = threading.Thread(target=self._encode, name="web pictures", daemon=True)
        self._encoder.start()
        self._server.start()
        # A token that lasts belongs in no log: who has set it knows it.
        shown = self.address.replace(lasting, f"${_LASTING}") if lasting else self.address
        say(f"watch at {shown}")
        if certificate:
            say(f"its certificate has the SHA-256 fingerprint {certificate.fingerprint}")
        if not at.local and sys.stderr.isatty():
            say(qr_code(self.address))

    def write(self, picture: Picture, result: Result) -> None:
        self._said = ""
        self._board.note(result)
        if result.labels is not None and time.monotonic() - self._counted > _AREAS_EVERY_S:
            self._counted = time.monotonic()
            counts = np.bincount(result.labels.ravel(), minlength=256)[: self._context.classes]
            self._board.note_areas((counts / result.labels.size).round(4).tolist())
        for wish in self._board.wishes():
            self._grant(wish, picture)
        if self._recorder is not None:
            recorder, self._recorder = self._recorder, None
            with _warned():  # one that fails ends
                recorder.write(picture, result)
                self._recorder = recorder
            if self._recorder is None:
                self._board.recording = None
        self._last = picture  # until the next one is drawn
        if self._board.watched:
            self._show(picture.copy())
        self._context.stop.wait(self._pace.wait_s(result.frame.timestamp_s))

    def idle(self, state: SourceState, reason: str) -> None:
        self._board.become(state, reason)
        if state is SourceState.PAUSED and self._last is not None:
            for wish in self._board.wishes():
                self._grant(wish, self._last)
        if self._visits != self._board.visits:
            self._visits, self._said = self._board.visits, ""  # whoever has come is shown it, too
        super().idle(state, reason)

    def _show(self, picture: Picture) -> None:
        self._queue.offer(picture)

    def report(self, stats: Stats) -> None:
        self._board.note_loop(stats)

    def close(self) -> None:
        self._server.stop()
        self._queue.close()
        self._encoder.join(_DRAIN_S)
        self._stop_recording()

    def _encode(self) -> None:
        while not self._queue.exhausted:
            picture = self._queue.get(_DRAIN_S)
            if picture is not None:
                ok, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                if ok:
                    self._board.publish(data.tobytes())

    def _grant(self, wish: str, picture: Picture) -> None:
        path = Path(time.strftime("edgekit-%Y%m%d-%H%M%S"))
        if wish == "record" and self._recorder is not None:
            self._stop_recording()
            return
        with _warned():
            if wish == "snapshot":
                path = path.with_suffix(".png")
                save_png(path, picture)
                say(f"saved {path}")
            else:
                path = path.with_suffix(".mp4")
                self._recorder, self._board.recording = RecordingSink(path, self._context.fps), path
                say(f"recording {path}")

    def _stop_recording(self) -> None:
        recorder, path = self._recorder, self._board.recording
        self._recorder, self._board.recording = None, None
        if recorder is not None:
            with _warned():
                recorder.close()
                say(f"saved {path}")


@contextmanager
def _warned() -> Iterator[None]:
    """What the page asked for and cannot be written is told; what is shown goes on."""
    try:
        yield
    except SinkError as error:
        warn(str(error))


def _lasting_token() -> str:
    """The token that the environment gives, empty where it gives none. Raises UsageError for a weak one."""
    token = os.environ.get(_LASTING, "")
    if token and not re.fullmatch(r"[A-Za-z0-9_.-]{16,}", token):
        raise UsageError(
            f"{_LASTING} must be at least 16 letters, digits, dots and dashes.",
            hint="python3 -c 'import secrets; print(secrets.token_urlsafe(12))' makes one.",
        )
    return token


def open_web(argument: str, context: SinkContext) -> Sink:
    return WebSink(parse(argument), context)


def parse(argument: str) -> WebAddress:
    """What `[[HOST]:]PORT[?tls=0|1][?cert=FILE&key=FILE]` says; `HOST` may be IPv6 in brackets. Raises UsageError."""
    uri = parse_uri(f"web:{argument}")
    uri.check_options("tls", "cert", "key")
    host, colon, port_text = uri.body.rpartition(":")
    host = host.strip("[]") if colon else LOOPBACK[0]
    try:
        port = int(port_text or DEFAULT_PORT)
        if not 0 <= port <= 65535 or not host or set(host) & set("/ @?#"):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"web:{argument} is not an address.", hint="Write web, web:8090, or web:0.0.0.0:8090 for other machines."
        ) from None
    tls, chain, key = (uri.options.get(name) for name in ("tls", "cert", "key"))
    if tls not in (None, "0", "1") or bool(chain) != bool(key) or (chain and tls == "0"):
        raise UsageError(f"web:{argument}: tls is 0 or 1; cert and key are two files, and come together.")
    certificate = Certificate(Path(chain).expanduser(), Path(key).expanduser()) if chain and key else None
    return WebAddress(host, port, None if tls is None else tls == "1", certificate)


_MARGIN = 2  # on top of the two modules that OpenCV leaves around it
_BLOCKS = {(0, 0): " ", (1, 0): "▀", (0, 1): "▄", (1, 1): "█"}


def qr_code(text: str) -> str:
    """An address for a phone, where nobody types a token: lines of half blocks, black on white whatever the
    terminal's colours are.
    """
    light = cv2.QRCodeEncoder.create().encode(text) > 0
    light = np.pad(light, ((_MARGIN, _MARGIN + light.shape[0] % 2), (_MARGIN, _MARGIN)), constant_values=True)
    rows = zip(light[::2], light[1::2], strict=True)
    lines = ("".join(_BLOCKS[int(a), int(b)] for a, b in zip(upper, lower, strict=True)) for upper, lower in rows)
    return "\n".join(f"\x1b[97;40m{line}\x1b[0m" for line in lines)
