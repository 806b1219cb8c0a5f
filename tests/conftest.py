"""What all rooms' tests have in common."""

from __future__ import annotations

import signal


def pytest_configure() -> None:
    """Ctrl-C reaches tests and what they start, also where a shell began us in the background, deaf to it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
