"""A training step as `edgekit train` and `distill` make it: loss, gradients, optimiser, averaged weights; 8 crops of
256×256.

Beside it what one writes first: the same network in PyTorch's default layout and float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import networks
import torch
from harness import compared
from torch import Tensor, nn
from torch.nn import functional as F

from edgekit_student.batches import Batch
from edgekit_student.fit import fit
from edgekit_student.settings import Optimisation

BATCH, CROP, CLASSES, STEPS = 8, 256, 8, 4


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return {
        "rgb": torch.rand(BATCH, 3, CROP, CROP, generator=generator) * 255,
        "labels": torch.randint(0, CLASSES, (BATCH, CROP // 4, CROP // 4), generator=generator),
    }


def loss(module: nn.Module, sample: Batch) -> Tensor:
    (logits,) = module(sample["rgb"])
    return F.cross_entropy(F.adaptive_avg_pool2d(logits, sample["labels"].shape[-2:]), sample["labels"])


def fitted(network: str, precision: Literal["32-true", "bf16-mixed"], folder: Path) -> Callable[[], None]:
    """`STEPS` steps of our loop."""
    given = batch()
    settings = Optimisation(steps=STEPS, batch=BATCH, precision=precision, checkpoint_every=10**6)

    def run() -> None:
        model = networks.student(network)
        fit(model, lambda number: given, lambda module, sample, number: loss(module, sample), settings, folder)

    return run


def plain(network: str) -> Callable[[], None]:
    """`STEPS` steps of the loop of PyTorch's tutorial."""
    given = batch()

    def run() -> None:
        model = networks.student(network).train()
        optimizer = torch.optim.AdamW(model.parameters())
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss(model, given).backward()
            optimizer.step()

    return run


def test_step(benchmark: Any, tmp_path: Path) -> None:
    contenders = {
        "edge-430k": fitted("edge-430k", "bf16-mixed", tmp_path / "a"),
        "edge-430k float32": fitted("edge-430k", "32-true", tmp_path / "b"),
        "safeuav-430k": fitted("safeuav-430k", "bf16-mixed", tmp_path / "c"),
        "edge-430k plain PyTorch": plain("edge-430k"),
        "safeuav-430k plain PyTorch": plain("safeuav-430k"),
    }
    compared(benchmark, contenders, rounds=4, warm_up=1)
    benchmark.extra_info["steps"] = STEPS
    benchmark.extra_info["samples_per_second"] = {
        name: round(BATCH * STEPS / (spent["median"] / 1e3), 1) for name, spent in benchmark.extra_info["ms"].items()
    }
