"""RAFT: what can be checked without torchvision, and its flow against torchvision's own where that is installed."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from edgekit_experts.expert import Batch
from edgekit_experts.learned.raft import RaftFlow
from edgekit_runtime.errors import ExpertError
from edgekit_runtime.modality import Kind

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def flows() -> Any:
    try:
        from torchvision.models import optical_flow
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision is absent, or of another release than torch: {error}")
    return optical_flow


def test_without_torchvision_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    with pytest.raises(ExpertError, match="needs torchvision") as caught:
        RaftFlow().produces({})
    assert caught.value.hint.startswith("pip install torchvision")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"gap": 0}, "gap of 0"), ({"network": "larg"}, "network 'larg'"), ({"updates": 0}, "0 updates")],
)
def test_what_makes_no_sense_is_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ExpertError, match=message):
        RaftFlow(**parameters)


@pytest.mark.parametrize("gap", [1, -2])
def test_flow_is_torchvisions(flows: Any, gap: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    network = flows.raft_small(weights=None).eval()
    path = tmp_path / "raft.safetensors"
    save_file(network.state_dict(), path)
    noise = np.random.default_rng(0).integers(0, 256, (4, 14, 21, 3), np.uint8)
    frames = np.stack([cv2.resize(frame, (204, 135), interpolation=cv2.INTER_CUBIC) for frame in noise])

    expert = RaftFlow(gap, "small", str(path), updates=3)
    modality = expert.produces({})
    assert (modality.kind, modality.unit, modality.channels) == (Kind.FLOW, "px", 2)
    before, _ = expert.context
    computed = expert.compute(Batch(frames, {}, before))
    assert computed.shape == (len(frames) - abs(gap), 135, 204, 2)
    assert computed.dtype == np.float16

    sized = np.pad(frames, [(0, 0), (0, 1), (0, 4), (0, 0)], mode="edge")
    pictures = torch.from_numpy(sized).permute(0, 3, 1, 2) / 255 * 2 - 1
    for number, found in enumerate(computed, before):
        with torch.no_grad():
            expected = network(pictures[number, None], pictures[number + gap, None], num_flow_updates=3)[-1][0]
        expected = expected.permute(1, 2, 0).numpy()[:135, :204]
        spread = np.abs(expected).max()
        assert spread > 0.01
        np.testing.assert_allclose(found, expected, atol=2e-3 * spread)


def test_other_weights_make_other_frames(flows: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for path in paths:
        save_file(flows.raft_small(weights=None).state_dict(), path)
    first, second = (RaftFlow(network="small", path=str(path)).identity for path in paths)
    assert first != second
    assert RaftFlow().identity.startswith("raft_large")
    with pytest.raises(ExpertError, match="cannot be loaded"):
        RaftFlow(network="large", path=str(paths[0])).produces({})
    paths[0].write_bytes(b"cut short")
    with pytest.raises(ExpertError, match="cannot be loaded"):
        RaftFlow(network="small", path=str(paths[0])).produces({})
