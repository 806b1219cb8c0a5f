"""The wheel on 64-bit Arm, without a board: `make test-aarch64`, as root on Debian, ten minutes.

Debian's own tools make a root folder for arm64 (`build/aarch64/root`), QEMU runs what is in it. There pip installs the
wheel of the runtime with ONNX Runtime and OpenCV, and both the bundle that edgekit comes with and one that was built
for a Raspberry Pi 5 say of each frame what they say here. It needs

    apt-get install debootstrap qemu-user-static binfmt-support

An emulator's speed means nothing, so nothing is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

import edgekit
from edgekit_runtime import EdgekitError, open_bundle, open_source

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT.parent / "shared" / "real" / "videos" / "udacity_solidWhiteRight.mp4"
DEFAULT = Path(edgekit.__file__).parent / "default"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
PACKAGES = "ca-certificates,python3,python3-venv"


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("-o", "--output", type=Path, default=ROOT / "build" / "aarch64")
    options.add_argument("--suite", default="bookworm", help="of Debian")
    options.add_argument("--mirror", default="http://deb.debian.org/debian")
    options.add_argument("--frames", type=int, default=12)
    asked = options.parse_args()
    try:
        check_tools()
        folder = asked.output.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        bundles = {"default": DEFAULT / "default.edgekit", "raspberry-pi-5": build_for_the_pi(folder / "pi")}
        device = Device(folder / "root")
        device.make(asked.suite, asked.mirror)
        device.install(make_wheel(folder / "dist"))
        rows = [compare(device, name, bundle, folder, asked.frames) for name, bundle in bundles.items()]
        rows.append(film(device, bundles["default"], folder))
    except (EdgekitError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    (folder / "result.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(rows, indent=1))
    return 0 if all(row["passed"] for row in rows) else 1


def check_tools() -> None:
    """Says what is missing before anything takes time. Raises EdgekitError."""
    install = "apt-get install debootstrap qemu-user-static binfmt-support"
    if os.geteuid() != 0:
        raise EdgekitError("A root folder can only be made by root.", hint="sudo make test-aarch64")
    for tool in ("debootstrap", "qemu-aarch64-static", "unshare"):
        if shutil.which(tool) is None:
            raise EdgekitError(f"There is no {tool} here.", hint=install)
    registered = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")
    if not registered.exists():
        # As in a container, where the packages found nothing to register with.
        subprocess.run(["mount", "-t", "binfmt_misc", "binfmt_misc", registered.parent], check=False)
        if shutil.which("update-binfmts") is not None:
            subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not registered.exists():
        hint = f"{install}; in a container the host has to have them"
        raise EdgekitError("The kernel does not run arm64 programs through QEMU (binfmt_misc).", hint=hint)


def make_frames(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Frames of a real clip where there is one, else of the synthetic world, `size` (height, width), as PNG.

    Equal bytes on both sides, and of the network's own size: OpenCV's resizing differs by a grey level between the two.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with open_source(CLIP if CLIP.is_file() else f"world:7?frames={count}") as source:
        images = [frame.image for frame in source]
    for number, image in enumerate(images[:: max(len(images) // count, 1)][:count]):
        cv2.imwrite(str(folder / f"{number:03d}.png"), cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA))
    return folder


def build_for_the_pi(folder: Path) -> Path:
    found = list(folder.glob("*.edgekit"))
    if not found:
        run("edgekit", "build", "--profile", "raspberry-pi-5", "--student", DEFAULT / "student", "-o", folder)
        found = list(folder.glob("*.edgekit"))
    return found[0]


def make_wheel(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    run("build", "--wheel", "--no-isolation", "--outdir", folder, ROOT / "runtime")
    return next(folder.glob("*.whl"))


def run(module: str, *arguments: str | Path) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, cwd=ROOT)


class Device:
    """A root folder of Debian for arm64, and programs in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def make(self, suite: str, mirror: str) -> None:
        """Once; what a broken attempt left is thrown away."""
        done = self.root / "edgekit.made"
        if done.exists():
            return
        shutil.rmtree(self.root, ignore_errors=True)
        command = [
            "debootstrap",
            "--arch=arm64",
            "--variant=minbase",
            f"--include={PACKAGES}",
            suite,
            self.root,
            mirror,
        ]
        subprocess.run(command, check=True)
        done.touch()

    def install(self, wheel: Path) -> None:
        """The wheel with ONNX Runtime and OpenCV, as pip finds them for this architecture."""
        for path in (wheel, ROOT / "constraints.txt", Path("/etc/resolv.conf")):
            shutil.copy(path, self.root / ("etc" if path.name == "resolv.conf" else "root") / path.name)
        if CERTIFICATES.exists():  # those of this machine, which may know a proxy
            shutil.copy(CERTIFICATES, self.root / "etc" / "ssl" / "certs" / CERTIFICATES.name)
        self.run("python3", "-m", "venv", "/venv")
        pip = ("/venv/bin/python", "-m", "pip", "install", "--no-cache-dir", "--constraint", "/root/constraints.txt")
        self.run(*pip, "--force-reinstall", "--no-deps", f"/root/{wheel.name}")
        self.run(*pip, f"/root/{wheel.name}[onnxruntime,headless]")

    def run(self, *command: str, attempts: int = 1) -> None:
        """In a mount namespace of its own, so that nothing stays mounted.

        An emulated interpreter may take longer to start than a decoder is given; hence `attempts`.
        """
        mount = 'mount -t proc proc "$1/proc" && mount --rbind /dev "$1/dev"'
        script = mount + ' && root=$1 && shift && exec chroot "$root" "$@"'
        environment = {
            "PATH": "/venv/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PIP_CERT": str(CERTIFICATES),
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_ROOT_USER_ACTION": "ignore",
        }
        unshared = ["unshare", "--mount", "sh", "-c", script, "sh", str(self.root), *command]
        for attempt in range(1, attempts + 1):
            done = subprocess.run(unshared, check=attempt == attempts, env=environment)
            if done.returncode == 0:
                return

    def give(self, path: Path) -> str:
        """Copies a file or folder to the device; returns where it is there."""
        there = self.root / "root" / path.name
        if path.is_dir():
            shutil.copytree(path, there, dirs_exist_ok=True)
        else:
            shutil.copy(path, there)
        return f"/root/{path.name}"


