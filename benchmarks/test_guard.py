"""The few ratios that every commit must keep: each far below what is measured, for machines of all kinds and loads.

`make bench-guard`, half a minute. Contenders take turns, so a busy machine slows down both; no time is checked.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from harness import compared
from networks import Form

from edgekit_experts.classical.normals import Normals
from edgekit_experts.config import parse_config
from edgekit_experts.dataset import Dataset
from edgekit_experts.expert import Batch
from edgekit_experts.pipeline import extract
from edgekit_experts.video import open_video
from edgekit_experts.vre import export_vre
from edgekit_runtime.modality import Kind, Modality

pytestmark = pytest.mark.guard

SMALL = (272, 480)


def at_least(benchmark: Any, other: str, times: float) -> None:
    """How many times as fast as another the subject has to be."""
    found = benchmark.extra_info["times_as_fast"][other]["median"]
    assert found >= times, f"{found:.2f} times as fast as {other}, and {times:g} are asked for"


def test_int8_beside_eager_torch(benchmark: Any) -> None:
    """Measured at this size: 4 to 8 times the same network, 30 and more times SafeUAV."""
    image = networks.noise(SMALL)[None]
    tensor = torch.from_numpy(image)
    default = Form("edge-430k", size=SMALL)
    graphs = {name: networks.exporter(name, SMALL).graph for name in ("edge-430k", "safeuav-430k")}

    def eager(name: str) -> None:
        with torch.inference_mode():
            graphs[name](tensor)

    with networks.engines([default]) as found:
        contenders = {
            "int8": lambda: found[default].infer(image),
            "edge-430k eager": lambda: eager("edge-430k"),
            "safeuav-430k eager": lambda: eager("safeuav-430k"),
        }
        compared(benchmark, contenders, rounds=25)
    at_least(benchmark, "edge-430k eager", 1.5)
    at_least(benchmark, "safeuav-430k eager", 8)


def test_store_beside_npz(benchmark: Any, tmp_path: Path) -> None:
    """Measured with five modalities: 8 to 10 times."""
    config = parse_config('[rgb]\nexpert="rgb"\n[depth]\nexpert="given"\nof="true_depth"\n', "two")
    extract([open_video("world:7?frames=6&size=480x272")], tmp_path / "data", config)
    data = Dataset.open(tmp_path / "data")
    export_vre(data, tmp_path / "npz")
    video = data.video(data.videos[0])
    files = [path.parent for path in (tmp_path / "npz").rglob("npz/0.npz")]
    assert len(files) == len(config)
    contenders = {
        "store": lambda: [video.read(name, 3) for name in config],
        "npz": lambda: [np.load(folder / "3.npz")["arr_0"] for folder in files],
    }
    compared(benchmark, contenders, rounds=25)
    at_least(benchmark, "npz", 2)
    shutil.rmtree(tmp_path / "npz")


def test_normals_beside_svd(benchmark: Any) -> None:
    """Normals of a frame, beside the textbook's of a twentieth of one: measured 2 to 3 times as fast."""
    rng = np.random.default_rng(0)
    depth = (10 + rng.random((*SMALL, 1))).astype(np.float16)
    expert = Normals(of="depth", window=11, fov=78)
    expert.produces({"depth": Modality("depth", Kind.DEPTH, 1, "float16", unit="m")})
    batch = Batch(np.zeros((1, *SMALL, 3), np.uint8), {"depth": depth[None]}, 0)
    points = rng.random((SMALL[0] * SMALL[1] // 20, 121, 3))

    def svd() -> np.ndarray:
        centred = points - points.mean(axis=1, keepdims=True)
        return np.linalg.svd(centred.transpose(0, 2, 1) @ centred)[0][..., 2]

    compared(benchmark, {"normals": lambda: expert.compute(batch), "svd of 5 %": svd}, rounds=15)
    at_least(benchmark, "svd of 5 %", 0.7)
