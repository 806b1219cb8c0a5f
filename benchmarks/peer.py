"""What people use today, each in an environment of its own below `.peers/`, made when it is first needed.

`python benchmarks/peer.py [NAME ...]` makes them ahead. A peer is a script in `peers/`, run by the Python of its
environment; it prints one line when it is ready, and answers each line that comes with the seconds of one run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SCRIPTS = Path(__file__).parent / "peers"
CONSTRAINTS = ROOT / "constraints.txt"
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    # The papers' own tool, which pins what it needs itself, and asks for no torch that it did not run with.
    "vre": (
        "video-representations-extractor==1.18.6",
        "torch",
        "opencv-python-headless",
        "huggingface_hub",
        "safetensors",
    ),
    "torch": ("torch", "numpy"),
    "onnxruntime": ("onnxruntime", "numpy"),
    "openvino": ("openvino", "numpy"),
    "opencv": ("opencv-python-headless", "numpy"),
    "transformers": ("torch", "transformers", "pillow", "scipy", "numpy"),
}
# Without what they ask for: timm wants torchvision, which has no build for a CPU's torch, and which VRE never calls.
ALONE = {"vre": ("timm==1.0.9",)}
_INSTALLING_S = 1200


class PeerMissingError(Exception):
    """Why an environment cannot be made, or why what is in it does not run."""


def python_of(name: str) -> Path:
    """The Python of an environment, which is made if it is not there. Raises PeerMissingError."""
    folder = ROOT / ".peers" / name
    python, wanted = folder / "bin" / "python", folder / ".installed"
    packages, alone = _pinned(ENVIRONMENTS[name]), ALONE.get(name, ())
    if wanted.is_file() and wanted.read_text(encoding="utf-8").split() == [*packages, *alone]:
        return python
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(exist_ok=True)
    _run([sys.executable, "-m", "venv", str(folder)])
    constraints = [] if name == "vre" else ["--constraint", str(CONSTRAINTS)]
    _run([str(python), "-m", "pip", "install", "--quiet", *constraints, *packages])
    if alone:
        _run([str(python), "-m", "pip", "install", "--quiet", "--no-deps", *alone])
    wanted.write_text("\n".join([*packages, *alone]), encoding="utf-8")
    return python


def _pinned(packages: Sequence[str]) -> list[str]:
    """Each in the version of the constraints, if there is one."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = {line.partition("==")[0].lower(): line for line in lines}
    return [pins.get(package.lower(), package) for package in packages]


def _run(command: list[str]) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, encoding="utf-8", timeout=_INSTALLING_S)
    except (OSError, subprocess.SubprocessError) as error:
        lines = (getattr(error, "stderr", None) or str(error)).strip().splitlines()
        raise PeerMissingError(f"it cannot be installed: {lines[-1] if lines else error}") from error


class Peer:
    """A running script of `peers/`, a contender that times itself; use it in a `with`.

    `about` is what it says of itself. Raises PeerMissingError when it does not come up.
    """

    def __init__(self, environment: str, script: str, *arguments: str | Path) -> None:
        command = [str(python_of(environment)), str(SCRIPTS / script), *map(str, arguments)]
        # A pipe that nobody reads would fill up.
        self._said = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, encoding="utf-8"
        )
        self._name = f"{environment}: {script}"
        try:
            self.about: dict[str, Any] = self._answer()
        except PeerMissingError:
            self.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def seconds(self) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._answer()["seconds"])

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()
        self._said.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # libraries print what they like
                answer: dict[str, Any] = json.loads(line)
                return answer
        self._process.wait()
        self._said.seek(0)
        last = (self._said.read().strip().splitlines() or ["it ended"])[-1]
        raise PeerMissingError(f"{self._name} does not run: {last}")


def main() -> None:
    failed = False
    for name in sys.argv[1:] or ENVIRONMENTS:
        if name not in ENVIRONMENTS:
            sys.exit(f"There is no peer {name!r}; there are {', '.join(ENVIRONMENTS)}.")
        try:
            python_of(name)
        except PeerMissingError as error:
            failed = True
            print(f"{name}: {error}", file=sys.stderr)
        else:
            print(f"{name}: ready")
    sys.exit(failed)


if __name__ == "__main__":
    main()
