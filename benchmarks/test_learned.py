"""Pretrained experts on one frame of 540×960, as the pipeline runs them, beside the `pipeline` of transformers.

Real architectures, random weights. DPT-large goal: compiled 4 times as fast as eager PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
from harness import Contender, compared
from peer import Peer, PeerMissingError

from edgekit_experts.expert import Batch
from edgekit_experts.learned.pretrained import PretrainedDepth, PretrainedLabels

SIZE = (540, 960)
BATCH = Batch(networks.noise(SIZE)[None], {}, 0)


@pytest.fixture(scope="module")
def dpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.dpt(tmp_path_factory.mktemp("dpt"))


@pytest.fixture(scope="module")
def mask2former(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.mask2former(tmp_path_factory.mktemp("mask2former"))


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks of a gigabyte that nobody needs again are not left in the cache of the user."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def beside_pipeline(benchmark: Any, task: str, folder: Path, experts: dict[str, Any], rounds: int) -> None:
    contenders: dict[str, Contender] = {name: _computing(expert) for name, expert in experts.items()}
    try:
        with Peer("transformers", "transformers_pipeline.py", task, folder, *SIZE) as peer:
            compared(benchmark, {**contenders, "transformers pipeline": peer}, rounds=rounds, warm_up=2)
            benchmark.extra_info["about"] = peer.about
    except PeerMissingError as error:
        pytest.skip(str(error))


def _computing(expert: Any) -> Callable[[], np.ndarray]:
    expert.produces({})
    return lambda: expert.compute(BATCH)


def test_dpt_beside_transformers(benchmark: Any, dpt: Path) -> None:
    """Both see 384×384, as published."""
    experts = {f"dpt-large {each}": PretrainedDepth(str(dpt), precision=each, device="cpu") for each in ("bf16", "f32")}
    beside_pipeline(benchmark, "depth-estimation", dpt, experts, rounds=8)


def test_mask2former_beside_transformers(benchmark: Any, mask2former: Path) -> None:
    """Swin-L, 65 classes; both see 384×384."""
    experts = {
        f"mask2former {each}": PretrainedLabels(str(mask2former), precision=each, device="cpu")
        for each in ("bf16", "f32")
    }
    beside_pipeline(benchmark, "image-segmentation", mask2former, experts, rounds=6)
