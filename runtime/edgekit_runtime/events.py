"""What happens while a loop runs, said once: a line for a person, or a line of JSON for a collector of logs.

`event` is one of `ready`, `stats`, `done`, `failed`, `state`, `engine_failed`, `engine_reopened`, `engine_replaced`,
`bundle_swapped`, `bundle_refused`, `bundle_lost`, `skipping`, `input_reduced`, `input_restored`, or `message` for
everything else.
"""

from __future__ import annotations

import json
import logging
import sys
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

LOG_FORMATS = ("text", "json")
_LOG = logging.getLogger("edgekit_runtime")


def announce(event: str, message: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """Says something; `facts` (what JSON can hold) stand in the JSON line only."""
    _LOG.log(level, "%s", message, extra={"event": event, "facts": facts})


def say(message: str) -> None:
    announce("message", message)


def warn(message: str, event: str = "message", **facts: Any) -> None:
    announce(event, message, level=logging.WARNING, **facts)


def log_to_stderr(log_format: str) -> None:
    """Lets the runtime's log out on stderr, as `text` or as `json`: once, for a program."""
    handler = _Stderr()
    handler.setFormatter(_Json() if log_format == "json" else _Text())
    _LOG.handlers = [handler]
    _LOG.setLevel(logging.INFO)


class _Stderr(logging.Handler):
    """What standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError, ValueError):  # it may be closed, or full
            print(self.format(record), file=sys.stderr, flush=True)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        line = {
            "time": time.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "message"),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        return json.dumps(line, allow_nan=False, default=str)


class _Text(logging.Formatter):
    """The bare message, over the line of figures that a terminal may be showing."""

    def __init__(self) -> None:
        super().__init__()
        self._start = "\r\x1b[K" if sys.stderr.isatty() else ""

    def format(self, record: logging.LogRecord) -> str:
        return f"{self._start}{record.getMessage()}"