def compare(device: Device, name: str, bundle: Path, folder: Path, count: int) -> dict[str, object]:
    """The class maps of all frames, there and here."""
    print(f"{name}: {bundle}", flush=True)
    frames = make_frames(folder / f"{name}-frames", count, open_bundle(bundle).manifest.input_size)
    here, there = folder / f"{name}-here.jsonl", device.root / "root" / f"{name}.jsonl"
    for path in (here, there):
        path.unlink(missing_ok=True)
    run("edgekit_runtime", bundle, *settings(str(frames), here))
    source, given = device.give(frames), device.give(bundle)
    device.run("edgekit-run", given, *settings(source, Path("/root") / there.name), attempts=3)
    mine, others = class_maps(here), class_maps(there)
    differing = [float((a != b).mean()) for a, b in zip(mine, others, strict=True)]
    return {
        "bundle": name,
        "frames": len(differing),
        "equal": sum(share == 0 for share in differing),
        "differing_pixels": max(differing),
        "passed": max(differing) == 0,
    }


def settings(source: str, out: Path) -> list[str]:
    return ["--engine", "onnxruntime", "--source", source, "--sink", f"json:{out}?masks=1"]


def class_maps(path: Path) -> list[np.ndarray]:
    """From the run lengths of each line: `(h, w)` with the number of each class in the order of names."""
    maps = []
    for line in path.read_text(encoding="utf-8").splitlines():
        masks = json.loads(line)["masks"]
        classes = np.zeros(masks[0]["size"], object)
        for mask in masks:
            inside = np.repeat(np.arange(len(mask["counts"])) % 2, mask["counts"]).astype(bool)
            classes[inside.reshape(mask["size"], order="F")] = mask["class"]
        maps.append(classes)
    return maps


def film(device: Device, bundle: Path, folder: Path) -> dict[str, object]:
    """A recording that is made there plays here."""
    out = device.root / "root" / "out.mp4"
    out.unlink(missing_ok=True)
    source = device.give(CLIP) if CLIP.is_file() else device.give(folder / "default-frames")
    command = ["edgekit-run", device.give(bundle), "--source", source, "--frames", "8", "--sink", "file:/root/out.mp4"]
    device.run(*command, attempts=3)
    with open_source(out) as recording:
        frames = sum(1 for _ in recording)
    return {"bundle": "default, a film into a recording", "frames": frames, "passed": frames == 8}


if __name__ == "__main__":
    raise SystemExit(main())
