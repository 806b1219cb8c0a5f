"""Pretrained experts on one frame of 540×960, as the pipeline runs them, beside the `pipeline` of transformers; and
DPT-large as `edgekit build` makes it, beside eager PyTorch. Real architectures, random weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import networks
import numpy as np
import pytest
import torch
from harness import Contender, compared
from peer import Peer, PeerMissingError

from edgekit.candidates import make_candidate, make_form, opened
from edgekit.export import Exporter
from edgekit.judging import fidelity
from edgekit.material import Material
from edgekit.offshelf import of_checkpoint
from edgekit.profiles import load_profile
from edgekit.targets import Precision, Target
from edgekit_experts.expert import Batch
from edgekit_experts.learned.pretrained import PretrainedDepth, PretrainedLabels
from edgekit_experts.world import Flight

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


def test_dpt_as_built_beside_eager(benchmark: Any, dpt: Path) -> None:
    """Goal: 4 times as fast as eager PyTorch, depth within 1 %; DPT-large at 384x384, bytes in, depth out."""
    profile = load_profile("laptop-cpu")
    exporter = Exporter(of_checkpoint(str(dpt), profile.input_size, (384, 384)), profile)
    flight = Flight(3, size=exporter.input_size, frames=None)
    frames = [np.ascontiguousarray(flight.render(40 * n).rgb[..., ::-1]) for n in range(3)]
    nothing = Material((), (), "nothing", {})
    target = Target("openvino")
    precisions: tuple[Precision, ...] = ("bf16-mixed", "bf16", "fp32")
    forms = [
        make_candidate(make_form(exporter, "openvino", each, nothing), target, each, profile) for each in precisions
    ]
    with opened(exporter, forms) as (engines, refused), torch.inference_mode():
        assert not refused, refused
        eager = [exporter.reference(frame) for frame in frames]
        off = {}
        for key, engine in engines.items():
            said = [{"depth": engine.infer(frame[None])["depth"][0].copy()} for frame in frames]
            off[key] = 100 * (fidelity(said, eager).depth_error or 0)
        contenders: dict[str, Contender] = {
            f"dpt-large as built, {key}": partial(engine.infer, frames[0][None]) for key, engine in engines.items()
        }
        compared(
            benchmark, {**contenders, "eager PyTorch": partial(exporter.reference, frames[0])}, rounds=8, warm_up=1
        )
    benchmark.extra_info["depth_off_percent"] = {key: round(error, 3) for key, error in off.items()}
    assert off["openvino bf16-mixed"] <= 1
