"""A real Chromium without a screen, steered over its DevTools protocol: what a person would see and press.

The protocol runs through two pipes (--remote-debugging-pipe): descriptor 3 to the browser, 4 from it, JSON documents
that end in a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_PATIENCE_S = 30.0


def chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found:
        pytest.skip("no Chromium here (apt install chromium)")
    return found


class Page:
    """One tab."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._number = 0
        self._session: str | None = None
        self._rest = b""
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Page.enable")

    def open(self, address: str, size: tuple[int, int] = (1280, 800), *, phone: bool = False) -> None:
        self._ask(
            "Emulation.setDeviceMetricsOverride",
            width=size[0],
            height=size[1],
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        answer = self._ask("Page.navigate", url=address)
        assert "errorText" not in answer, answer
        self.until("document.readyState !== 'loading' && !!document.getElementById('state')")

    def run(self, script: str) -> Any:
        """The value of an expression (of a promise: what it becomes)."""
        told = self._ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True)
        assert "exceptionDetails" not in told, told
        return told["result"].get("value")

    def text(self, name: str) -> str:
        return str(self.run(f"document.getElementById({name!r}).textContent"))

    def press(self, name: str) -> None:
        self.run(f"document.getElementById({name!r}).click()")

    def until(self, condition: str) -> None:
        deadline = time.monotonic() + _PATIENCE_S
        while not self.run(condition):
            assert time.monotonic() < deadline, f"never: {condition}"
            time.sleep(0.05)

    def photograph(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot", format="png")["data"]))

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._from, 1 << 16)
            assert part, "the browser is gone"
            self._rest += part
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def browsing(profile: Path, *flags: str) -> Iterator[Page]:
    """A browser of its own with one empty tab."""
    binary = chromium()
    to_browser, from_browser = os.pipe(), os.pipe()
    command = [binary, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe"]
    command += [f"--user-data-dir={profile}", *flags]
    # The shell moves the two ends to the descriptors where Chromium looks for them.
    mover = 'exec 3<&"$0" 4>&"$1"; shift; exec "$@"'
    ends = to_browser[0], from_browser[1]
    process = subprocess.Popen(
        ["bash", "-c", mover, *map(str, ends), *command], pass_fds=ends, stderr=subprocess.DEVNULL
    )
    try:
        for end in ends:
            os.close(end)
        yield Page(to_browser[1], from_browser[0])
    finally:
        process.terminate()
        process.wait(10)
        os.close(to_browser[1])
        os.close(from_browser[0])
