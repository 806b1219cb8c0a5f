"""The machine that figures belong to: its name, what state it was in, and how many threads anything may use.

Nothing here names a host: figures are of a kind of machine, and two of a kind should share a baseline.
"""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
# What engines choose their kernels by.
_FLAGS = re.compile(r"avx\w*|amx\w*|fma|f16c|asimd\w*|sve\w*|i8mm|bf16")
_PACKAGES = (
    "edgekit",
    "openvino",
    "onnxruntime",
    "nncf",
    "torch",
    "transformers",
    "numpy",
    "opencv-python",
    "av",
)
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def cores() -> int:
    """Cores that this process and what it starts may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def pin() -> None:
    """Holds this process, and all that it starts, to the first `EDGEKIT_BENCH_CORES` cores (else to all), one thread
    for each; before the libraries are imported that ask.
    """
    wanted = int(os.environ.get("EDGEKIT_BENCH_CORES", cores()))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:wanted])
    os.environ.update(dict.fromkeys(_THREADS, str(cores())))


def name() -> str:
    """By CPU model and cores, as a file name: `amd-epyc-7b13-2-cores`."""
    return f"{re.sub(r'[^a-z0-9]+', '-', _cpu()['model'].lower()).strip('-')}-{cores()}-cores"


def results_file() -> Path:
    """Where `--benchmark-json` without a file writes to."""
    return RESULTS / f"{name()}.json"


def describe() -> dict[str, Any]:
    """What a reader needs to judge the figures by."""
    cpu = _cpu()
    return {
        "name": name(),
        "cpu": cpu["model"],
        "family_model_stepping": cpu["family"],
        "cores": cores(),
        "flags": sorted(flag for flag in cpu["flags"].split() if _FLAGS.fullmatch(flag)),
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor") or "not shown",
        "virtual": "hypervisor" in cpu["flags"].split(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "load_1m": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {package: found for package in _PACKAGES if (found := _version(package))},
    }


def stolen() -> float:
    """Seconds of all cores that went to other guests of the host since the system began; 0 where that is not told."""
    fields = _read("/proc/stat").splitlines()[:1]
    ticks = fields[0].split() if fields else []
    return int(ticks[8]) / os.sysconf("SC_CLK_TCK") if len(ticks) > 8 else 0.0


def _cpu() -> dict[str, str]:
    told = dict(re.findall(r"^([\w ]+?)\s*:\s*(.*)$", _read("/proc/cpuinfo").partition("\n\n")[0], re.MULTILINE))
    return {
        "model": told.get("model name") or platform.processor() or platform.machine(),
        "family": "-".join(told.get(key, "?") for key in ("cpu family", "model", "stepping")),
        "flags": told.get("flags") or told.get("Features", ""),
    }


def _version(package: str) -> str:
    for candidate in (package, f"{package}-headless"):
        try:
            return version(candidate)
        except PackageNotFoundError:
            continue
    return ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return ""
