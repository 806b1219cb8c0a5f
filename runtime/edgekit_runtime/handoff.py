"""What one thread hands to another: items, where the giver waits for room or replaces what is oldest; or one result."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


def in_background(name: str, work: Callable[[], T]) -> Future[T]:
    """Works in a thread of its own that, unlike an executor's, nobody has to wait for."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name=name, daemon=True).start()
    return future


class Handoff(Generic[T]):
    """At most `capacity` items between one giver and one taker.

    `put` waits and loses nothing; `offer` never waits and drops the oldest, so that the taker finds the newest. After
    `close` the taker still gets what is there, then None.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self.dropped = 0

    def put(self, item: T, timeout_s: float | None = None) -> bool:
        """Waits for room, at most `timeout_s` seconds. False: the item was not taken, for want of room or closed."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        with self._changed:
            while len(self._items) >= self._capacity and not self._closed:
                left = None if deadline is None else deadline - time.monotonic()
                if left is not None and left <= 0:
                    return False
                self._changed.wait(left)
            if self._closed:
                return False
            self._items.append(item)
            self._changed.notify_all()
            return True

    def offer(self, item: T) -> None:
        """Makes room by dropping the oldest item (counted in `dropped`). Does nothing once closed."""
        with self._changed:
            if self._closed:
                return
            if len(self._items) >= self._capacity:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def get(self, timeout_s: float) -> T | None:
        """The oldest item; None after `timeout_s` seconds without one, or at once when closed and empty."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while not self._items and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            if not self._items:
                return None
            item = self._items.popleft()
            self._changed.notify_all()
            return item

    def close(self) -> None:
        """Ends the exchange and wakes both sides."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def discard(self) -> None:
        """Closes and forgets what was not taken."""
        with self._changed:
            self._items.clear()
            self.close()

    @property
    def closed(self) -> bool:
        """Whether nothing more can be put in; items may still be waiting."""
        return self._closed

    @property
    def exhausted(self) -> bool:
        """Closed, and everything was taken."""
        with self._changed:
            return self._closed and not self._items
