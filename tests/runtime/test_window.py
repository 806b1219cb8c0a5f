"""The window as a person has it: a real one, under Xvfb, with keys that xdotool presses."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from web_page import wait_for
from x_server import x_server

patiently = partial(wait_for, patience_s=30)


@dataclass
class Window:
    """One that is open, by its screen's pixels and the figures of what shows it."""

    screen: np.ndarray
    stats: Path

    def press(self, key: str) -> None:
        """Without waiting: what it does may be over soon."""
        threading.Thread(target=subprocess.run, args=(["xdotool", "key", key],)).start()

    def pause(self) -> None:
        patiently(lambda: self.state() == "running")
        self.press("space")
        patiently(lambda: self.state() == "paused")

    def looks(self) -> np.ndarray:
        return self.screen.copy()

    def settled(self) -> np.ndarray:
        """What stands still on the screen."""
        patiently(lambda: not np.any(self.looks() != (time.sleep(0.3), self.looks())[1]))
        return self.looks()

    def state(self) -> str:
        return str(json.loads(self.stats.read_text())["state"]) if self.stats.exists() else ""


@contextmanager
def window(bundle: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str) -> Iterator[Window]:
    if not shutil.which("xdotool"):
        pytest.skip("no xdotool here (apt install xdotool)")
    if re.search(r"GUI:\s*NONE", cv2.getBuildInformation()):
        pytest.skip("this OpenCV has no windows")
    stats = folder / "stats.json"
    with x_server(folder) as (display, screen):
        monkeypatch.setenv("DISPLAY", display)
        command = [sys.executable, "-m", "edgekit_runtime", bundle, "--source", "test:?size=480x270", *options]
        with subprocess.Popen([*command, "--sink", "window", "--stats-file", stats], cwd=folder) as process:
            try:
                search = ["xdotool", "search", "--sync", "--onlyvisible", "--name", "edgekit"]
                found = subprocess.run(search, capture_output=True, encoding="utf-8", timeout=20, check=True).stdout
                subprocess.run(["xdotool", "windowfocus", "--sync", found.split()[-1]], check=True, timeout=20)
                yield Window(screen, stats)
                subprocess.run(["xdotool", "key", "q"], check=True)
                assert process.wait(5) == 0
            finally:
                process.kill()


def test_a_pause_is_said_and_holds_until_it_ends(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with window(small_bundle, tmp_path, monkeypatch) as it:
        it.pause()
        it.settled()
        it.press("space")
        patiently(lambda: it.state() == "running")
        before = it.looks()
        patiently(lambda: np.any(it.looks() != before))


def test_a_key_that_has_no_effect_says_why_for_two_seconds(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with window(small_bundle, tmp_path, monkeypatch, "--no-overlay") as it:
        it.pause()
        paused = it.settled()
        for key in ("d", "plus", "9", "h"):
            it.press(key)
            patiently(lambda: np.any(it.looks() != paused))
            patiently(lambda: not np.any(it.looks() != paused))


def test_a_snapshot_is_the_picture_without_what_the_window_says(
    small_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with window(small_bundle, tmp_path, monkeypatch) as it:
        it.pause()
        it.press("s")
        patiently(lambda: list(tmp_path.glob("edgekit-*.png")))
        (saved,) = tmp_path.glob("edgekit-*.png")
        assert cv2.imread(str(saved)).shape == (270, 480, 3)
