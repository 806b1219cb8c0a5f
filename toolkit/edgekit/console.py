"""What a command says: people read stderr, scripts read one JSON document on stdout."""

from __future__ import annotations

import json
import os
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import Any, Protocol

from rich.console import Console

console = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)

# Where there is no terminal (a log file, CI) a long step says how far it is this often, in seconds.
_PLAIN_INTERVAL = 10.0
# Between columns; and what the last one is given however narrow the terminal is.
_GAP, _LEAST_ROOM = 2, 24


def emit(document: Mapping[str, Any]) -> None:
    """Prints one JSON document on stdout. Raises ValueError for NaN and infinity: JSON has none."""
    sys.stdout.write(json.dumps(document, indent=1, allow_nan=False) + "\n")
    sys.stdout.flush()


def show_rows(out: Console, rows: Sequence[Sequence[str]], styles: Mapping[str, str] | None = None) -> None:
    """Aligned cells. The last of each row is folded at words to the width of the terminal, below itself; into a pipe or
    a file its lines stay whole. `styles` says how first cells of that text look.
    """
    from rich.text import Text

    widths = [max(map(len, column)) for column in zip(*(row[:-1] for row in rows), strict=True)]
    indent = sum(widths) + _GAP * len(widths)
    room = max(_LEAST_ROOM, out.width - indent)
    for first, *cells, last in rows:
        said = last.split("\n")
        if out.is_terminal:
            said = [part for line in said for part in textwrap.wrap(line, room, break_on_hyphens=False) or [""]]
        others = [cell.ljust(width + _GAP) for cell, width in zip(cells, widths[1:], strict=True)]
        head = Text.assemble((first.ljust(widths[0] + _GAP), (styles or {}).get(first, "")), *others, said[0])
        out.print(head, soft_wrap=True)
        for line in said[1:]:
            out.print(f"{'':{indent}}{line}", markup=False, soft_wrap=True)


def stdout() -> Console:
    """For tables: as wide as the terminal; into a pipe or a file their lines stay whole."""
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=200)


class Advance(Protocol):
    """Reports `steps` more steps done; `note` replaces the text behind the bar, `total` what was to be expected, and
    `before` says how many were done earlier, which took none of the time.
    """

    def __call__(self, steps: int = 1, note: str = "", total: int | None = None, before: int = 0) -> None: ...


@contextmanager
def progress(title: str, total: int | None = None) -> Iterator[Advance]:
    """A bar on a terminal; elsewhere a plain line at the end and, in long steps, every ten seconds.

    >>> with progress("Calibration", total=64) as advance:
    ...     for frame in frames:
    ...         advance()
    """
    if os.environ.get("RANK", "0") != "0":
        # One of several processes of a training: the first one shows how far they are.
        yield lambda steps=1, note="", total=None, before=0: None
    elif console.is_terminal:
        with _bar(title, total) as advance:
            yield advance
    else:
        yield from _plain(title, total)


class Stages:
    """Steps that follow one another within one call: each shows its own progress and its own time.

    >>> with Stages() as stages:
    ...     stages.begin("Pseudo-labels", total=64)
    ...     stages.advance()
    ...     stages.begin("Student", total=500)  # ends the one before
    """

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._advance: Advance | None = None

    def __enter__(self) -> Stages:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def begin(self, title: str, total: int | None = None) -> None:
        self._stack.close()
        self._advance = self._stack.enter_context(progress(title, total))

    def advance(self, steps: int = 1, note: str = "", before: int = 0) -> None:
        """Of the stage that has begun last."""
        assert self._advance is not None, "begin() comes first"
        self._advance(steps, note, before=before)


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
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.table import Column
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Any) -> Text:
            return Text(f"{task.speed:.1f}/s" if task.speed else "")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )
    with Progress(*columns, console=console, transient=True, expand=True) as bar:
        task = bar.add_task(title, total=total, note="")

        def advance(steps: int = 1, note: str = "", total: int | None = None, before: int = 0) -> None:
            if before:
                bar.reset(task, completed=before)
            bar.update(task, advance=steps, note=note, total=total)

        yield advance


def _plain(title: str, total: int | None) -> Iterator[Advance]:
    started = spoke = first = time.monotonic()
    done = earlier = begun = 0
    expected = total

    def advance(steps: int = 1, note: str = "", total: int | None = None, before: int = 0) -> None:
        nonlocal done, earlier, begun, first, spoke, expected
        now = time.monotonic()
        if not done:  # what is set up before the first step ends says nothing of the pace
            begun, first = steps, now
        done += steps
        earlier += before
        expected = expected if total is None else total
        if now - spoke >= _PLAIN_INTERVAL:
            spoke = now
            rate = (done - begun) / (now - first) if done > begun else done / (now - started)
            console.print(f"{title}: {_how_far(earlier + done, expected, rate)} {note}".rstrip(), markup=False)

    yield advance
    behind = f", after {earlier} before" if earlier else ""
    console.print(f"{title}: {done} in {time.monotonic() - started:.1f} s{behind}", markup=False)


def _how_far(done: int, total: int | None, rate: float) -> str:
    """What is done, how fast, and how long the rest will take: `120/221, 24.1/s, 4 s left`."""
    if not total or not rate:
        return f"{done}{f'/{total}' if total else ''}, {rate:.1f}/s"
    left = max(0, round((total - done) / rate))
    return f"{done}/{total}, {rate:.1f}/s, {f'{left // 60} min {left % 60} s' if left >= 60 else f'{left} s'} left"
