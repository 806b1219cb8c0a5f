"""Networks by name. Every one is `nn.Module(in_channels, out_channels)`, logits out at 1/`stride`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from edgekit_runtime.errors import UsageError
from edgekit_student.networks.edge import SHAPES, Edge
from edgekit_student.networks.safeuav import SafeUAV

NETWORKS: dict[str, Callable[[int, int], nn.Module]] = {
    **{f"safeuav-{name}": partial(SafeUAV, width=f) for name, f in (("150k", 6), ("430k", 10), ("1m", 16), ("4m", 32))},
    **{name: partial(Edge, shape=shape) for name, shape in SHAPES.items()},
}


def create_network(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """A freshly initialised network. Raises UsageError for an unknown name, with the nearest known one."""
    check_network(name)
    return NETWORKS[name](in_channels, out_channels)


def check_network(name: str) -> None:
    """Raises UsageError for an unknown name, before hours of other work."""
    if name not in NETWORKS:
        raise UsageError(f"There is no network {name!r}.", hint=f"Known networks: {', '.join(NETWORKS)}.")


def deployed(network: nn.Module) -> nn.Module:
    """The network in its inference form: eval mode, training forms folded. Changes it in place."""
    network.eval()
    if isinstance(network, Edge):
        network.fuse()
    return network


def device_of(module: nn.Module) -> torch.device:
    """Where its weights lie, and what it reads has to be."""
    return next(module.parameters()).device


__all__ = ["NETWORKS", "Edge", "SafeUAV", "create_network", "deployed", "device_of"]
