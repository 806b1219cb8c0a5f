"""What a bundle does on this machine, measured in a fresh process that holds nothing but the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EngineError

TIMEOUT_S = 1800


def measure(path: Path, frames: int) -> dict[str, Any]:
    """Latency percentiles (ms), frames per second, seconds from process start to first result, peak memory (MB).

    Raises BundleError for a bad bundle, EngineError when nothing in it runs here.
    """
    open_bundle(path)
    # -P: a file in the working directory must not be taken for one of our modules.
    command = [sys.executable, "-P", "-m", "edgekit.probe", str(path), str(frames)]
    started = time.time()
    child = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=False)
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise EngineError(f"The measuring process failed: {reason}")
    found = json.loads(lines[-1])
    if "error" in found:
        raise EngineError(found["error"], hint=found["hint"])
    spent = sorted(found["ms"])
    return {
        "bundle": str(path),
        "engine": found["engine"],
        "precision": found["precision"],
        "input_size": found["input_size"],
        "frames": frames,
        "p50_ms": round(_percentile(spent, 50), 3),
        "p90_ms": round(_percentile(spent, 90), 3),
        "p99_ms": round(_percentile(spent, 99), 3),
        "fps": round(1e3 * len(spent) / sum(spent), 1),
        "cold_start_s": round(found["first"] - started, 3),
        "rss_mb": found["rss_mb"] and round(found["rss_mb"], 1),
    }


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
