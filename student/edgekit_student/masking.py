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
    present: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`(count, len(modalities))` bool, True where visible. At least one modality stays visible in each row.

    `present`, bool `(count, modalities)` or `(modalities,)`, says what there is to see: the rest is hidden always,
    and a row without anything stays blind.
    """
    visible = torch.rand(count, len(modalities), generator=generator) >= hide
    for name in always_visible:
        visible[:, modalities.index(name)] = True
    if present is None:
        present = visible.new_ones(len(modalities))
    visible &= present
    rescued = torch.rand(count, len(modalities), generator=generator).masked_fill(~present, -1).argmax(dim=1)
    blind = ~visible.any(dim=1) & present.any(dim=-1)
    visible[blind, rescued[blind]] = True
    return visible
