"""Sources by URI: cameras, phones, screens, streams, video files, picture folders, a test pattern, and plug-ins'.

Other packages add schemes by the entry point group `edgekit.sources`: callables from a SourceUri to a Source.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from edgekit_runtime.errors import SourceError, UsageError
from edgekit_runtime.sources.base import Source
from edgekit_runtime.sources.uri import STDIN, SourceUri, parse_uri

__all__ = ["ENTRY_POINTS", "open_source"]

ENTRY_POINTS = "edgekit.sources"
# Scheme -> module with an `open_uri(SourceUri) -> Source`.
_SCHEMES = {
    "camera": "edgekit_runtime.sources.camera",
    "file": "edgekit_runtime.sources.files",
    "phone": "edgekit_runtime.sources.phone",
    "test": "edgekit_runtime.sources.pattern",
    STDIN: "edgekit_runtime.sources.piped",
    "screen": "edgekit_runtime.sources.screen",
    **dict.fromkeys(("rtsp", "rtsps", "http", "https", "csi", "gst"), "edgekit_runtime.sources.streams"),
}


def open_source(uri: str | Path) -> Source:
    """Opens a source by its URI:

    - `camera:0`, `camera:1?size=1280x720&fps=30`, `/dev/video0`: a camera;
    - `clip.mp4`, `file:clip.mp4`: a video file, decoded in a process of its own;
    - `frames/`, `frames/*.png`: pictures in sorted order, 25 a second;
    - `rtsp://user:password@host/path`, `http://host/stream` (MJPEG): a live stream, opened again when it is lost;
    - `-`, `stdin:?size=960x540&fps=25&live=0`: raw rgb24 pictures on standard input; `-` needs its size told;
    - `screen:`, `screen:2?fps=15`: a screen;
    - `csi:0?size=1280x720&fps=30`: a camera at a Jetson's CSI connector; `gst:PIPELINE`: any GStreamer pipeline;
    - `phone:`, `phone:?size=1280x720&fps=30`: the camera of whoever opens the page of the sink `web`;
    - `test:?size=960x540&fps=30&frames=100`: a moving pattern with its frame number in it; `fps=0` is as fast as
      it is read;
    - schemes that plug-ins add (`world:SEED` with the toolkit installed).

    Raises UsageError for a URI that makes no sense and SourceError for one that cannot be opened.
    """
    parsed = parse_uri(str(uri))
    if parsed.scheme in _SCHEMES:
        opener: Callable[[SourceUri], Source] = import_module(_SCHEMES[parsed.scheme]).open_uri
        return opener(parsed)
    return _plugin(parsed)(parsed)


def _plugin(uri: SourceUri) -> Callable[[SourceUri], Source]:
    from importlib.metadata import entry_points

    found = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if uri.scheme in found:
        try:
            opener: Callable[[SourceUri], Source] = found[uri.scheme].load()
        except ImportError as error:
            raise SourceError(f"{uri.text}: the plug-in for {uri.scheme}: cannot be loaded: {error}.") from error
        return opener
    known = sorted({*_SCHEMES, *found})
    hint = f"Known: {', '.join(f'{scheme}:' for scheme in known)}; a path needs no scheme."
    if uri.scheme == "world":
        hint = "world: comes with the toolkit: pip install edgekit"
    raise UsageError(f"{uri.text}: unknown source {uri.scheme!r}.", hint=hint)
