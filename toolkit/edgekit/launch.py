"""One command on several devices: a process for each, as torchrun would start them, that begin and end together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from edgekit.console import console
from edgekit_runtime.errors import UsageError

# How long the others have, in seconds, to end by themselves after one has failed.
_GRACE = 15.0
_INTERRUPTED = 130


def check_devices(device: str, devices: int) -> None:
    """Raises UsageError where there are not so many; a CPU is shared."""
    if device != "cuda":
        return
    import torch

    if devices > (found := torch.cuda.device_count()):
        raise UsageError(
            f"{devices} CUDA devices are asked for, {found} {'is' if found == 1 else 'are'} here.",
            hint=f"Use --devices {found}.",
        )


def run_on_devices(arguments: Sequence[str], devices: int) -> int:
    """Runs `edgekit ARGUMENTS` in `devices` processes and returns one exit status for all.

    The first shows and writes what a single one would. When one fails, the others are ended, and what it said is
    shown. Ctrl-C, SIGTERM or a closed terminal interrupt all of them; a second Ctrl-C ends them at once.
    """
    command = [sys.executable, "-m", "edgekit", *arguments]
    shared = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // devices)),
        **os.environ,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "WORLD_SIZE": str(devices),
        "LOCAL_WORLD_SIZE": str(devices),
        "GROUP_RANK": "0",
    }
    with ExitStack() as stack:
        said = [stack.enter_context(tempfile.TemporaryFile()) for _ in range(1, devices)]
        children: list[subprocess.Popen[bytes]] = []
        with _interrupting(children):
            for rank in range(devices):
                child = subprocess.Popen(
                    command,
                    env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.DEVNULL if rank else None,
                    stderr=said[rank - 1] if rank else None,
                    # Of the terminal's signals we alone pass on one to each.
                    start_new_session=True,
                )
                children.append(child)
            first = _wait(children)
        if first:
            said[first - 1].seek(0)
            text = said[first - 1].read().decode("utf-8", "replace").strip()
            console.print(f"Process {first} of {devices}: {text or 'ended without a word'}", markup=False)
    statuses = [child.returncode for child in children]
    if _INTERRUPTED in statuses:
        return _INTERRUPTED
    failed = statuses[first]
    return failed if failed >= 0 else 1


def _wait(children: Sequence[subprocess.Popen[bytes]]) -> int:
    """Waits for all; returns whose failure it was if that is not what the first has said itself, else 0."""
    failed: list[int] = []
    since = 0.0
    while any(child.poll() is None for child in children):
        new = [rank for rank, child in enumerate(children) if child.returncode and rank not in failed]
        if new and not failed:
            since = time.monotonic()
        failed += new
        if failed and time.monotonic() - since > _GRACE:
            for child in children:
                if child.poll() is None:
                    (child.kill if time.monotonic() - since > 2 * _GRACE else child.terminate)()
        time.sleep(0.05)
    failed += [rank for rank, child in enumerate(children) if child.returncode and rank not in failed]
    from edgekit_student.ranks import PeerLostError

    # Of the first process one has seen the error, unless it was ended or only lost another.
    if not failed or (children[0].returncode >= 0 and children[0].returncode != PeerLostError.exit_status):
        return 0
    causes = [rank for rank in failed if children[rank].returncode != PeerLostError.exit_status]
    return causes[0] if causes else 0


@contextmanager
def _interrupting(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Passes a wish to end on to all children, as one Ctrl-C each; they write their state and end."""
    asked = False

    def ask(number: int, frame: object) -> None:
        nonlocal asked
        for child in children:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL if asked else signal.SIGINT)
        asked = True

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous = {number: signal.signal(number, ask) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
