"""The right to write one part of a store that knows no locks: an object that says who has it and since when."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit_runtime.errors import DataError

if TYPE_CHECKING:
    from types import TracebackType

    from edgekit_experts.dataset.remote import RemoteStorage

LEASE = ".lease"  # no video or modality can have this name

DEAD_AFTER = 60.0  # seconds without a renewal
RENEWED_EVERY = 15.0
SETTLED_AFTER = 1.0  # a rival who saw the same dead lease has overwritten it by then


@dataclass(frozen=True)
class Claim:
    """`owner` is unique to one lease; `renewed` in seconds since 1970 by the owner's clock.

    `machine` names the running kernel and its table of processes, of which `pid` is one; empty where unknown.
    """

    owner: str
    host: str
    machine: str
    pid: int
    renewed: float

    @classmethod
    def mine(cls) -> Claim:
        return cls(uuid.uuid4().hex, socket.gethostname(), _machine(), os.getpid(), time.time())

    @classmethod
    def from_json(cls, data: bytes) -> Claim | None:
        """None for what is no claim: nobody stands behind it."""
        try:
            table = json.loads(data)
            owner, host, machine = (str(table[name]) for name in ("owner", "host", "machine"))
            return cls(owner, host, machine, int(table["pid"]), float(table["renewed"]))
        except (KeyError, TypeError, ValueError):
            return None

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode() + b"\n"

    def dead(self) -> bool:
        if self.machine and self.machine == _machine():
            return not _runs(self.pid)
        return time.time() - self.renewed > DEAD_AFTER


class Lease:
    """Holds a prefix against other writers while the `with` block runs.

    It is created only if there is none (a conditional write), renewed by a thread, and removed at the end, also of
    a failed block. A process that was killed leaves it behind: on the same machine the next one sees that, on
    others it counts as dead a minute after the last renewal.

    Limits. A store without conditional writes (some S3 look-alikes) lets two writers who come within
    milliseconds both begin; the earlier one is stopped at its next renewal, within 15 seconds. The clocks of
    machines that write to one video must agree to within 45 seconds. A writer whose machine slept for longer than
    a minute may put objects for up to 15 seconds after waking before it learns that it was succeeded. Even then
    every object is whole; but of a unit that both wrote, frames of one may be stated as done and read as missing.
    """

    def __init__(self, storage: RemoteStorage, prefix: str) -> None:
        self._storage, self._prefix = storage, prefix
        self._key = f"{prefix}/{LEASE}"
        self._claim = Claim.mine()
        self._mutex = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._renewed = 0.0
        self._lost = False

    def __enter__(self) -> Lease:
        """Raises DataError when another writer has it."""
        found = self._storage.get(self._key)
        holder = Claim.from_json(found or b"")
        if holder and not holder.dead():
            raise self._held_by(holder)
        refused = None
        try:
            self._storage.write(self._key, self._claim.to_json(), new=found is None)
        except DataError as error:
            refused = error
        if holder:
            time.sleep(SETTLED_AFTER)
        # Also after a refusal: it may come from a rival's lease, or from our own that a retry met.
        holder = self._holder()
        if holder is None or (refused and holder.dead()):
            raise refused or self._taken()
        if holder.owner != self._claim.owner:
            raise self._held_by(holder)
        self._renewed = time.monotonic()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        with suppress(DataError):  # it ends by itself
            holder = self._holder()
            if holder and holder.owner == self._claim.owner:
                self._storage.delete(self._key)

    def confirm(self) -> None:
        """Before each write: raises DataError when another writer has taken over."""
        if time.monotonic() - self._renewed > DEAD_AFTER / 2:
            self._renew()  # the thread had no chance to
        if self._lost:
            raise self._taken()

    def _keep(self) -> None:
        while not self._stop.wait(RENEWED_EVERY):
            with suppress(DataError):  # out of reach for a moment; `confirm` counts how long
                self._renew()

    def _renew(self) -> None:
        with self._mutex:
            holder = self._holder()
            if holder is None or holder.owner != self._claim.owner:
                self._lost = True
                return
            self._storage.write(self._key, replace(self._claim, renewed=time.time()).to_json())
            self._renewed = time.monotonic()

    def _holder(self) -> Claim | None:
        return Claim.from_json(self._storage.get(self._key) or b"")

    def _held_by(self, holder: Claim) -> DataError:
        place = self._storage.address(self._prefix)
        return DataError(
            f"{place} is being written by another process ({holder.pid} on {holder.host}).",
            hint="Wait until it ends; `edgekit status` shows how far it is. If it was killed, try again in a minute.",
        )

    def _taken(self) -> DataError:
        return DataError(
            f"Another process has taken over the writing of {self._storage.address(self._prefix)}.",
            hint="Nothing that was done is lost: give the same command again when that one has ended.",
        )


def _machine() -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:  # not Linux
        return ""


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
