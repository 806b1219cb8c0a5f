"""The end of the process, also while an engine or a driver still works in a thread that nobody could wait for."""

from __future__ import annotations

import os
import sys
import threading
from contextlib import suppress
from typing import NoReturn

# Threads that may be in native code for long; of others none outlives a run.
_NAMES = ("bundles", "inference", "opening", "source ")


def leave(status: int) -> NoReturn:
    """Ends the process with that status.

    A native call that returns while Python is being taken down has its thread ended within frames of C++, which aborts
    the process: where such a thread is alive, nothing is taken down.
    """
    if any(thread.name.startswith(_NAMES) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)
