"""Cold starts and memory, whole processes: what one waits for, and what stays resident."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import networks
import pytest
from harness import Contender, compared
from networks import Form
from peer import Peer, PeerMissingError, python_of

RUNTIME = "import edgekit_runtime"
RUN = """
import sys
from edgekit_runtime.cli import main
sys.exit(main(sys.argv[1:]))
"""


def started(*command: str | Path, **environment: str) -> Callable[[], str]:
    """A whole process; what it prints is its answer."""

    def run() -> str:
        told = {**os.environ, **environment}
        return subprocess.run([*map(str, command)], check=True, capture_output=True, encoding="utf-8", env=told).stdout

    return run


def test_help(benchmark: Any) -> None:
    """Goal: `edgekit --help` within 0.5 s. Beside it the papers' tool."""
    contenders: dict[str, Contender] = {"edgekit --help": started(sys.executable, "-m", "edgekit", "--help")}
    try:
        tool = python_of("vre").with_name("vre")
        contenders["vre --help"] = started(tool, "--help")
    except PeerMissingError as error:
        benchmark.extra_info["without"] = str(error)
    compared(benchmark, contenders, rounds=7, warm_up=1)


def test_import(benchmark: Any) -> None:
    """Goal: `import edgekit_runtime` within 150 ms of a bare Python."""
    contenders: dict[str, Contender] = {
        "import edgekit_runtime": started(sys.executable, "-c", RUNTIME),
        "bare Python": started(sys.executable, "-c", ""),
        "import torch": started(sys.executable, "-c", "import torch"),
    }
    compared(benchmark, contenders, rounds=7, warm_up=1)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return networks.bundle(Form("edge-430k"), tmp_path / "bundle")


def test_first_result(benchmark: Any, bundle: Path, video: Path, tmp_path: Path) -> None:
    """`edgekit-run` over one frame, a whole process: what OpenVINO compiled kept from the run before, and not."""
    command = [sys.executable, "-c", RUN, bundle, "--source", video, "--sink", "null", "--frames", "1"]

    def cold() -> None:
        started(*command, XDG_CACHE_HOME=str(tmp_path / uuid4().hex))()

    warm = started(*command, XDG_CACHE_HOME=str(tmp_path / "kept"))
    compared(benchmark, {"warm cache": warm, "cold cache": cold}, rounds=7, warm_up=1)


PEAK = """
import re, sys
from pathlib import Path
from edgekit_runtime.cli import main
status = main(sys.argv[1:])
print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text()).group(1)) / 1024)
sys.exit(status)
"""


def test_memory(benchmark: Any, bundle: Path, video: Path) -> None:
    """Resident at most: `edgekit-run` over a clip, goal 250 MB; the papers' tool with its network for such frames."""
    command = [sys.executable, "-c", PEAK, bundle, "--source", video, "--sink", "null", "--frames", "100"]
    run, told = started(*command), []
    benchmark.pedantic(lambda: told.append(float(run().splitlines()[-1])), rounds=3)
    memory = {"edgekit-run": round(max(told))}
    try:
        with Peer("vre", "vre_network.py", 540, 960) as peer:
            peer.seconds()
            status = Path(f"/proc/{peer.pid}/status").read_text(encoding="utf-8")
            found = re.search(r"VmHWM:\s+(\d+)", status)
            assert found
            memory["VRE, the network alone"] = round(int(found.group(1)) / 1024)
    except PeerMissingError as error:
        benchmark.extra_info["without"] = str(error)
    benchmark.extra_info["rss_mb"] = memory
