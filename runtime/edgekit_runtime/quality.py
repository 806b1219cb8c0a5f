"""Quality that gives way to time: a live source too fast for the network gets the bundle's next smaller size, and the
larger one back when there has been time for it for long.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait

import numpy as np

from edgekit_runtime.errors import EdgekitError
from edgekit_runtime.events import warn
from edgekit_runtime.handoff import in_background
from edgekit_runtime.inference import Inference
from edgekit_runtime.manifest import Variant
from edgekit_runtime.model import Model, Timing
from edgekit_runtime.stats import Backlog

# The share of its time that the network may be at work.
_BUSY = 0.8
# For so long there has to be time for a larger size, and twice as long after each that did not last.
PAUSE_S, _LONGEST_S = 30.0, 3600.0
# A compiler at work when the program ends would crash it.
_JOIN_S = 1.5


class Quality:
    """Chooses among the sizes of what `inference` runs, which is told to `note` each frame."""

    def __init__(self, inference: Inference) -> None:
        self._inference = inference
        self._frames = 0
        self._times: deque[float] = deque(maxlen=32)
        self._pause_s = PAUSE_S
        self._opening: Future[None] | None = None
        self._failed = self._stopped = False
        self._variant: Variant | None = None
        self._failures = 0
        # Since when this size runs, and since when there is time for a larger one.
        self._since = self._spare = 0.0
        self._backlog = Backlog()

    def note(self, timing: Timing) -> None:
        self._frames += 1
        self._times.append(timing.resize_ms + timing.inference_ms)

    def look(self, dropped: int) -> None:
        """To be called about once a second; `dropped` frames of the source were skipped so far."""
        model, now = self._inference.model, time.monotonic()
        if (self._variant, self._failures) != (model.variant, self._inference.failures):
            self._begin(now)
        self._backlog.look(self._frames, dropped)
        opening = self._opening is not None and not self._opening.done()
        if not self._backlog.rate or not self._times or self._failed or opening:
            self._spare = now
            return
        busy = float(np.median(list(self._times))) * self._backlog.rate / 1e3
        smaller, larger = model.smaller(), model.larger()
        if larger is None and now - self._since > self._pause_s:
            self._pause_s = PAUSE_S
        # A network takes about as much longer as it sees more pixels.
        if busy * model.enlargement > _BUSY:
            self._spare = now
        if smaller is not None and self._backlog.skipping and busy > _BUSY:
            self._open(smaller)
        elif larger is not None and now - self._spare > self._pause_s:
            self._pause_s = min(2 * self._pause_s, _LONGEST_S)
            self._open(larger)

    def stop(self) -> None:
        self._stopped = True
        if self._opening is not None:
            wait([self._opening], _JOIN_S)

    def _begin(self, now: float) -> None:
        """Another size, another bundle, or an engine that had failed: what was measured before says nothing of it."""
        self._variant, self._failures = self._inference.model.variant, self._inference.failures
        self._since = self._spare = now
        self._failed = False
        self._backlog = Backlog()
        self._times.clear()

    def _open(self, open_it: Callable[[], Model]) -> None:
        def work() -> None:
            try:
                model = open_it()
            except Exception as error:  # whatever it is, this size goes on
                self._failed = True
                reason = str(error.args[0]) if isinstance(error, EdgekitError) else repr(error)
                warn(f"The network stays at its size: {reason}")
                return
            if self._stopped:
                model.close()
            else:
                self._inference.swap(model)

        self._opening = in_background("size", work)
