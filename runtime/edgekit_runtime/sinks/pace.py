"""Files are shown at their own speed, live pictures at once."""

from __future__ import annotations

import time

# A viewer that falls behind by more than this begins anew instead of racing after.
_LATE_S = 0.5


class Pace:
    """When the picture after this one is due, by the times that the source gave them."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._clock: tuple[float, float] | None = None

    def wait_s(self, timestamp_s: float) -> float:
        """How long to wait with a picture of this time; 0 for live sources."""
        if self._live:
            return 0.0
        now = time.monotonic()
        if self._clock is None:
            self._clock = (now, timestamp_s)
        due = self._clock[0] + timestamp_s - self._clock[1]
        if now > due + _LATE_S:
            self._clock = None
        return max(due - now, 0.0)

    def restart(self) -> None:
        """After a pause."""
        self._clock = None
