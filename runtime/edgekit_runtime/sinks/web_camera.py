"""The page's own camera: JPEG pictures become frames of the source `phone:`.

They come over a WebSocket; each is answered with its number once it was decoded, and the page sends the next one only
then: nothing queues up on the way, however slow the network is. Safari on iPhones opens no WebSocket to a server whose
certificate nobody vouches for (WebKit bug 145819); there each picture is a POST.
"""

from __future__ import annotations

import secrets
import time
from threading import Event

import cv2
import numpy as np
import numpy.typing as npt

from edgekit_runtime.sinks.websocket import POLICY, ClosedError, WebSocket
from edgekit_runtime.sources.phone import PhoneCamera

MAX_PICTURE_BYTES = 4 << 20
_BUSY = "another device is sending its camera"
_ENDED = "edgekit-run has ended"


def take_picture(data: bytes, sender: str, phone: PhoneCamera) -> str:
    """Hands one picture over; empty when it was taken, else why it was not."""
    captured = time.monotonic()
    if not phone.claim(sender):
        return _BUSY
    image = decode_jpeg(data)
    if image is None:
        return "that was no JPEG picture of at most 4096 x 4096 pixels"
    return "" if phone.give(image, captured) else _ENDED


def take_pictures(socket: WebSocket, phone: PhoneCamera, stop: Event) -> None:
    """Serves one sender until it leaves, sends what is no picture, or the program ends."""
    sender, number = secrets.token_hex(8), 0
    try:
        refusal = "" if phone.claim(sender) else _BUSY
        while not refusal:
            data = socket.receive()
            refusal = _ENDED if stop.is_set() else take_picture(data, sender, phone)
            if not refusal:
                number += 1
                socket.send(str(number))
        socket.close(POLICY, refusal)
    except ClosedError as over:
        socket.close(over.code, over.reason)
    except OSError:
        pass  # it is gone
    finally:
        phone.release(sender)


MAX_PIXELS = 4096 * 4096
# Baseline and extended sequential. A progressive picture may hold thousands of scans, and no camera makes one.
_FRAMES = (0xC0, 0xC1)
_OTHER_FRAMES = frozenset({*range(0xC2, 0xD0)} - {0xC4, 0xC8, 0xCC})
_SCAN, _END = 0xDA, 0xD9
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})


def decode_jpeg(data: bytes) -> npt.NDArray[np.uint8] | None:
    """uint8 `(H, W, 3)` BGR of a sequential JPEG of at most 4096 x 4096 pixels; None for anything else.

    It is measured before it is decoded, so that a few bytes cannot ask for gigabytes.
    """
    size = jpeg_size(data)
    if size is None or not 0 < size[0] * size[1] <= MAX_PIXELS:
        return None
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if image is None else np.asarray(image, np.uint8)


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the header of a sequential JPEG (ITU-T T.81, annex B); None where there is none."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    position = 2
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return None
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if marker in _FRAMES:
            if position + 9 > len(data):
                return None
            height, width = data[position + 5 : position + 7], data[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        if marker in _OTHER_FRAMES or marker in (_SCAN, _END):
            return None
        position += 2 if marker in _BARE else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None
