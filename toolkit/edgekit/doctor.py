"""What may stand in the way on this machine, found out without changing anything; each finding says what to do."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.machine import INT8_FEATURES, cores, cpu_features, cpu_name
from edgekit.targets import TENSORRT, Target, absent
from edgekit_runtime.engines import switch_off
from edgekit_runtime.errors import EngineError

if TYPE_CHECKING:
    from edgekit.profiles import Profile

ENOUGH_MB = 2000
GPU_CHECK = "nvidia gpu"
_NOT_INSTALLED = "not installed"
_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


@dataclass(frozen=True)
class Check:
    """One finding. `ok` False needs attention; `hint` says what to do, empty when there is nothing to do.

    What is ok and has a hint works, but could be better.
    """

    name: str
    ok: bool
    detail: str
    hint: str = ""


# What brings what a profile asks for, where it is not found.
_BRINGS = {
    "openvino": "pip install openvino",
    "openvino GPU": "Intel graphics need the compute runtime: apt install intel-opencl-icd, and the group render.",
    "openvino NPU": "Intel's NPU needs the driver linux-npu-driver, and the group render.",
    "onnxruntime": "pip install onnxruntime",
    GPU_CHECK: "`nvidia-smi` must show one: install NVIDIA's driver. On Jetson it comes with JetPack.",
    "tensorrt-rtx": "pip install 'edgekit[rtx]'",
    "tensorrt": "JetPack brings it (sudo apt install python3-libnvinfer) for the system's Python: make the environment "
    "with `python3 -m venv --system-site-packages`.",
}
# Where Debian's packages for Python lie, JetPack's among them; and what is on the PCI bus.
_SYSTEM_PYTHONS, _PCI = Path("/usr/lib"), Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"


def examine(profile: Profile | None = None) -> list[Check]:
    """All findings, in the order in which a person would ask. A check that fails itself is a finding too.

    So is whether this machine can run a profile, and what that asks for and was not found: in need of attention, unless
    the profile runs all the same, on one of its fallbacks.
    """
    checks: list[Check] = []
    for look in (
        _python,
        _cpu,
        _openvino,
        _onnxruntime,
        _nvidia,
        _opencv_wheels,
        _opencv_build,
        _cameras,
        _disk,
        _bundle,
    ):
        checks.extend(_guarded(look))
    if profile is None:
        return checks
    found = {check.name: check for check in checks if check.detail != _NOT_INSTALLED}
    instead = _fallback(profile)
    missing = [_missing(name, profile, instead) for name in profile.doctor if name not in found]
    replaced = {check.name for check in missing}
    return [*(check for check in checks if check.name not in replaced), *missing, _runs(profile, instead)]


def _fallback(profile: Profile) -> Target | None:
    """What the profile runs on here instead of its target; None where that is here, and where nothing is."""
    here = [target for target in profile.targets if not absent(target)]
    return here[0] if here and here[0] != profile.target else None


def _missing(name: str, profile: Profile, instead: Target | None) -> Check:
    """Of what the profile asks for: only what its target needs can be made up for by a fallback."""
    engine = profile.target.engine
    of_target = name in (engine, str(profile.target)) or (name == GPU_CHECK and engine in TENSORRT)
    detail, hint = "asked for by the profile, and not found", _BRINGS.get(name, "Install it.")
    return Check(name, of_target and instead is not None, detail, hint)


def _runs(profile: Profile, instead: Target | None) -> Check:
    """Whether this machine is one for the profile."""
    if other := profile.machine.mismatch():
        hint = "Bundles for it can be built here, but not timed; docs/devices.md says how to run them there."
        return Check("profile", True, f"{profile.name}: {other}", hint)
    reason = absent(profile.target)
    if instead:
        detail = f"{profile.name}: {reason}; its fallback runs instead, {instead.engine} {instead.device}"
        return Check("profile", True, detail, "Bundles for it work here; what its target needs is named above.")
    if reason:
        return Check("profile", False, f"{profile.name}: {reason}", "Install what is missing, or take another profile.")
    return Check("profile", True, f"{profile.name} runs here, on {profile.target}")


def _guarded(look: Callable[[], Iterator[Check]]) -> list[Check]:
    try:
        return list(look())
    except Exception as error:  # one broken library must not hide the other findings
        name = look.__name__.strip("_").replace("_", " ")
        return [
            Check(
                name, False, f"cannot be examined: {type(error).__name__}: {error}".splitlines()[0], "Install it again."
            )
        ]


def _python() -> Iterator[Check]:
    found = ".".join(str(part) for part in sys.version_info[:3])
    ok = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check("python", ok, found, "" if ok else "edgekit is tested with Python 3.11 to 3.13.")


def _cpu() -> Iterator[Check]:
    features = cpu_features()
    fast = bool(features & INT8_FEATURES)
    detail = f"{cpu_name()}, {cores()} cores; {', '.join(sorted(features)) or 'no vector instructions listed'}"
    hint = "" if fast else "INT8 is not accelerated here: expect the build to choose between int8 and float by time."
    # Slower, not broken.
    yield Check("cpu", True, detail, hint)


def _openvino() -> Iterator[Check]:
    if not find_spec("openvino"):
        yield Check("openvino", False, _NOT_INSTALLED, "pip install openvino")
        return
    switch_off()
    import openvino

    core = openvino.Core()
    names = [f"{device} ({core.get_property(device, 'FULL_DEVICE_NAME')})" for device in core.available_devices]
    release = openvino.__version__.split("-")[0]
    yield Check("openvino", bool(names), f"{release}: {', '.join(names) or 'no device'}")
    for device in dict.fromkeys(name.partition(".")[0] for name in core.available_devices):
        if device != "CPU":
            yield Check(f"openvino {device}", True, "found")


def _onnxruntime() -> Iterator[Check]:
    if not find_spec("onnxruntime"):
        # Only the fallback: a machine with OpenVINO does without.
        yield Check("onnxruntime", True, _NOT_INSTALLED, "pip install onnxruntime, for generic-cpu and fallbacks")
        return
    import onnxruntime

    providers = [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
    yield Check("onnxruntime", True, f"{onnxruntime.__version__}: {', '.join(providers)}")


def _nvidia() -> Iterator[Check]:
    """Nothing where there is neither such a GPU nor its libraries."""
    from edgekit_runtime.engines import installed
    from edgekit_runtime.engines.tensorrt import CLASSIC, RTX, load_library
    from edgekit_runtime.engines.tensorrt.cuda import find_gpu

    gpu = True
    try:
        yield Check(GPU_CHECK, True, str(find_gpu()))
    except EngineError as error:
        gpu = _on_the_bus()
        if gpu:
            yield Check(GPU_CHECK, False, f"there is one, but {error.args[0]}", _BRINGS[GPU_CHECK])
    for engine in (RTX, CLASSIC):
        if installed(engine):
            try:
                yield Check(engine, True, load_library(engine).version)
            except EngineError as error:
                yield Check(engine, False, str(error.args[0]), error.hint)
    if not installed(CLASSIC):
        yield from _tensorrt_outside()
    if gpu and not installed(RTX) and platform.machine() in ("x86_64", "AMD64"):
        yield Check(RTX, True, _NOT_INSTALLED, f"{_BRINGS[RTX]}, for the profile nvidia-rtx")


def _on_the_bus() -> bool:
    """Whether the system sees a display controller of NVIDIA's, with or without a driver."""
    for device in _PCI.glob("*"):
        with suppress(OSError):
            vendor, kind = ((device / name).read_text(encoding="ascii").strip() for name in ("vendor", "class"))
            if vendor == _NVIDIA and kind.startswith(_DISPLAY):
                return True
    return False


