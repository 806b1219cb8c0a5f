"""`edgekit-run`: one bundle, one source, some sinks; `edgekit-run prepare`: engines that only the device can build."""

from __future__ import annotations

import time

_STARTED = time.monotonic()

import argparse  # noqa: E402  (the clock of the first result starts before the imports)
import json  # noqa: E402
import math  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import threading  # noqa: E402
import traceback  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from contextlib import suppress  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import TYPE_CHECKING, Any, NoReturn  # noqa: E402

from edgekit_runtime import __version__  # noqa: E402
from edgekit_runtime.errors import EdgekitError, UsageError  # noqa: E402
from edgekit_runtime.events import LOG_FORMATS, announce, log_to_stderr, say  # noqa: E402

if TYPE_CHECKING:
    from edgekit_runtime.app import Ready
    from edgekit_runtime.stats import Stats

_PROGRAM = "edgekit-run"
_PREPARE = "prepare"
_PLAIN_INTERVAL_S = 10.0
_EPILOG = """\
sources: camera:0  /dev/video0  clip.mp4  frames/  'frames/*.png'  rtsp://HOST/PATH  http://HOST/STREAM
         phone:  screen:  - (raw rgb24 on stdin)  csi:0  gst:PIPELINE  test:?size=960x540&fps=30
sinks:   window  web[:PORT]  file:OUT.mp4  stdout[:rgb24]  png:DIR  json:PATH  rtsp://HOST/PATH  null
         (several may be given)
window:  q or Esc quit, space pause, + and - opacity, 1 to 9 hide a class, d depth, s snapshot, h these keys
web:     a page at http://127.0.0.1:8090; web:0.0.0.0:8090 for other machines, which need the token it prints

A bundle that is replaced while it runs takes over by itself.  edgekit-run service: run at every start of the machine.
edgekit-run prepare BUNDLE builds the engines that only this device can build (TensorRT), and keeps them.

exit status: 0 done, 1 failed, 2 wrong usage"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns 0 done, 1 failed, 2 wrong usage."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["service"]:
        return _service(given[1:])
    preparing = given[:1] == [_PREPARE]
    options = prepare_parser().parse_args(given[1:]) if preparing else parser().parse_intermixed_args(given)
    log_format = "text" if preparing else options.log_format
    log_to_stderr(log_format)
    from edgekit_runtime.app import explain

    try:
        return _prepare(options) if preparing else _run(options)
    except KeyboardInterrupt:
        return 130  # before there was anything to finish
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        return explain(error, _PROGRAM, log_format)


# Threads that may be in native code for long; of others none outlives a run.
_LASTING = ("bundles", "inference", "opening", "source ")


def leave(status: int) -> NoReturn:
    """Ends the process with that status, also while an engine or a driver works in a thread that nobody could wait for.

    A native call that returns while Python is taken down aborts the process: then nothing is taken down.
    """
    if any(thread.name.startswith(_LASTING) for thread in threading.enumerate()):
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


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
    from edgekit_runtime.sources.piped import with_input_size

    if not options.bundle:
        raise UsageError("No bundle was named.", hint=f"{_PROGRAM} model.edgekit --source clip.mp4")
    sinks = options.sink or []
    if options.json and any(sink.startswith("stdout") for sink in sinks):
        raise UsageError("--json and the sink stdout both want standard output.", hint="Use --stats-file instead.")
    source = options.source if options.source is not None else f"camera:{options.camera}"
    progress = Progress(options.log_format)
    stats = run(
        options.bundle[0],
        with_input_size(source, options.input_size),
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


def _prepare(options: argparse.Namespace) -> int:
    from edgekit_runtime.prepare import prepare

    signal.signal(signal.SIGINT, signal.default_int_handler)  # the builder is told
    done = prepare(options.bundle, key=options.key, watch=Progress().building)
    for each in done:
        where = each.path or "in the bundle"
        took = "ready before" if each.was_there else f"built in {each.seconds:.0f} s"
        say(f"{each.variant.engine} {each.variant.precision} for {each.gpu}: {took}: {where}")
    if options.json:
        prepared = [
            {
                "engine": each.variant.engine,
                "precision": each.variant.precision,
                "gpu": each.gpu,
                "path": each.path,
                "seconds": round(each.seconds, 1),
                "was_there": each.was_there,
            }
            for each in done
        ]
        print(json.dumps({"bundle": str(options.bundle), "prepared": prepared}, indent=1))
    return 0


class Progress:
    """Says on stderr what runs and how: one line that is rewritten on a terminal, now and then a line elsewhere."""

    def __init__(self, log_format: str = "text") -> None:
        self.what: Ready | None = None
        self._terminal = sys.stderr.isatty() and log_format == "text"
        self._spoke = -math.inf

    def ready(self, what: Ready) -> None:
        self.what, self._spoke = what, time.monotonic()
        rate = f" at {what.source_fps:g} fps" if what.source_fps else ""
        lines = [f"{what.bundle}: {what.precision}, {what.engine}; {what.source}{rate}"]
        lines += [f"beside it: {line}" for line in what.beside]
        lines += [f"passed over: {reason}" for reason in what.skipped]
        announce("ready", "\n".join(lines), **what.to_dict())

    def stats(self, stats: Stats) -> None:
        trouble = "" if stats.state == "running" else f"   {stats.state}: {stats.reason}".rstrip(": ")
        line = f"{stats.frames} frames   {stats.fps:.1f} fps   age {stats.age_p50_ms:.0f} ms{trouble}"
        self._say("stats", line, **stats.to_dict())

    def building(self, phase: str, seconds: float) -> None:
        self._say("message", f"building the engine, {seconds:.0f} s" + (f": {phase}" if phase else ""))

    def _say(self, event: str, line: str, **facts: Any) -> None:
        if self._terminal:
            print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self._spoke >= _PLAIN_INTERVAL_S:
            self._spoke = time.monotonic()
            announce(event, line, **facts)

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
    known.add_argument("--input-size", metavar="WxH", help="size of the raw rgb24 pictures on stdin (--source -)")
    known.add_argument("--sink", action="append", metavar="SINK", help="where results go (default: window, or web)")
    known.add_argument("--frames", type=_positive, metavar="N", help="stop after N frames")
    known.add_argument("--no-overlay", action="store_true", help="hand the bare frames to the sinks")
    known.add_argument("--smooth", action="store_true", help="labels that flicker less; half a millisecond a frame")
    known.add_argument(
        "--engine", metavar="NAME", help="use only this engine: openvino, onnxruntime, tensorrt-rtx or tensorrt"
    )
    known.add_argument("--key", type=Path, metavar="FILE", help="refuse bundles that this public key has not signed")
    known.add_argument("--json", action="store_true", help="print the figures as one JSON document at the end")
    known.add_argument("--stats-file", type=Path, metavar="FILE", help="keep the figures in FILE, once a second")
    known.add_argument(
        "--log-format", choices=LOG_FORMATS, default="text", help="json: one line a happening on stderr, for collectors"
    )
    known.add_argument("--debug", action="store_true", help="show the traceback of an error")
    known.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    return known


def prepare_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"{_PROGRAM} {_PREPARE}",
        description="Builds the TensorRT engines of a bundle for this device and keeps them in the user's cache "
        "folder. On a Jetson this takes minutes, once for each bundle and version of JetPack.",
        allow_abbrev=False,
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="a .edgekit file or bundle folder")
    parser.add_argument("--key", type=Path, metavar="FILE", help="refuse bundles that this public key has not signed")
    parser.add_argument("--json", action="store_true", help="print what is ready as one JSON document")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


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
