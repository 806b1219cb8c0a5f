"""Figures of a running loop, in constant memory however long it runs."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Stats:
    """What a loop has done so far.

    `fps` is frames shown a second from the first to the last; ages are from capture to the last sink, in
    milliseconds; `dropped` frames were replaced by newer ones (live sources only); `inference_p50_ms` is the engine
    alone; `first_result_s` the time from the start of the program to the first result, None before there is one;
    `engine_failures` counts how often an engine failed and was opened again or replaced, `bundle_swaps` how often a new
    bundle took over; `input_size` (WIDTHxHEIGHT) is what the network sees now; `state` and `reason` are the source's,
    or the engine's while that is in trouble.
    """

    frames: int = 0
    dropped: int = 0
    fps: float = 0.0
    age_p50_ms: float = 0.0
    age_p99_ms: float = 0.0
    inference_p50_ms: float = 0.0
    first_result_s: float | None = None
    engine_failures: int = 0
    bundle_swaps: int = 0
    input_size: str = ""
    state: str = "running"
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """A table for JSON, rounded to what is meaningful."""
        return {key: round(value, 3) if isinstance(value, float) else value for key, value in asdict(self).items()}


class Histogram:
    """Durations from 10 microseconds to a quarter of an hour in bins 2 % wide: quantiles to within 1 %."""

    _LOW_MS = 0.01
    _STEP = math.log(1.02)
    _BINS = 926

    def __init__(self) -> None:
        self._counts = [0] * self._BINS
        self._total = 0

    def add(self, duration_ms: float) -> None:
        position = int(math.log(max(duration_ms, self._LOW_MS) / self._LOW_MS) / self._STEP)
        self._counts[min(position, self._BINS - 1)] += 1
        self._total += 1

    def quantile(self, share: float) -> float:
        """The duration in ms below which `share` (0 to 1) of all lie; 0 when there is none."""
        wanted, seen = math.ceil(share * self._total), 0
        for position, count in enumerate(self._counts):
            seen += count
            if count and seen >= wanted:
                return self._LOW_MS * math.exp((position + 0.5) * self._STEP)
        return 0.0


class Meter:
    """Takes a note of every shown frame. `started` is the `time.monotonic()` that `first_result_s` counts from."""

    def __init__(self, started: float) -> None:
        self._started = started
        self._ages = Histogram()
        self._inference = Histogram()
        self._first = self._last = 0.0
        self._recent: deque[float] = deque(maxlen=32)
        self.frames = 0
        self.age_ms = 0.0

    def add(self, captured: float, inference_ms: float) -> None:
        """One frame has just been shown that was captured at `captured` (`time.monotonic()`)."""
        now = time.monotonic()
        if not self.frames:
            self._first = now
        self._last = now
        self._recent.append(now)
        self.frames += 1
        self.age_ms = (now - captured) * 1e3
        self._ages.add(self.age_ms)
        self._inference.add(inference_ms)

    @property
    def recent_fps(self) -> float:
        """Frames a second over the last few frames, for display."""
        return _rate(len(self._recent), self._recent[-1] - self._recent[0]) if self._recent else 0.0

    def stats(self, dropped: int, state: str, reason: str) -> Stats:
        return Stats(
            frames=self.frames,
            dropped=dropped,
            fps=_rate(self.frames, self._last - self._first),
            age_p50_ms=self._ages.quantile(0.5),
            age_p99_ms=self._ages.quantile(0.99),
            inference_p50_ms=self._inference.quantile(0.5),
            first_result_s=self._first - self._started if self.frames else None,
            state=state,
            reason=reason,
        )


class Backlog:
    """Whether a live source is too fast: over a tenth of its frames skipped in five looks, one a second or so.

    `rate` is how many frames a second it had in that time, 0 until then.
    """

    _LOOKS = 5
    _HIGH, _LOW = 0.1, 0.02

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int, int]] = deque(maxlen=self._LOOKS + 1)
        self.skipping = False
        self.rate = 0.0

    def look(self, frames: int, dropped: int) -> float | None:
        """The share of frames that is skipped, if `skipping` has just changed; `frames` and `dropped` so far."""
        now = time.monotonic()
        if self._counts and now - self._counts[-1][0] > 1.8:
            self._counts.clear()  # a sink that paused is no backlog
            self.rate = 0.0
        self._counts.append((now, frames, dropped))
        if len(self._counts) <= self._LOOKS:
            return None
        began, frames_before, dropped_before = self._counts[0]
        shown, lost = frames - frames_before, dropped - dropped_before
        self.rate = (shown + lost) / (now - began)
        share = lost / (shown + lost) if shown + lost else 0.0
        if self.skipping if share < self._LOW else not self.skipping and share > self._HIGH:
            self.skipping = not self.skipping
            return share
        return None


def _rate(count: int, span_s: float) -> float:
    return (count - 1) / span_s if count > 1 and span_s > 0 else 0.0
