"""One loss per modality kind; every loss is a mean over valid pixels, so missing values cost nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekit_runtime.modality import Kind, Modality
from edgekit_student.encoding import Encoded


def modality_loss(
    modality: Modality,
    output: Tensor,
    target: Encoded,
    class_weights: Tensor | None = None,
    certainty: Tensor | None = None,
) -> Tensor:
    """Scalar loss of `output` `(N, features, H, W)` against the encoded target of the same size.

    `certainty` `(N, 1, H, W)` says how much each pixel counts. Labels: cross-entropy, where `class_weights`
    `(classes,)` says how much each counts. Normals: one minus cosine.
    Edges and masks: binary cross-entropy on logits. Flow: end-point distance. Images and depth: L1, both standardised.
    """
    weight = target.valid.float() if certainty is None else target.valid * certainty
    if modality.kind is Kind.LABELS:
        per_pixel = _cross_entropy(output, target.values, class_weights)
    elif modality.kind is Kind.NORMALS:
        per_pixel = 1 - F.cosine_similarity(output, target.values, dim=1).unsqueeze(1)
    elif modality.kind in (Kind.EDGES, Kind.MASK):
        per_pixel = F.binary_cross_entropy_with_logits(output, target.values, reduction="none").mean(1, keepdim=True)
    elif modality.kind is Kind.FLOW:
        per_pixel = torch.sqrt((output - target.values).square().sum(dim=1, keepdim=True) + 1e-6)
    else:
        per_pixel = (output - target.values).abs().mean(dim=1, keepdim=True)
    return weighted_mean(per_pixel, weight)


def soft_cross_entropy(
    logits: Tensor,
    probabilities: Tensor,
    weight: Tensor,
    temperature: float,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Distillation loss (Hinton et al., arXiv 1503.02531): cross-entropy against the teacher's probabilities.

    `logits`, `probabilities` are `(N, C, H, W)`, `weight` `(N, 1, H, W)`; the teacher's distribution is sharpened
    or flattened by `temperature` as the student's is.
    """
    if temperature != 1.0:
        probabilities = probabilities.clamp_min(1e-6).log().div(temperature).softmax(dim=1)
    per_pixel = _cross_entropy(logits / temperature, probabilities, class_weights)
    return weighted_mean(per_pixel, weight) * temperature**2


def class_weights(frequencies: Tensor, balance: float) -> Tensor:
    """Weights `(classes,)` proportional to frequency^-`balance`, of mean 1 over the pixels that were counted.

    mIoU counts a rare class as much as a common one, cross-entropy does not: 0.5 is between the two. What is rarer
    than one pixel in a thousand weighs as if it were not, so that a few pixels never decide a step.
    """
    share = frequencies / frequencies.sum()
    weights = share.clamp_min(1e-3) ** -balance
    return weights / (weights * share).sum()


def _cross_entropy(logits: Tensor, probabilities: Tensor, class_weights: Tensor | None) -> Tensor:
    if class_weights is not None:
        probabilities = probabilities * class_weights.to(probabilities).view(1, -1, 1, 1)
    return -(probabilities * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def weighted_mean(per_pixel: Tensor, weight: Tensor) -> Tensor:
    """Mean of `(N, 1, H, W)` under weights of the same shape; zero where no pixel counts."""
    return (per_pixel * weight).sum() / weight.sum().clamp_min(1.0)


def pixel_certainty(stored: Tensor) -> Tensor:
    """Weights `(N, 1, H, W)`, 0..1, of a stored share `(N, H, W, 1)`: its square, so that two voters of three that
    agree count less than half of what three do.
    """
    share = stored.permute(0, 3, 1, 2).float()
    if not stored.dtype.is_floating_point:
        share = share / 255
    return share.nan_to_num(0.0).clamp(0, 1).square()
