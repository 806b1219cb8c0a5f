"""Takes everything and keeps nothing: for measuring."""

from __future__ import annotations

from edgekit_runtime.model import Result
from edgekit_runtime.sinks.base import Picture, Sink, SinkContext


class NullSink(Sink):
    def write(self, picture: Picture, result: Result) -> None:
        return None


def open_named(argument: str, context: SinkContext) -> Sink:
    return NullSink()
