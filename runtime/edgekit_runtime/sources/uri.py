"""Source URIs: `camera:0?size=1280x720&fps=30`, `clip.mp4`, `frames/*.png`, `test:?fps=0`."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from edgekit_runtime.errors import UsageError

# Two letters at least, so that C:\clip.mp4 is a path.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):(.*)", re.DOTALL)
_DEVICE = re.compile(r"/dev/video\d+")
_USER_INFO = re.compile(r"(?<=://)[^/\s?#]*@")
_SECRETS = re.compile(r"(?i)\b((?:api[_-]?key|auth|key|pass(?:word|wd)?|pwd?|secret|sig(?:nature)?|token)=)[^&\s'\"]+")
_MAX_LENGTH = 4096
STDIN = "stdin"


@dataclass(frozen=True)
class SourceUri:
    """A URI taken apart. `scheme` is `file` for anything without one; `text` is the whole with secrets blanked."""

    scheme: str
    body: str
    text: str
    options: Mapping[str, str] = field(default_factory=dict)

    def number(self, key: str, default: float, low: float, high: float) -> float:
        """The option `key` as a number from `low` to `high`. Raises UsageError."""
        text = self.options.get(key)
        if text is None:
            return default
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise UsageError(f"{self.text}: {key} must be a number from {low:g} to {high:g}, not {text!r}.")
        return value

    def device(self, expected: str, default: str = "0") -> int:
        """The number of a device, which is what follows the scheme. Raises UsageError that says what is `expected`."""
        number = self.body.removeprefix("/dev/video") or default
        if not (number.isascii() and number.isdigit() and len(number) <= 3):
            raise UsageError(f"{self.text}: {expected}.")
        return int(number)

    def size(self, default: tuple[int, int]) -> tuple[int, int]:
        """The option `size=WIDTHxHEIGHT` as (width, height), each from 16 to 8192. Raises UsageError."""
        text = self.options.get("size")
        if text is None:
            return default
        match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})", text)
        width, height = (int(match[1]), int(match[2])) if match else (0, 0)
        if not (16 <= width <= 8192 and 16 <= height <= 8192):
            raise UsageError(
                f"{self.text}: size must be WIDTHxHEIGHT, like 1280x720, each from 16 to 8192, not {text!r}."
            )
        return width, height

    def with_defaults(self, options: Mapping[str, str]) -> str:
        """The URI with these options where it does not say them itself."""
        asked = "&".join(f"{key}={value}" for key, value in {**options, **self.options}.items())
        return f"{self.scheme}:{self.body}?{asked}" if asked else f"{self.scheme}:{self.body}"

    def check_options(self, *known: str) -> None:
        """Raises UsageError when an option is not among the known ones."""
        for key in self.options:
            if key not in known:
                raise UsageError(
                    f"{self.text}: there is no option {key!r}.",
                    hint=f"Options of {self.scheme}: are {', '.join(known)}." if known else "",
                )


def redact(text: str) -> str:
    """The text with user names, passwords and tokens in URLs replaced by `***`; for every log and message."""
    return _SECRETS.sub(r"\1***", _USER_INFO.sub("***@", text))


def split_url(url: str) -> SplitResult:
    """A network address, taken apart. Raises UsageError for one without a host."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.hostname and parts.port != 0:
            return parts
    raise UsageError(f"{redact(url)} names no host.", hint=f"Write {url.partition(':')[0]}://HOST[:PORT]/PATH")


def parse_uri(text: str) -> SourceUri:
    """Takes a URI apart without touching the file system. Raises UsageError."""
    if not text or not text.strip():
        raise UsageError("The source is empty.", hint="Say a file, a folder, camera:0 or test:.")
    if len(text) > _MAX_LENGTH or "\0" in text:
        raise UsageError("The source is not a valid URI or path.")
    shown = redact(text)
    if text == "-":
        return SourceUri(STDIN, "", shown)
    if _DEVICE.fullmatch(text):
        return SourceUri("camera", text, shown)
    match = _SCHEME.fullmatch(text)
    if not match:
        return SourceUri("file", text, shown)
    scheme, body = match[1].lower(), match[2]
    if scheme == "file":
        path = unquote(body[2:]) if body.startswith("///") else body
        return SourceUri("file", path, shown)
    if body.startswith("//") or scheme == "gst":
        # A network URL: its query belongs to the server. A pipeline is one text, whatever signs are in it.
        return SourceUri(scheme, body, shown)
    body, _, query = body.partition("?")
    options = {}
    for part in filter(None, query.split("&")):
        key, equals, value = part.partition("=")
        if not equals or not key:
            raise UsageError(f"{shown}: options are written key=value, joined by &.")
        options[key] = unquote(value)
    return SourceUri(scheme, body, shown, options)
