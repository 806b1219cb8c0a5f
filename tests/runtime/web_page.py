"""The web sink as its tests use it: opened on a free port, fed, and asked like a browser asks."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import cv2
import numpy as np
from bundles import TAXONOMY

from edgekit_runtime.model import Result, Timing
from edgekit_runtime.overlay import View
from edgekit_runtime.sinks import open_sink
from edgekit_runtime.sinks.base import SinkContext
from edgekit_runtime.sinks.web import WebSink
from edgekit_runtime.sources.base import Frame
from edgekit_runtime.sources.phone import PhoneCamera

LEGEND = tuple(zip(TAXONOMY.classes, TAXONOMY.colours, strict=True))
SIZE = (90, 160)


def picture(grey: int) -> np.ndarray:
    return np.full((*SIZE, 3), grey, np.uint8)


def result(index: int = 0) -> Result:
    labels = np.zeros((8, 16), np.uint8)
    labels[:2] = 3  # a quarter is red
    frame = Frame(picture(0), index, index / 25, time.monotonic())
    return Result(frame, labels, None, Timing(0.1, 2.0))


@contextmanager
def serving(
    argument: str = "0", view: View | None = None, *, live: bool = True, phone: PhoneCamera | None = None
) -> Iterator[WebSink]:
    """A sink on a free port; closed in the end."""
    stop = threading.Event()
    context = SinkContext("edgekit: blobs", live, 25.0, stop, view or View(), LEGEND, None, phone)
    sink = open_sink(f"web:{argument}", context)
    assert isinstance(sink, WebSink)
    try:
        yield sink
    finally:
        stop.set()
        sink.close()


def port_of(sink: WebSink) -> int:
    return int(re.search(r":(\d+)/", sink.address)[1])


def ask(sink: WebSink, path: str, method: str = "GET", body: object = None, **headers: str) -> tuple[int, bytes, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port_of(sink), timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method, path, body if isinstance(body, bytes) else json.dumps(body), named)
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


@contextmanager
def feeding(sink: WebSink, grey: int = 120) -> Iterator[None]:
    """Frames at 50 a second from another thread, as the loop gives them."""
    done = threading.Event()

    def feed() -> None:
        for index in range(10_000):
            if done.wait(0.02):
                return
            sink.write(picture(grey), result(index))

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def read_part(stream: http.client.HTTPResponse) -> np.ndarray:
    while not (line := stream.readline()).startswith(b"Content-Length"):
        assert line
    length = int(line.split(b":")[1])
    stream.readline()
    data = stream.read(length)
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def wait_for(what, patience_s: float = 5.0) -> None:
    deadline = time.monotonic() + patience_s
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)
