"""The server's side of WebSocket (RFC 6455): whole binary messages in, short texts out, everything within bounds."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from contextlib import suppress
from email.message import Message
from io import BufferedIOBase
from typing import Protocol

import numpy as np

VERSION = "13"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTINUE, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA
_MAX_CONTROL = 125

PROTOCOL_ERROR, UNSUPPORTED, POLICY, TOO_BIG = 1002, 1003, 1008, 1009


class Output(Protocol):
    def write(self, data: bytes, /) -> object: ...


class ClosedError(Exception):
    """The connection is over: `code` and `reason` are what the other side has to be told, 0 where there is nothing."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason or str(code))
        self.code, self.reason = code, reason


def accept_key(headers: Message) -> str | None:
    """What `Sec-WebSocket-Accept` must say to these request headers; None when they ask for no WebSocket."""
    upgrade = headers.get("Upgrade", "").lower() == "websocket"
    connection = "upgrade" in [part.strip().lower() for part in headers.get("Connection", "").split(",")]
    key = headers.get("Sec-WebSocket-Key", "").strip()
    try:
        nonce = base64.b64decode(key, validate=True)
    except (binascii.Error, ValueError):
        return None
    if not upgrade or not connection or len(nonce) != 16 or headers.get("Sec-WebSocket-Version") != VERSION:
        return None
    return base64.b64encode(hashlib.sha1(key.encode() + _GUID, usedforsecurity=False).digest()).decode()


class WebSocket:
    """One connection after its handshake, used from one thread.

    A message has at most `max_bytes`, in however many fragments, and is whole within `patience_s` seconds.
    """

    def __init__(self, source: BufferedIOBase, output: Output, *, max_bytes: int, patience_s: float) -> None:
        self._source, self._output = source, output
        self._max_bytes, self._patience_s = max_bytes, patience_s

    def receive(self) -> bytes:
        """The next binary message. Answers pings on the way. Raises ClosedError when there will be none."""
        deadline = time.monotonic() + self._patience_s
        parts: list[bytes] = []
        begun, size = False, 0
        while True:
            final, opcode, length = self._head(deadline)
            if opcode >= _CLOSE:
                self._control(opcode, self._payload(length, deadline))
                continue
            if opcode == _TEXT:
                raise ClosedError(UNSUPPORTED, "only binary messages are taken")
            if opcode not in (_CONTINUE, _BINARY) or (opcode == _CONTINUE) != begun:
                raise ClosedError(PROTOCOL_ERROR, "a frame out of turn")
            begun, size = True, size + length
            if size > self._max_bytes:
                raise ClosedError(TOO_BIG, f"a message has at most {self._max_bytes} bytes")
            parts.append(self._payload(length, deadline))
            if final:
                return parts[0] if len(parts) == 1 else b"".join(parts)

    def send(self, text: str) -> None:
        """Sends a short text. Raises OSError when the other side is gone."""
        self._frame(_TEXT, text.encode())

    def close(self, code: int, reason: str = "") -> None:
        """Says goodbye; the connection itself is the caller's."""
        if code:
            with suppress(OSError, ValueError):
                self._frame(_CLOSE, code.to_bytes(2, "big") + reason.encode()[: _MAX_CONTROL - 2])

    def _head(self, deadline: float) -> tuple[bool, int, int]:
        """(last fragment, opcode, length of the payload)."""
        first, second = self._exactly(2, deadline)
        opcode, length = first & 0x0F, second & 0x7F
        if first & 0x70:
            raise ClosedError(PROTOCOL_ERROR, "extensions were not agreed upon")
        if not second & 0x80:
            raise ClosedError(PROTOCOL_ERROR, "frames of a client must be masked")
        if opcode >= _CLOSE and (length > _MAX_CONTROL or not first & 0x80):
            raise ClosedError(PROTOCOL_ERROR, "a control frame is short and whole")
        if length >= 126:
            width = 2 if length == 126 else 8
            length = int.from_bytes(self._exactly(width, deadline), "big")
            if length < 126 or (width == 8 and length < 1 << 16):
                raise ClosedError(PROTOCOL_ERROR, "a length that is not written as short as can be")
        return bool(first & 0x80), opcode, length

    def _control(self, opcode: int, payload: bytes) -> None:
        if opcode == _PING:
            self._frame(_PONG, payload)
        elif opcode == _CLOSE:
            code = int.from_bytes(payload[:2], "big") if len(payload) >= 2 else 1000
            raise ClosedError(code if 1000 <= code < 5000 and code not in (1004, 1005, 1006, 1015) else PROTOCOL_ERROR)
        elif opcode != _PONG:
            raise ClosedError(PROTOCOL_ERROR, "an unknown kind of frame")

    def _payload(self, length: int, deadline: float) -> bytes:
        if length > self._max_bytes:
            raise ClosedError(TOO_BIG, f"a message has at most {self._max_bytes} bytes")
        mask = np.frombuffer(self._exactly(4, deadline), np.uint8)
        data = np.frombuffer(self._exactly(length, deadline), np.uint8)
        return (data ^ np.resize(mask, length)).tobytes()

    def _exactly(self, size: int, deadline: float) -> bytes:
        parts = []
        while size:
            if time.monotonic() > deadline:
                raise ClosedError(POLICY, "nothing whole came in time")
            try:
                part = self._source.read1(size)
            except (OSError, ValueError):
                raise ClosedError(0) from None
            if not part:
                raise ClosedError(0)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _frame(self, opcode: int, payload: bytes) -> None:
        length = len(payload)
        size = [length] if length < 126 else [126, *length.to_bytes(2, "big")]
        self._output.write(bytes([0x80 | opcode, *size]) + payload)
