"""A new bundle at the path of one that runs: verified, opened and warmed up beside it, then it takes over."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.bundle import locate_bundle
from edgekit_runtime.errors import BundleError, EdgekitError
from edgekit_runtime.events import warn
from edgekit_runtime.inference import Inference
from edgekit_runtime.manifest import MANIFEST, Manifest
from edgekit_runtime.model import Model

POLL_S = 1.0
# A compiler at work when the program ends would crash it.
_JOIN_S = 1.5
_Stamp = tuple[str, int, int, int]


@dataclass
class _Watched:
    path: str | Path
    inference: Inference
    load: Callable[[], Model]
    # What was there at the last look, and what was last opened, or refused.
    seen: _Stamp | None
    judged: _Stamp | None


@contextmanager
def hot_swap(
    running: Sequence[tuple[str | Path, Inference, Callable[[], Model]]], poll_s: float = POLL_S
) -> Iterator[None]:
    """Looks once in `poll_s` seconds, from a thread of its own, whether other bundles lie where these came from.

    Each is a path as it was asked for, what runs its bundle, and how it is opened. A bundle that cannot be opened, or
    that answers in other terms than the one that runs (its classes, its unit of depth), is refused, which is announced
    once; the old one goes on.
    """
    stop = threading.Event()
    watched = [_Watched(path, inference, load, None, _stamp(path)) for path, inference, load in running]

    def look() -> None:
        while not stop.wait(poll_s):
            for each in watched:
                _look_at(each, stop)

    thread = threading.Thread(target=look, name="bundles", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(_JOIN_S)


def _look_at(watched: _Watched, stop: threading.Event) -> None:
    now = _stamp(watched.path)
    settled, watched.seen = now == watched.seen, now
    # What is still being copied changes from look to look.
    if now is None or now == watched.judged or not settled:
        return
    watched.judged = now
    try:
        model = watched.load()
    except Exception as error:  # whatever it is, the old one goes on
        _refuse(watched.path, str(error.args[0]) if isinstance(error, EdgekitError) else repr(error))
        return
    running = watched.inference.model
    reason = _other_terms(running.manifest, model.manifest)
    # The manifest has the hash of every file: the same text is the same bundle, touched or copied once more.
    if reason or stop.is_set() or model.bundle.text == running.bundle.text:
        model.close()
        if reason:
            _refuse(watched.path, f"{reason}: start again to run it")
        return
    watched.inference.swap(model)


def _refuse(path: str | Path, reason: str) -> None:
    reason = reason.rstrip(".")
    message = f"The new bundle at {path} is refused, the old one goes on. {reason}."
    warn(message, "bundle_refused", bundle=str(path), reason=reason)


def _stamp(path: str | Path) -> _Stamp | None:
    """What tells a bundle from another at the same place without reading it; None while there is none."""
    try:
        found = locate_bundle(path)
        status = (found / MANIFEST if found.is_dir() else found).stat()
    except (OSError, BundleError):
        return None
    return str(found), status.st_ino, status.st_size, status.st_mtime_ns


def _other_terms(old: Manifest, new: Manifest) -> str:
    """Why the answers of a new bundle would be misread by who knows the old one; empty where they are not."""

    def terms(manifest: Manifest) -> list[tuple[object, ...]]:
        said = [output.modality for output in manifest.outputs if output.modality]
        return [(each.kind, each.unit, each.taxonomy) for each in said]

    return "" if terms(old) == terms(new) else "it has other classes or another kind of depth"
