"""The command `edgekit`, also as `python -m edgekit`. Ctrl-C ends it quietly from its first line on."""

from __future__ import annotations

import os

_INTERRUPTED = 130


def program() -> None:
    """The command as a process of its own."""
    try:
        import signal

        # An exception in the midst of an import would be printed, or taken for that of a module that is missing.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(_INTERRUPTED))
        from edgekit.cli import main
        from edgekit_runtime.cli import leave

        signal.signal(signal.SIGINT, signal.default_int_handler)  # commands say what they have kept
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    leave(main())


if __name__ == "__main__":
    program()