def _tensorrt_outside() -> Iterator[Check]:
    """TensorRT as JetPack installs it, which an ordinary virtual environment does not see."""
    for found in sorted(_SYSTEM_PYTHONS.glob("python3*/dist-packages/tensorrt")):
        python = found.parents[1].name
        yield Check(
            "tensorrt",
            False,
            f"outside of this environment, for {python} ({found.parent})",
            f"Make the environment again: {python} -m venv --system-site-packages .venv",
        )
        return


def _opencv_wheels() -> Iterator[Check]:
    found = [name for name in _OPENCV if _installed(name)]
    if len(found) > 1:
        names = " and ".join(found)
        yield Check(
            "opencv wheels",
            False,
            f"{names} overwrite each other's files",
            f"pip uninstall {' '.join(found)}, then install the one that you want",
        )
    elif found:
        yield Check("opencv wheels", True, f"{found[0]} {version(found[0])}")
    else:
        yield Check("opencv wheels", True, "none: OpenCV comes from the system")


def _opencv_build() -> Iterator[Check]:
    import cv2

    gui = _build_entry(cv2.getBuildInformation(), "GUI")
    windows = gui not in ("", "NONE")
    hint = "" if windows else "For --sink window: pip install 'edgekit-runtime[gui]'; --sink file: works without."
    # A machine without a screen wants no window.
    yield Check("opencv gui", True, gui.lower() or "none", hint)
    video = _build_entry(cv2.getBuildInformation(), "FFMPEG").startswith("YES")
    yield Check(
        "opencv ffmpeg",
        video,
        "yes" if video else "no",
        "" if video else "Video files cannot be read or written: install OpenCV from PyPI.",
    )
    # Nothing here needs it: cameras are read through the system, streams through FFmpeg.
    gstreamer = _build_entry(cv2.getBuildInformation(), "GStreamer").startswith("YES")
    yield Check("opencv gstreamer", True, "yes" if gstreamer else "no")


def _cameras() -> Iterator[Check]:
    if sys.platform != "linux":
        yield Check("cameras", True, "only opening one tells", "Try: edgekit run --camera 0 --frames 1 --sink null")
        return
    devices = sorted(Path("/dev").glob("video*"))
    if not devices:
        yield Check("cameras", True, "none", "Without a camera: edgekit run --source FILE, or --source world:1")
        return
    closed = [device for device in devices if not os.access(device, os.R_OK | os.W_OK)]
    hint = "sudo usermod -aG video $USER, then log in again" if closed else ""
    detail = ", ".join(str(device) for device in devices)
    if closed:
        detail += f"; not permitted: {', '.join(str(device) for device in closed)}"
    yield Check("cameras", not closed, detail, hint)


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free >> 20
    ok = free >= ENOUGH_MB
    hint = "" if ok else "A data set takes about 100 MB for each minute of video and modality; free some space."
    yield Check("disk", ok, f"{free} MB free in {Path.cwd()}", hint)


def _bundle() -> Iterator[Check]:
    from edgekit.locate import find_bundle
    from edgekit_runtime.errors import BundleError

    try:
        yield Check("bundle", True, str(find_bundle()))
    except BundleError as error:
        yield Check("bundle", True, str(error.args[0]), error.hint)


def _installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def _build_entry(text: str, name: str) -> str:
    """The value of `  name:  value` in OpenCV's build information; empty when it is not there."""
    for line in text.splitlines():
        key, separator, value = line.strip().partition(":")
        if separator and key == name:
            return value.strip()
    return ""
