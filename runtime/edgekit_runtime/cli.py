"""`edgekit-run`: one bundle, one source, some sinks."""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import argparse  # noqa: E402  (the clock of the first result starts before the imports)
import json  # noqa: E402
import sys  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING  # noqa: E402

from edgekit_runtime._version import __version__  # noqa: E402
from edgekit_runtime.errors import EdgekitError, UsageError  # noqa: E402
from edgekit_runtime.events import LOG_FORMATS, announce, log_to_stderr  # noqa: E402

if TYPE_CHECKING:
    from edgekit_runtime.app import Ready
    from edgekit_runtime.stats import Stats

_PROGRAM = "edgekit-run"
_PLAIN_INTERVAL_S = 10.0
_EPILOG = """\
sources: camera:0  /dev/video0  clip.mp4  frames/  'frames/*.png'  rtsp://HOST/PATH  http://HOST/STREAM
         test:?size=960x540&fps=30
sinks:   window  web[:PORT]  file:OUT.mp4  stdout[:rgb24]  png:DIR  json:PATH  null    (several may be given)
window:  q or Esc quit, space pause, + and - opacity, 1 to 9 hide a class, d depth, s snapshot, h these keys
web:     a page at http://127.0.0.1:8090; web:0.0.0.0:8090 for other machines, which need the token it prints

A bundle that is replaced while it runs takes over by itself.  edgekit-run service: run at every start of the machine.

exit status: 0 done, 1 failed, 2 wrong usage"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 done, 1 failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["service"]:
        return _service(given[1:])
    options = parser().parse_intermixed_args(given)
    log_to_stderr(options.log_format)
    from edgekit_runtime.app import explain

    try:
        return _run(options)
    except KeyboardInterrupt:
        return 130  # before there was anything to finish
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return explain(error, _PROGRAM, options.log_format)


def _service(arguments: Sequence[str]) -> int:
    from edgekit_runtime import service

    log_to_stderr("text")
    try:
        return service.main(arguments)
    except EdgekitError as error:
        print(f"{_PROGRAM} service: {error}", file=sys.stderr)
        return error.exit_status


def _run(options: argparse.Namespace) -> int:
    from edgekit_runtime.app import run

    if not options.bundle:
        raise UsageError("No bundle was named.", hint=f"{_PROGRAM} model.edgekit --source clip.mp4")
    sinks = options.sink or []
    if options.json and any(sink.startswith("stdout") for sink in sinks):
        raise UsageError("--json and the sink stdout both want standard output.", hint="Use --stats-file instead.")
    progress = Progress(options.log_format)
    stats = run(
        options.bundle[0],
        options.source if options.source is not None else f"camera:{options.camera}",
        sinks,
        beside=options.bundle[1:],
        frames=options.frames,
        overlay=not options.no_overlay,
        smooth=options.smooth,
        engine=options.engine,
        key=options.key,
        stats_file=options.stats_file,
        on_ready=progress.ready,
        on_stats=progress.stats,
        started=_STARTED,
    )
    progress.done(stats)
    if options.json:
        document = {**(progress.what.to_dict() if progress.what else {}), **stats.to_dict()}
        print(json.dumps(document, indent=1, allow_nan=False))
    return 0


class Progress:
    """Says on stderr what runs and how: one line that is rewritten on a terminal, now and then a line elsewhere."""

    def __init__(self, log_format: str = "text") -> None:
        self.what: Ready | None = None
        self._terminal = sys.stderr.isatty() and log_format == "text"
        self._spoke = time.monotonic()

    def ready(self, what: Ready) -> None:
        self.what = what
        rate = f" at {what.source_fps:g} fps" if what.source_fps else ""
        lines = [f"{what.bundle}: {what.precision}, {what.engine}; {what.source}{rate}"]
        lines += [f"beside it: {line}" for line in what.beside]
        lines += [f"passed over: {reason}" for reason in what.skipped]
        announce("ready", "\n".join(lines), **what.to_dict())

    def stats(self, stats: Stats) -> None:
        trouble = "" if stats.state == "running" else f"   {stats.state}: {stats.reason}"
        line = f"{stats.frames} frames   {stats.fps:.1f} fps   age {stats.age_p50_ms:.0f} ms{trouble}"
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._spoke >= _PLAIN_INTERVAL_S:
            self._spoke = time.monotonic()
            announce("stats", line, **stats.to_dict())

    def done(self, stats: Stats) -> None:
        line = (
            f"{stats.frames} frames, {stats.dropped} dropped, {stats.fps:.1f} fps, "
            f"age {stats.age_p50_ms:.1f} ms (p99 {stats.age_p99_ms:.1f})"
        )
        announce("done", f"{line}, {stats.reason}" if stats.reason else line, **stats.to_dict())


def parser() -> argparse.ArgumentParser:
    """What `edgekit-run` understands."""
    known = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="Runs an edgekit bundle live: frames in, class colours, depth, rates and timings out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    known.add_argument(
        "bundle", nargs="*", type=Path, metavar="BUNDLE",
        help="a .edgekit file or bundle folder; further ones run beside the first, each at its own pace",
    )  # fmt: skip
    source = known.add_mutually_exclusive_group(required=True)
    source.add_argument("--camera", type=_natural, metavar="N", help="read camera N")
    source.add_argument("--source", metavar="URI", help="read a file, a folder or another source (below)")
    known.add_argument("--sink", action="append", metavar="SINK", help="where results go (default: window, or web)")
    known.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames")
    known.add_argument("--no-overlay", action="store_true", help="hand the bare frames to the sinks")
    known.add_argument("--smooth", action="store_true", help="labels that flicker less; half a millisecond a frame")
    known.add_argument("--engine", metavar="NAME", help="use only this engine: openvino or onnxruntime")
    known.add_argument("--key", type=Path, metavar="FILE", help="refuse bundles that this public key has not signed")
    known.add_argument("--json", action="store_true", help="print the figures as one JSON document at the end")
    known.add_argument("--stats-file", type=Path, metavar="FILE", help="keep the figures in FILE, once a second")
    known.add_argument(
        "--log-format", choices=LOG_FORMATS, default="text", help="json: one line a happening on stderr, for collectors"
    )
    known.add_argument("--debug", action="store_true", help="show the traceback of an error")
    known.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    return known


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError(text)
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError(text)
    return value


_natural.__name__ = "camera number"
_positive.__name__ = "number of frames"

if __name__ == "__main__":
    raise SystemExit(main())
