"""The command `edgekit-run`, also as `python -m edgekit_runtime`. Ctrl-C ends it quietly from its first line on."""

from __future__ import annotations

import os

_INTERRUPTED = 130


def program() -> None:
    """The command as a process of its own."""
    try:
        import signal

        # Until there is something to finish: an exception in the midst of a native module's import would be printed.
        signal.signal(signal.SIGINT, lambda number, frame: os._exit(_INTERRUPTED))
        from edgekit_runtime.cli import leave, main
    except KeyboardInterrupt:
        os._exit(_INTERRUPTED)
    leave(main())


if __name__ == "__main__":
    program()
