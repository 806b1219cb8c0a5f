"""What a bundle does on this machine, measured in a fresh process that holds nothing but the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgekit_runtime.bundle import open_bundle
from edgekit_runtime.errors import EngineError

TIMEOUT_S = 1800
ROUNDS = 4


def measure(path: Path, frames: int) -> dict[str, Any]:
    """Latency percentiles (ms), frames per second with as many `requests` at once as the bundle is made for, seconds
    from process start to first result, peak memory (MB).

    Raises BundleError for a bad bundle, EngineError when nothing in it runs here.
    """
    return measure_in_turns([path], frames)[0]


def measure_in_turns(paths: Sequence[Path], frames: int) -> list[dict[str, Any]]:
    """`measure` of each, a part at a time and in turns (A B A B), so that what else the machine does hits all alike.

    The start is the median of the parts', memory the largest.
    """
    for path in paths:
        open_bundle(path)
    rounds = 1 if len(paths) == 1 else ROUNDS
    parts = [[_probe(path, -(-frames // rounds)) for path in paths] for _ in range(rounds)]
    return [_summary(path, list(found)) for path, found in zip(paths, zip(*parts, strict=True), strict=True)]


def _probe(path: Path, frames: int) -> dict[str, Any]:
    # -P: a file in the working directory must not be taken for one of our modules.
    command = [sys.executable, "-P", "-m", "edgekit.probe", str(path), str(frames)]
    started = time.time()
    child = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TIMEOUT_S, check=False)
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        reason = (child.stderr.strip().splitlines() or [f"exit status {child.returncode}"])[-1]
        raise EngineError(f"The measuring process failed: {reason}")
    found: dict[str, Any] = json.loads(lines[-1])
    if "error" in found:
        raise EngineError(found["error"], hint=found["hint"])
    return {**found, "cold_start_s": found["first"] - started}


def _summary(path: Path, parts: list[dict[str, Any]]) -> dict[str, Any]:
    first = parts[0]
    spent = sorted(ms for part in parts for ms in part["ms"])
    memory = [part["rss_mb"] for part in parts if part["rss_mb"] is not None]
    return {
        "bundle": str(path),
        "engine": first["engine"],
        "precision": first["precision"],
        "input_size": first["input_size"],
        "frames": len(spent),
        "p50_ms": round(_percentile(spent, 50), 3),
        "p90_ms": round(_percentile(spent, 90), 3),
        "p99_ms": round(_percentile(spent, 99), 3),
        "fps": round(len(spent) / sum(part["seconds"] for part in parts), 1),
        "requests": first["requests"],
        "passed_over": first["passed_over"],
        "cold_start_s": round(_percentile(sorted(part["cold_start_s"] for part in parts), 50), 3),
        "rss_mb": round(max(memory), 1) if memory else None,
    }


def _percentile(ordered: list[float], percent: float) -> float:
    return ordered[min(len(ordered) - 1, round(percent / 100 * (len(ordered) - 1)))]
