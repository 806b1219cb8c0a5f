"""Parts that the runtime's tests share: real bundles, real clips, the command as a process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from bundles import make_bundle

REAL = Path(__file__).resolve().parents[3] / "shared" / "real"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip with one OpenVINO and one ONNX Runtime variant, for frames of 540×960."""
    return make_bundle(tmp_path_factory.mktemp("bundle") / "blobs.edgekit")


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one OpenVINO variant for frames of 64×96, labels and depth."""
    from bundles import OPENVINO

    folder = tmp_path_factory.mktemp("bundle") / "small"
    return make_bundle(folder, 64, 96, variants=(OPENVINO,), depth=True)


@pytest.fixture(scope="session")
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip("the real clips (../shared/real) are not here")
    return REAL


@pytest.fixture(scope="session")
def clip(real: Path) -> Path:
    """221 frames of a drive, 960×540, 25 frames a second."""
    return real / "videos" / "udacity_solidWhiteRight.mp4"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def edgekit_run() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `edgekit-run` to its end."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "edgekit_runtime", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120, check=False)

    return run
