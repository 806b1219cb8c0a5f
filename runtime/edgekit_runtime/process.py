"""This process as others see it: what systemd is told of it, and how it ends.

That it is ready, and now and then that it is alive: by sd_notify(3), texts to the socket that `NOTIFY_SOCKET` names.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn


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


# Threads that may be in native code for long; of others none outlives a run.
_NAMES = ("bundles", "inference", "opening", "source ")


def leave(status: int) -> NoReturn:
    """Ends the process with that status, also while an engine or a driver works in a thread that nobody could wait for.

    A native call that returns while Python is being taken down has its thread ended within frames of C++, which aborts
    the process: where such a thread is alive, nothing is taken down.
    """
    if any(thread.name.startswith(_NAMES) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
