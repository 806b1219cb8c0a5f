"""Which inputs a sample may see: whole modalities, and patches of them. One mask is one hyper-edge of PHG-MAE."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekit_runtime.errors import UsageError
from edgekit_student.settings import OTHERS, Masking


def check_masking(masking: Masking, modalities: Sequence[str]) -> None:
    """Raises UsageError when the settings name what is no input, or leave nothing to choose from."""
    named = {
        "always_visible": masking.always_visible,
        "never_visible": masking.never_visible,
        "hide": [name for name in masking.hide if name != OTHERS] if isinstance(masking.hide, dict) else [],
    }
    for key, names in named.items():
        for name in names:
            if name not in modalities:
                raise UsageError(
                    f"masking.{key} names {name!r}, which is no input.", hint=f"Inputs: {', '.join(modalities)}."
                )
    seen = [name for name in modalities if name not in masking.never_visible]
    if not seen:
        raise UsageError("masking.never_visible leaves no input to be seen.", hint="Take one of them out.")
    if masking.visible is not None and masking.visible > len(seen):
        raise UsageError(
            f"masking.visible is {masking.visible}, but only {len(seen)} inputs may be seen: {', '.join(seen)}.",
            hint="Lower it, or add inputs.",
        )


def hidden_share(masking: Masking, modalities: Sequence[str], progress: float = 1.0) -> list[float]:
    """How probable it is that each modality is hidden; `progress` is the share of the training that is done."""
    table = masking.hide if isinstance(masking.hide, dict) else {OTHERS: masking.hide}
    others = table.get(OTHERS, Masking.model_fields["hide"].default)
    grown = min(1.0, progress / masking.ramp) if masking.ramp else 1.0
    return [masking.hide_start + grown * (table.get(name, others) - masking.hide_start) for name in modalities]


def sample_masks(
    count: int,
    modalities: Sequence[str],
    *,
    hide: float | Sequence[float] = 0.5,
    visible: int | None = None,
    always_visible: Sequence[str] = (),
    never_visible: Sequence[str] = (),
    present: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """`(count, len(modalities))` bool, True where visible. At least one modality stays visible in each row.

    Each is hidden with probability `hide` (one for all, or one each); or else exactly `visible` of them are seen.
    `present`, bool `(count, modalities)` or `(modalities,)`, says what there is to see: the rest is hidden always,
    and a row without anything stays blind.
    """
    shape = count, len(modalities)
    there = torch.ones(shape, dtype=torch.bool) if present is None else present.expand(shape).clone()
    for name in never_visible:
        there[:, modalities.index(name)] = False
    draw = torch.rand(shape, generator=generator)
    chosen = draw >= torch.as_tensor(hide, dtype=draw.dtype)
    if visible is not None:
        for name in always_visible:
            draw[:, modalities.index(name)] += 1
        chosen = _ranks(draw.masked_fill(~there, -1)) < visible
    for name in always_visible:
        chosen[:, modalities.index(name)] = True
    chosen &= there
    rescued = torch.rand(shape, generator=generator).masked_fill(~there, -1).argmax(dim=1)
    blind = ~chosen.any(dim=1) & there.any(dim=1)
    chosen[blind, rescued[blind]] = True
    return chosen


def sample_patches(
    shape: tuple[int, int],
    size: tuple[int, int],
    masking: Masking,
    generator: torch.Generator | None = None,
) -> Tensor | None:
    """Which patches are seen, bool `(samples, modalities, rows, columns)` for `shape` (samples, modalities).

    `size` is the (height, width) of the frames; patches at the right and lower edge may be cut. Of each modality of
    each sample, `masking.patches` of all patches are hidden, as in MAE (He et al., CVPR 2022). None where none are.
    """
    if not masking.patches:
        return None
    rows, columns = (-(-length // masking.patch_size) for length in size)
    hidden = round(masking.patches * rows * columns)
    draw = torch.rand(*shape, rows * columns, generator=generator)
    return (_ranks(draw) >= hidden).view(*shape, rows, columns)


def _ranks(draw: Tensor) -> Tensor:
    """The place of each value in its row, 0 for the greatest."""
    return draw.argsort(dim=-1, descending=True).argsort(dim=-1)
