"""One loss per modality kind; every loss is a mean over valid pixels, so missing values cost nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import Encoded


def modality_loss(modality: Modality, output: Tensor, target: Encoded) -> Tensor:
    """Scalar loss of `output` `(N, features, H, W)` against the encoded target of the same size.

    Labels: cross-entropy. Normals: one minus cosine. Edges and masks: binary cross-entropy on logits.
    Flow: end-point distance. Images and depth: L1, both standardised.
    """
    weight = target.valid.float()
    if modality.kind is Kind.LABELS:
        per_pixel = -(target.values * output.log_softmax(dim=1)).sum(dim=1, keepdim=True)
    elif modality.kind is Kind.NORMALS:
        per_pixel = 1 - F.cosine_similarity(output, target.values, dim=1).unsqueeze(1)
    elif modality.kind in (Kind.EDGES, Kind.MASK):
        per_pixel = F.binary_cross_entropy_with_logits(output, target.values, reduction="none").mean(1, keepdim=True)
    elif modality.kind is Kind.FLOW:
        per_pixel = torch.sqrt((output - target.values).square().sum(dim=1, keepdim=True) + 1e-6)
    else:
        per_pixel = (output - target.values).abs().mean(dim=1, keepdim=True)
    return weighted_mean(per_pixel, weight)


def soft_cross_entropy(logits: Tensor, probabilities: Tensor, weight: Tensor, temperature: float) -> Tensor:
    """Distillation loss (Hinton et al., arXiv 1503.02531): cross-entropy against the teacher's probabilities.

    `logits`, `probabilities` are `(N, C, H, W)`, `weight` `(N, 1, H, W)`; the teacher's distribution is sharpened
    or flattened by `temperature` as the student's is.
    """
    if temperature != 1.0:
        probabilities = probabilities.clamp_min(1e-6).log().div(temperature).softmax(dim=1)
    per_pixel = -(probabilities * (logits / temperature).log_softmax(dim=1)).sum(dim=1, keepdim=True)
    return weighted_mean(per_pixel, weight) * temperature**2


def weighted_mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    """Mean of `(N, 1, H, W)` under weights of the same shape; zero where no pixel counts."""
    return (per_pixel * weight).sum() / weight.sum().clamp_min(1.0)
