"""What the pages show: blocks of code, the commands in them, and commands within sentences."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

# Made by scripts from the code itself, each with a test of its own.
GENERATED = {DOCS / "reference" / "commands.md"}

_SHELL = {"console", "bash", "sh", "shell"}
_OTHER = {"text", "json", "ini", "yaml", "html"}
# With what lines of commands begin. What a page shows beside these is found out to be unknown, not passed over.
PROGRAMS = {
    "edgekit", "edgekit-run", "make", "pip", "source", "export", "ray", "torchrun", "tensorboard", "python", "python3",
    "git", "cd", "cp", "scp", "ssh", "sudo", "apt", "systemctl", "journalctl", "ffmpeg", "ffplay", "docker", "curl",
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A block of code: where it stands, what it is, what it says."""

    page: str
    line: int
    kind: str  # shell, python, toml, layout, or other
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def commands(self) -> list[str]:
        """Lines of a shell block without their comments; a line that ends in a backslash goes on."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [command for line in lines if (command := _without_comment(line.strip().removeprefix("$ ")))]


def pages() -> list[Path]:
    """Every page that people read, in the order of their names."""
    found = {ROOT / "README.md", ROOT / "runtime" / "README.md", *DOCS.rglob("*.md")}
    return sorted(found - GENERATED)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@cache
def blocks() -> tuple[Block, ...]:
    return tuple(block for page in pages() for block in _blocks(page))


def _blocks(page: Path) -> Iterator[Block]:
    for line, language, text in _pieces(page.read_text(encoding="utf-8").splitlines()):
        yield Block(name_of(page), line, _kind(language, text), text)


def _pieces(lines: list[str]) -> Iterator[tuple[int, str | None, str]]:
    """(line, language, text) of fenced blocks, and of those that are set in by four spaces, with None."""
    number = 0
    paragraph = ""  # what a line that is set in would belong to
    while number < len(lines):
        line = lines[number]
        start = number
        if fence := re.match(r"( *)```(\w*)", line):
            end = next(n for n in range(number + 1, len(lines)) if lines[n].strip() == "```")
            yield start + 1, fence[2], "\n".join(each.removeprefix(fence[1]) for each in lines[start + 1 : end]) + "\n"
            number = end
        elif line.startswith("    ") and not paragraph:
            while number + 1 < len(lines) and (lines[number + 1].startswith("    ") or not lines[number + 1].strip()):
                number += 1
            yield start + 1, None, "\n".join(each[4:] for each in lines[start : number + 1]).rstrip() + "\n"
        # Options of `::: name` and what is set in below a point of a list are not code.
        if re.match(r"(:::|[-*] |\d+\. |!!! |\?\?\? )", line):
            paragraph = line
        elif line and not line.startswith(" "):
            paragraph = "" if line.startswith("#") else line
        elif not line and not re.match(r"(:::|[-*] |\d+\. |!!! |\?\?\? )", paragraph):
            paragraph = ""
        number += 1


def _kind(language: str | None, text: str) -> str:
    """What a block is; of those that do not say, found out by reading them. Empty where nothing fits."""
    if language is not None:
        if language in _SHELL:
            return "shell"
        return language if language in {"python", "toml"} else "other" if language in _OTHER else ""
    words = [line.split()[0] for line in text.splitlines() if line.strip() and not line.startswith((" ", "#"))]
    if words and words[0] in PROGRAMS:
        return "shell"
    if _parses(tomllib.loads, text):
        return "toml"
    if _parses(ast.parse, text) and re.search(r"^(from|import) ", text, flags=re.MULTILINE):
        return "python"
    return "layout" if all("/" in word for word in words) else ""


def _parses(parse: object, text: str) -> bool:
    try:
        parse(text)  # type: ignore[operator]
    except (SyntaxError, ValueError):
        return False
    return True


def _without_comment(line: str) -> str:
    """`#` begins a comment at the beginning of a word, outside of quotes."""
    quoted = False
    for place, sign in enumerate(line):
        if sign in "'\"":
            quoted = not quoted
        if sign == "#" and not quoted and (place == 0 or line[place - 1] == " "):
            return line[:place].strip()
    return line


@cache
def mentions() -> tuple[tuple[str, str], ...]:
    """(page, command) of the commands that sentences name in `backticks`."""
    found = []
    for page in pages():
        lines = page.read_text(encoding="utf-8").splitlines()
        for start, language, text in _pieces(lines):
            for number in range(start - 1, start - 1 + len(text.splitlines()) + (2 if language is not None else 0)):
                lines[number] = ""
        for code in re.findall(r"`([^`]+)`", "\n".join(lines)):
            command = " ".join(code.split())
            if re.match(r"(edgekit|edgekit-run|make|torchrun|python) ", command):
                found.append((name_of(page), command))
    return tuple(found)
