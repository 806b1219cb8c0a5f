"""`edgekit-run service`: the same command at every start of the machine, kept running by systemd.

What systemd started tells it that it is ready and alive, as sd_notify(3) has it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from edgekit_runtime.errors import EdgekitError, UsageError
from edgekit_runtime.events import say, warn
from edgekit_runtime.files import whole
from edgekit_runtime.sources.uri import redact

_WRITERS = ("file:", "json:", "png:")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_EPILOG = """\
everything after `install` that is not an option above is what edgekit-run is to be given:

  edgekit-run service install model.edgekit --camera 0 --sink web:0.0.0.0:8090
  edgekit-run service status
  edgekit-run service uninstall

Without --system the service is yours: it starts when you log in, or, after `sudo loginctl enable-linger $USER`,
with the machine. With --system (as root) it belongs to the machine and runs shut off from nearly everything."""

_UNIT = """\
# Written by `edgekit-run service install`; `edgekit-run service uninstall` removes it.
[Unit]
Description=edgekit: {what}
Documentation=man:systemd.service(5)
{after}# It tries for ever: a camera may be plugged in tomorrow.
StartLimitIntervalSec=0

[Service]
Type=notify
ExecStart={command}
WorkingDirectory={folder}
Environment=PYTHONUNBUFFERED=1
Restart=on-failure
RestartSec=5
# Wrong usage does not become right by itself.
RestartPreventExitStatus=2
# Without a word for so long it is killed and started again; an engine that compiles at the first start takes its time.
WatchdogSec=60
TimeoutStartSec=600
# It finishes its recordings within two seconds.
TimeoutStopSec=10
{hardening}
[Install]
WantedBy={target}
"""

# MemoryDenyWriteExecute is not among these: inference engines write the code that they run.
_HARDENING = """\
UMask=0077
NoNewPrivileges=yes
LockPersonality=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
"""
# These need namespaces, which the systemd of a user cannot count on.
_SYSTEM_HARDENING = """\
CapabilityBoundingSet=
{user}ProtectSystem=strict
ProtectHome=read-only
ReadWritePaths={writable}
CacheDirectory={name}
Environment=XDG_CACHE_HOME=/var/cache/{name}
PrivateTmp=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
"""


@dataclass(frozen=True)
class Service:
    """A unit: its name without `.service`, the command that it runs, and where.

    Of one for the machine (`system`), `user` is who runs it (empty: root), and `writable` are the folders that it may
    write to.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    system: bool = False
    user: str = ""
    writable: tuple[Path, ...] = ()

    @property
    def path(self) -> Path:
        return unit_path(self.name, self.system)

    def unit(self) -> str:
        """The text of the unit."""
        hardening = _HARDENING
        if self.system:
            groups = " ".join(name for name in ("video", "render") if _group_exists(name))
            user = f"User={self.user}\n" if self.user else ""
            hardening += _SYSTEM_HARDENING.format(
                user=user + (f"SupplementaryGroups={groups}\n" if groups else ""),
                writable=" ".join(_quote(f"-{folder}") for folder in self.writable),
                name=self.name,
            )
        return _UNIT.format(
            what=_escape(redact(" ".join(self.command[3:]))).replace("\n", " "),  # it stands in every log
            after="Wants=network-online.target\nAfter=network-online.target\n" if self.system else "",
            command=" ".join(_quote(part) for part in self.command),
            folder=_escape(str(self.folder)),
            hardening=hardening,
            target="multi-user.target" if self.system else "default.target",
        )


def unit_path(name: str, system: bool) -> Path:
    """Where systemd looks for a unit of that name."""
    folder = Path("/etc/systemd/system") if system else Path.home() / ".config" / "systemd" / "user"
    return folder / f"{name}.service"


def main(arguments: Sequence[str]) -> int:
    """Runs `edgekit-run service ...`; returns the exit status. Raises UsageError and EdgekitError."""
    options, rest = parser().parse_known_args(arguments)
    if sys.platform != "linux":
        raise EdgekitError("Services are made for systemd, which is on Linux.", hint="Use what starts services here.")
    if not _NAME.fullmatch(options.name):
        raise UsageError(f"{options.name!r} is no name for a service.", hint="Letters, digits, dots and dashes.")
    if options.action != "install" and rest:
        raise UsageError(f"`service {options.action}` takes no {rest[0]}.")
    if options.action == "install":
        service = _service(options, rest)
        if options.print:
            print(service.unit(), end="")
            return 0
        return _install(service)
    return (_uninstall if options.action == "uninstall" else _status)(options.name, options.system)


