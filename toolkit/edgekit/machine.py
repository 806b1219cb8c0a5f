"""What this machine is: CPU model, vector instructions, cores. Standard library only."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

# Linux flag -> what it is called where people read about it. What decides the speed of compiled networks.
_FEATURES = {
    "avx2": "AVX2",
    "avx_vnni": "AVX-VNNI",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "avx512_bf16": "AVX-512 BF16",
    "amx_int8": "AMX INT8",
    "amx_bf16": "AMX BF16",
    "asimddp": "NEON dot product",
    "i8mm": "NEON I8MM",
    "bf16": "NEON BF16",
}
INT8_FEATURES = frozenset({"AVX-VNNI", "AVX-512 VNNI", "AMX INT8", "NEON dot product", "NEON I8MM"})


@cache
def cpu_name() -> str:
    """The CPU's marketing name, or its architecture where the system does not tell."""
    if sys.platform == "linux":
        return _cpuinfo("model name") or platform.machine()
    if sys.platform == "darwin":
        return _output("sysctl", "-n", "machdep.cpu.brand_string") or platform.machine()
    return platform.processor() or platform.machine()


@cache
def cpu_features() -> frozenset[str]:
    """Vector instructions by common name; empty where the system does not list them."""
    if sys.platform == "darwin":
        flags = {"asimddp"} if _output("sysctl", "-n", "hw.optional.arm.FEAT_DotProd") == "1" else set()
    else:
        flags = set((_cpuinfo("flags") or _cpuinfo("Features")).split())
    return frozenset(name for flag, name in _FEATURES.items() if flag in flags)


@cache
def board_name() -> str:
    """What a board calls itself, such as `Raspberry Pi 5 Model B Rev 1.0`; empty where it does not."""
    try:
        return Path("/proc/device-tree/model").read_text(encoding="utf-8").strip("\0\n ")
    except OSError:
        return ""


def cores() -> int:
    """Logical CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo(field: str) -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return ""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == field:
            return value.strip()
    return ""


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5, check=False).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return ""
