"""The screen as a source, under Xvfb: an X server that keeps its picture in a file."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pattern_number import read_number

from edgekit_runtime import SourceError, UsageError, open_source
from edgekit_runtime.sources.pattern import Pattern

WIDTH, HEIGHT = 640, 360


@contextmanager
def x_server(folder: Path) -> Iterator[tuple[str, np.ndarray]]:
    """(display, its pixels as uint8 `(HEIGHT, WIDTH, 3)` BGR, to be written)."""
    if not shutil.which("Xvfb"):
        pytest.skip("no Xvfb here (apt install xvfb)")
    command = ["Xvfb", "-noreset", "-displayfd", "1", "-screen", "0", f"{WIDTH}x{HEIGHT}x24", "-fbdir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as server:
        try:
            number = server.stdout.readline().decode().strip()
            with (folder / "Xvfb_screen0").open("r+b") as file:
                memory = mmap.mmap(file.fileno(), 0)
            # An X window dump begins with its header's size; number 12 are the bytes of a line, 19 how many colours
            # follow the header.
            header = struct.unpack(">25I", memory[:100])
            start = header[0] + header[19] * 12
            pixels = np.frombuffer(memory, np.uint8, header[12] * HEIGHT, start).reshape(HEIGHT, -1, 4)
            yield f":{number}", pixels[:, :WIDTH, :3]
        finally:
            server.kill()


def test_what_is_on_the_screen_now_is_what_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with x_server(tmp_path) as (display, pixels):
        monkeypatch.setenv("DISPLAY", display)
        pattern = Pattern(WIDTH, HEIGHT)
        with open_source("screen:?fps=60") as source:
            assert (source.live, source.fps) == (True, 60)
            for number in (7, 70, 700):
                pixels[:] = pattern.draw(number)
                seen = [source.read(5) for _ in range(3)]  # one may have been taken before, one half of each
                assert read_number(seen[-1].image) == number
                assert seen[-1].image.shape == (HEIGHT, WIDTH, 3)
            time.sleep(0.3)
            assert source.dropped > 0
        with pytest.raises(SourceError, match="there is no such screen") as caught:
            open_source("screen:9")
        assert caught.value.hint == "There is: screen:1."


def test_without_a_screen_there_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform != "linux":
        pytest.skip("X11 only")
    monkeypatch.setenv("DISPLAY", ":4711")
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    with pytest.raises(SourceError, match="there is no screen here") as caught:
        open_source("screen:")
    assert "Wayland" in caught.value.hint


def test_without_the_package_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mss", None)
    with pytest.raises(SourceError, match="needs the package mss") as caught:
        open_source("screen:")
    assert "edgekit-runtime[screen]" in caught.value.hint


@pytest.mark.parametrize("uri", ["screen:left", "screen:?fps=0", "screen:?size=3x4"])
def test_what_makes_no_sense_is_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)