def parser() -> argparse.ArgumentParser:
    known = argparse.ArgumentParser(
        prog="edgekit-run service",
        description="Installs, removes or shows a systemd service that runs edgekit-run.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    known.add_argument("action", choices=("install", "uninstall", "status"))
    known.add_argument("--name", default="edgekit-run", help="the unit's name, where there are several")
    known.add_argument("--system", action="store_true", help="for the machine, not for you; needs root")
    known.add_argument("--print", action="store_true", help="only show the unit that would be installed")
    return known


def _service(options: argparse.Namespace, rest: Sequence[str]) -> Service:
    from edgekit_runtime.cli import parser
    from edgekit_runtime.sinks import check_sinks
    from edgekit_runtime.sources.uri import parse_uri

    run = parser().parse_intermixed_args(rest)  # wrong usage is said now, not in a log at night
    if not run.bundle:
        raise UsageError("No bundle was named.", hint="edgekit-run service install model.edgekit --camera 0")
    for bundle in run.bundle:
        if not bundle.exists():
            raise UsageError(f"There is no bundle at {bundle}.", hint="Check the path.")
    if run.source is not None:
        parse_uri(run.source)
    check_sinks(run.sink or [])
    if redact(" ".join(rest)) != " ".join(rest):
        say("The password in it stands in the unit, for everybody who may see what runs here.")
    sinks = [] if run.sink else ["--sink", "web"]  # at a start of the machine there is no screen
    command = (sys.executable, "-m", "edgekit_runtime", *rest, *sinks)
    folder = Path.cwd()
    named = [text.partition(":")[2].partition("?")[0] for text in run.sink or [] if text.startswith(_WRITERS)]
    written = [folder / path for path in (*named, *([run.stats_file] if run.stats_file else []))]
    writable = dict.fromkeys([folder, *(path.parent for path in written)])
    user = os.environ.get("SUDO_USER", "") if options.system else ""
    return Service(options.name, command, folder, options.system, user if user != "root" else "", tuple(writable))


def _install(service: Service) -> int:
    _systemctl(service.system, "--version")
    try:
        service.path.parent.mkdir(parents=True, exist_ok=True)
        with whole(service.path) as partial:
            partial.touch(mode=0o600)
            partial.write_text(service.unit(), encoding="utf-8")
    except OSError as error:
        hint = "--system needs root: sudo." if service.system else "--print only shows it."
        raise EdgekitError(f"{service.path} cannot be written: {error.strerror or error}.", hint=hint) from error
    try:
        _systemctl(service.system, "daemon-reload")
        _systemctl(service.system, "enable", "--now", f"{service.name}.service")
    except EdgekitError:
        service.path.unlink(missing_ok=True)
        raise
    say(f"{service.path} is installed and runs.")
    if not service.system:
        say("To have it run without a login: sudo loginctl enable-linger $USER")
    scope = "" if service.system else " --user"
    say(f"What it says: journalctl{scope} -u {service.name} -f")
    return 0


def _uninstall(name: str, system: bool) -> int:
    path = unit_path(name, system)
    if not path.exists():
        raise EdgekitError(f"There is no service {name}.", hint=f"It would be at {path}.")
    try:
        _systemctl(system, "disable", "--now", f"{name}.service")
    except EdgekitError as error:
        warn(str(error.args[0]))
    try:
        path.unlink()
    except OSError as error:
        raise EdgekitError(f"{path} cannot be removed: {error.strerror or error}.", hint="sudo?") from error
    say(f"{path} is removed.")
    with suppress(EdgekitError):
        _systemctl(system, "daemon-reload")
    return 0


def _status(name: str, system: bool) -> int:
    """systemd's own words; its status, which is 0 while the service runs."""
    if not unit_path(name, system).exists():
        raise EdgekitError(f"There is no service {name}.", hint="edgekit-run service install model.edgekit --camera 0")
    scope = [] if system else ["--user"]
    program = _systemctl_path()
    return subprocess.run([program, *scope, "--no-pager", "status", f"{name}.service"], check=False).returncode


def _systemctl(system: bool, *arguments: str) -> None:
    command = [_systemctl_path(), *([] if system else ["--user"]), *arguments]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or [f"status {done.returncode}"]
        raise EdgekitError(f"systemctl {' '.join(arguments)} failed: {said[-1]}", hint="--print only shows the unit.")


def _systemctl_path() -> str:
    found = shutil.which("systemctl")
    if found is None:
        raise EdgekitError(
            "There is no systemd here.", hint="--print shows the unit; or use what starts services here."
        )
    return found


def _quote(part: str) -> str:
    """One argument of ExecStart: systemd.service(5), "Command lines"."""
    escaped = _escape(part).replace("$", "$$")
    plain = re.fullmatch(r"[A-Za-z0-9_./:=,@+-]+", escaped)
    return escaped if plain else '"' + escaped.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _escape(text: str) -> str:
    return text.replace("%", "%%")


def _group_exists(name: str) -> bool:
    import grp

    return any(group.gr_name == name for group in grp.getgrall())


def notify(text: str) -> None:
    """Sends `READY=1`, `WATCHDOG=1` or the like; does nothing where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect("\0" + address[1:] if address.startswith("@") else address)
        sender.sendall(text.encode())


@contextmanager
def watched(alive: Callable[[], bool]) -> Iterator[None]:
    """Ready from here on; says so often that it is alive as `WatchdogSec` of the unit wants, while `alive()`."""
    stop = threading.Event()
    period_us = os.environ.get("WATCHDOG_USEC", "")
    ours = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())

    def say() -> None:
        while not stop.wait(int(period_us) / 3e6):
            if alive():
                notify("WATCHDOG=1")

    if period_us.isdecimal() and ours:
        threading.Thread(target=say, name="systemd", daemon=True).start()
    notify("READY=1")
    try:
        yield
    finally:
        notify("STOPPING=1")
        stop.set()
