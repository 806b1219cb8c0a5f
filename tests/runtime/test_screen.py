"""The screen as a source, under Xvfb."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from pattern_number import read_number
from x_server import HEIGHT, WIDTH, x_server

from edgekit_runtime import SourceError, UsageError, open_source
from edgekit_runtime.sources.pattern import Pattern


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
