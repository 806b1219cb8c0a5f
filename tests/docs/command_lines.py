"""Reads a command as the program behind it would, without carrying it out."""

from __future__ import annotations

import argparse
import re
import shlex
import tomllib
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NoReturn

import typer
from blocks import ROOT

from edgekit import cli
from edgekit_runtime import cli as device
from edgekit_runtime import service


class FaultError(Exception):
    """The program would not take this command."""


def words_of(command: str) -> list[str]:
    return shlex.split(command)


def check(command: str) -> None:
    """Raises FaultError where a program would refuse the command, or where nobody has said what the program is."""
    for part in command.split(" | "):
        program, *arguments = words_of(part)
        if program not in _CHECKS:
            raise FaultError(f"what is {program!r}? Say in command_lines.py how it is checked")
        _CHECKS[program](arguments)


def check_mention(command: str) -> None:
    """A command within a sentence may leave out what it needs; what it says must be there."""
    program, *arguments = words_of(command.partition(" | ")[0])
    if program in ("edgekit", "torchrun"):
        known = {option for parameter in _command(_tail(program, arguments)) for option in parameter}
    elif program == "edgekit-run":
        known = set(_device_parser(arguments)._option_string_actions)
    else:
        check(command)
        return
    if unknown := [word for word in _tail(program, arguments) if word.startswith("-") and word not in known]:
        raise FaultError(f"there is no option {unknown[0]}")


def _tail(program: str, arguments: list[str]) -> list[str]:
    """The arguments of edgekit that torchrun starts."""
    if program != "torchrun":
        return arguments
    if "edgekit" not in arguments:
        raise FaultError("torchrun starts something else than edgekit")
    return arguments[arguments.index("edgekit") + 1 :]


@cache
def _edgekit_itself() -> Any:
    return typer.main.get_command(cli.app)


def _command(arguments: Sequence[str]) -> list[list[str]]:
    """The option names of each parameter of the command that the first words name."""
    command = _edgekit_itself()
    for word in arguments:
        below = getattr(command, "commands", {})
        if not below or word.startswith("-"):
            break
        if word not in below:
            raise FaultError(f"there is no command {word!r}")
        command = below[word]
    return [["--help", "-h"], *(parameter.opts + parameter.secondary_opts for parameter in command.params)]


def _edgekit(arguments: list[str]) -> None:
    command = _edgekit_itself()
    context: Any = None
    name = "edgekit"
    try:
        while True:
            context = command.make_context(name, list(arguments), parent=context)
            rest = [*context._protected_args, *context.args]
            if not getattr(command, "commands", None) or not rest:
                return
            name, command, arguments = command.resolve_command(context, rest)
    except typer.Exit:
        return
    except typer.TyperException as error:
        raise FaultError(error.format_message()) from error


def _edgekit_run(arguments: list[str]) -> None:
    def refuse(message: str) -> NoReturn:
        raise FaultError(message)

    parser = _device_parser(arguments)
    parser.error = refuse  # type: ignore[method-assign]
    if arguments[:1] == ["service"]:
        rest = parser.parse_known_args(arguments[1:])[1]
        if rest:
            _edgekit_run(rest)
    elif arguments[:1] == ["prepare"]:
        parser.parse_args(arguments[1:])
    else:
        parser.parse_intermixed_args(arguments)


def _device_parser(arguments: list[str]) -> argparse.ArgumentParser:
    """Of `edgekit-run`, or of what its first word names."""
    parsers = {"prepare": device.prepare_parser, "service": service.parser}
    return parsers.get(arguments[0] if arguments else "", device.parser)()


def _make(arguments: list[str]) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for word in arguments:
        if "=" not in word and word not in targets:
            raise FaultError(f"the Makefile has no target {word!r}")


def _pip(arguments: list[str]) -> None:
    """Extras of ours that a page names are there."""
    files = {"edgekit": "pyproject.toml", "edgekit-runtime": "runtime/pyproject.toml"}
    for word in arguments:
        found = re.fullmatch(r"(?:.*/)?(edgekit(?:[-_]runtime)?)(?:-[\w.-]+\.whl)?(?:\[(.*)\])?", word)
        if not found:
            continue
        project = tomllib.loads((ROOT / files[found[1].replace("_", "-")]).read_text(encoding="utf-8"))["project"]
        for extra in filter(None, (found[2] or "").split(",")):
            if extra not in project["optional-dependencies"]:
                raise FaultError(f"{found[1]} has no extra {extra!r}")


def _python(arguments: list[str]) -> None:
    match arguments:
        case ["-m", "venv" | "edgekit" | "edgekit_runtime" | "pip" | "pytest", *_]:
            return
        case [script, *_] if script.endswith(".py") and (ROOT / script).is_file():
            return
    raise FaultError(f"there is no script {' '.join(arguments[:1])!r} here")


def _torchrun(arguments: list[str]) -> None:
    _edgekit(_tail("torchrun", arguments))


def _another_program(arguments: list[str]) -> None:
    """Not ours: nothing here could say whether it takes these arguments."""


_CHECKS: dict[str, Callable[[list[str]], None]] = {
    "edgekit": _edgekit,
    "edgekit-run": _edgekit_run,
    "make": _make,
    "pip": _pip,
    "python": _python,
    "python3": _python,
    "torchrun": _torchrun,
    **dict.fromkeys(
        (
            "source", "export", "ray", "tensorboard", "git", "cd", "cp", "scp", "ssh", "sudo", "apt", "systemctl",
            "journalctl", "ffmpeg", "ffplay", "docker", "curl",
        ),
        _another_program,
    ),
}  # fmt: skip
