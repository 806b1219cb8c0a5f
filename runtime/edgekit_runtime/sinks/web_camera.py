"""The page's own camera: JPEG pictures become frames of the source `phone:`.

They come over a WebSocket; each is answered with its number once it was decoded, and the page sends the next one only
then: nothing queues up on the way, however slow the network is. Safari on iPhones opens no WebSocket to a server whose
certificate nobody vouches for (WebKit bug 145819); there each picture is a POST.
"""

from __future__ import annotations

import secrets
import time
from threading import Event

from edgekit_runtime.sinks.websocket import POLICY, ClosedError, WebSocket
from edgekit_runtime.sources.jpeg import decode_jpeg
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
