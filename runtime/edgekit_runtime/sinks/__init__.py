"""Where results go: sinks by name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from edgekit_runtime.errors import SinkError, UsageError
from edgekit_runtime.sinks.base import Sink, SinkContext
from edgekit_runtime.sources.uri import SourceUri, redact

__all__ = ["check_sinks", "default_sink", "open_sink"]

# Name -> module with an `open_<name>(argument, SinkContext) -> Sink`.
_SINKS = {
    "window": "edgekit_runtime.sinks.window",
    "web": "edgekit_runtime.sinks.web",
    "file": "edgekit_runtime.sinks.recording",
    "stdout": "edgekit_runtime.sinks.frames",
    "png": "edgekit_runtime.sinks.frames",
    "json": "edgekit_runtime.sinks.lines",
    "rtsp": "edgekit_runtime.sinks.rtsp",
    "null": "edgekit_runtime.sinks.base",
}
_USAGE = "Sinks: window, web[:PORT], file:OUT.mp4, stdout[:rgb24], png:DIR, json:PATH, rtsp://HOST/PATH, null."


def open_sink(text: str, context: SinkContext | None = None) -> Sink:
    """Opens a sink: `window`, `web`, `web:8090`, `web:0.0.0.0:8090?tls=1`, `file:out.mp4`, `stdout` (raw bgr24) or
    `stdout:rgb24`, `png:DIR`, `json:out.jsonl`,
    `rtsp://host/path`, `null`.

    Raises UsageError for one that does not exist and SinkError for one that cannot be opened.
    """
    name, argument = _split(text)
    opener: Callable[[str, SinkContext], Sink] = getattr(import_module(_SINKS[name]), f"open_{name}")
    return opener(argument, context or SinkContext())


def check_sinks(texts: list[str], source: SourceUri | None = None) -> None:
    """Raises UsageError when one is unknown, lacks its path, would write over what the source reads, or two want the
    same output, or when the source needs another; SinkError when there can be no window here. Opens nothing.
    """
    names = [_split(text)[0] for text in texts]
    if source is not None and source.scheme == "file":
        read = Path(source.body).expanduser().resolve()
        for name, argument in map(_split, texts):
            written = Path(argument).expanduser().resolve()
            if name in ("file", "png") and written in (read, *([read.parent] if name == "png" else [])):
                raise UsageError(f"{name}:{argument} would write over what is read.", hint="Name another place.")
    if source is not None and source.scheme == "phone" and "web" not in names:
        raise UsageError("phone: gets its pictures through the page.", hint="Add --sink web, or web:0.0.0.0:8090.")
    if len(texts) != len(set(texts)):
        raise UsageError("The same sink is asked for twice.")
    if sum(text.startswith("stdout") for text in texts) > 1:
        raise UsageError("Only one sink can write to standard output.")
    if "window" in names:
        import_module(_SINKS["window"]).check()
    for name, argument in map(_split, texts):
        if name in ("web", "json", "rtsp"):
            import_module(_SINKS[name]).parse(argument)


def default_sink(source: str = "") -> str:
    """A window where there can be one, else a page; always a page for the source whose pictures come through it."""
    if source == "phone":
        return "web"
    try:
        import_module(_SINKS["window"]).check()
    except SinkError:
        return "web"
    return "window"


def _split(text: str) -> tuple[str, str]:
    name, _, argument = text.partition(":")
    if name not in _SINKS:
        shown = redact(text)
        hint = f"Did you mean file:{shown}? {_USAGE}" if text.endswith((".mp4", ".avi", ".mkv")) else _USAGE
        raise UsageError(f"Unknown sink {shown!r}.", hint=hint)
    if name in ("file", "png") and not argument:
        raise UsageError(f"The sink {name!r} needs a path, like {name}:out{'.mp4' if name == 'file' else ''}.")
    if name in ("window", "null") and argument:
        raise UsageError(f"The sink {name!r} takes nothing after the colon.", hint=_USAGE)
    if name == "stdout" and argument not in ("", "bgr24", "rgb24"):
        raise UsageError(f"stdout writes bgr24 or rgb24, not {argument!r}.")
    return name, argument
