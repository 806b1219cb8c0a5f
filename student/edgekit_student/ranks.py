"""The processes of one training: one alone, or as many as the environment that torchrun sets says.

`edgekit train --devices 2` sets it, `torchrun --nproc-per-node 2 -m edgekit train ...` does, and so do the
launchers of clusters. Process `rank()` of `world()` takes every `world()`-th batch; gradients are averaged, so
that two processes train as one with twice the `accumulate` does. Normalisation layers see one batch of one process, on
GPUs, too: a batch of pictures has pixels enough for their statistics, and waiting for others in every layer would cost
more than it gains. The statistics that are kept are those of process 0.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from edgekit_runtime.errors import EdgekitError

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class PeerLostError(EdgekitError):
    """Another process of this training has failed; that one says why."""

    exit_status = 3


def world() -> int:
    """How many processes train together."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in _VARIABLES) else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if world() > 1 else 0


def leads() -> bool:
    """Whether this is the one that writes files and reports progress."""
    return rank() == 0


def fabric_for(device: str, precision: str) -> Any:
    """Lightning Fabric for this process, joined with the others (gloo on CPUs, NCCL on GPUs) when there are any."""
    from lightning.fabric import Fabric

    for name in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.WARNING)
    if precision == "auto":
        precision = "bf16-mixed" if native_bf16(device) else "32-true"
    if world() == 1:
        return Fabric(accelerator=device, devices=1, precision=precision)
    from lightning.fabric.plugins.environments import TorchElasticEnvironment
    from lightning.fabric.strategies import DDPStrategy

    here = int(os.environ.get("LOCAL_WORLD_SIZE", world()))
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=world() // here,
        strategy=DDPStrategy(cluster_environment=TorchElasticEnvironment()),
        precision=precision,
    )
    fabric.launch()
    return fabric


def own_device(device: str) -> torch.device:
    """Which one of "cpu" or "cuda" this process computes on: each of several has a GPU of its own."""
    if device == "cuda" and world() > 1:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return torch.device(device)


def native_bf16(device: str) -> bool:
    """Whether bfloat16 is faster than float32 there: AVX512-BF16 (a third faster here) or AMX, Ampere and later."""
    if device in ("auto", "cuda") and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device in ("auto", "cpu") and bool(torch.cpu._is_avx512_bf16_supported())


def mean(fabric: Any, value: float) -> float:
    """The mean of what all processes have; each must ask."""
    if world() == 1:
        return value
    return float(fabric.all_reduce(torch.tensor(value, dtype=torch.float64, device=fabric.device), reduce_op="mean"))


def anywhere(fabric: Any, flag: bool) -> bool:
    """Whether `flag` is set in any process; each must ask."""
    return mean(fabric, float(flag)) > 0


@contextmanager
def together() -> Iterator[None]:
    """Leaves the group of processes at the end; raises PeerLostError for what only echoes another one's failure."""
    try:
        yield
        if torch.distributed.is_initialized():
            torch.distributed.barrier()
            torch.distributed.destroy_process_group()
    except RuntimeError as error:
        echo = isinstance(error, torch.distributed.DistError) or "gloo" in str(error) or "NCCL" in str(error)
        if world() == 1 or not echo:
            raise
        raise PeerLostError(
            "Another process of this training has stopped.", hint="It says why; the last state is kept."
        ) from error
    finally:
        # Left to the end of the program, gloo's threads may abort it. NCCL would wait for the others here.
        if torch.distributed.is_initialized() and torch.distributed.get_backend() == "gloo":
            torch.distributed.destroy_process_group()
