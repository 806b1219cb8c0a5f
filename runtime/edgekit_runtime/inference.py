"""A bundle at work, in a thread of its own and watched: an engine that fails or hangs is opened again once, then the
bundle's next engine takes its place; another version of the bundle may take over between two frames.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from edgekit_runtime.errors import EdgekitError, EngineError
from edgekit_runtime.events import announce, warn
from edgekit_runtime.manifest import Manifest
from edgekit_runtime.model import Flight, Model, Result
from edgekit_runtime.sources.base import Frame, SourceState

# Without an answer for so long an engine is said to be stalled, and then given up; a slow one gets more time.
STALLED_S, GIVEN_UP_S = 2.0, 15.0
_STALLED_TIMES, _GIVEN_UP_TIMES = 5, 20
# What takes longer to open again will not answer; only a new process can help then.
_OPENING_S = 300.0
# A failure so long ago is forgotten: the engine is opened again instead of being replaced.
_FORGOTTEN_S = 600.0


@dataclass(frozen=True, slots=True)
class _Task:
    """What the thread is at, since when, and for how long at most; without `frames` it opens an engine."""

    began: float
    patience_s: float
    frames: tuple[Frame, ...] = ()


class Inference:
    """Hands what `model` says about each frame from `take` to `give`, until `ended` or `stop`; then calls `on_end`.

    `take` returns None where no frame has come yet. `at_once` frames are at work at a time at most, as far as the model
    takes them. `engine` restricts which engines may replace one that fails. The frames at which one fails are not lost:
    they are given to the one that follows. What ends the thread is in `failure`.
    """

    def __init__(
        self,
        model: Model,
        take: Callable[[], Frame | None],
        ended: Callable[[], bool],
        give: Callable[[Result], object],
        on_end: Callable[[], object],
        *,
        at_once: int = 1,
        engine: str | None = None,
    ) -> None:
        self.model = model
        self.failure: BaseException | None = None
        self.failures = 0
        self.swaps = 0
        self._take, self._ended, self._give, self._on_end = take, ended, give, on_end
        self._at_once = at_once
        self._engine = engine
        self._stopped = False
        # Guards the three below: whose turn it is, as a thread that hangs in an engine is left behind.
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._task: _Task | None = None
        self._next: Model | None = None
        self._trouble = ""
        self._failed_at = -math.inf
        self._slowest_s = 0.0

    def start(self) -> None:
        with self._lock:
            self._begin((), None)

    def stop(self, patience_s: float) -> None:
        """Waits for the thread at most so long."""
        self._stopped = True
        thread = self._thread
        if thread is not None:
            thread.join(patience_s)
        with self._lock:
            late, self._next = self._next, None
        if late is not None:
            late.close()

    def swap(self, model: Model) -> None:
        """`model`, which is used up by this, takes over before the next frame.

        One that is another size of what runs gives way to a new bundle, and to an engine that has been replaced.
        """
        with self._lock:
            gives_way = model.instead_of is not None and self._next is not None
            late, self._next = (model, self._next) if gives_way else (self._next, model)
        if late is not None:
            late.close()

    @property
    def trouble(self) -> tuple[SourceState, str] | None:
        """`retrying` while an engine is opened again, `stalled` while it does not answer; None while all is well."""
        if self._trouble:
            return SourceState.RETRYING, self._trouble
        task = self._task
        silent = time.monotonic() - task.began if task is not None else 0.0
        if silent > max(STALLED_S, _STALLED_TIMES * self._slowest_s):
            return SourceState.STALLED, f"the engine has not answered for {silent:.0f} s"
        return None

    def watch(self) -> None:
        """Gives up an engine that has not answered for too long. To be called now and then, by another thread."""
        with self._lock:
            task = self._task
            if task is None or time.monotonic() - task.began < task.patience_s:
                return
            self._task = None
            silent = EngineError(f"{self.model.engine} has not answered for {task.patience_s:.0f} s")
            if task.frames:
                self._begin(task.frames, silent)
                return
            self._thread = None
            self.failure = silent
        self._on_end()

    def _begin(self, frames: Sequence[Frame], failure: EngineError | None) -> None:
        self._thread = threading.Thread(target=self._work, args=(deque(frames), failure), name="inference", daemon=True)
        self._thread.start()

    @property
    def _current(self) -> bool:
        return self._thread is threading.current_thread()

    def _work(self, frames: deque[Frame], failure: EngineError | None) -> None:
        failed: BaseException | None = None
        try:
            if failure is not None:
                self._recover(failure)
            flight = Flight(self.model, self._at_once)
            while self._current and not self._stopped:
                if self._next is not None and not flight:
                    self._change()
                if len(frames) == len(flight) and self._next is None:
                    frame = self._take()
                    frames.extend([frame] if frame is not None else [])
                if frames:
                    result = self._infer(frames, flight)
                    if result is not None:
                        frames.popleft()
                        self._give(result)
                elif self._ended():
                    break
        except BaseException as error:  # whatever it is, the caller's thread must hear of it
            failed = error
        with self._lock:
            last = self._current
            if last:
                self.failure, self._task = failed, None
        if last:
            self._on_end()

    def _infer(self, frames: Sequence[Frame], flight: Flight) -> Result | None:
        """Begins with the frame that is next; the result of the first, where no more is to begin or can.

        Also None where the engine failed, with nothing left in `flight`, and is replaced, or the turn is over.
        """
        patience_s = max(GIVEN_UP_S, _GIVEN_UP_TIMES * self._slowest_s)
        began = time.monotonic()
        self._task = _Task(began, patience_s, tuple(frames))
        result: Result | None = None
        try:
            begins = len(flight) < len(frames)
            if begins:
                flight.begin(frames[len(flight)])
            if flight.full or not begins:
                result = flight.finish()
        except EngineError as error:
            flight.abandon()
            if self._done():
                self.model.close()
                self._recover(error)
            return None
        if not self._done() or result is None:
            return None
        self._slowest_s = max(self._slowest_s, time.monotonic() - began)
        self._trouble = ""
        return result

    def _done(self) -> bool:
        """Ends a task; False when the thread was given up meanwhile, and what it has done counts for nothing."""
        with self._lock:
            if self._current:
                self._task = None
            return self._current

    def _recover(self, error: EngineError) -> None:
        """Opens the engine again if it had not failed before, else the next one. Raises EngineError for want of one."""
        reason, now = str(error.args[0]).rstrip("."), time.monotonic()
        first, self._failed_at = now - self._failed_at > _FORGOTTEN_S, now
        self.failures += 1
        self._trouble = reason
        warn(f"{reason}; it is opened again." if first else f"{reason}.", "engine_failed")
        self._task = _Task(now, _OPENING_S)
        replacement: Model | None = None
        if first:
            try:
                replacement = self.model.reopened()
            except EdgekitError as second:
                reason = str(second.args[0])
        event = "engine_reopened"
        if replacement is None:
            event, replacement = "engine_replaced", self.model.fallen_back(reason, self._engine)
            self._failed_at = -math.inf
        if not self._done():
            return
        self.model.become(replacement)
        self._slowest_s = 0.0
        which = f"{replacement.engine}, {replacement.variant.precision}"
        announce(event, f"{which}, runs.", engine=replacement.engine, precision=replacement.variant.precision)

    def _change(self) -> None:
        with self._lock:
            new, self._next = self._next, None
        if new is None:
            return
        resizes = new.instead_of is not None
        if resizes and new.instead_of is not self.model.variant:
            new.close()
            return
        before = self.model.manifest
        self.model.close()
        self.model.become(new)
        self._failed_at, self._slowest_s = -math.inf, 0.0
        if resizes:
            _announce_size(before, new.manifest)
            return
        self.swaps += 1
        announce(
            "bundle_swapped",
            f"{new.path}: the new version runs ({new.variant.precision}, {new.engine}).",
            bundle=str(new.path),
            created=new.manifest.created,
            engine=new.engine,
            precision=new.variant.precision,
        )


def _announce_size(before: Manifest, after: Manifest) -> None:
    sees = f"the network now sees {after.input_name} instead of {before.input_name}"
    event, why, level = "input_restored", "fast enough for the source again", logging.INFO
    if after.input_size < before.input_size:
        event, why, level = "input_reduced", "too slow for the source", logging.WARNING
    size, size_before = after.input_name, before.input_name
    announce(event, f"{why}: {sees}", level=level, input_size=size, input_size_before=size_before)
