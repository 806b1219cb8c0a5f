"""What systemd is told when it started this program: that it is ready, and now and then that it is alive.

The protocol of sd_notify(3): texts to the socket that `NOTIFY_SOCKET` names. Elsewhere nothing is sent.
"""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


def notify(text: str) -> None:
    """Sends `READY=1`, `WATCHDOG=1` or the like; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(text.encode())


@contextmanager
def watched(alive: Callable[[], bool]) -> Iterator[None]:
    """Ready from here on; says so often that it is alive as `WatchdogSec` of the unit wants, while `alive()`."""
    stop = threading.Event()
    period_us = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())

    def say() -> None:
        while not stop.wait(int(period_us) / 3e6):
            if alive():
                notify("WATCHDOG=1")

    if period_us.isdecimal() and ours:
        threading.Thread(target=say, name="systemd", daemon=True).start()
    notify("READY=1")
    try:
        yield
    finally:
        notify("STOPPING=1")
        stop.set()
