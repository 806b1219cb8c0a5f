"""Whole-modality masking: which inputs a sample may see. One mask is one hyper-edge of PHG-MAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sample_masks(
    count: int,
    modalities: Sequence[str],
    *,
    hide: float,
    always_visible: Sequence[str] = (),
    generator: torch.Generator | None = None,
) -> Tensor:
    """`(count, len(modalities))` bool, True where visible. At least one modality stays visible in each row."""
    visible = torch.rand(count, len(modalities), generator=generator) >= hide
    for name in always_visible:
        visible[:, modalities.index(name)] = True
    rescued = torch.randint(len(modalities), (count,), generator=generator)
    blind = ~visible.any(dim=1)
    visible[blind, rescued[blind]] = True
    return visible
