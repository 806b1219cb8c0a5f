"""Modalities as network channels and back: the one place that knows how each kind enters and leaves a network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit_runtime.modality import Kind, Modality

Statistics = Mapping[str, Mapping[str, list[float]]]

# Kinds whose values are standardised with the data set's mean and deviation; the others have fixed ranges. Where the
# statistics have `log_mean` and `log_std`, it is the logarithm that is standardised: of depth in metres, which a
# network that sees near and far would else learn for the far alone.
STANDARDISED = (Kind.IMAGE, Kind.DEPTH, Kind.FLOW)


@dataclass(frozen=True)
class Encoded:
    """Channels `(N, features, H, W)` float, zero where there is no value, and `valid` `(N, 1, H, W)` bool."""

    values: Tensor
    valid: Tensor


def encode(modality: Modality, array: Tensor, statistics: Statistics) -> Encoded:
    """A stored batch `(N, H, W, C)` as channels: one per class for labels, standardised or scaled numbers else."""
    if modality.taxonomy:
        # Compared rather than scattered: an ignored id equals no class, and the layout stays channels-last.
        hot = (array == torch.arange(len(modality.taxonomy), device=array.device)).permute(0, 3, 1, 2)
        ignored = (array == modality.taxonomy.ignore) | (array >= len(modality.taxonomy))
        return Encoded(hot.float(), ~ignored.permute(0, 3, 1, 2))
    values = array.permute(0, 3, 1, 2).float()
    if logarithm := _logarithmic(modality, statistics):
        values = values.log()
    offset, scale = _affine(modality, statistics, values)
    values = (values - offset) / scale
    if not (array.dtype.is_floating_point or logarithm):
        return Encoded(values, torch.ones_like(values[:, :1], dtype=torch.bool))
    valid = torch.isfinite(values).all(dim=1, keepdim=True)
    return Encoded(torch.where(valid, values, 0.0), valid)


def averaged(encoded: Encoded, size: tuple[int, int]) -> Encoded:
    """At a coarser `size` (height, width): means of cells, valid where all of a cell is."""
    if tuple(encoded.values.shape[-2:]) == size:
        return encoded
    valid = F.adaptive_avg_pool2d(encoded.valid.float(), size) == 1
    return Encoded(F.adaptive_avg_pool2d(encoded.values, size), valid)


def encode_into(modality: Modality, array: Tensor, statistics: Statistics, out: Tensor) -> None:
    """Writes the values of `encode` to `out` `(N, H, W, features)`, of any float dtype, which may be a part of more.

    Channels last is how modalities are stored and how convolutions read: nothing is turned or joined on the way.
    """
    if modality.taxonomy:
        out.copy_(array == torch.arange(len(modality.taxonomy), dtype=array.dtype, device=array.device))
        return
    values = array.permute(0, 3, 1, 2).float()
    if logarithm := _logarithmic(modality, statistics):
        values = values.log()
    offset, scale = _affine(modality, statistics, values)
    values = (values - offset).div_(scale).permute(0, 2, 3, 1)
    if array.dtype.is_floating_point or logarithm:
        values = torch.where(torch.isfinite(values).all(dim=-1, keepdim=True), values, 0.0)
    out.copy_(values)


def decode(modality: Modality, output: Tensor, statistics: Statistics) -> Tensor:
    """A network's output `(N, features, H, W)`: class probabilities for labels, stored units for the rest."""
    if modality.taxonomy:
        return output.softmax(dim=1)
    if modality.kind is Kind.NORMALS:
        return F.normalize(output, dim=1)
    if modality.kind in (Kind.EDGES, Kind.MASK):
        output = output.sigmoid()
    offset, scale = _affine(modality, statistics, output)
    values = output * scale + offset
    return values.exp() if _logarithmic(modality, statistics) else values


def mirrored(modality: Modality, array: Tensor) -> Tensor:
    """`(..., H, W, C)` seen in a mirror: x components of normals and flow change their sign."""
    array = array.flip(-2)
    if modality.kind in (Kind.NORMALS, Kind.FLOW):
        signs = array.new_ones(modality.channels)
        signs[0] = -1
        array = array * signs
    return array


def unmirrored(modality: Modality, values: Tensor) -> Tensor:
    """Decoded channels `(N, features, H, W)` of a mirrored frame, as of the frame itself."""
    values = values.flip(-1)
    if modality.kind in (Kind.NORMALS, Kind.FLOW):
        values = torch.cat([-values[:, :1], values[:, 1:]], dim=1)
    return values


def log_statistics(mean: float, std: float) -> dict[str, list[float]]:
    """Mean and deviation of the logarithm of what is log-normal and has that `mean`, above 0, and `std`."""
    variance = math.log1p((std / mean) ** 2)
    return {"log_mean": [math.log(mean) - variance / 2], "log_std": [max(math.sqrt(variance), 1e-6)]}


def _logarithmic(modality: Modality, statistics: Statistics) -> bool:
    return modality.kind is Kind.DEPTH and "log_mean" in statistics[modality.name]


def _affine(modality: Modality, statistics: Statistics, like: Tensor) -> tuple[Tensor, Tensor]:
    if modality.kind in STANDARDISED:
        table = statistics[modality.name]
        prefix = "log_" if _logarithmic(modality, statistics) else ""
        offset, scale = table[f"{prefix}mean"], table[f"{prefix}std"]
    else:
        offset, scale = [0.0], [255.0 if modality.kind is Kind.EDGES else 1.0]
    shape = (1, -1, 1, 1)
    return like.new_tensor(offset).view(shape), like.new_tensor(scale).view(shape)
