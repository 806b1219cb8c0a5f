"""Xvfb: an X server that keeps its picture in a file."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

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
