"""Writes docs/reference/commands.md from the commands themselves: `make docs-commands`. A test sees to it that it is
current.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from edgekit import cli
from edgekit_runtime import cli as device
from edgekit_runtime import service

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "commands.md"

_HEAD = """\
# Commands

Every command has `--help`, and `--json`, which puts one JSON document on stdout and everything else on stderr. Exit
status: 0 done, 1 failed, 2 wrong usage, 130 interrupted. `edgekit --debug` shows the traceback of an error;
`edgekit --install-completion` completes commands in your shell. This page is made by `make docs-commands`.
"""


def page() -> str:
    commands = _commands(typer.main.get_command(cli.app))
    return "\n".join([_HEAD, *(part for name, command in commands for part in _of(name, command)), *_of_runtime()])


def _commands(group: Any, prefix: str = "edgekit") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if hasattr(command, "commands"):
            yield from _commands(command, f"{prefix} {name}")


def _of(name: str, command: Any) -> Iterator[str]:
    shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
    arguments = [each for each in shown if each.param_type_name == "argument"]
    options = [each for each in shown if each.param_type_name == "option" and "--help" not in each.opts]
    words = [name, *map(_argument, arguments), *(_name(each) for each in options if each.required)]
    if hasattr(command, "commands"):
        words.append("COMMAND" if not getattr(command, "invoke_without_command", False) else "[COMMAND]")
    yield f"## `{name}`\n"
    yield f"    {' '.join(words)}{' [OPTIONS]' if any(not each.required for each in options) else ''}\n"
    yield f"{_paragraphs(command.help or '')}\n"
    if shown := [*arguments, *options]:
        rows = [(f"`{_argument(each)}`" if each in arguments else _options(each), _meaning(each)) for each in shown]
        yield _table(rows)


def _argument(parameter: Any) -> str:
    shown = (parameter.metavar or parameter.name.upper()).strip("[]")
    shown = f"{shown}..." if parameter.nargs == -1 and not shown.endswith("...") else shown
    return shown if parameter.required else f"[{shown}]"


def _name(option: Any) -> str:
    return f"{max(option.opts, key=len)} {option.metavar or option.name.upper()}"


def _options(option: Any) -> str:
    takes = "" if option.is_flag else f" {_takes(option)}"
    names = sorted(option.opts, key=len) + option.secondary_opts
    return ", ".join([*(f"`{name}`" for name in names[:-1]), f"`{names[-1]}{takes}`"])


def _takes(option: Any) -> str:
    kind = option.type_descriptor
    if kind.choices:
        return "{" + ",".join(map(str, kind.choices)) + "}"
    return option.metavar or {int: "N", float: "X"}.get(kind.annotation, "TEXT")


def _meaning(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split())
    default = parameter.default
    if parameter.required and parameter.param_type_name == "option":
        text += " Needed."
    elif default not in (None, "", False, ()) and not callable(default) and parameter.param_type_name == "option":
        text += f" Default: {str(default).lower() if isinstance(default, bool) else default}."
    return text.strip()


def _of_runtime() -> Iterator[str]:
    yield from _of_parser(device.parser(), " The command of the runtime's wheel; `edgekit run` calls the same code.")
    yield from _of_parser(device.prepare_parser())
    yield from _of_parser(service.parser())


def _of_parser(parser: argparse.ArgumentParser, more: str = "") -> Iterator[str]:
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    yield f"## `{parser.prog}`\n"
    usage = parser.usage or " ".join(parser.format_usage().removeprefix("usage: ").split())
    yield f"    {usage}\n" if len(usage) < 100 else f"    {parser.prog} {_needed(actions)} [OPTIONS]\n"
    yield f"{parser.description}{more}\n"
    rows = []
    for action in actions:
        takes = f" {action.metavar}" if action.metavar and action.option_strings else ""
        shown = str(action.metavar or "{" + ",".join(map(str, action.choices or ())) + "}")
        names = [*action.option_strings[:-1], f"{(action.option_strings or [shown])[-1]}{takes}"]
        rows.append((", ".join(f"`{name}`" for name in names), f"{(action.help or '').strip()}"))
    yield _table(rows)
    if parser.epilog:
        yield "```text\n" + parser.epilog + "\n```\n"


def _needed(actions: list[argparse.Action]) -> str:
    return "BUNDLE... (--camera N | --source URI)" if any(action.dest == "camera" for action in actions) else ""


def _table(rows: list[tuple[str, str]]) -> str:
    lines = ["| | |", "| --- | --- |"]
    for name, meaning in rows:
        lines.append(f"| {name} | {_plain(meaning)} |")
    return "\n".join(lines) + "\n"


def _paragraphs(text: str) -> str:
    return "\n\n".join(_plain(" ".join(part.split())) for part in re.split(r"\n\s*\n", text.replace("\b", "")))


def _plain(text: str) -> str:
    """As Markdown shows it word for word: no pipe ends a cell, nothing is taken for HTML. Pages are linked."""
    shown = re.sub(r"(`[^`]*`)|([|<>*])", lambda found: found[1] or f"\\{found[2]}", text)
    return re.sub(r"docs/(\w+\.md)", r"[\1](../\1)", shown)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
