"""A second bundle on the same source, at its own pace: it takes the newest frame whenever it is done with the last."""

from __future__ import annotations

import logging
import time
from collections import deque

from edgekit_runtime.events import announce
from edgekit_runtime.handoff import Handoff
from edgekit_runtime.inference import Inference
from edgekit_runtime.model import Beside, Model, Result
from edgekit_runtime.sources.base import Frame

_POLL_S = 0.1


class Companion:
    """Keeps the newest result of `model` in `latest`; None before the first, and when its last engine has failed."""

    def __init__(self, model: Model, engine: str | None = None) -> None:
        self.latest: Beside | None = None
        self._frames: Handoff[Frame] = Handoff(1)
        self._times: deque[float] = deque(maxlen=16)
        self.inference = Inference(
            model,
            take=lambda: self._frames.get(_POLL_S),
            ended=lambda: self._frames.exhausted,
            give=self._note,
            on_end=self._end,
            engine=engine,
        )

    def offer(self, frame: Frame) -> None:
        """Never waits."""
        self._frames.offer(frame)

    def start(self) -> None:
        self.inference.start()

    def stop(self, patience_s: float) -> None:
        self._frames.discard()
        self.inference.stop(patience_s)

    def _note(self, result: Result) -> None:
        self._times.append(time.monotonic())
        span = self._times[-1] - self._times[0]
        fps = (len(self._times) - 1) / span if span > 0 else 0.0
        self.latest = Beside(self.inference.model.manifest, result, fps)

    def _end(self) -> None:
        self.latest = None
        self._frames.discard()
        failure = self.inference.failure
        if failure is not None:
            name = self.inference.model.manifest.name
            announce("bundle_lost", f"{name} is left out from here on: {failure}", level=logging.ERROR, bundle=name)
