"""Reading and writing training samples, and resuming: the store beside per-frame npz files, as VRE and Dronescapes
keep them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness import compared

from edgekit_experts.config import parse_config
from edgekit_experts.dataset import Dataset
from edgekit_experts.pipeline import extract
from edgekit_experts.video import open_video
from edgekit_experts.vre import export_vre

GIVEN = {"labels": "labels", "depth": "true_depth", "normals": "true_normals", "flow": "true_flow"}
MODALITIES = ("rgb", *GIVEN)
FRAMES, WRITTEN = 48, 8


@pytest.fixture(scope="module")
def flight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Dataset, Path]:
    """A flight with five modalities at 540×960, in the store and as npz files."""
    folder = tmp_path_factory.mktemp("store")
    given = "\n".join(f'[{name}]\nexpert = "given"\nof = "{stream}"' for name, stream in GIVEN.items())
    config = parse_config(f'[rgb]\nexpert = "rgb"\n{given}', "five modalities")
    extract([open_video(f"world:7?frames={FRAMES}&size=960x540")], folder / "data", config)
    data = Dataset.open(folder / "data")
    export_vre(data, folder / "npz")
    return data, folder / "npz"


def size_mb(folder: Path) -> float:
    return round(sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6, 1)


def test_random_read(benchmark: Any, flight: tuple[Dataset, Path]) -> None:
    """Goal: 5 times as fast as npz, and smaller."""
    data, folder = flight
    video = data.video(data.videos[0])
    files = {path.parent.parent.name: path.parent for path in folder.rglob("npz/0.npz")}
    assert len(files) == len(MODALITIES)
    store, npz = np.random.default_rng(0), np.random.default_rng(0)

    def read() -> list[Any]:
        index = int(store.integers(FRAMES))
        return [video.read(name, index) for name in MODALITIES]

    def read_npz() -> list[Any]:
        index = int(npz.integers(FRAMES))
        return [np.load(path / f"{index}.npz")["arr_0"] for path in files.values()]

    compared(benchmark, {"store": read, "npz folders": read_npz}, rounds=60)
    benchmark.extra_info["mb"] = {"store": size_mb(Path(data.location)), "npz folders": size_mb(folder)}


def test_write(benchmark: Any, flight: tuple[Dataset, Path], tmp_path: Path) -> None:
    """Frames of five modalities: `Video.write`, after which they are on the disk, and `np.savez_compressed`."""
    data, _ = flight
    source = data.video(data.videos[0])
    frames = {name: source.read_many(name, 0, WRITTEN) for name in MODALITIES}

    def fresh(name: str) -> Path:
        shutil.rmtree(tmp_path / name, ignore_errors=True)
        return tmp_path / name

    def write() -> None:
        target = Dataset.create(fresh("data"))
        target.add_video("flight", replace(source.info, frames=WRITTEN))
        with target.writing("flight") as video:
            for name in MODALITIES:
                video.declare(source.modalities[name], expert="given")
                video.write(name, 0, frames[name])

    def write_npz() -> None:
        folder = fresh("npz")
        for name in MODALITIES:
            (folder / name).mkdir(parents=True)
            for index in range(WRITTEN):
                np.savez_compressed(folder / name / f"{index}.npz", frames[name][index])

    compared(benchmark, {"store": write, "npz folders": write_npz}, rounds=5, warm_up=1)
    benchmark.extra_info["frames"] = WRITTEN


RESUME = """
import sys
from edgekit.cli import main
sys.exit(main(["extract", sys.argv[1], "-o", sys.argv[2], "--json"]))
"""


def test_resume_of_10000_finished_frames(benchmark: Any, tmp_path: Path) -> None:
    """Goal: 2 s for the whole command to find that nothing is missing."""
    import av

    path, out = tmp_path / "long.mp4", tmp_path / "data"
    frames = np.random.default_rng(0).integers(0, 256, (50, 36, 64, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 64, 36, "yuv420p"
        for number in range(10_000):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frames[number % 50], format="rgb24")))
        container.mux(stream.encode())
    command = [sys.executable, "-c", RESUME, str(path), str(out)]
    subprocess.run(command, check=True, capture_output=True)
    result = benchmark.pedantic(
        lambda: subprocess.run(command, check=True, capture_output=True, encoding="utf-8"), rounds=5, warmup_rounds=1
    )
    assert '"written": 0' in result.stdout
