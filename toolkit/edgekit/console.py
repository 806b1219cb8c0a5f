"""What a command says: people read stderr, scripts read one JSON document on stdout."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

# Where there is no terminal (a log file, CI) a long step says how far it is this often, in seconds.
_PLAIN_INTERVAL = 10.0


def emit(document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout. Raises ValueError for NaN and infinity: JSON has none."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    sys.stdout.flush()


class Advance(Protocol):
    """Reports `steps` more steps done; `note` replaces the text behind the bar."""

    def __call__(self, steps: int = 1, note: str = "") -> None: ...


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere a plain line at the end and, in long steps, every ten seconds.

    >>> with progress("Calibration", total=64) as advance:
    ...     for frame in frames:
    ...         advance()
    """
    if console.is_terminal:
        with _bar(title, total) as advance:
            yield advance
    else:
        yield from _plain(title, total)


def track(items: Iterable[Any], title: str, total: int | None = None) -> Iterator[Any]:
    """Yields the items and shows progress through them."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with progress(title, total) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def _bar(title: str, total: int | None) -> Iterator[Advance]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "") -> None:
            bar.update(task, advance=steps, note=note)

        yield advance


def _plain(title: str, total: int | None) -> Iterator[Advance]:
    started = spoke = time.monotonic()
    done = 0

    def advance(steps: int = 1, note: str = "") -> None:
        nonlocal done, spoke
        done += steps
        now = time.monotonic()
        if now - spoke >= _PLAIN_INTERVAL:
            spoke = now
            of = f"/{total}" if total else ""
            console.print(f"{title}: {done}{of} {note}".rstrip(), markup=False)

    yield advance
    console.print(f"{title}: {done} in {time.monotonic() - started:.1f} s", markup=False)
