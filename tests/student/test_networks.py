"""Networks: the papers' parameter counts, exact folding of training branches, any frame size."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from edgekit_runtime.errors import UsageError
from edgekit_student.networks import NETWORKS, create_network, deployed


def parameters(network: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "rgb_to_8", "fifteen_to_15"),
    [
        ("safeuav-150k", 158_186, 158_883),
        ("safeuav-430k", 437_518, 438_675),
        ("safeuav-1m", 1_117_336, 1_119_183),
        ("safeuav-4m", 4_460_328, 4_464_015),
    ],
)
def test_safeuav_has_the_published_parameter_counts(name: str, rgb_to_8: int, fifteen_to_15: int) -> None:
    assert parameters(create_network(name, 3, 8)) == rgb_to_8
    assert parameters(create_network(name, 15, 15)) == fifteen_to_15


@pytest.mark.parametrize(("name", "limit"), [("edge-150k", 150_000), ("edge-430k", 430_000), ("edge-900k", 900_000)])
@pytest.mark.parametrize("finer", ["", "-s2"])
def test_edge_students_keep_their_names_promise_once_deployed(name: str, finer: str, limit: int) -> None:
    assert 0.8 * limit < parameters(deployed(create_network(name + finer, 3, 11))) <= limit


@pytest.mark.parametrize("name", ["edge-150k", "edge-430k", "edge-900k"])
def test_folding_the_training_branches_changes_nothing(name: str) -> None:
    torch.manual_seed(0)
    network = create_network(name, 3, 8)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    network.eval()
    frames = torch.randn(2, 3, 64, 96)
    expected = network(frames)
    folded = deployed(deepcopy(network))
    torch.testing.assert_close(folded(frames), expected, rtol=1e-3, atol=1e-4)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("size", [(64, 96), (61, 83)])
def test_every_network_takes_any_frame_size(name: str, size: tuple[int, int]) -> None:
    network = create_network(name, 3, 8).eval()
    with torch.inference_mode():
        logits = network(torch.randn(1, 3, *size))
    whole = max(network.stride, 4) if name.startswith("edge") else network.stride
    assert logits.shape == (1, 8, *(-(-side // whole) * whole // network.stride for side in size))


def test_an_unknown_network_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="edge-430k"):
        create_network("edge430k", 3, 8)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_training_on_frames_of_three_channels_leaves_memory_intact(name: str) -> None:
    network = create_network(name, 3, 3).train()
    network.to(memory_format=torch.channels_last)
    frames = torch.randn(4, 3, 64, 96).to(memory_format=torch.channels_last)
    for _ in range(6):
        network(frames).square().mean().backward()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters() if p.grad is not None)
